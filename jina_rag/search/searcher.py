"""Search of one index: embedding of queries, ranking of pages and construction of hits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from jina_rag._checks import check_whole_number, is_number, is_whole_number
from jina_rag.catalog.document_filter import resolve_names
from jina_rag.catalog.resources import IndexResources
from jina_rag.config import Storage
from jina_rag.errors import InvalidInputError
from jina_rag.protocols import Embedder, Input, Reranker
from jina_rag.search.filters import checked_filter, conditions_of, unknown_keys
from jina_rag.search.fusion import Candidate
from jina_rag.search.hits import locations, make_hit, near_duplicates
from jina_rag.search.late_interaction import PageRanker, Ranking
from jina_rag.search.query import Query, embed_queries
from jina_rag.search.reranking import Reranking, rerank
from jina_rag.search.results import SearchResults
from jina_rag.search.stages import Stages
from jina_rag.search.store_calls import StoreAnswer, StoreRequest, StoreSteps, run_together
from jina_rag.search.trace import ranks_of, steps_of
from jina_rag.stores import schema
from jina_rag.types import Location, Point, ScoredPage, SimilarPage

if TYPE_CHECKING:
    from jina_rag.search.dedup import Deduplicator

GroupBy = Literal["page", "document"]
_QUERIES_PER_CALL: Final = 32
"""Maximum number of queries whose searches share store calls. The hits of all these queries are in memory at once."""


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """Arguments of a search other than the query.

    Attributes:
        k: Maximum number of hits.
        stages: The search stages.
        offset: Number of hits to skip.
        where: Filter as written by the caller; `SearchRequest` replaces the filter by the validated filter.
        reranker: Function that loads the reranker; called only if `stages.rerank` scores at least one page.
        group_by: ``"page"`` returns each page as a hit; ``"document"`` returns one hit per document, the best page.
        dedup: Whether to fold near-duplicate pages into one hit.
        min_score: Minimum score in the last stage; None for no minimum.
        details: Whether to find the best region and the snippet of each hit.
        explain: Whether to add the rank and score of each stage to the hits.

    Raises:
        InvalidInputError: If an argument is invalid.
    """

    k: int
    stages: Stages
    offset: int = 0
    where: Mapping[str, Any] | None = None
    reranker: Callable[[], Reranker] | None = None
    group_by: GroupBy = "page"
    dedup: bool = False
    min_score: float | None = None
    details: bool = True
    explain: bool = False

    def __post_init__(self) -> None:
        check_whole_number("k", self.k, minimum=1)
        if not is_whole_number(self.offset) or self.offset < 0:
            raise InvalidInputError(f"offset is {self.offset!r}; expected an integer of at least 0.")
        if self.group_by not in ("page", "document"):
            raise InvalidInputError(f"group_by is {self.group_by!r}; expected one of page, document.")
        if self.min_score is not None and not is_number(self.min_score):
            raise InvalidInputError(f"min_score is {self.min_score!r}; expected a finite number.")
        object.__setattr__(self, "where", checked_filter(self.where))

    @property
    def last_stage(self) -> str:
        """Name of the last stage, which determines the order: ``"rerank"`` with a reranker, otherwise ``"rescore"``."""
        return "rerank" if self.reranker and self.stages.rerank and self.stages.rerank.limit else "rescore"

    def allows(self, candidate: Candidate) -> bool:
        """Return whether the last stage scored the candidate with at least `min_score`."""
        return self.min_score is None or (candidate.score >= self.min_score and candidate.stage == self.last_stage)


@dataclass
class _PendingHit:
    """An incomplete hit: the candidate, the files of the page, and the other pages merged into the hit."""

    candidate: Candidate
    point: Point
    files: list[Location]
    other_pages: list[int] = field(default_factory=list)
    similar: list[SimilarPage] = field(default_factory=list)


class Searcher:
    """Search over one index. Stateless and thread-safe."""

    def __init__(
        self, *, resources: IndexResources, embedder: Embedder, dim: int, storage: Storage | None = None
    ) -> None:
        self._resources = resources
        self._storage = storage or Storage()
        self._truncate_dim = dim if dim != embedder.dim else None
        self._embedder = embedder
        self._ranker = PageRanker(resources, embedder)

    def embed(self, queries: Sequence[Input]) -> list[Query]:
        """Embed queries with the dimensions of this index."""
        return embed_queries(
            queries, self._embedder, self._resources, dim=self._truncate_dim, multi_dim=self._storage.multi_dim
        )

    def search(self, queries: Sequence[Input], request: SearchRequest) -> list[SearchResults]:
        """Return the results of several queries (see `DocumentIndex.search_many`).

        Args:
            queries: The queries.
            request: The other arguments of the search.
        """
        resources = self._resources
        where = resolve_names(request.where or {}, resources.manifest)
        request = replace(request, where=where)
        conditions = conditions_of(where, resources)
        start = time.monotonic()
        embeddings = self.embed(queries)
        encode_ms = round((time.monotonic() - start) * 1000 / max(len(embeddings), 1), 3)
        all_results = self._run(embeddings, conditions, request)
        notes: tuple[str, ...] = ()
        if where and not all(all_results) and resources.manifest.contents():
            # Without a note, a misspelled key would look like a query without matches.
            keys = unknown_keys(where, resources.manifest)
            notes = tuple(f"No document has the metadata key {key!r}." for key in keys)
        for query, results in zip(embeddings, all_results, strict=True):
            results.query = query.text
            results.milliseconds = {"encode": encode_ms, **results.milliseconds}
            if not results:
                results.notes += notes
            if query.truncated:
                results.notes = ("The query is too long and was truncated.", *results.notes)
        return all_results

    def _run(
        self, queries: Sequence[Query], conditions: Mapping[str, Any] | None, request: SearchRequest
    ) -> list[SearchResults]:
        if conditions is None or not queries:
            return [SearchResults() for _ in queries]
        results: list[SearchResults] = []
        scores_every_page = self._ranker.scores_every_page(request.stages)
        for start in range(0, len(queries), _QUERIES_PER_CALL):
            searches = []
            for query in queries[start : start + _QUERIES_PER_CALL]:
                ranking = self._ranker.ranking(
                    query,
                    conditions,
                    request.stages,
                    scores_every_page=scores_every_page,
                    first_stage_scores=request.details or request.explain,
                )
                searches.append(_Search(self._resources, self._storage, ranking, query, request).run())
            results += run_together(searches, self._resources.store)
        return results


@dataclass
class _Search:
    """The search of one query, with the fetched points and the wall time of each stage."""

    resources: IndexResources
    storage: Storage
    ranking: Ranking
    query: Query
    request: SearchRequest
    points: dict[str, Point] = field(default_factory=dict)
    files: dict[str, list[Location]] = field(default_factory=dict)
    milliseconds: dict[str, float] = field(default_factory=dict)
    stage: str = "candidates"
    last_time: float = 0.0

    def run(self) -> StoreSteps[SearchResults]:
        """Return the hits, and measure the wall time of the stages without the waits for other searches."""
        steps = self._run()
        answer: StoreAnswer | None = None
        while True:
            self.last_time = time.monotonic() - (answer.seconds if answer is not None else 0.0)
            try:
                request = steps.send(answer)  # type: ignore[arg-type]  # None starts the generator
            except StopIteration as stop:
                results: SearchResults = stop.value
                return results
            self._add_time()
            answer = yield request

    def _run(self) -> StoreSteps[SearchResults]:
        """Rank more and more pages until enough hits are found or all pages are ranked; return the hits."""
        request, ranking = self.request, self.ranking
        folding = _Folding(self)
        needed_count = folding.end + 1
        stage = request.stages.rerank if request.last_stage == "rerank" else None
        reranking: Reranking | None = None
        while True:
            yield from ranking.extend(max(needed_count, stage.limit if stage else 0))
            candidates: Sequence[Candidate] = ranking.candidates
            is_exhausted = len(candidates) < needed_count
            if stage is not None and request.reranker is not None:
                if reranking is None:
                    visible = yield from self._visible(stage.limit)
                    self._enter("rerank")
                    images = self.resources.images
                    reranking = rerank(self.query, visible, self.points, images, request.reranker(), stage)
                best = reranking.candidates[: reranking.count]
                page_ids = {candidate.page_id for candidate in best}
                candidates = best + [candidate for candidate in candidates if candidate.page_id not in page_ids]
            is_below_minimum = request.min_score is not None and not (candidates and request.allows(candidates[-1]))
            self._enter("show")
            yield from folding.add(candidates)
            if len(folding.pending) >= folding.end or is_exhausted or is_below_minimum:
                break
            needed_count *= 4
            self._enter("candidates")
        hits = yield from self._hits(folding.pending[request.offset : folding.end], candidates)
        self._add_time()
        notes, complete = (reranking.notes, reranking.complete) if reranking else ((), True)
        return SearchResults(hits, notes=notes, complete=complete, more=folding.more, milliseconds=self.milliseconds)

    def _enter(self, stage: str) -> None:
        """Add the time since the last call of `_add_time` to the current stage, and start another stage."""
        self._add_time()
        self.stage = stage

    def _add_time(self) -> None:
        now = time.monotonic()
        spent = (now - self.last_time) * 1000
        self.milliseconds[self.stage] = round(self.milliseconds.get(self.stage, 0.0) + spent, 3)
        self.last_time = now

    def _visible(self, limit: int) -> StoreSteps[list[Candidate]]:
        """Return the first `limit` pages with a visible file, followed by the other ranked pages.

        A page has no visible file, for example, during an unfinished replacement.
        """
        visible: list[Candidate] = []
        start, step = 0, max(limit, self.request.k + 1)
        while len(visible) < limit:
            yield from self.ranking.extend(start + step)
            candidates = self.ranking.candidates[start : start + step]
            if not candidates:
                break
            shown = yield from self.load(candidates)
            visible += [candidate for candidate, _, _ in shown]
            start += step
        return visible + self.ranking.candidates[start:]

    def load(self, candidates: Sequence[Candidate]) -> StoreSteps[list[tuple[Candidate, Point, list[Location]]]]:
        """Return (candidate, point, files) for each candidate with visible files.

        Args:
            candidates: The candidates; points that were already fetched are not fetched again.
        """
        # If the payload has no sign codes, the region and the snippet are computed from the stored vectors.
        vectors = self.request.details and not self.storage.sign_codes
        missing_ids = [candidate.page_id for candidate in candidates if candidate.page_id not in self.files]
        if missing_ids:
            answer = yield StoreRequest(page_ids=missing_ids, vectors=vectors)
            self.points |= answer.points
            where = self.request.where or {}
            for page_id in missing_ids:
                point = self.points.get(page_id)
                self.files[page_id] = [] if point is None else locations(self.resources, point.payload, where)
        return [
            (candidate, self.points[candidate.page_id], files)
            for candidate in candidates
            if (files := self.files[candidate.page_id])
        ]

    def _hits(self, pending: Sequence[_PendingHit], candidates: Sequence[Candidate]) -> StoreSteps[list[ScoredPage]]:
        request, ranking = self.request, self.ranking
        cheap_scores: dict[str, Mapping[str, float]] = {}
        near: dict[str, tuple[str, int]] = {}
        if request.details or request.explain:
            cheap_scores = {"dense": ranking.dense, "lexical": ranking.lexical}
        if request.details:
            near = yield from near_duplicates(self.resources, [entry.point for entry in pending])
        hits = []
        for entry in pending:
            hit = make_hit(
                self.resources, entry.point, entry.files, entry.candidate, self.query, details=request.details
            )
            scores = {name: values[hit.page_id] for name, values in cheap_scores.items() if hit.page_id in values}
            hits.append(
                replace(
                    hit,
                    scores={**scores, **hit.scores},
                    near_duplicate_of=near.get(hit.page_id),
                    other_pages=tuple(entry.other_pages),
                    similar=tuple(entry.similar),
                )
            )
        if request.explain:
            ranking.fuse_all()
            ranked_ids = {candidate.page_id for candidate in candidates}
            rest = [candidate for candidate in ranking.candidates if candidate.page_id not in ranked_ids]
            ranks = ranks_of([*candidates, *rest])
            hits = [replace(hit, steps=steps_of(hit, ranking.first_ranks, ranks)) for hit in hits]
        return hits


class _Folding:
    """Collects the hits of one search: merges pages of a document and near-duplicate pages into one hit.

    Attributes:
        end: Number of hits to collect.
        pending: The hits so far, each with the pages merged into it.
        more: Whether further hits exist.
    """

    def __init__(self, search: _Search) -> None:
        self._search = search
        self._request = search.request
        self.end = self._request.offset + self._request.k
        self.pending: list[_PendingHit] = []
        self.more = False
        self._documents: dict[str, _PendingHit] = {}
        self._folded_ids: set[str] = set()
        self._deduplicator: Deduplicator | None = None
        if self._request.dedup:
            from jina_rag.search.dedup import Deduplicator

            self._deduplicator = Deduplicator(search.resources.images.folder)

    def add(self, ranking: Sequence[Candidate]) -> StoreSteps[None]:
        """Fold the pages of a ranking that were not folded yet, until there is one hit more than requested.

        Args:
            ranking: All pages that are ranked so far, best first.
        """
        step = self._request.k + 1
        new_candidates = [candidate for candidate in ranking if candidate.page_id not in self._folded_ids]
        for start in range(0, len(new_candidates), step):
            shown = yield from self._search.load(new_candidates[start : start + step])
            for candidate, point, files in shown:
                if not self._request.allows(candidate) or self._add_page(candidate, point, files):
                    return
            self._folded_ids.update(candidate.page_id for candidate in new_candidates[start : start + step])

    def _add_page(self, candidate: Candidate, point: Point, files: list[Location]) -> bool:
        """Fold one page; return True if the page is a hit beyond the last requested hit."""
        page, revision = int(point.payload[schema.PAGE]), str(point.payload[schema.REVISION])
        if self._request.group_by == "document" and revision in self._documents:
            self._documents[revision].other_pages.append(page)
            return False
        match = self._deduplicator.fold(point) if self._deduplicator is not None else None
        if match is not None:
            first, similarity = match
            self.pending[first].similar += [SimilarPage(file, page, similarity) for file in files]
            return False
        if len(self.pending) == self.end:
            self.more = True
            return True
        hit = _PendingHit(candidate, point, files)
        self._documents[revision] = hit
        self.pending.append(hit)
        return False
