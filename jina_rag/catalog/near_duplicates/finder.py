"""Pages that say the same again: an earlier version of a report, a second scan.

They are found by their dense vectors, which are in the index anyway, and held against each other by `page_match`. They
are marked, not merged: both are stored, and a search can show one of them.
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
"""Dense vectors less alike than this are not looked at closer."""
_MAX_CANDIDATES = 3
_KEYS = (schema.TEXT, schema.WORDS, schema.IMAGE, schema.NEAR, schema.REVISION)


class NearDuplicateFinder:
    """Looks for an earlier page that a new one nearly repeats."""

    def __init__(self, store: MultiVectorStore, images: ImageFiles) -> None:
        self._store = store
        self._images = images

    def find(self, pages: Sequence[tuple[str, Page, Float32]], *, ignore: Collection[str] = ()) -> dict[str, str]:
        """Find near-duplicates among the stored pages, and among the new ones.

        Args:
            pages: Id of the point to come, the page, its dense vector, shape (dim,).
            ignore: Contents (hashes) whose pages are about to go.

        Returns:
            Id → id of the earlier page; where that one repeats another itself, the first of them.
        """
        original_ids: dict[str, str] = {}
        earlier: list[tuple[str, PageContent, Float32]] = []
        for point_id, page, dense in pages:
            if np.linalg.norm(dense) > 1e-6:
                content = PageContent.of_page(page)
                candidates = [(id_, other) for id_, other, vector in earlier if float(vector @ dense) >= MIN_COSINE]
                for first, other in [*self._stored(point_id, dense, ignore), *candidates]:
                    if is_near_duplicate(content, other):
                        original_ids[point_id] = original_ids.get(first, first)
                        break
                earlier.append((point_id, content, dense))
        return original_ids

    def _stored(self, point_id: str, dense: Float32, ignore: Collection[str]) -> Iterator[tuple[str, PageContent]]:
        for hit in self._store.nearest(dense, limit=_MAX_CANDIDATES, where={schema.KIND: "page"}, keys=_KEYS):
            first = str(hit.payload.get(schema.NEAR) or hit.id)
            # A page that is made again meets itself, and those that repeat it.
            if first != point_id and hit.score >= MIN_COSINE and hit.payload.get(schema.REVISION) not in ignore:
                yield first, PageContent.of_payload(hit.payload, self._images.folder)
