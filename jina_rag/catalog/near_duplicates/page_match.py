"""Definition of equal and near-duplicate pages, by images and words, for ingestion and search.

Two pages are equal if all of the following hold:

- After alignment, the images differ by at most 0.2 at any point; a tick in a box makes a difference of 0.4.
- No number of one page replaces a number of the other.
- For each word without a counterpart on the other page, the images differ at its box no more than at the boxes of the
  common words.

A scan with slightly different OCR text therefore equals the original page. A form that was filled in differently
does not equal the blank form.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jina_rag.catalog.near_duplicates import image_match
from jina_rag.catalog.near_duplicates.text_difference import (
    has_changed_number,
    normalize_words,
    overlap,
    unmatched_words,
)
from jina_rag.scoring import normalise
from jina_rag.stores import schema
from jina_rag.stores.images import checked_name
from jina_rag.types import Float32, Page

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_DIFFERENCE = 0.2
"""Maximum difference of the images of equal pages, from 0 to 1; a tick in a box makes a difference of 0.4."""
MIN_OVERLAP = 0.9
"""Minimum fraction of common words of near-duplicate pages with at least 20 words."""
SIGNATURE_DIM = 4096
_FEW_WORDS = 20
_NOISE_LEVEL = 0.005
"""An image difference of at most this value at the box of a word always counts as noise."""


@dataclass(frozen=True, eq=False)
class PageContent:
    """Words, boxes and image of a page, to compare with another page.

    Attributes:
        words: Words without case, accents and punctuation.
        boxes: Boxes of the words as fractions of the page, shape (words, 4), float32; None if unknown.
        image: Page screenshot, or the path of its file; None if unavailable.
    """

    words: Sequence[str] = ()
    boxes: Float32 | None = None
    image: Path | Image | None = None

    @classmethod
    def of_page(cls, page: Page) -> PageContent:
        """Return the normalized words, word boxes and screenshot of a page that is being indexed."""
        boxes = np.array([word.box for word in page.words], dtype=np.float32).reshape(-1, 4)
        return cls._from_words([word.text for word in page.words], boxes, page.screenshot.image)

    @classmethod
    def of_payload(cls, payload: Mapping[str, Any], image_folder: Path | None) -> PageContent:
        """Return the normalized words, word boxes and screenshot of a stored page.

        Args:
            payload: Payload of the page, read from the store.
            image_folder: Folder of the image files; None to compare words only.
        """
        name = checked_name(payload.get(schema.IMAGE))
        boxes = schema.decode_grid(payload[schema.WORDS]).boxes if schema.WORDS in payload else None
        image = image_folder / name if image_folder is not None and name is not None else None
        return cls._from_words(str(payload.get(schema.TEXT, "")).split(), boxes, image)

    @classmethod
    def _from_words(cls, words: Sequence[str], boxes: Float32 | None, image: Path | Image | None) -> PageContent:
        normalized = normalize_words(words)
        if boxes is not None:
            boxes = boxes[list(normalized)] if len(boxes) == len(words) else None
        return cls(tuple(normalized.values()), boxes, image)

    @cached_property
    def pixels(self) -> Float32 | None:
        """Screenshot in grayscale, shape (height, width), float32; see `image_match.load`."""
        return None if self.image is None else image_match.load(self.image)

    @cached_property
    def signature(self) -> Float32:
        """Unit vector that is similar for equal pages, shape (4096,), float32.

        For a page with at least 20 words, the vector represents the words; otherwise the image. The
        vector is zero for a blank page, and for a page with fewer words and no image.
        """
        if len(self.words) >= _FEW_WORDS:
            bins = [zlib.crc32(word.encode()) % SIGNATURE_DIM for word in self.words]
            values = np.minimum(np.bincount(bins, minlength=SIGNATURE_DIM), 1)
        elif self.pixels is not None:
            import cv2

            values = cv2.resize(self.pixels, (32, 32), interpolation=cv2.INTER_AREA)
        else:
            values = np.zeros(1)
        return normalise(np.resize(values - values.mean(), SIGNATURE_DIM))


def is_near_duplicate(a: PageContent, b: PageContent) -> bool:
    """Return whether two pages are near-duplicates, for example the same page in two versions of a report.

    If at least one page has 20 or more words, the pages must share at least 90 % of the words. Otherwise the pages
    must be equal; see `difference`.

    Args:
        a: First page.
        b: Second page.
    """
    if max(len(a.words), len(b.words)) >= _FEW_WORDS:
        return overlap(a.words, b.words) >= MIN_OVERLAP
    return difference(a, b) is not None


def difference(a: PageContent, b: PageContent) -> float | None:
    """Return the maximum image difference of two equal pages, from 0 to 1; None for different pages.

    If the image of one page is missing, the pages are equal if all words match, except for OCR errors.

    Args:
        a: First page.
        b: Second page.
    """
    only_a, only_b = unmatched_words(a.words, b.words) if a.words and b.words else ([], [])
    if a.pixels is None or b.pixels is None:
        return 0.0 if a.words and b.words and not only_a and not only_b else None
    if has_changed_number(only_a, only_b):
        return None
    diff_map = image_match.difference_map(a.pixels, b.pixels, _matching_points(a, b))
    if diff_map is None or diff_map.max() > MAX_DIFFERENCE or (only_a and a.boxes is None):
        return None
    if only_a and a.boxes is not None:
        # The difference at matched words is the level that resolution and compression cause everywhere on the page.
        x0, y0, x1, y1 = (np.nan_to_num(a.boxes).clip(0, 1) * np.tile(diff_map.shape[::-1], 2)).astype(int).T
        slices = zip(y0, y1 + 1, x0, x1 + 1, strict=True)
        word_diffs = np.array([diff_map[top:bottom, left:right].max(initial=0) for top, bottom, left, right in slices])
        is_unmatched = np.isin(a.words, only_a)
        if word_diffs[is_unmatched].max() > max(_NOISE_LEVEL, word_diffs[~is_unmatched].max(initial=0)):
            return None
    return float(diff_map.max())


def _matching_points(a: PageContent, b: PageContent) -> image_match.PointPairs | None:
    """Return the box centers on `a` and on `b`, each of shape (n, 2), of the words that occur once on both pages.

    Return None if a page has no boxes.
    """
    if a.boxes is None or b.boxes is None:
        return None
    counts, other_counts = Counter(a.words), Counter(b.words)
    common = [word for word, count in counts.items() if count == other_counts[word] == 1]
    first, second = (
        boxes[[words.index(word) for word in common]].reshape(-1, 2, 2).mean(axis=1)
        for words, boxes in ((a.words, a.boxes), (b.words, b.boxes))
    )
    return first, second
