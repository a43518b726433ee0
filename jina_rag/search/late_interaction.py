"""The first two stages of a search: candidates by dense and lexical vectors, and exact MaxSim.

Charts, tables and figures (regions) are separate candidates; a matching region makes the page of the region a
candidate. With a text embedder, the rows of a region are a subset of the rows of the page, so a region never scores
higher than the page. An image embedder embeds the image of the region, and the page gets the higher of the scores of
page and region.

A ranking needs two store calls: one asks for the candidates by every vector and by every identifier of the query, the
other one scores the candidates by MaxSim and by the vectors whose scores the first call did not return. In a small
index, one call scores all pages.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from jina_rag import sparse
from jina_rag.catalog.resources import IndexResources
from jina_rag.protocols import Embedder
from jina_rag.search.exact_match import identifier_queries, identifier_shares
from jina_rag.search.fusion import Candidate, Fusion
from jina_rag.search.index_size import POINTS_PER_PAGE, IndexSize
from jina_rag.search.query import Query
from jina_rag.search.stages import Stages
from jina_rag.search.store_calls import StoreRequest, StoreSteps, run_together
from jina_rag.stores import schema
from jina_rag.types import Float32, RegionKind, SparseVector, StoreHit, StoreQuery

_REGION_KEYS = (schema.PAGE_ID, schema.BIAS, schema.BOX)
"""Payload keys of a region in a ranking. The payload of a page is read only for the hubness correction, because an
engine reads the whole payload of a point even for one key."""
_CANDIDATE_KEYS = (schema.PAGE_ID,)


class PageRanker:
    """Ranks the pages of one index; thread-safe."""

    def __init__(self, resources: IndexResources, embedder: Embedder) -> None:
        self._store = resources.store
        self._size = IndexSize(resources)
        self._embedder = embedder

    def scores_every_page(self, stages: Stages) -> bool:
        """Return whether the index is so small that a search with these stages scores every page."""
        return self._size.has_at_most(stages.prefetch.exhaustive)

    def ranking(
        self,
        query: Query,
        conditions: Mapping[str, Any],
        stages: Stages,
        *,
        scores_every_page: bool,
        first_stage_scores: bool = False,
    ) -> Ranking:
        """Return an empty ranking, which `Ranking.extend` fills.

        Args:
            query: The query.
            conditions: The filter, on payload keys.
            stages: The search stages; only `prefetch` and `rescore` are used.
            scores_every_page: Whether to skip candidate selection; see `PageRanker.scores_every_page`.
            first_stage_scores: Whether the dense and lexical scores of the pages are needed.
        """
        return Ranking(
            query,
            conditions,
            stages,
            self._embedder,
            scores_every_page=scores_every_page,
            first_stage_scores=first_stage_scores,
        )

    def rank(self, query: Query, conditions: Mapping[str, Any], min_pages: int, stages: Stages) -> list[Candidate]:
        """Return at least `min_pages` pages, or all matching pages, best first.

        Args:
            query: The query.
            conditions: The filter, on payload keys.
            min_pages: Number of pages that the caller needs.
            stages: The search stages; only `prefetch` and `rescore` are used.
        """
        ranking = self.ranking(query, conditions, stages, scores_every_page=self.scores_every_page(stages))
        run_together([ranking.extend(min_pages)], self._store)
        return ranking.candidates


class Ranking:
    """The ranking of the pages for one query, which grows on demand and scores no page twice.

    The order of the pages does not depend on the steps in which the ranking grows. If the first stage returns too few
    candidates, the limit of the dense candidates is doubled, and new candidates are appended to the ranking. Fusion
    orders the pages within groups of `Rescore.limit`. No score exceeds the lowest score of the previous group, so that
    scores descend over the whole ranking.

    Attributes:
        candidates: The ranked pages so far, best first.
        dense: Page id → dense score, for the pages that have a dense vector.
        lexical: Page id → lexical score, for the pages that share a term with the query.
        first_ranks: First-stage vector → page id → (1-based rank, score); empty if every page is scored.
    """

    def __init__(
        self,
        query: Query,
        conditions: Mapping[str, Any],
        stages: Stages,
        embedder: Embedder,
        *,
        scores_every_page: bool,
        first_stage_scores: bool,
    ) -> None:
        """Create an empty ranking; see `PageRanker.ranking` for the arguments."""
        self.candidates: list[Candidate] = []
        self.dense: dict[str, float] = {}
        self.lexical: dict[str, float] = {}
        self.first_ranks: dict[str, dict[str, tuple[int, float]]] = {}
        self._query = query
        self._terms = sparse.query_vector(query.text)
        self._conditions = conditions
        self._prefetch, self._rescore = stages.prefetch, stages.rescore
        self._hubness = embedder.hubness
        has_correction = embedder.hubness if stages.rescore.hubness is None else stages.rescore.hubness
        self._page_keys = (schema.BIAS,) if has_correction else ()
        self._is_image_embedder = embedder.modality == "image"
        self._scores_every_page = scores_every_page
        self._needs_dense = bool(stages.rescore.dense) or first_stage_scores
        self._needs_lexical = first_stage_scores
        self._has_all_dense = self._has_all_lexical = False
        self._dense_limit = stages.prefetch.limit
        self._fusion: Fusion | None = None
        self._groups: Iterator[Sequence[_ScoredHit]] = iter(())
        self._scored_ids: set[str] = set()
        self._is_complete = False

    def extend(self, min_pages: int) -> StoreSteps[None]:
        """Rank further pages until at least `min_pages` pages, or all matching pages, are ranked.

        Args:
            min_pages: Number of pages that the caller needs.
        """
        while len(self.candidates) < min_pages:
            if self._fuse_next_group():
                continue
            if self._is_complete:
                return
            yield from self._add_pages()

    def fuse_all(self) -> None:
        """Rank all pages that have a MaxSim score."""
        while self._fuse_next_group():
            pass

    def _add_pages(self) -> StoreSteps[None]:
        if self._scores_every_page:
            yield from self._score_every_page()
            self._is_complete = True
        elif self._fusion is None:
            yield from self._score_candidates()
        else:
            yield from self._score_further_candidates()

    def _score_every_page(self) -> StoreSteps[None]:
        pages, limit = {schema.KIND: "page", **self._conditions}, self._prefetch.exhaustive
        # The limit covers all points. With a smaller limit, the store would choose arbitrarily among points with equal
        # scores, and searches with different limits would return different orders.
        queries = {"pages": StoreQuery(self._query.multi, limit, pages, keys=self._page_keys)}
        if self._is_image_embedder:
            regions, count = self._region_filter, limit * POINTS_PER_PAGE
            queries["regions"] = StoreQuery(self._query.multi, count, regions, keys=_REGION_KEYS)
        if self._needs_dense:
            queries["dense"] = StoreQuery(self._query.dense, limit, pages)
        if self._needs_lexical:
            queries["lexical"] = StoreQuery(self._terms, limit, pages)
        answer = yield StoreRequest([*queries.values(), *self._identifier_queries()])
        hits = dict(zip(queries, answer.hits, strict=False))
        _add_scores(self.dense, hits.get("dense", ()))
        _add_scores(self.lexical, hits.get("lexical", ()))
        self._start_fusion(answer.hits[len(queries) :])
        self._add_candidates(hits["pages"], hits.get("regions", ()), first=True)

    def _score_candidates(self) -> StoreSteps[None]:
        prefetch, queries = self._prefetch, {}
        if prefetch.limit:
            queries["dense"] = self._dense_query()
        if prefetch.lexical_limit:
            queries["lexical"] = self._page_query(self._terms, prefetch.lexical_limit)
        if prefetch.region_limit:
            queries["region"] = StoreQuery(
                self._query.dense, prefetch.region_limit, self._region_filter, keys=_CANDIDATE_KEYS
            )
        answer = yield StoreRequest([*queries.values(), *self._identifier_queries()])
        hits = dict(zip(queries, answer.hits, strict=False))
        identified_ids = self._start_fusion(answer.hits[len(queries) :])
        for name, scores in (("dense", self.dense), ("lexical", self.lexical)):
            if name in hits:
                _add_scores(scores, hits[name])
                page_hits = [hit for hit in hits[name] if _page_id(hit) == hit.id]
                self.first_ranks[name] = {hit.id: (rank, hit.score) for rank, hit in enumerate(page_hits, start=1)}
        # Fewer hits than the limit are all pages that the vector matches.
        self._has_all_dense = "dense" in hits and len(hits["dense"]) < prefetch.limit
        self._has_all_lexical = "lexical" in hits and len(hits["lexical"]) < prefetch.lexical_limit
        candidates = [hit for name in queries for hit in hits[name]]
        yield from self._score(candidates, identified_ids, first=True)
        self._is_complete = self._has_all_dense or not prefetch.limit

    def _score_further_candidates(self) -> StoreSteps[None]:
        self._dense_limit *= 2
        answer = yield StoreRequest([self._dense_query()])
        _add_scores(self.dense, answer.hits[0])
        self._has_all_dense = len(answer.hits[0]) < self._dense_limit
        # A doubled limit may return only regions of pages that are ranked already, and still not all pages.
        yield from self._score(answer.hits[0], (), first=False)
        self._is_complete = self._has_all_dense

    def _score(
        self, candidates: Sequence[StoreHit], identified_ids: Collection[str], *, first: bool
    ) -> StoreSteps[None]:
        """Score the new points among the candidates and their pages."""
        hit_ids = dict.fromkeys(hit.id for hit in candidates)
        page_ids = dict.fromkeys([*map(_page_id, candidates), *identified_ids])
        new_page_ids = [page_id for page_id in page_ids if page_id not in self._scored_ids]
        new_region_ids = []
        if self._is_image_embedder:
            new_region_ids = [i for i in hit_ids if i not in page_ids and i not in self._scored_ids]
        if not new_page_ids and not new_region_ids:
            return
        self._scored_ids.update(new_page_ids, new_region_ids)
        # All candidates match the filter. The page of a matching region may not match.
        is_matching = page_ids.keys() <= hit_ids.keys() | set(identified_ids)
        where, multi = None if is_matching else self._conditions, self._query.multi
        queries = [
            StoreQuery(multi, max(len(new_page_ids), 1), where, new_page_ids, self._page_keys),
            StoreQuery(multi, max(len(new_region_ids), 1), None, new_region_ids, _REGION_KEYS),
        ]
        cheap_scores = []
        for vector, scores, is_needed in (
            (self._query.dense, self.dense, self._needs_dense and not self._has_all_dense),
            (self._terms, self.lexical, self._needs_lexical and not self._has_all_lexical),
        ):
            missing_ids = [page_id for page_id in new_page_ids if page_id not in scores] if is_needed else []
            if missing_ids:
                queries.append(StoreQuery(vector, len(missing_ids), ids=missing_ids))
                cheap_scores.append(scores)
        answer = yield StoreRequest(queries)
        for scores, hits in zip(cheap_scores, answer.hits[2:], strict=True):
            _add_scores(scores, hits)
        self._add_candidates(answer.hits[0], answer.hits[1], first=first)

    def _add_candidates(self, pages: Sequence[StoreHit], regions: Sequence[StoreHit], *, first: bool) -> None:
        assert self._fusion is not None
        best_regions: dict[str, StoreHit] = {}
        for region in regions:
            best_regions.setdefault(_page_id(region), region)
        scored = [self._scored(hit, best_regions.get(hit.id)) for hit in pages]
        self._groups = self._fusion.groups(scored, first=first)

    def _fuse_next_group(self) -> bool:
        """Append the next group of pages to the ranking; return False if all pages with MaxSim scores are ranked."""
        pages = next(self._groups, None)
        if pages is None or self._fusion is None:
            return False
        group = [_candidate(page) for page in pages]
        dense: dict[str, float] = {}
        if self._rescore.dense:
            scores = [(self.dense[c.page_id], c.page_id) for c in group if c.page_id in self.dense]
            # The mean of the scores must not depend on the order in which the store returned them.
            dense = {page_id: score for score, page_id in sorted(scores, key=lambda item: (-item[0], item[1]))}
        ceiling = self.candidates[-1].score if self.candidates else math.inf
        self.candidates += self._fusion.fuse(group, dense, ceiling=ceiling)
        return True

    def _start_fusion(self, identifier_hits: Sequence[Sequence[StoreHit]]) -> Collection[str]:
        """Create the fusion; return the ids of the pages with an identifier of the query."""
        shares = identifier_shares(identifier_hits)
        self._fusion = Fusion(self._rescore, self._hubness, shares)
        return shares.keys()

    def _identifier_queries(self) -> list[StoreQuery]:
        return identifier_queries(self._query.text, self._conditions) if self._rescore.identifiers else []

    @property
    def _region_filter(self) -> dict[str, Any]:
        return {**self._conditions, schema.KIND: get_args(RegionKind)}

    def _dense_query(self) -> StoreQuery:
        return self._page_query(self._query.dense, self._dense_limit)

    def _page_query(self, vector: Float32 | SparseVector, limit: int) -> StoreQuery:
        # Without a limit of their own, regions compete with pages.
        if not self._prefetch.regions:
            return StoreQuery(vector, limit, self._conditions, keys=_CANDIDATE_KEYS)
        return StoreQuery(vector, limit, {**self._conditions, schema.KIND: "page"})

    def _scored(self, hit: StoreHit, region: StoreHit | None) -> _ScoredHit:
        if region is not None and region.score <= hit.score:
            region = None
        # MaxSim is divided by the number of query tokens, so that scores of long and short queries are comparable.
        return _ScoredHit(hit.id, (region or hit).score / len(self._query.multi), hit, region)


class _ScoredHit(NamedTuple):
    """A page with its MaxSim score: the hit of the page, and the region that scored higher, if any."""

    page_id: str
    score: float
    hit: StoreHit
    region: StoreHit | None


def _candidate(page: _ScoredHit) -> Candidate:
    scores = {"maxsim": page.score}
    if schema.BIAS in page.hit.payload:
        scores["background"] = float((page.region or page.hit).payload.get(schema.BIAS, 0.0))
    return Candidate(page.page_id, page.score, "maxsim", scores, page.region)


def _page_id(hit: StoreHit) -> str:
    """Return the page id of a page or a region. The point of a page has the page id as id."""
    return str(hit.payload.get(schema.PAGE_ID, hit.id))


def _add_scores(scores: dict[str, float], hits: Iterable[StoreHit]) -> None:
    scores.update((hit.id, hit.score) for hit in hits)
