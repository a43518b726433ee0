"""Deduplication of hits: near-duplicate pages are merged into the hit with the highest score.

`jina_rag.catalog.near_duplicates.page_match` compares two pages.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jina_rag import scoring
from jina_rag.catalog.near_duplicates.page_match import SIGNATURE_DIM, PageContent, difference
from jina_rag.types import Point

MIN_SIGNATURE_COSINE = 0.5
"""Minimum cosine similarity of the signatures of two pages for a full comparison of the pages. One matrix product
excludes most pairs of pages."""


class Deduplicator:
    """Assigns near-duplicate pages to groups. Pages are passed to `fold` one by one, best first.

    A page is compared only with the first page of each group, so that two different pages cannot join one group through
    a third page.
    """

    def __init__(self, image_folder: Path | None) -> None:
        """Create a deduplicator without groups.

        Args:
            image_folder: Folder of the screenshots. If None, two pages match only if all words of the pages are equal.
        """
        self._folder = image_folder
        self._first_pages: list[PageContent] = []
        self._signatures = np.zeros((16, SIGNATURE_DIM), dtype=np.float32)

    def fold(self, point: Point) -> tuple[int, float] | None:
        """Assign a page to a group of near-duplicate pages; a page without a match starts a new group.

        Args:
            point: Point of the page, with the payload.

        Returns:
            The index of the group, from 0, and the similarity of the page to the first page of the group, from 0 to 1;
            None if the page starts a new group.
        """
        page, count = PageContent.of_payload(point.payload, self._folder), len(self._first_pages)
        cosines = scoring.similarity(self._signatures[:count], page.signature[None])[:, 0]
        # A page without a signature has a zero vector and is always compared.
        for number in np.flatnonzero((cosines >= MIN_SIGNATURE_COSINE) | (cosines == 0)).tolist():
            distance = difference(self._first_pages[number], page)
            if distance is not None:
                return number, 1 - distance
        if count == len(self._signatures):
            # Doubling the capacity keeps the amortized cost of appending constant.
            self._signatures = np.concatenate([self._signatures, np.zeros_like(self._signatures)])
        self._signatures[count] = page.signature
        self._first_pages.append(page)
        return None
