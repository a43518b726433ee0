"""What a search returns: its hits, in a list that knows how it came about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jina_rag.types import ScoredPage


class SearchResults(list[ScoredPage]):
    """Hits, best first: a list, with what there is to say about the search as a whole. A slice of it is a plain list.

    Attributes:
        query: The words of the query.
        notes: What was not done as asked, in sentences: a question that was cut, a budget that ran out.
        complete: False where a budget ran out before all pages were judged that should have been.
        more: Whether there are further hits behind these (`offset`).
        milliseconds: Stage → wall time: ``"encode"``, ``"candidates"``, ``"rerank"``, ``"show"``.
    """

    def __init__(
        self,
        hits: Iterable[ScoredPage] = (),
        *,
        query: str = "",
        notes: tuple[str, ...] = (),
        complete: bool = True,
        more: bool = False,
        milliseconds: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(hits)
        self.query = query
        self.notes = notes
        self.complete = complete
        self.more = more
        self.milliseconds = dict(milliseconds or {})

    def __repr__(self) -> str:
        return f"SearchResults({super().__repr__()}, complete={self.complete}, more={self.more})"
