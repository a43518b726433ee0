"""From a question to ranked pages: candidates by two cheap vectors, then exact MaxSim on the stored ones."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from jina_rag import lexical
from jina_rag.errors import IndexStateError, InvalidInputError
from jina_rag.protocols import Embedder, MultiVectorStore
from jina_rag.retrieval.explain import Explanation, explain
from jina_rag.retrieval.manifest import Manifest
from jina_rag.retrieval.places import Place, find_place
from jina_rag.stores import schema
from jina_rag.stores.images import ImageFiles
from jina_rag.types import Float32, Prefetch, Scalar, ScoredPage, StoreHit, Where

EXHAUSTIVE_PAGES = 400
"""Up to so many pages every page is scored: the candidate stage loses the answer for about 2 questions in 100."""
POOL = 60
"""Pages whose MaxSim is corrected for hubness; further down none comes far enough up to matter."""
PREFETCH = Prefetch(dense=150, lexical=50)

_OWN_KEYS = {"doc_id": schema.DOC_ID, "page": schema.PAGE}


class Searcher:
    """Searches one index. Holds no state of its own; several threads may use it."""

    def __init__(
        self, *, store: MultiVectorStore, manifest: Manifest, images: ImageFiles, embedder: Embedder, dim: int
    ) -> None:
        self._store = store
        self._truncate_dim = dim if dim != embedder.dim else None
        self._manifest = manifest
        self._images = images
        self._embedder = embedder

    def search(self, question: str, *, k: int, where: Where | None, details: bool) -> list[ScoredPage]:
        """See `DocumentIndex.search`."""
        if not question.strip():
            raise InvalidInputError("The question is empty: ask something in words.")
        conditions = self._conditions(where or {})
        encoded = self._embedder.encode_query([question], truncate_dim=self._truncate_dim)
        assert encoded.single is not None
        assert encoded.multi is not None
        query = encoded.multi[0]
        if conditions is None:
            return []
        exhaustive = self._store.count() <= EXHAUSTIVE_PAGES
        hits = self._store.search(
            query,
            limit=max(POOL, 2 * k) if self._embedder.hubness else k,
            dense=None if exhaustive else encoded.single[0],
            lexical=None if exhaustive else lexical.query_vector(question),
            prefetch=None if exhaustive else PREFETCH,
            where=conditions,
            # The rest of a payload is long: it is fetched for the pages that are shown.
            keys=(schema.BIAS,),
        )
        scores = {hit.id: self._score(hit, query) for hit in hits}
        best = sorted(scores, key=lambda point_id: -scores[point_id])[:k]
        points = self._store.fetch(best, vectors=False)
        return [self._page(point.payload, scores[point.id], query, details=details) for point in points]

    def explain(self, question: str, hit: ScoredPage) -> Explanation:
        """See `DocumentIndex.explain`."""
        record = self._manifest.document(hit.doc_id)
        found = self._store.fetch([schema.point_id(hit.doc_id, record.sha256, hit.page)]) if record is not None else []
        if not found:
            raise IndexStateError(f"{hit.doc_id}, page {hit.page} is not in this index: search again.")
        point = found[0]
        encoded = self._embedder.encode_query([question], single=False)
        assert encoded.multi is not None
        image = self._images.path(point.payload[schema.IMAGE])
        if point.multi is None or schema.GRID not in point.payload:
            return Explanation.empty(image)
        return explain(encoded.multi[0], point.multi, schema.decode_grid(point.payload[schema.GRID]), image)

    def _score(self, hit: StoreHit, query: Float32) -> float:
        """The mean over the question's tokens, so that long and short questions compare; see `hubness`."""
        return hit.score / len(query) - self._embedder.hubness * float(hit.payload.get(schema.BIAS, 0.0))

    def _page(self, payload: Mapping[str, Any], score: float, query: Float32, *, details: bool) -> ScoredPage:
        record = self._manifest.document(payload[schema.DOC_ID])
        if record is None:
            raise IndexStateError(
                f"The store has a page of {payload[schema.DOC_ID]!r}, unknown to the manifest: ingest it again."
            )
        place = find_place(query, payload, self._images.folder) if details else Place()
        return ScoredPage(
            doc_id=record.doc_id,
            path=record.path,
            page=int(payload[schema.PAGE]),
            page_count=int(payload[schema.PAGE_COUNT]),
            score=score,
            region=place.region,
            image_path=self._images.path(payload[schema.IMAGE]),
            snippet=place.snippet,
            metadata=dict(payload.get(schema.META, {})),
        )

    def _conditions(self, where: Where) -> dict[str, Any] | None:
        """Translate a user's filter to payload keys; None if nothing can match."""
        conditions: dict[str, Scalar | Sequence[Scalar]] = {schema.KIND: "page"}
        for key, value in where.items():
            if key != "path":
                conditions[_OWN_KEYS.get(key, f"{schema.META}.{key}")] = value
        if "path" in where:
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
        globs = [value] if isinstance(value, str) else value
        if not isinstance(globs, Sequence) or not all(isinstance(glob, str) for glob in globs):
            raise InvalidInputError(
                f"The filter 'path' is {value!r}: give a glob such as 'reports/*.pdf', or a list of them."
            )
        return [
            record.doc_id
            for record in self._manifest.documents()
            for glob in globs
            if fnmatch.fnmatchcase(record.doc_id, str(glob)) or fnmatch.fnmatchcase(record.path.as_posix(), str(glob))
        ]
