"""The first two stages: candidates by two cheap vectors, then exact MaxSim on the stored ones and what is added to it.

Charts, tables and figures are candidates of their own; what they find is folded into their pages. For a model that
reads words a region's score never beats its page's, whose rows hold the region's: it leads to the page, and the page is
scored. For a model that looks at pixels the region's own picture was embedded, and the better of both counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from jina_rag import sparse
from jina_rag.compression import decode_signs
from jina_rag.protocols import Embedder, MultiVectorStore
from jina_rag.scoring import best_window
from jina_rag.search.exact_match import holders
from jina_rag.search.query import Query
from jina_rag.search.stages import Rescore, Stages
from jina_rag.stores import schema
from jina_rag.types import Float32, Prefetch, StoreHit

_KEYS = (schema.BIAS, schema.PAGE_ID, schema.KIND, schema.BOX, schema.REVISION)
"""The rest of a payload is long: it is fetched for the pages that are shown."""

_REGIONS = 12
"""Points of a page, itself included, up to which an index may still be a small one."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A page on its way through the stages.

    Attributes:
        page_id: Of its point.
        revision: Hash of the file that it is a page of.
        score: That of the last stage.
        stage: The name of that stage.
        scores: Score of each stage so far.
        region: Its chart, table or figure that scored better than itself.
    """

    page_id: str
    revision: str
    score: float
    stage: str
    scores: Mapping[str, float]
    region: StoreHit | None = None


Scale: TypeAlias = dict[str, tuple[float, float]]
"""Kind of score → its mean, and the factor that brings it to the spread of the late-interaction scores."""


class Candidates:
    """Ranks the pages of one store. Holds no state of its own."""

    def __init__(self, store: MultiVectorStore, embedder: Embedder) -> None:
        self._store = store
        self._embedder = embedder
        self._pixels = embedder.modality == "image"

    def rank(self, query: Query, conditions: Mapping[str, Any], need: int, stages: Stages) -> list[Candidate]:
        """At least `need` pages where there are so many, best first; the same order however many are asked for.

        Where the first stage's candidates do not suffice, it is asked for twice as many, and those that are new come
        behind. Within them, pages are compared in groups of `Rescore.limit`; scores never rise from one group to the
        next, so that they are sorted as the pages are.

        Args:
            query: The question.
            conditions: The filter, on payload keys.
            need: How many pages are wanted.
            stages: Their `prefetch` and `rescore` are used.
        """
        holding = holders(query.text, self._store, conditions) if stages.rescore.identifiers else {}
        small = self._is_small(stages.prefetch.exhaustive)
        ranked: list[Candidate] = []
        seen: set[str] = set()
        scale: Scale | None = None
        prefetch = stages.prefetch
        while True:
            named = [] if ranked else list(holding)
            pages, regions = self._scored(query, conditions, None if small else prefetch, stages, named)
            found = [
                self._candidate(hit, regions.get(page_id), query)
                for page_id, hit in pages.items()
                if page_id not in seen
            ]
            for block in _blocks(found, stages.rescore.limit, {} if ranked else holding):
                scale = scale or self._scale(block, query, stages.rescore)
                rescored = self._rescored(block, query, holding, stages.rescore, scale)
                least = ranked[-1].score if ranked else math.inf
                ranked += [
                    candidate if candidate.score <= least else _capped(candidate, least) for candidate in rescored
                ]
            seen |= {candidate.page_id for candidate in found}
            if small or len(ranked) >= need or not found or not prefetch.limit:
                return ranked
            prefetch = replace(prefetch, limit=2 * prefetch.limit)

    def cheap_scores(
        self, query: Query, page_ids: Sequence[str], kinds: Sequence[str] = ("dense", "lexical")
    ) -> dict[str, dict[str, float]]:
        """Scores by the cheap vectors: page id → ``{"dense": …, "lexical": …}``."""
        found: dict[str, dict[str, float]] = {page_id: {} for page_id in page_ids}
        if not page_ids:
            return found
        where: dict[str, Any] = {schema.KIND: "page", schema.PAGE_ID: list(page_ids)}
        words = sparse.query_vector(query.text)
        for name, vector in (("dense", query.dense), ("lexical", words)):
            if name not in kinds or (name == "lexical" and not len(words.indices)):
                continue
            for hit in self._store.nearest(vector, limit=len(page_ids), where=where, keys=()):
                found[hit.id][name] = hit.score  # the id of a page's point is the page's
        return found

    def first_ranks(
        self, query: Query, conditions: Mapping[str, Any], stages: Stages
    ) -> dict[str, dict[str, tuple[int, float]]]:
        """Where the first stage puts each of its candidates: vector → page id → (rank, score).

        Nothing in an index so small that every page is scored.
        """
        prefetch = stages.prefetch
        if self._is_small(prefetch.exhaustive):
            return {}
        words = sparse.query_vector(query.text)
        ranks: dict[str, dict[str, tuple[int, float]]] = {}
        for name, vector, limit in (
            ("dense", query.dense, prefetch.limit),
            ("lexical", words, prefetch.lexical_limit),
        ):
            if limit and not (name == "lexical" and not len(words.indices)):
                where = {**conditions, schema.KIND: "page"}
                hits = self._store.nearest(vector, limit=limit, where=where, keys=())
                ranks[name] = {hit.id: (rank, hit.score) for rank, hit in enumerate(hits, start=1)}
        return ranks

    # -- MaxSim --------------------------------------------------------------------------------------------

    def _scored(
        self,
        query: Query,
        conditions: Mapping[str, Any],
        prefetch: Prefetch | None,
        stages: Stages,
        named: Sequence[str],
    ) -> tuple[dict[str, StoreHit], dict[str, StoreHit]]:
        """Pages by id, and the best region of each by the page's id, by MaxSim; without a prefetch, of all pages."""
        if prefetch is None:
            where = conditions if self._pixels else {schema.KIND: "page", **conditions}
            # All of them: of equal scores a limit would take any, and a longer list would not begin as the shorter one.
            limit = stages.prefetch.exhaustive * (_REGIONS if self._pixels else 1)
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
        pages, regions = _folded(hits)
        # Pages that only one of their regions or an identifier has led to: scored like the others.
        alone = [page_id for page_id in dict.fromkeys([*regions, *named]) if page_id not in pages]
        if alone:
            where = {schema.KIND: "page", schema.PAGE_ID: alone, **conditions}
            pages |= _folded(self._store.search(query.multi, limit=len(alone), where=where, keys=_KEYS))[0]
        return pages, regions

    def _is_small(self, exhaustive: int) -> bool:
        # Counting all is quick, counting by a filter is not.
        return self._store.count() <= _REGIONS * exhaustive and self._store.count({schema.KIND: "page"}) <= exhaustive

    def _candidate(self, hit: StoreHit, region: StoreHit | None, query: Query) -> Candidate:
        if not self._pixels or (region is not None and region.score <= hit.score):
            region = None
        # The mean over the question's tokens, so that long and short questions compare.
        score = (region or hit).score / len(query.multi)
        scores = {"maxsim": score}
        if schema.BIAS in hit.payload:
            scores["background"] = float((region or hit).payload.get(schema.BIAS, 0.0))
        page_id = str(hit.payload.get(schema.PAGE_ID, hit.id))
        return Candidate(page_id, str(hit.payload.get(schema.REVISION, "")), score, "maxsim", scores, region)

    # -- what is added -------------------------------------------------------------------------------------

    def _rescored(
        self,
        block: Sequence[Candidate],
        query: Query,
        holding: Mapping[str, float],
        rescore: Rescore,
        scale: Scale,
    ) -> list[Candidate]:
        total = self._late(block, rescore)
        details: list[dict[str, float]] = [dict(candidate.scores) for candidate in block]
        for name, values in self._others(block, query, rescore).items():
            mean, factor = scale[name]
            for i, candidate in enumerate(block):
                if candidate.page_id in values:
                    details[i][name] = values[candidate.page_id]
                    total[i] += factor * (values[candidate.page_id] - mean)
        for i, candidate in enumerate(block):
            if candidate.page_id in holding:
                details[i]["identifiers"] = holding[candidate.page_id]
                total[i] += rescore.identifiers * holding[candidate.page_id]
        rescored = [
            replace(c, score=float(score), stage="rescore", scores={**entry, "rescore": float(score)})
            for c, score, entry in zip(block, total, details, strict=True)
        ]
        return sorted(rescored, key=lambda candidate: (-candidate.score, candidate.page_id))

    def _late(self, block: Sequence[Candidate], rescore: Rescore) -> npt.NDArray[np.float64]:
        """Late-interaction scores less what each page scores for any question, shape (pages,)."""
        hubness = self._embedder.hubness if rescore.hubness is None else rescore.hubness
        return np.array([c.scores["maxsim"] - hubness * c.scores.get("background", 0.0) for c in block], np.float64)

    def _others(self, block: Sequence[Candidate], query: Query, rescore: Rescore) -> dict[str, dict[str, float]]:
        """Scores of other kinds that are to be added: kind → page id → score, for the pages that have one."""
        page_ids = [candidate.page_id for candidate in block]
        found: dict[str, dict[str, float]] = {}
        if rescore.dense:
            cheap = self.cheap_scores(query, page_ids, ["dense"])
            found["dense"] = {page_id: scores["dense"] for page_id, scores in cheap.items() if "dense" in scores}
        if rescore.window:
            found["window"] = self._windows(page_ids, query.multi, rescore.window_tokens)
        return found

    def _scale(self, block: Sequence[Candidate], query: Query, rescore: Rescore) -> Scale:
        """How scores of other kinds are brought to the spread of the late-interaction ones, by the best pages."""
        spread = float(self._late(block, rescore).std())
        scale: Scale = {}
        for name, values in self._others(block, query, rescore).items():
            other = np.array(list(values.values()) or [0.0], np.float64)
            weight = rescore.dense if name == "dense" else rescore.window
            scale[name] = float(other.mean()), weight * spread / float(other.std()) if other.std() > 0 else 0.0
        return scale

    def _windows(self, page_ids: Sequence[str], query: Float32, window: int) -> dict[str, float]:
        """The best window's MaxSim of each page, per question token: by sign codes where the index keeps them."""
        found: dict[str, float] = {}
        points = self._store.fetch(page_ids, vectors=False)
        bare = [point.id for point in points if not point.payload.get(schema.SIGNS)]
        rows = {
            point.id: decode_signs(point.payload[schema.SIGNS], query.shape[1])
            for point in points
            if point.payload.get(schema.SIGNS)
        }
        rows |= {point.id: point.multi for point in self._store.fetch(bare) if point.multi is not None}
        for page_id, vectors in rows.items():
            if len(vectors):
                found[page_id] = best_window(query, vectors, window=window) / len(query)
        return found


def _blocks(found: Sequence[Candidate], size: int, holding: Mapping[str, float]) -> Iterator[Sequence[Candidate]]:
    """Pages in groups that are compared with each other, best first by MaxSim."""
    order = sorted(found, key=lambda candidate: (-candidate.score, candidate.page_id))
    # Whoever has what was asked for by name is compared with the best, wherever vectors have put it.
    first = [c for rank, c in enumerate(order) if rank < size or c.page_id in holding]
    rest = [c for c in order[size:] if c.page_id not in holding]
    if first:
        yield first
    yield from (rest[start : start + size] for start in range(0, len(rest), size))


def _capped(candidate: Candidate, score: float) -> Candidate:
    return replace(candidate, score=score, scores={**candidate.scores, candidate.stage: score})


def _folded(hits: Sequence[StoreHit]) -> tuple[dict[str, StoreHit], dict[str, StoreHit]]:
    """Pages by id, and the best region of each page by the page's id, both best first."""
    pages: dict[str, StoreHit] = {}
    regions: dict[str, StoreHit] = {}
    for hit in hits:
        of = pages if hit.payload.get(schema.KIND) == "page" else regions
        of.setdefault(str(hit.payload.get(schema.PAGE_ID, hit.id)), hit)
    return pages, regions
