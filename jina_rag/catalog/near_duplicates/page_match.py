"""The one definition of pages that show the same, for indexing and for search, by their images and their words.

The images are laid on each other and must not differ anywhere as much as by a tick in a box; no number may stand in the
place of another; and where a word of one page has no counterpart on the other, its place must not look otherwise by
more than the words that both have do. So a scan that OCR reads a little otherwise is the same page, and a form that
somebody else filled in is not.
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
    normalized_words,
    unmatched_words,
    word_overlap,
)
from jina_rag.scoring import normalise
from jina_rag.stores import schema
from jina_rag.stores.images import checked_name
from jina_rag.types import Float32, Page

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_DIFFERENCE = 0.2
"""Greatest difference of the images of pages that show the same: a tick in a box makes 0.4."""
MIN_OVERLAP = 0.9
"""Share of words that pages of many words must have in common to say the same."""
SIGNATURE_DIM = 4096
_FEW_WORDS = 20
_NOISE_LEVEL = 0.005
"""Differences of a word's place that never tell of another word."""


@dataclass(frozen=True, eq=False)
class PageContent:
    """What of a page is compared.

    Attributes:
        words: Its words without case, accents and punctuation.
        boxes: Where they stand, shape (words, 4); None where that is not known.
        image: Its screenshot, or the file of it; None where it is elsewhere.
    """

    words: Sequence[str] = ()
    boxes: Float32 | None = None
    image: Path | Image | None = None

    @classmethod
    def of_page(cls, page: Page) -> PageContent:
        """Of a page that was just read."""
        boxes = np.array([word.box for word in page.words], dtype=np.float32).reshape(-1, 4)
        return cls._normalized([word.text for word in page.words], boxes, page.screenshot.image)

    @classmethod
    def of_payload(cls, payload: Mapping[str, Any], image_folder: Path | None) -> PageContent:
        """Of a stored page; without the folder of the screenshots it is known by its words alone."""
        name = checked_name(payload.get(schema.IMAGE))
        boxes = schema.decode_grid(payload[schema.WORDS]).boxes if schema.WORDS in payload else None
        image = image_folder / name if image_folder is not None and name is not None else None
        return cls._normalized(str(payload.get(schema.TEXT, "")).split(), boxes, image)

    @classmethod
    def _normalized(cls, words: Sequence[str], boxes: Float32 | None, image: Path | Image | None) -> PageContent:
        normalized = normalized_words(words)
        if boxes is not None:
            boxes = boxes[list(normalized)] if len(boxes) == len(words) else None
        return cls(tuple(normalized.values()), boxes, image)

    @cached_property
    def pixels(self) -> Float32 | None:
        """The screenshot as `image_match.load` gives it."""
        return None if self.image is None else image_match.load(self.image)

    @cached_property
    def signature(self) -> Float32:
        """A unit vector that is alike for pages that show the same: of the words, or of the image where these are few.

        Zeros for a page without an image and with few words, and for a blank one.
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
    """Whether pages say nearly the same, such as two versions of a report; pages of few words must show the same."""
    if max(len(a.words), len(b.words)) >= _FEW_WORDS:
        return word_overlap(a.words, b.words) >= MIN_OVERLAP
    return difference(a, b) is not None


def difference(a: PageContent, b: PageContent) -> float | None:
    """How much pages that show the same differ where they differ most, 0 to 1; None for pages that do not.

    Without an image of both, all words must agree but for what OCR mistakes.
    """
    only_a, only_b = unmatched_words(a.words, b.words) if a.words and b.words else ([], [])
    if a.pixels is None or b.pixels is None:
        return 0.0 if a.words and b.words and not only_a and not only_b else None
    if has_changed_number(only_a, only_b):
        return None
    spots = image_match.difference_map(a.pixels, b.pixels, _matching_points(a, b))
    if spots is None or spots.max() > MAX_DIFFERENCE or (only_a and a.boxes is None):
        return None
    if only_a and a.boxes is not None:
        # Words with a counterpart tell how much the images differ everywhere, by resolution and compression.
        x0, y0, x1, y1 = (np.nan_to_num(a.boxes).clip(0, 1) * np.tile(spots.shape[::-1], 2)).astype(int).T
        slices = zip(y0, y1 + 1, x0, x1 + 1, strict=True)
        word_differences = np.array(
            [spots[top:bottom, left:right].max(initial=0) for top, bottom, left, right in slices]
        )
        is_unmatched = np.isin(a.words, only_a)
        if word_differences[is_unmatched].max() > max(_NOISE_LEVEL, word_differences[~is_unmatched].max(initial=0)):
            return None
    return float(spots.max())


def _matching_points(a: PageContent, b: PageContent) -> image_match.PointPairs | None:
    """The middles of the words that stand once on each page."""
    if a.boxes is None or b.boxes is None:
        return None
    counts, other_counts = Counter(a.words), Counter(b.words)
    common = [word for word, count in counts.items() if count == other_counts[word] == 1]
    first, second = (
        boxes[[words.index(word) for word in common]].reshape(-1, 2, 2).mean(axis=1)
        for words, boxes in ((a.words, a.boxes), (b.words, b.boxes))
    )
    return first, second
