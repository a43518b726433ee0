"""Search of one index: embedding of queries, ranking of pages and construction of hits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from jina_rag._checks import check_whole_number, is_number, is_whole_number
from jina_rag.catalog.document_filter import resolve_paths
from jina_rag.catalog.resources import IndexResources
from jina_rag.config import Storage
from jina_rag.errors import InvalidInputError
from jina_rag.protocols import Embedder, Input, Reranker
from jina_rag.search.filters import checked_filter, conditions_of, unknown_keys
from jina_rag.search.fusion import Candidate
from jina_rag.search.hits import locations, make_hit
from jina_rag.search.late_interaction import PageRanker
from jina_rag.search.query import Query, embed_queries
from jina_rag.search.reranking import Reranking, rerank
from jina_rag.search.results import SearchResults
from jina_rag.search.stages import Stages
from jina_rag.search.trace import ranks_of, steps_of
from jina_rag.stores import schema
from jina_rag.types import Location, Point, ScoredPage, SimilarPage

GroupBy = Literal["page", "document"]


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
        self._ranker = PageRanker(resources.store, embedder)

    def embed(self, queries: Sequence[Input]) -> list[Query]:
        """Embed queries with the dimensions of this index."""
        return embed_queries(queries, self._embedder, dim=self._truncate_dim, multi_dim=self._storage.multi_dim)

    def search(self, queries: Sequence[Input], request: SearchRequest) -> list[SearchResults]:
        """Return the results of several queries (see `DocumentIndex.search_many`).

        Args:
            queries: The queries.
            request: The other arguments of the search.
        """
        resources = self._resources
        where = resolve_paths(request.where or {}, resources.manifest)
        request = replace(request, where=where)
        conditions = conditions_of(where, resources)
        start = time.monotonic()
        embeddings = self.embed(queries)
        encode_ms = round((time.monotonic() - start) * 1000 / max(len(embeddings), 1), 3)
        all_results = []
        for query in embeddings:
            search = _Search(resources, self._storage, self._ranker, query, conditions or {}, request)
            results = SearchResults() if conditions is None else search.run()
            results.query = query.text
            results.milliseconds = {"encode": encode_ms, **results.milliseconds}
            if not results and where and resources.manifest.contents():
                # Without a note, a misspelled key would look like a query without matches.
                keys = unknown_keys(where, resources.manifest)
                results.notes += tuple(f"No document has the metadata key {key!r}." for key in keys)
            if query.truncated:
                results.notes = ("The query is too long and was truncated.", *results.notes)
            all_results.append(results)
        return all_results


@dataclass
class _Search:
    """The search of one query, with the fetched points and the wall time of each stage."""

    resources: IndexResources
    storage: Storage
    ranker: PageRanker
    query: Query
    conditions: Mapping[str, Any]
    request: SearchRequest
    points: dict[str, Point] = field(default_factory=dict)
    milliseconds: dict[str, float] = field(default_factory=dict)
    last_time: float = field(default_factory=time.monotonic)

    def run(self) -> SearchResults:
        """Rank more and more pages until enough hits are found or all pages are ranked; return the hits."""
        request = self.request
        end = request.offset + request.k
        needed_count = end + 1
        stage = request.stages.rerank if request.last_stage == "rerank" else None
        reranking: Reranking | None = None
        while True:
            depth = max(needed_count, stage.limit if stage else 0)
            ranking = self.ranker.rank(self.query, self.conditions, depth, request.stages)
            self._add_time("candidates")
            is_exhausted = len(ranking) < needed_count
            if stage is not None and request.reranker is not None:
                if reranking is None:
                    ranking = self._visible(ranking, stage.limit)
                    images = self.resources.images
                    reranking = rerank(self.query, ranking, self.points, images, request.reranker(), stage)
                    self._add_time("rerank")
                best = reranking.candidates[: reranking.count]
                page_ids = {candidate.page_id for candidate in best}
                ranking = best + [candidate for candidate in ranking if candidate.page_id not in page_ids]
            is_below_minimum = request.min_score is not None and not (ranking and request.allows(ranking[-1]))
            pending, more = self._fold(ranking, end)
            self._add_time("show")
            if len(pending) >= end or is_exhausted or is_below_minimum:
                break
            needed_count *= 4
        hits = self._hits(pending[request.offset : end], ranking)
        self._add_time("show")
        notes, complete = (reranking.notes, reranking.complete) if reranking else ((), True)
        return SearchResults(hits, notes=notes, complete=complete, more=more, milliseconds=self.milliseconds)

    def _add_time(self, name: str) -> None:
        """Add the time since the last call of this method to the wall time of a stage."""
        now = time.monotonic()
        self.milliseconds[name] = round(self.milliseconds.get(name, 0.0) + (now - self.last_time) * 1000, 3)
        self.last_time = now

    def _fold(self, ranking: Sequence[Candidate], end: int) -> tuple[list[_PendingHit], bool]:
        """Return the first `end` hits, each with the pages merged into the hit, and whether further hits exist."""
        request = self.request
        pending: list[_PendingHit] = []
        documents: dict[str, _PendingHit] = {}
        deduplicator = None
        if request.dedup:
            from jina_rag.search.dedup import Deduplicator

            deduplicator = Deduplicator(self.resources.images.folder)
        for candidate, point, files in self._fetch(ranking, request.k + 1):
            if not request.allows(candidate):
                break  # the ranking is sorted by descending score
            page = int(point.payload[schema.PAGE])
            if request.group_by == "document" and candidate.revision in documents:
                documents[candidate.revision].other_pages.append(page)
                continue
            match = deduplicator.fold(point) if deduplicator is not None else None
            if match is not None:
                first, similarity = match
                pending[first].similar += [SimilarPage(file, page, similarity) for file in files]
                continue
            if len(pending) == end:
                return pending, True
            hit = _PendingHit(candidate, point, files)
            documents[candidate.revision] = hit
            pending.append(hit)
        return pending, False

    def _visible(self, ranking: Sequence[Candidate], limit: int) -> list[Candidate]:
        """Drop pages without a visible file until `limit` pages are visible.

        A page has no visible file, for example, during an unfinished replacement.
        """
        visible: list[Candidate] = []
        for start in range(0, len(ranking), limit):
            visible += [candidate for candidate, _, _ in self._fetch(ranking[start : start + limit], limit)]
            if len(visible) >= limit:
                return visible + list(ranking[start + limit :])
        return visible

    def _fetch(self, ranking: Sequence[Candidate], step: int) -> Iterator[tuple[Candidate, Point, list[Location]]]:
        """Yield (candidate, point, files) for candidates with visible files; fetch `step` points per request."""
        # If the payload has no sign codes, the region and the snippet are computed from the stored vectors.
        vectors = self.request.details and not self.storage.sign_codes
        for start in range(0, len(ranking), step):
            batch = ranking[start : start + step]
            missing_ids = [candidate.page_id for candidate in batch if candidate.page_id not in self.points]
            if missing_ids:
                points = self.resources.store.fetch(missing_ids, vectors=vectors)
                self.points |= {point.id: point for point in points}
            for candidate in batch:
                point = self.points.get(candidate.page_id)
                if point is not None:
                    files = locations(self.resources, point.payload, self.request.where or {})
                    if files:
                        yield candidate, point, files

    def _hits(self, pending: Sequence[_PendingHit], ranking: Sequence[Candidate]) -> list[ScoredPage]:
        request, query = self.request, self.query
        cheap_scores: dict[str, Mapping[str, float]] = {}
        if request.details or request.explain:
            page_ids = [entry.point.id for entry in pending]
            cheap_scores = {name: self.ranker.cheap_scores(name, query, page_ids) for name in ("dense", "lexical")}
        hits = []
        for entry in pending:
            hit = make_hit(self.resources, entry.point, entry.files, entry.candidate, query, details=request.details)
            scores = {name: values[hit.page_id] for name, values in cheap_scores.items() if hit.page_id in values}
            scores |= hit.scores
            other_pages, similar = tuple(entry.other_pages), tuple(entry.similar)
            hits.append(replace(hit, scores=scores, other_pages=other_pages, similar=similar))
        if request.explain:
            first_ranks = self.ranker.first_ranks(query, self.conditions, request.stages)
            ranks = ranks_of(ranking)
            hits = [replace(hit, steps=steps_of(hit, first_ranks, ranks)) for hit in hits]
        return hits
