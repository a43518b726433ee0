"""The result of a search: a list of hits, with notes and wall times of the search."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jina_rag.types import ScoredPage


class SearchResults(list[ScoredPage]):
    """List of hits, best first, with notes and wall times of the search. A slice is a plain list.

    Attributes:
        hits: The hits, best first.
        query: Text of the query; "" for an image that is not a page of the index.
        notes: Sentences on deviations from the request, for example a truncated query or an exhausted budget.
        complete: False if a budget ran out before the reranker had scored all requested pages.
        more: Whether the index has hits after the last hit of the list (see `offset` of `DocumentIndex.search`).
        milliseconds: Stage → wall time in milliseconds: ``"encode"``, ``"candidates"``, ``"rerank"``, and ``"show"``
            for the construction of the hits.
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
