"""From a query to ranked pages: candidates, late interaction, a reranker, and what is shown of the best."""

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
    """The arguments of a search, besides its query.

    Attributes:
        k: Hits.
        offset: Hits that are passed over.
        where: A filter, as users write it; checked here.
        stages: How pages are ranked.
        reranker: Loads the reranker; called where `stages.rerank` judges anything.
        group_by: Whether hits are pages, or documents with their best page.
        dedup: Whether pages that show nearly the same become one hit.
        min_score: What the score of the last stage must be at least.
        details: Whether the best region and a snippet are looked for.
        explain: Whether hits tell which stage put them where.
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
            raise InvalidInputError(f"offset is {self.offset!r}; it counts hits from 0.")
        if self.group_by not in ("page", "document"):
            raise InvalidInputError(f"group_by is {self.group_by!r}; hits are grouped by 'page' or by 'document'.")
        if self.min_score is not None and not is_number(self.min_score):
            raise InvalidInputError(f"min_score is {self.min_score!r}; it must be a number.")
        object.__setattr__(self, "where", checked_filter(self.where))

    @property
    def last_stage(self) -> str:
        """The stage whose scores compare: what a reranker did not judge has none to compare with those it gave."""
        return "rerank" if self.reranker and self.stages.rerank and self.stages.rerank.limit else "rescore"

    def allows(self, candidate: Candidate) -> bool:
        """Whether a page has a score of the last stage that is high enough."""
        return self.min_score is None or (candidate.score >= self.min_score and candidate.stage == self.last_stage)


@dataclass
class _PendingHit:
    """A hit in the making: its candidate, the files that hold it, and what was folded into it."""

    candidate: Candidate
    point: Point
    files: list[Location]
    other_pages: list[int] = field(default_factory=list)
    similar: list[SimilarPage] = field(default_factory=list)


class Searcher:
    """Searches one index. Holds no state of its own; several threads may use it."""

    def __init__(
        self, *, resources: IndexResources, embedder: Embedder, dim: int, storage: Storage | None = None
    ) -> None:
        self._resources = resources
        self._storage = storage or Storage()
        self._truncate_dim = dim if dim != embedder.dim else None
        self._embedder = embedder
        self._ranker = PageRanker(resources.store, embedder)

    def embed(self, queries: Sequence[Input]) -> list[Query]:
        """Embed queries as this index needs them."""
        return embed_queries(queries, self._embedder, dim=self._truncate_dim, multi_dim=self._storage.multi_dim)

    def search(self, queries: Sequence[Input], request: SearchRequest) -> list[SearchResults]:
        """See `DocumentIndex.search_many`."""
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
                # A misspelt key finds nothing, which looks like an index without an answer.
                keys = unknown_keys(where, resources.manifest)
                results.notes += tuple(f"No document has {key!r} among its metadata." for key in keys)
            if query.truncated:
                results.notes = ("The question is too long: its end was not read.", *results.notes)
            all_results.append(results)
        return all_results


@dataclass
class _Search:
    """One search by one query."""

    resources: IndexResources
    storage: Storage
    ranker: PageRanker
    query: Query
    conditions: Mapping[str, Any]
    request: SearchRequest
    points: dict[str, Point] = field(default_factory=dict)
    milliseconds: dict[str, float] = field(default_factory=dict)
    last_lap: float = field(default_factory=time.monotonic)

    def run(self) -> SearchResults:
        """Rank pages and make the hits; more pages are ranked until there are enough hits, or no more pages."""
        request = self.request
        end = request.offset + request.k
        need = end + 1
        stage = request.stages.rerank if request.last_stage == "rerank" else None
        reranking: Reranking | None = None
        while True:
            depth = max(need, stage.limit if stage else 0)
            ranking = self.ranker.rank(self.query, self.conditions, depth, request.stages)
            self._lap("candidates")
            exhausted = len(ranking) < need
            if stage is not None and request.reranker is not None:
                if reranking is None:
                    ranking = self._visible(ranking, stage.limit)
                    images = self.resources.images
                    reranking = rerank(self.query, ranking, self.points, images, request.reranker(), stage)
                    self._lap("rerank")
                best = reranking.candidates[: reranking.count]
                page_ids = {candidate.page_id for candidate in best}
                ranking = best + [candidate for candidate in ranking if candidate.page_id not in page_ids]
            below_minimum = request.min_score is not None and not (ranking and request.allows(ranking[-1]))
            pending, more = self._fold(ranking, end)
            self._lap("show")
            if len(pending) >= end or exhausted or below_minimum:
                break
            need *= 4
        hits = self._hits(pending[request.offset : end], ranking)
        self._lap("show")
        notes, complete = (reranking.notes, reranking.complete) if reranking else ((), True)
        return SearchResults(hits, notes=notes, complete=complete, more=more, milliseconds=self.milliseconds)

    def _lap(self, name: str) -> None:
        """Count the time since the last lap for this stage."""
        now = time.monotonic()
        self.milliseconds[name] = round(self.milliseconds.get(name, 0.0) + (now - self.last_lap) * 1000, 3)
        self.last_lap = now

    def _fold(self, ranking: Sequence[Candidate], end: int) -> tuple[list[_PendingHit], bool]:
        """The hits up to the last that is needed, with what folds into them, and whether there are more."""
        request = self.request
        pending: list[_PendingHit] = []
        documents: dict[str, _PendingHit] = {}
        deduplicator = None
        if request.dedup:
            from jina_rag.search.dedup import Deduplicator

            deduplicator = Deduplicator(self.resources.images.folder)
        for candidate, point, files in self._walk(ranking, request.k + 1):
            if not request.allows(candidate):
                break  # they are sorted: nothing behind it scores more
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
        """The candidates without those, among the first, whose documents are just being replaced: shown to nobody."""
        visible: list[Candidate] = []
        for start in range(0, len(ranking), limit):
            visible += [candidate for candidate, _, _ in self._walk(ranking[start : start + limit], limit)]
            if len(visible) >= limit:
                return visible + list(ranking[start + limit :])
        return visible

    def _walk(self, ranking: Sequence[Candidate], step: int) -> Iterator[tuple[Candidate, Point, list[Location]]]:
        """Candidates that may be shown, with their points, of which `step` are fetched at a time, and their files."""
        # Where there are no sign codes, the place on the page is told by its vectors.
        vectors = self.request.details and not self.storage.sign_codes
        for start in range(0, len(ranking), step):
            batch = ranking[start : start + step]
            missing = [candidate.page_id for candidate in batch if candidate.page_id not in self.points]
            if missing:
                points = self.resources.store.fetch(missing, vectors=vectors)
                self.points |= {point.id: point for point in points}
            for candidate in batch:
                point = self.points.get(candidate.page_id)
                if point is not None:
                    files = locations(self.resources, point.payload, self.request.where or {})
                    if files:
                        yield candidate, point, files

    def _hits(self, pending: Sequence[_PendingHit], ranking: Sequence[Candidate]) -> list[ScoredPage]:
        request, query = self.request, self.query
        cheap: dict[str, Mapping[str, float]] = {}
        if request.details or request.explain:
            page_ids = [entry.point.id for entry in pending]
            cheap = {name: self.ranker.cheap_scores(name, query, page_ids) for name in ("dense", "lexical")}
        hits = []
        for entry in pending:
            hit = make_hit(self.resources, entry.point, entry.files, entry.candidate, query, details=request.details)
            scores = {name: values[hit.page_id] for name, values in cheap.items() if hit.page_id in values}
            scores |= hit.scores
            other_pages, similar = tuple(entry.other_pages), tuple(entry.similar)
            hits.append(replace(hit, scores=scores, other_pages=other_pages, similar=similar))
        if request.explain:
            first = self.ranker.first_ranks(query, self.conditions, request.stages)
            ranks = ranks_of(ranking)
            hits = [replace(hit, steps=steps_of(hit, first, ranks)) for hit in hits]
        return hits
