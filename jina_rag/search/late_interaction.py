"""The first two stages of a search in one store request: candidates by dense and lexical vectors, and exact MaxSim.

Charts, tables and figures (regions) are separate candidates; a matching region makes the page of the region a
candidate. With a text embedder, the rows of a region are a subset of the rows of the page, so a region never scores
higher than the page. An image embedder embeds the image of the region, and the page gets the higher of the scores of
page and region.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jina_rag import sparse
from jina_rag.protocols import Embedder, MultiVectorStore
from jina_rag.search.exact_match import identifier_shares
from jina_rag.search.fusion import Candidate, Fusion
from jina_rag.search.query import Query
from jina_rag.search.stages import Stages
from jina_rag.stores import schema
from jina_rag.types import Prefetch, StoreHit

_KEYS = (schema.BIAS, schema.PAGE_ID, schema.KIND, schema.BOX, schema.REVISION)
"""Payload keys that ranking requires. The values of other keys are large and are fetched only for the returned
pages."""

_POINTS_PER_PAGE = 12
"""Maximum average number of points per page (the page and the regions) in an index that is searched exhaustively."""


class PageRanker:
    """Ranks the pages of one store. Stateless."""

    def __init__(self, store: MultiVectorStore, embedder: Embedder) -> None:
        self._store = store
        self._embedder = embedder
        self._is_image_embedder = embedder.modality == "image"

    def rank(self, query: Query, conditions: Mapping[str, Any], min_pages: int, stages: Stages) -> list[Candidate]:
        """Return at least `min_pages` pages, or all matching pages, best first.

        The order of the pages does not depend on `min_pages`.
        If the first stage returns too few candidates, the limit of the first stage is doubled, and new candidates are
        appended to the ranking. Fusion orders the pages within groups of `Rescore.limit`. No score exceeds the lowest
        score of the previous group, so that scores descend over the whole ranking.

        Args:
            query: The query.
            conditions: The filter, on payload keys.
            min_pages: Number of pages that the caller needs.
            stages: The search stages; only `prefetch` and `rescore` are used.
        """
        rescore, prefetch = stages.rescore, stages.prefetch
        identifier_scores = identifier_shares(query.text, self._store, conditions) if rescore.identifiers else {}
        fusion = Fusion(rescore, self._embedder.hubness, identifier_scores)
        is_small = self._is_small(prefetch.exhaustive)
        ranking: list[Candidate] = []
        while True:
            page_ids = {candidate.page_id for candidate in ranking}
            lead_ids = [] if ranking else list(identifier_scores)
            pages, regions = self._maxsim(query, conditions, None if is_small else prefetch, stages, lead_ids)
            new_candidates = [
                self._candidate(hit, regions.get(page_id), query)
                for page_id, hit in pages.items()
                if page_id not in page_ids
            ]
            for group in fusion.groups(new_candidates, first=not ranking):
                group_ids = [candidate.page_id for candidate in group]
                dense = self.cheap_scores("dense", query, group_ids) if rescore.dense else {}
                ranking += fusion.fuse(group, dense, ceiling=ranking[-1].score if ranking else math.inf)
            if is_small or len(ranking) >= min_pages or not new_candidates or not prefetch.limit:
                return ranking
            prefetch = replace(prefetch, limit=2 * prefetch.limit)

    def cheap_scores(self, name: str, query: Query, page_ids: Sequence[str]) -> dict[str, float]:
        """Return the scores of pages by the dense or the lexical vector, as page id → score.

        Pages without the vector are omitted.

        Args:
            name: Name of the vector, ``"dense"`` or ``"lexical"``.
            query: The query.
            page_ids: Ids of the pages to score.
        """
        if not page_ids:
            return {}
        hits = self._nearest(name, query, {schema.PAGE_ID: list(page_ids)}, len(page_ids))
        return {hit.id: hit.score for hit in hits}  # the point of a page has the page id as id

    def first_ranks(
        self, query: Query, conditions: Mapping[str, Any], stages: Stages
    ) -> dict[str, dict[str, tuple[int, float]]]:
        """Return the first-stage candidates: vector name → page id → (1-based rank, score).

        Args:
            query: The query.
            conditions: The filter, on payload keys.
            stages: The search stages; only `prefetch` is used.

        Returns:
            The candidates; empty if the index is so small that MaxSim scores every page.
        """
        prefetch = stages.prefetch
        if self._is_small(prefetch.exhaustive):
            return {}
        limits = {"dense": prefetch.limit, "lexical": prefetch.lexical_limit}
        return {
            name: {
                hit.id: (rank, hit.score)
                for rank, hit in enumerate(self._nearest(name, query, conditions, limit), start=1)
            }
            for name, limit in limits.items()
            if limit
        }

    def _nearest(self, name: str, query: Query, conditions: Mapping[str, Any], limit: int) -> list[StoreHit]:
        """Return the best pages by the dense or the lexical vector; [] if the query has no words to compare."""
        words = sparse.query_vector(query.text)
        if name == "lexical" and not len(words.indices):
            return []
        vector = query.dense if name == "dense" else words
        return self._store.nearest(vector, limit=limit, where={**conditions, schema.KIND: "page"}, keys=())

    def _maxsim(
        self,
        query: Query,
        conditions: Mapping[str, Any],
        prefetch: Prefetch | None,
        stages: Stages,
        lead_ids: Sequence[str],
    ) -> tuple[dict[str, StoreHit], dict[str, StoreHit]]:
        """Return two mappings with MaxSim scores: page id → page, and page id → best region of the page.

        If `prefetch` is None, all pages are scored. A second store request scores pages that are not candidates
        themselves, but have a region that is a candidate or an identifier of the query (`lead_ids`).
        """
        if prefetch is None:
            where = conditions if self._is_image_embedder else {schema.KIND: "page", **conditions}
            # The limit covers all points. With a smaller limit, the store would choose arbitrarily among points with
            # equal scores, and searches with different limits would return different orders.
            limit = stages.prefetch.exhaustive * (_POINTS_PER_PAGE if self._is_image_embedder else 1)
            hits = self._store.search(query.multi, limit=limit, where=where, keys=_KEYS)
        else:
            hits = self._store.search(
                query.multi,
                # MaxSim is computed for all candidates, so all candidates are returned.
                limit=max(1, prefetch.limit + prefetch.lexical_limit + prefetch.region_limit),
                dense=query.dense,
                lexical=sparse.query_vector(query.text),
                prefetch=prefetch,
                where=conditions,
                keys=_KEYS,
            )
        pages, regions = _by_page(hits)
        missing_ids = [page_id for page_id in dict.fromkeys([*regions, *lead_ids]) if page_id not in pages]
        if missing_ids:
            where = {schema.KIND: "page", schema.PAGE_ID: missing_ids, **conditions}
            pages |= _by_page(self._store.search(query.multi, limit=len(missing_ids), where=where, keys=_KEYS))[0]
        return pages, regions

    def _is_small(self, exhaustive: int) -> bool:
        # Counting all points is fast, but counting with a filter is slow. The filter is skipped for a large index.
        has_few_points = self._store.count() <= _POINTS_PER_PAGE * exhaustive
        return has_few_points and self._store.count({schema.KIND: "page"}) <= exhaustive

    def _candidate(self, hit: StoreHit, region: StoreHit | None, query: Query) -> Candidate:
        if not self._is_image_embedder or (region is not None and region.score <= hit.score):
            region = None
        # MaxSim is divided by the number of query tokens, so that scores of long and short queries are comparable.
        score = (region or hit).score / len(query.multi)
        scores = {"maxsim": score}
        if schema.BIAS in hit.payload:
            scores["background"] = float((region or hit).payload.get(schema.BIAS, 0.0))
        page_id = str(hit.payload.get(schema.PAGE_ID, hit.id))
        return Candidate(page_id, str(hit.payload.get(schema.REVISION, "")), score, "maxsim", scores, region)


def _by_page(hits: Sequence[StoreHit]) -> tuple[dict[str, StoreHit], dict[str, StoreHit]]:
    """Return two mappings, best hits first: page id → page, and page id → best region of the page."""
    pages: dict[str, StoreHit] = {}
    regions: dict[str, StoreHit] = {}
    for hit in hits:
        target = pages if hit.payload.get(schema.KIND) == "page" else regions
        target.setdefault(str(hit.payload.get(schema.PAGE_ID, hit.id)), hit)
    return pages, regions
