"""The half of an index that answers: search, explain, cite, and what a chat model is given; also for event loops."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, ParamSpec, TypedDict, TypeVar, Unpack

from jina_rag.errors import InvalidInputError
from jina_rag.protocols import Embedder, Input, Reranker
from jina_rag.search.results import SearchResults
from jina_rag.search.searcher import Asked, GroupBy, Searcher
from jina_rag.search.stages import Stage, default_stages
from jina_rag.types import ScoredPage, Where

if TYPE_CHECKING:
    from jina_rag.context.builder import Context
    from jina_rag.explain.citations import Citation
    from jina_rag.explain.explainer import Answers
    from jina_rag.explain.explanation import Explanation
    from jina_rag.index.session import Handle

Given = ParamSpec("Given")
Result = TypeVar("Result")


class SearchOptions(TypedDict, total=False):
    """The keyword arguments of `DocumentIndex.search`, for its coroutine."""

    k: int
    offset: int
    filter: Where | None
    stages: Stage | Sequence[Stage] | None
    group_by: GroupBy
    dedup: bool
    min_score: float | None
    details: bool
    explain: bool


class ContextOptions(TypedDict, total=False):
    """The keyword arguments of `DocumentIndex.build_context`, for its coroutine."""

    max_images: int
    max_tokens: int
    prefer: Literal["page", "region"]
    count_tokens: Callable[[str], int] | None
    max_side: int
    image_format: Literal["jpeg", "png"]


class Asking(ABC):
    """What `DocumentIndex` answers with.

    The coroutines work in a thread: nothing is encoded or scored on the thread of an event loop, and many of them at
    once give what as many calls in turn give.
    """

    def __init__(self, embedder: Embedder | None = None) -> None:
        self._embedder = embedder
        self._reranker: str | Reranker | None = None
        self._loading = threading.RLock()
        self._loaded: dict[str, Reranker] = {}
        self._searcher: Searcher | None = None

    @property
    @abstractmethod
    def _alive(self) -> Handle:
        """The open index."""

    # -- models --------------------------------------------------------------------------------------------

    @property
    def embedder(self) -> Embedder:
        """The model, loaded when it is first needed."""
        with self._loading:
            if self._embedder is None:
                self._embedder = self._alive.embedder()
            return self._embedder

    @property
    def reranker(self) -> Reranker | None:
        """The reranker that the index was opened with, loaded when it is first needed; None if there is none."""
        return None if self._reranker is None else self._reranker_of(self._reranker)

    def _reranker_of(self, model: str | os.PathLike[str] | Reranker) -> Reranker:
        if isinstance(model, os.PathLike):
            model = os.fspath(model)
        if not isinstance(model, str):
            return model
        from jina_rag.models.registry import load_reranker

        with self._loading:
            if model not in self._loaded:
                self._loaded[model] = load_reranker(model)
            return self._loaded[model]

    @property
    def _search(self) -> Searcher:
        shared = self._alive
        embedder = self.embedder
        if self._searcher is None:
            self._searcher = Searcher(
                parts=shared.parts, embedder=embedder, dim=shared.settings["dim"], storage=shared.storage
            )
        return self._searcher

    @property
    def _answers(self) -> Answers:
        # Imported here, as what event loops need is below: a search from a command line waits for neither.
        from jina_rag.explain.explainer import Answers

        return Answers(self._alive.parts, self._search.embed)

    # -- searching -----------------------------------------------------------------------------------------

    def search(
        self,
        query: Input,
        *,
        k: int = 5,
        offset: int = 0,
        filter: Where | None = None,  # the word users look for
        stages: Stage | Sequence[Stage] | None = None,
        group_by: GroupBy = "page",
        dedup: bool = False,
        min_score: float | None = None,
        details: bool = True,
        explain: bool = False,
    ) -> SearchResults:
        """Rank pages for a question.

        Args:
            query: A text in any language the model knows, an image (bytes, `pathlib.Path`, PIL, data URI), a page,
                or a list of these. Models that read words read an image by OCR.
            k: How many hits to return at most.
            offset: How many hits to pass over, for the next page of results.
            filter: Conditions that hold before anything is ranked. Key → value, or values of which one must match, or
                a `Range`: ``path`` (a glob such as ``reports/*.pdf``), ``doc_id``, ``page``, ``has`` (a kind of region
                on the page: ``"chart"``, ``"table"``, ``"figure"``), or any key of the documents' metadata.
            stages: A `Prefetch`, `Rescore` or `Rerank`, or several, each in the place of the index's own.
            group_by: ``"document"`` returns each document once, with its best page; `ScoredPage.other_pages` has the
                others that were found.
            dedup: Whether pages that show nearly the same become one hit, with the others in `ScoredPage.similar`.
            min_score: Hits of a lower score are left out, and where a reranker judges, what it did not judge.
            details: Whether to look for the best region and snippet of each hit.
            explain: Whether each hit tells which stage put it where (`ScoredPage.steps`).

        Returns:
            A list of `ScoredPage` with `notes`, `complete`, `more` and `milliseconds`.

        Raises:
            InvalidInputError: If the question is empty, or an argument makes no sense.
        """
        return self.search_many(
            [query],
            k=k,
            offset=offset,
            filter=filter,
            stages=stages,
            group_by=group_by,
            dedup=dedup,
            min_score=min_score,
            details=details,
            explain=explain,
        )[0]

    def search_many(
        self,
        queries: Sequence[Input],
        *,
        k: int = 5,
        offset: int = 0,
        filter: Where | None = None,
        stages: Stage | Sequence[Stage] | None = None,
        group_by: GroupBy = "page",
        dedup: bool = False,
        min_score: float | None = None,
        details: bool = True,
        explain: bool = False,
    ) -> list[SearchResults]:
        """Rank pages for each of many questions, which are embedded in one batch; see `search`."""
        chosen = default_stages(self.embedder, self._reranker is not None).but(stages)
        judge = chosen.rerank
        model = None if judge is None or not judge.limit else (judge.model or self._reranker)
        if judge is not None and judge.limit and model is None:
            raise InvalidInputError(
                "There is no reranker: open the index with one (reranker=…), or name it: Rerank(model=…)."
            )
        asked = Asked(
            k=k,
            offset=offset,
            where=filter,
            stages=chosen,
            reranker=None if model is None else lambda: self._reranker_of(model),
            group_by=group_by,
            dedup=dedup,
            min_score=min_score,
            details=details,
            explain=explain,
        )
        return self._search.search(queries, asked)

    async def asearch(self, query: Input, **options: Unpack[SearchOptions]) -> SearchResults:
        """As `search`, in a thread."""
        return await _in_thread(self.search, query, **options)

    async def asearch_many(self, queries: Sequence[Input], **options: Unpack[SearchOptions]) -> list[SearchResults]:
        """As `search_many`, in a thread."""
        return await _in_thread(self.search_many, queries, **options)

    # -- explaining ----------------------------------------------------------------------------------------

    def explain(
        self,
        query: Input,
        hit: ScoredPage,
        *,
        by: Literal["embedder", "reranker"] = "embedder",
        method: Literal["gradient", "attention"] | None = None,
    ) -> Explanation:
        """Where on a page the answer stands.

        Args:
            query: As it was asked.
            hit: A page, as `search` returned it.
            by: ``"embedder"``: from the stored vectors that ranked it. ``"reranker"``: which part of the picture
                carried the reranker's score, for one that looks at pixels.
            method: How a reranker is asked; None for what it does best.

        Raises:
            IndexStateError: If the page is not in the index any more.
            InvalidInputError: If there is no reranker that could tell.
        """
        if by == "embedder":
            return self._answers.explain(query, hit)
        if by != "reranker":
            raise InvalidInputError(f"A page is explained by the 'embedder' or by the 'reranker', not by {by!r}.")
        return self._answers.explain_by(self.reranker, query, hit, method)

    def cite(self, query: Input, hit: ScoredPage) -> Citation:
        """The place of a page to quote: its box, the words in it, a picture of it.

        Args:
            query: As it was asked.
            hit: A page, as `search` returned it.

        Raises:
            IndexStateError: If the page is not in the index any more.
        """
        return self._answers.cite(query, [hit])[0]

    def build_context(
        self,
        query: Input,
        hits: Sequence[ScoredPage],
        *,
        max_images: int = 4,
        max_tokens: int = 4000,
        prefer: Literal["page", "region"] = "page",
        count_tokens: Callable[[str], int] | None = None,
        max_side: int = 1568,
        image_format: Literal["jpeg", "png"] = "jpeg",
    ) -> Context:
        """What a vision chat model needs to answer from pages: images, captions, sources, the pages' words as data.

        Args:
            query: As it was asked; its words stand at the end.
            hits: Pages, as `search` returned them, best first.
            max_images: Pictures at most.
            max_tokens: Tokens of all text at most.
            prefer: Whether pictures show the whole page, or the place that is cited.
            count_tokens: Of the chat model; None for an estimate that is rather too high.
            max_side: Longest side of a picture in pixels.
            image_format: How pictures are encoded.

        Returns:
            Its `blocks()` are what is sent; `left_out` tells what did not fit.

        Raises:
            IndexStateError: If a page is not in the index any more.
            InvalidInputError: If a budget is negative or a choice is unknown.
        """
        return self._answers.context(
            query,
            hits,
            cited=prefer == "region",
            max_images=max_images,
            max_tokens=max_tokens,
            prefer=prefer,
            count_tokens=count_tokens,
            max_side=max_side,
            image_format=image_format,
        )

    async def aexplain(
        self,
        query: Input,
        hit: ScoredPage,
        *,
        by: Literal["embedder", "reranker"] = "embedder",
        method: Literal["gradient", "attention"] | None = None,
    ) -> Explanation:
        """As `explain`, in a thread."""
        return await _in_thread(self.explain, query, hit, by=by, method=method)

    async def acite(self, query: Input, hit: ScoredPage) -> Citation:
        """As `cite`, in a thread."""
        return await _in_thread(self.cite, query, hit)

    async def abuild_context(
        self, query: Input, hits: Sequence[ScoredPage], **options: Unpack[ContextOptions]
    ) -> Context:
        """As `build_context`, in a thread."""
        return await _in_thread(self.build_context, query, hits, **options)


async def _in_thread(function: Callable[Given, Result], *args: Given.args, **options: Given.kwargs) -> Result:
    from jina_rag.index.coroutines import in_thread

    return await in_thread("search", function, *args, **options)
