"""Detection of near-duplicate pages during ingestion, for example an earlier version of a report or a second scan.

Candidates are found by the dense vectors of the index and compared by `page_match`. Near-duplicates are marked, not
merged: the index stores all pages, and a search can merge near-duplicates into one hit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import chain

import numpy as np

from jina_rag.catalog.near_duplicates.page_match import PageContent, is_near_duplicate
from jina_rag.protocols import MultiVectorStore
from jina_rag.stores import schema
from jina_rag.stores.images import ImageFiles
from jina_rag.types import Float32, Page, StoreHit, StoreQuery

MIN_COSINE = 0.97
"""Minimum cosine similarity of the dense vectors of a candidate."""
_MAX_CANDIDATES = 3
_KEYS = (schema.NEAR, schema.REVISION)


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
        searchable = [item for item in pages if np.linalg.norm(item[2]) > 1e-6]
        if not searchable:
            return {}
        dense = np.stack([vector for _, _, vector in searchable])
        cosines = dense @ dense.T
        contents: dict[int, PageContent] = {}  # filled on demand, because most pages have no candidate

        def content_of(position: int) -> PageContent:
            if position not in contents:
                contents[position] = PageContent.of_page(searchable[position][1])
            return contents[position]

        original_ids: dict[str, str] = {}
        for position, candidates in enumerate(self._stored_candidates(searchable, ignore)):
            point_id = searchable[position][0]
            earlier = np.flatnonzero(cosines[position, :position] >= MIN_COSINE)
            for other_id, other in chain(
                ((original_id, stored) for original_id, hit in candidates if (stored := self._stored_content(hit))),
                ((searchable[number][0], content_of(int(number))) for number in earlier),
            ):
                if is_near_duplicate(content_of(position), other):
                    original_ids[point_id] = original_ids.get(other_id, other_id)
                    break
        return original_ids

    def _stored_candidates(
        self, pages: Sequence[tuple[str, Page, Float32]], ignore: Collection[str]
    ) -> Iterator[list[tuple[str, StoreHit]]]:
        """Yield the candidates among the stored pages for each page: (id of the original page, hit)."""
        queries = [StoreQuery(dense, _MAX_CANDIDATES, {schema.KIND: "page"}, keys=_KEYS) for _, _, dense in pages]
        for (point_id, _, _), hits in zip(pages, self._store.query_batch(queries), strict=True):
            candidates = [(str(hit.payload.get(schema.NEAR) or hit.id), hit) for hit in hits]
            yield [
                (original_id, hit)
                for original_id, hit in candidates
                # A re-indexed page is compared neither with its stored copy nor with the near-duplicates of this copy.
                if original_id != point_id
                and hit.score >= MIN_COSINE
                and hit.payload.get(schema.REVISION) not in ignore
            ]

    def _stored_content(self, hit: StoreHit) -> PageContent | None:
        """Return the content of a stored page; None if the page was deleted after the query."""
        points = self._store.fetch([hit.id], vectors=False)
        return PageContent.of_payload(points[0].payload, self._images.folder) if points else None
