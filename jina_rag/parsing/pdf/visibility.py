"""Finds the words of the text layer that nobody can see, by the pixels of the rendered page.

Almost every word is visible: its box has pixels near the color of the text, and pixels of another color. Only for the
words that fail this test, for words on images and for words that overlap other words, the page is drawn a second time
without its text. A word that changes no pixel is invisible.

An invisible word stays if it repeats a picture, as the invisible text of a scan does (`repeated_text`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from jina_rag.parsing.layout.boxes import area, intersection
from jina_rag.parsing.pdf.repeated_text import repeats_picture
from jina_rag.parsing.pdf.words import Color, LayerWord
from jina_rag.types import Box

Pixels: TypeAlias = npt.NDArray[np.uint8]
PixelBox: TypeAlias = tuple[int, int, int, int]

# Distances of colors are the maximum over the channels, from 0 to 255. A smaller distance cannot be seen.
_CONTRAST = 16
# A pixel closer than this to the color of the text may be a pixel of the text.
_SAME_COLOR = 32
# Letters cover less than this fraction of the box of a word.
_LETTER_SHARE = 0.6
# The pixel of a word that is nearest to the color of the text has at most this fraction of the maximum distance.
_NEAREST = 0.5
# Text of this font size in points, or smaller, cannot be read.
_SMALLEST = 1.0
# Rows and columns of the pixels that are compared first, as fractions of the box of a word.
_ROWS = (0.4, 0.55, 0.7)
_COLUMNS = (np.arange(16) + 0.5) / 16
# Words in boxes of fewer pixels than this have no contrast.
_LEAST_HEIGHT = 4
# A visible word changes at least this many pixels, and at least this fraction of its box.
_FEW_PIXELS = 2
_CHANGED_SHARE = 0.004
# Fraction of the height of a box, at the top and at the bottom, into which the letters of other lines may reach.
_MARGIN = 0.2
# A word lies on an image that covers more than this fraction of the word.
_ON_IMAGE = 0.5
# Side of the cells in which overlapping words are searched, in points.
_CELL = 24.0


@dataclass(frozen=True, slots=True)
class TextFreePage:
    """A page drawn without its text.

    Attributes:
        pixels: RGB pixels of the same size as the screenshot.
        drawn: Indices of the words whose text could not be removed, for example the words of annotations.
        is_replaced: Function that returns whether something opaque is painted over a word before another word is
            painted at the same place. The arguments are the indices of the words.
    """

    pixels: Pixels
    drawn: frozenset[int]
    is_replaced: Callable[[int, int], bool]


def find_visible(
    words: Sequence[LayerWord],
    images: Sequence[Box],
    pixels: Pixels,
    zoom: float,
    draw_without_text: Callable[[], TextFreePage],
) -> list[bool]:
    """Return whether each word is visible, or repeats a visible picture.

    Args:
        words: Words of `clean_words`.
        images: Boxes of the raster images in points of the displayed page.
        pixels: RGB pixels of the rendered page, shape (height, width, 3).
        zoom: Resolution of `pixels` in pixels per point.
        draw_without_text: Function that draws the page without its text. It is called for few pages.
    """
    if not words:
        return []
    return _Check(words, images, pixels, zoom).run(draw_without_text)


class _Check:
    """The check of one page."""

    def __init__(self, words: Sequence[LayerWord], images: Sequence[Box], pixels: Pixels, zoom: float) -> None:
        self._words = words
        self._images = images
        self._pixels = pixels
        self._zoom = zoom
        self._overlapping: set[int] = set()
        self._unclaimed: npt.NDArray[np.bool_] | None = None
        height, width = pixels.shape[:2]
        scaled = np.array([word.box for word in words]) * zoom
        low = np.floor(scaled[:, :2] + 0.001).astype(np.intp).clip(0, (width - 1, height - 1))
        high = np.ceil(scaled[:, 2:] - 0.001).astype(np.intp).clip(low + 1, (width, height))
        self._boxes = np.concatenate([low, high], axis=1)

    def run(self, draw_without_text: Callable[[], TextFreePage]) -> list[bool]:
        words = self._words
        visible = [word.size > _SMALLEST for word in words]
        unpainted = {number for number, word in enumerate(words) if visible[number] and not word.is_painted}
        suspects: set[int] = set()
        for number in self._unclear():
            if visible[number] and number not in unpainted:
                verdict = self._verdict(number)
                if verdict is None:
                    suspects.add(number)
                visible[number] = verdict is not False
        pairs = {pair for pair in self._overlaps() if visible[pair[0]] and visible[pair[1]]}
        self._overlapping = {number for pair in pairs for number in pair}
        suspects |= self._overlapping - unpainted
        suspects.update(number for number in self._on_images() if visible[number] and number not in unpainted)
        hidden = set(unpainted)
        if suspects:
            page = draw_without_text()
            hidden.update(number for number in suspects - page.drawn if not self._changes(number, page))
            hidden.update(number for number in suspects & page.drawn if not self._has_contrast(number))
            for first, second in pairs:
                if hidden.isdisjoint((first, second)):
                    hidden.update(
                        below for below, above in ((first, second), (second, first)) if page.is_replaced(below, above)
                    )
        if hidden:
            covered = {number for pair in pairs for number in pair if not hidden.issuperset(pair)}
            candidates = sorted(hidden - covered)
            repeats = repeats_picture(self._pixels, self._boxes[candidates])
            kept = {number for number, is_repeat in zip(candidates, repeats, strict=True) if is_repeat}
            for number in hidden - kept:
                visible[number] = False
        return visible

    def _unclear(self) -> list[int]:
        """Return the words that a few pixels of each word do not show to be visible."""
        x0, y0, x1, y1 = self._boxes.T[:, :, None]
        columns = (x0 + (x1 - x0) * _COLUMNS).astype(np.intp)
        rows = (y0 + (y1 - y0) * _ROWS).astype(np.intp)
        sample = self._pixels[rows[:, :, None], columns[:, None, :]].reshape(len(rows), -1, 3)
        colors = np.array([word.color or (0, 0, 0) for word in self._words], dtype=np.uint8)[:, None]
        distances = (np.maximum(sample, colors) - np.minimum(sample, colors)).max(axis=2)
        nearest, farthest = distances.min(axis=1), distances.max(axis=1)
        share = (distances < _SAME_COLOR).mean(axis=1)
        clear = (farthest >= _CONTRAST) & (nearest <= _NEAREST * farthest) & (share <= _LETTER_SHARE)
        clear &= np.array([word.color is not None for word in self._words])
        return [int(number) for number in np.flatnonzero(~clear)]

    def _verdict(self, number: int) -> bool | None:
        """Return whether a word is visible, by all pixels of the word; None if the pixels do not show it."""
        word = self._words[number]
        if word.color is None:
            return None
        distances = _distances(self._area(number), word.color)
        farthest = int(distances.max())
        if farthest < _CONTRAST:
            return False
        if len(distances) < _LEAST_HEIGHT:
            return True
        is_clear = int(distances.min()) <= _NEAREST * farthest and (distances < _SAME_COLOR).mean() <= _LETTER_SHARE
        return True if is_clear else None

    def _has_contrast(self, number: int) -> bool:
        pixels = self._area(number)
        return len(pixels) < _LEAST_HEIGHT or _contrast(pixels) >= _CONTRAST

    def _area(self, number: int) -> Pixels:
        x0, y0, x1, y1 = self._boxes[number]
        return self._pixels[y0:y1, x0:x1]

    def _changes(self, number: int, page: TextFreePage) -> bool:
        """Return whether the text of a word changes pixels. On another word, the color of the pixels decides."""
        word, after = self._words[number], self._area(number)
        x0, y0, x1, y1 = self._boxes[number]
        before = page.pixels[y0:y1, x0:x1]
        change = _difference(before, after)
        least = max(_FEW_PIXELS, _CHANGED_SHARE * change.size)
        if word.color is None or number not in self._overlapping:
            # The letters of the lines above and below reach into the box.
            margin = int(_MARGIN * len(change))
            changed = (change[margin : len(change) - margin] >= _CONTRAST).sum()
        else:
            before_distances, after_distances = (_distances(pixels, word.color) for pixels in (before, after))
            changed = (before_distances.astype(np.int16) - after_distances >= _CONTRAST).sum()
        return bool(changed >= least) or self._has_ink_around(number, page)

    def _has_ink_around(self, number: int, page: TextFreePage) -> bool:
        """Return whether text that is in the box of no word is near a word, because the box of the word is wrong."""
        if self._unclaimed is None:
            self._unclaimed = _difference(page.pixels, self._pixels) >= _CONTRAST
            for x0, y0, x1, y1 in self._boxes:
                self._unclaimed[max(y0 - 2, 0) : y1 + 2, max(x0 - 2, 0) : x1 + 2] = False
        x0, y0, x1, y1 = self._boxes[number]
        margin = int(max((y1 - y0) / 2, self._words[number].size * self._zoom / 2))
        ink = self._unclaimed[max(y0 - margin, 0) : y1 + margin, max(x0 - margin, 0) : x1 + margin]
        return bool(ink.sum() >= max(_FEW_PIXELS, _CHANGED_SHARE * (y1 - y0) * (x1 - x0)))

    def _overlaps(self) -> Iterator[tuple[int, int]]:
        """Yield pairs of words with different texts that lie on each other: the center of one is in the other."""
        cells: dict[tuple[int, int], list[int]] = {}
        centers = []
        for number, word in enumerate(self._words):
            x0, y0, x1, y1 = word.box
            center = (x0 + x1) / 2, (y0 + y1) / 2
            centers.append(center)
            cells.setdefault((int(center[0] // _CELL), int(center[1] // _CELL)), []).append(number)
        for number, word in enumerate(self._words):
            x0, y0, x1, y1 = word.box
            for column in range(int(x0 // _CELL), int(x1 // _CELL) + 1):
                for row in range(int(y0 // _CELL), int(y1 // _CELL) + 1):
                    for other in cells.get((column, row), ()):
                        x, y = centers[other]
                        if x0 < x < x1 and y0 < y < y1 and other != number and self._words[other].text != word.text:
                            yield number, other

    def _on_images(self) -> list[int]:
        """Return the words that lie on a raster image."""
        return [
            number
            for number, word in enumerate(self._words)
            if any(intersection(word.box, image) > _ON_IMAGE * area(word.box) for image in self._images)
        ]


def _difference(a: Pixels, b: Pixels) -> Pixels:
    """Return the maximum difference over the channels, shape (height, width)."""
    return (np.maximum(a, b) - np.minimum(a, b)).max(axis=-1)  # type: ignore[no-any-return]


def _distances(pixels: Pixels, color: Color) -> Pixels:
    return _difference(pixels, np.array(color, dtype=np.uint8))


def _contrast(pixels: Pixels) -> int:
    """Return the maximum difference of two pixels, over the channels."""
    return int((pixels.max(axis=(0, 1)) - pixels.min(axis=(0, 1))).max())
