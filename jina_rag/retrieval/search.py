"""From a question to ranked pages: candidates by two cheap vectors, then exact MaxSim on the stored ones.

Charts, tables and figures are candidates of their own; what they find is folded into their pages. For a model that
reads words a region's score never beats its page's, whose rows hold the region's: it leads to the page, and the page is
scored. For a model that looks at pixels the region's own picture was embedded, and the better of both counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jina_rag import lexical
from jina_rag.compression import cut_rows
from jina_rag.config import Storage
from jina_rag.errors import IndexStateError, InvalidInputError
from jina_rag.protocols import Embedder
from jina_rag.retrieval.care import Parts
from jina_rag.retrieval.explain import Explanation, explain
from jina_rag.retrieval.places import Place, find_place, of_tokens, region_of
from jina_rag.retrieval.select import is_meant, matches, path_globs
from jina_rag.stores import schema
from jina_rag.types import Float32, Location, Point, Prefetch, Scalar, ScoredPage, StoreHit, Where

EXHAUSTIVE_PAGES = 400
"""Up to so many pages every page is scored: the candidate stage loses the answer for about 2 questions in 100."""
POOL = 60
"""Pages whose MaxSim is corrected for hubness; further down none comes far enough up to matter."""
PREFETCH = Prefetch()

_OWN_KEYS = {"doc_id": schema.DOC_ID, "page": schema.PAGE}
_KEYS = (schema.BIAS, schema.PAGE_ID, schema.KIND, schema.BOX)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A page and its score; `region` is its chart, table or figure that scored better than itself."""

    page_id: str
    score: float
    region: StoreHit | None = None


