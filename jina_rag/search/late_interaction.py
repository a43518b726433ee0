"""The first two stages: candidates by the cheap vectors, and exact MaxSim on their stored rows, in one store call.

Charts, tables and figures are candidates of their own; what they find is folded into their pages. For a model that
reads words a region's score never beats its page's, whose rows hold the region's: it leads to the page, and the page is
scored. For a model that looks at pixels the region's own image was embedded, and the better of both counts.
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
"""The rest of a payload is long: it is fetched for the pages that are shown."""

_POINTS_PER_PAGE = 12
"""Points of a page, itself included, up to which an index may still be a small one."""


class PageRanker:
    """Ranks the pages of one store. Holds no state of its own."""

    def __init__(self, store: MultiVectorStore, embedder: Embedder) -> None:
        self._store = store
        self._embedder = embedder
        self._pixels = embedder.modality == "image"

    def rank(self, query: Query, conditions: Mapping[str, Any], need: int, stages: Stages) -> list[Candidate]:
        """At least `need` pages where there are so many, best first; the same order however many are needed.

        Where the first stage's candidates do not suffice, it is asked for twice as many, and those that are new come
        behind. Within them, pages are compared in groups of `Rescore.limit`; scores never rise from one group to the
        next, so that they are sorted as the pages are.

        Args:
            query: The query.
            conditions: The filter, on payload keys.
            need: How many pages are needed.
            stages: Their `prefetch` and `rescore` are used.
        """
        rescore, prefetch = stages.rescore, stages.prefetch
        identified = identifier_shares(query.text, self._store, conditions) if rescore.identifiers else {}
        fusion = Fusion(rescore, self._embedder.hubness, identified)
        small = self._is_small(prefetch.exhaustive)
        ranking: list[Candidate] = []
        while True:
            page_ids = {candidate.page_id for candidate in ranking}
            leads = [] if ranking else list(identified)
            pages, regions = self._maxsim(query, conditions, None if small else prefetch, stages, leads)
            fresh = [
                self._candidate(hit, regions.get(page_id), query)
                for page_id, hit in pages.items()
                if page_id not in page_ids
            ]
            for group in fusion.groups(fresh, first=not ranking):
                group_ids = [candidate.page_id for candidate in group]
                dense = self.cheap_scores("dense", query, group_ids) if rescore.dense else {}
                ranking += fusion.fuse(group, dense, ceiling=ranking[-1].score if ranking else math.inf)
            if small or len(ranking) >= need or not fresh or not prefetch.limit:
                return ranking
            prefetch = replace(prefetch, limit=2 * prefetch.limit)

    def cheap_scores(self, name: str, query: Query, page_ids: Sequence[str]) -> dict[str, float]:
        """Scores by a cheap vector, ``"dense"`` or ``"lexical"``: page id → score, of the pages that have one."""
        if not page_ids:
            return {}
        hits = self._nearest(name, query, {schema.PAGE_ID: list(page_ids)}, len(page_ids))
        return {hit.id: hit.score for hit in hits}  # the id of a page's point is the page's

    def first_ranks(
        self, query: Query, conditions: Mapping[str, Any], stages: Stages
    ) -> dict[str, dict[str, tuple[int, float]]]:
        """Where the first stage puts each of its candidates: vector → page id → (rank, score).

        Nothing in an index so small that every page is scored.
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
        """The best pages by one cheap vector; none by that of a query without words."""
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
        leads: Sequence[str],
    ) -> tuple[dict[str, StoreHit], dict[str, StoreHit]]:
        """Pages by id, and the best region of each by the page's id, by MaxSim; without a prefetch, of all pages.

        Pages that only one of their regions or an identifier (`leads`) has led to are scored like the others.
        """
        if prefetch is None:
            where = conditions if self._pixels else {schema.KIND: "page", **conditions}
            # All of them: of equal scores a limit would take any, and a longer list would not begin as the shorter one.
            limit = stages.prefetch.exhaustive * (_POINTS_PER_PAGE if self._pixels else 1)
            hits = self._store.search(query.multi, limit=limit, where=where, keys=_KEYS)
        else:
            hits = self._store.search(
                query.multi,
                # All of them: what is scored is scored.
                limit=max(1, prefetch.limit + prefetch.lexical_limit + prefetch.region_limit),
                dense=query.dense,
                lexical=sparse.query_vector(query.text),
                prefetch=prefetch,
                where=conditions,
                keys=_KEYS,
            )
        pages, regions = _by_page(hits)
        missing = [page_id for page_id in dict.fromkeys([*regions, *leads]) if page_id not in pages]
        if missing:
            where = {schema.KIND: "page", schema.PAGE_ID: missing, **conditions}
            pages |= _by_page(self._store.search(query.multi, limit=len(missing), where=where, keys=_KEYS))[0]
        return pages, regions

    def _is_small(self, exhaustive: int) -> bool:
        # Counting all is quick, counting by a filter is not.
        few = self._store.count() <= _POINTS_PER_PAGE * exhaustive
        return few and self._store.count({schema.KIND: "page"}) <= exhaustive

    def _candidate(self, hit: StoreHit, region: StoreHit | None, query: Query) -> Candidate:
        if not self._pixels or (region is not None and region.score <= hit.score):
            region = None
        # The mean over the query's tokens, so that long and short queries compare.
        score = (region or hit).score / len(query.multi)
        scores = {"maxsim": score}
        if schema.BIAS in hit.payload:
            scores["background"] = float((region or hit).payload.get(schema.BIAS, 0.0))
        page_id = str(hit.payload.get(schema.PAGE_ID, hit.id))
        return Candidate(page_id, str(hit.payload.get(schema.REVISION, "")), score, "maxsim", scores, region)


def _by_page(hits: Sequence[StoreHit]) -> tuple[dict[str, StoreHit], dict[str, StoreHit]]:
    """Pages by id, and the best region of each page by the page's id, both best first."""
    pages: dict[str, StoreHit] = {}
    regions: dict[str, StoreHit] = {}
    for hit in hits:
        target = pages if hit.payload.get(schema.KIND) == "page" else regions
        target.setdefault(str(hit.payload.get(schema.PAGE_ID, hit.id)), hit)
    return pages, regions
