"""Detection of near-duplicate pages during ingestion, for example an earlier version of a report or a second scan.

Candidates are found by the dense vectors of the index and compared by `page_match`. Near-duplicates are marked, not
merged: the index stores all pages, and a search can merge near-duplicates into one hit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from jina_rag.catalog.near_duplicates.page_match import PageContent, is_near_duplicate
from jina_rag.protocols import MultiVectorStore
from jina_rag.stores import schema
from jina_rag.stores.images import ImageFiles
from jina_rag.types import Float32, Page

MIN_COSINE = 0.97
"""Minimum cosine similarity of the dense vectors of a candidate."""
_MAX_CANDIDATES = 3
_KEYS = (schema.TEXT, schema.WORDS, schema.IMAGE, schema.NEAR, schema.REVISION)


class NearDuplicateFinder:
    """Compares new pages with stored pages and with each other, to find near-duplicates."""

    def __init__(self, store: MultiVectorStore, images: ImageFiles) -> None:
        self._store = store
        self._images = images

    def find(self, pages: Sequence[tuple[str, Page, Float32]], *, ignore: Collection[str] = ()) -> dict[str, str]:
        """Return the new pages that nearly duplicate an earlier page, stored or new.

        Args:
            pages: (point id, page, dense vector) of each new page; dense vectors of shape (dim,), float32.
            ignore: SHA-256 hashes of contents to skip, because their pages will be deleted.

        Returns:
            Point id of the new page → point id of the earlier page. If the earlier page is itself a near-duplicate, the
            value is the point id of its original.
        """
        original_ids: dict[str, str] = {}
        earlier: list[tuple[str, PageContent, Float32]] = []
        for point_id, page, dense in pages:
            if np.linalg.norm(dense) > 1e-6:
                content = PageContent.of_page(page)
                candidates = [(id_, other) for id_, other, vector in earlier if float(vector @ dense) >= MIN_COSINE]
                for other_id, other in [*self._stored_candidates(point_id, dense, ignore), *candidates]:
                    if is_near_duplicate(content, other):
                        original_ids[point_id] = original_ids.get(other_id, other_id)
                        break
                earlier.append((point_id, content, dense))
        return original_ids

    def _stored_candidates(
        self, point_id: str, dense: Float32, ignore: Collection[str]
    ) -> Iterator[tuple[str, PageContent]]:
        for hit in self._store.nearest(dense, limit=_MAX_CANDIDATES, where={schema.KIND: "page"}, keys=_KEYS):
            original_id = str(hit.payload.get(schema.NEAR) or hit.id)
            # A re-indexed page is compared neither with its stored copy nor with the near-duplicates of this copy.
            if original_id != point_id and hit.score >= MIN_COSINE and hit.payload.get(schema.REVISION) not in ignore:
                yield original_id, PageContent.of_payload(hit.payload, self._images.folder)
