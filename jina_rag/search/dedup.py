"""Deduplication of hits: near-duplicate pages fold into the best hit.

The comparison of pages is in `jina_rag.catalog.near_duplicates.page_match`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jina_rag import scoring
from jina_rag.catalog.near_duplicates.page_match import SIGNATURE_DIM, PageContent, difference
from jina_rag.types import Point

MIN_SIGNATURE_COSINE = 0.5
"""Minimum cosine similarity of two page signatures for a full comparison. One matrix product excludes most pairs."""


class Deduplicator:
    """Folds near-duplicate pages into the first page of their group; receives the pages one by one, best first.

    Each page is compared only with the first page of every group, so that a page cannot join through a third page.
    """

    def __init__(self, image_folder: Path | None) -> None:
        """Create a deduplicator without groups.

        Args:
            image_folder: Folder of the screenshots. If None, pages match only if all their words are equal.
        """
        self._folder = image_folder
        self._first_pages: list[PageContent] = []
        self._signatures = np.zeros((16, SIGNATURE_DIM), dtype=np.float32)

    def fold(self, point: Point) -> tuple[int, float] | None:
        """Return the number of the page's group, from 0, and its similarity to the group's first page, from 0 to 1.

        Args:
            point: The page's point.

        Returns:
            Group and similarity; None if the page starts a new group.
        """
        page, count = PageContent.of_payload(point.payload, self._folder), len(self._first_pages)
        cosines = scoring.similarity(self._signatures[:count], page.signature[None])[:, 0]
        # A page without a signature has a zero vector and is always compared.
        for number in np.flatnonzero((cosines >= MIN_SIGNATURE_COSINE) | (cosines == 0)).tolist():
            distance = difference(self._first_pages[number], page)
            if distance is not None:
                return number, 1 - distance
        if count == len(self._signatures):
            # Double the capacity, so that appending stays amortized constant.
            self._signatures = np.concatenate([self._signatures, np.zeros_like(self._signatures)])
        self._signatures[count] = page.signature
        self._first_pages.append(page)
        return None