class Searcher:
    """Searches one index. Holds no state of its own; several threads may use it."""

    def __init__(self, *, parts: Parts, embedder: Embedder, dim: int, storage: Storage | None = None) -> None:
        self._parts = parts
        self._store = parts.store
        self._storage = storage or Storage()
        self._truncate_dim = dim if dim != embedder.dim else None
        self._embedder = embedder
        self._pixels = embedder.reads == "pixels"

    def search(self, question: str, *, k: int, where: Where | None, details: bool) -> list[ScoredPage]:
        """See `DocumentIndex.search`."""
        if not question.strip():
            raise InvalidInputError("The question is empty: ask something in words.")
        conditions = self._conditions(where or {})
        encoded = self._embedder.encode_query([question], truncate_dim=self._truncate_dim)
        assert encoded.single is not None
        assert encoded.multi is not None
        query = self._cut(encoded.multi[0])
        if conditions is None:
            return []
        candidates = self._candidates(question, encoded.single[0], query, conditions, k)
        found: list[ScoredPage] = []
        # A few more than asked for: pages of documents that are just being replaced are not shown.
        for start in range(0, len(candidates), max(k, 1)):
            some = candidates[start : start + k]
            # Where there are no sign codes, the place on the page is told by its vectors.
            vectors = details and not self._storage.sign_codes
            points = {p.id: p for p in self._store.fetch([c.page_id for c in some], vectors=vectors)}
            for candidate in some:
                point = points.get(candidate.page_id)
                if point is not None and len(found) < k:
                    found += self._page(point, candidate, query, where or {}, details=details)
            if len(found) >= k:
                break
        return found

    def explain(self, question: str, hit: ScoredPage) -> Explanation:
        """See `DocumentIndex.explain`."""
        record = self._parts.manifest.document(hit.doc_id)
        point_id = schema.point_id(record.sha256, hit.page) if record is not None else hit.page_id
        found = self._store.fetch([point_id]) if point_id and (record or not self._parts.manifest.documents()) else []
        if not found:
            raise IndexStateError(f"{hit.doc_id}, page {hit.page} is not in this index: search again.")
        point = found[0]
        encoded = self._embedder.encode_query([question], single=False)
        assert encoded.multi is not None
        image = self._parts.images.path(point.payload[schema.IMAGE])
        if point.multi is None or schema.GRID not in point.payload:
            return Explanation.empty(image)
        query = self._cut(encoded.multi[0])
        return explain(
            query, of_tokens(point.multi, point.payload), schema.decode_grid(point.payload[schema.GRID]), image
        )

    def _cut(self, query: Float32) -> Float32:
        return cut_rows(query, self._storage.multi_dim or query.shape[1])

    # -- candidates ----------------------------------------------------------------------------------------

    def _candidates(
        self, question: str, dense: Float32, query: Float32, conditions: Mapping[str, Any], k: int
    ) -> list[_Candidate]:
        """Pages, best first."""
        limit = max(POOL, 2 * k)
        if self._is_small():
            where = conditions if self._pixels else {schema.KIND: "page", **conditions}
            hits = self._store.search(query, limit=limit * (3 if self._pixels else 1), where=where, keys=_KEYS)
        else:
            # As many pages as are asked for must be candidates, however many that are.
            prefetch = replace(PREFETCH, limit=max(PREFETCH.limit, limit))
            hits = self._store.search(
                query,
                limit=limit + prefetch.region_limit,
                dense=dense,
                lexical=lexical.query_vector(question),
                prefetch=prefetch,
                where=conditions,
                # The rest of a payload is long: it is fetched for the pages that are shown.
                keys=_KEYS,
            )
        pages, regions = _folded(hits)
        alone = [page_id for page_id in regions if page_id not in pages]
        if alone:
            # Pages that only one of their regions has led to: scored like the others.
            where = {schema.KIND: "page", schema.PAGE_ID: alone, **conditions}
            pages |= _folded(self._store.search(query, limit=len(alone), where=where, keys=_KEYS))[0]
        scored = []
        for page_id, hit in pages.items():
            region = regions.get(page_id)
            if not self._pixels or (region is not None and region.score <= hit.score):
                region = None
            scored.append(_Candidate(page_id, self._score(region or hit, query), region))
        return sorted(scored, key=lambda candidate: (-candidate.score, candidate.page_id))

    def _is_small(self) -> bool:
        # Counting all is quick, counting by a filter is not.
        return self._store.count() <= 12 * EXHAUSTIVE_PAGES and (
            self._store.count({schema.KIND: "page"}) <= EXHAUSTIVE_PAGES
        )

    def _score(self, hit: StoreHit, query: Float32) -> float:
        """The mean over the question's tokens, so that long and short questions compare; see `hubness`."""
        return hit.score / len(query) - self._embedder.hubness * float(hit.payload.get(schema.BIAS, 0.0))

    # -- what is shown -------------------------------------------------------------------------------------

    def _page(
        self, point: Point, candidate: _Candidate, query: Float32, where: Where, *, details: bool
    ) -> list[ScoredPage]:
        """The page as it is shown, or nothing for one of a content that is not complete yet and replaces another."""
        payload = point.payload
        found = self._locations(payload, where)
        if not found:
            return []
        shown, *copies = found
        images = self._parts.images
        place = find_place(query, payload, images.folder, point.multi) if details else Place()
        region = place.region
        if candidate.region is not None:
            region = region_of(payload, candidate.region.payload.get(schema.BOX), images.folder) or region
        return [
            ScoredPage(
                doc_id=shown.doc_id,
                path=shown.path,
                page=int(payload[schema.PAGE]),
                page_id=point.id,
                page_count=int(payload[schema.PAGE_COUNT]),
                score=candidate.score,
                region=region,
                image_path=images.path(payload[schema.IMAGE]),
                snippet=place.snippet,
                metadata=shown.metadata,
                copies=tuple(copies),
                repeats=self._repeated(payload) if details else None,
            )
        ]

    def _locations(self, payload: Mapping[str, Any], where: Where) -> list[Location]:
        """The files that hold the page, those that the filter means first."""
        manifest = self._parts.manifest
        sha256 = str(payload[schema.REVISION])
        records = manifest.documents_of(sha256)
        if records:
            found = [Location(record.doc_id, record.path, dict(record.metadata)) for record in records]
        elif manifest.is_done(sha256) is None:
            # The index was filled on another machine: what the store says of the files.
            stored = zip(payload[schema.DOC_ID], payload[schema.PATH], payload[schema.META], strict=True)
            found = [Location(str(doc_id), Path(path), dict(meta)) for doc_id, path, meta in stored]
        else:
            return []
        # Of a page's files only those that match all of a filter: the store matches each part of it with any of them.
        meant = [place for place in found if is_meant(place.doc_id, place.path, place.metadata, where)]
        return meant + [place for place in found if place not in meant] if meant else []

    def _repeated(self, payload: Mapping[str, Any]) -> tuple[str, int] | None:
        if schema.NEAR not in payload:
            return None
        for point in self._store.fetch([payload[schema.NEAR]], vectors=False):
            for location in self._locations(point.payload, {}):
                return location.doc_id, int(point.payload[schema.PAGE])
        return None  # the earlier page was removed

    # -- filters -------------------------------------------------------------------------------------------

    def _conditions(self, where: Where) -> dict[str, Any] | None:
        """Translate a user's filter to payload keys; None if nothing can match."""
        conditions: dict[str, Scalar | Sequence[Scalar]] = {}
        for key, value in where.items():
            if key != "path":
                conditions[_OWN_KEYS.get(key, f"{schema.META}.{key}")] = value
        if "path" in where:
            if not self._parts.manifest.contents() and self._store.count():
                raise InvalidInputError(
                    "The documents of this index are listed elsewhere, in the folder of files that it was filled with: "
                    "filter by doc_id or metadata, or open it with that folder."
                )
            ids = self._matching_ids(where["path"])
            if "doc_id" in where:
                asked = where["doc_id"]
                wanted = {asked} if isinstance(asked, str | int | float) else set(asked)
                ids = [doc_id for doc_id in ids if doc_id in wanted]
            if not ids:
                return None
            conditions[schema.DOC_ID] = ids
        return conditions

    def _matching_ids(self, value: Scalar | Sequence[Scalar]) -> list[str]:
        globs = path_globs(value)
        return [
            record.doc_id for record in self._parts.manifest.documents() if matches(record.doc_id, record.path, globs)
        ]


def _folded(hits: Sequence[StoreHit]) -> tuple[dict[str, StoreHit], dict[str, StoreHit]]:
    """Pages by id, and the best region of each page by the page's id, both best first."""
    pages: dict[str, StoreHit] = {}
    regions: dict[str, StoreHit] = {}
    for hit in hits:
        of = pages if hit.payload.get(schema.KIND) == "page" else regions
        of.setdefault(str(hit.payload.get(schema.PAGE_ID, hit.id)), hit)
    return pages, regions
