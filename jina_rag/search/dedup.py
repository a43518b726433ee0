"""Hits that show nearly the same, folded into the first of them; see `jina_rag.catalog.near_duplicates.page_match`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jina_rag import scoring
from jina_rag.catalog.near_duplicates.page_match import SIGNATURE_DIM, PageContent, difference
from jina_rag.types import Point

MIN_SIGNATURE_COSINE = 0.5
"""Pages whose signatures are less alike are not held against each other: one product tells most of them apart."""


class Deduplicator:
    """Folds pages, which come one by one, best first, into the first page of a group that they show the same as.

    Each page is held against the first page of every group: none drifts in through a third.
    """

    def __init__(self, image_folder: Path | None) -> None:
        """Begin without groups.

        Args:
            image_folder: Where the screenshots lie. Without them the words alone must agree, all of them.
        """
        self._folder = image_folder
        self._firsts: list[PageContent] = []
        self._signatures = np.zeros((16, SIGNATURE_DIM), dtype=np.float32)

    def fold(self, point: Point) -> tuple[int, float] | None:
        """The group that a page folds into, counted from 0, and its similarity to the first page, 0 to 1.

        None for a page that begins a group.
        """
        page, count = PageContent.of_payload(point.payload, self._folder), len(self._firsts)
        cosines = scoring.similarity(self._signatures[:count], page.signature[None])[:, 0]
        # Those of which nothing is known have zeros.
        for number in np.flatnonzero((cosines >= MIN_SIGNATURE_COSINE) | (cosines == 0)).tolist():
            off = difference(self._firsts[number], page)
            if off is not None:
                return number, 1 - off
        if count == len(self._signatures):
            # Twice as large each time, so that not every page copies all before it.
            self._signatures = np.concatenate([self._signatures, np.zeros_like(self._signatures)])
        self._signatures[count] = page.signature
        self._firsts.append(page)
        return None
