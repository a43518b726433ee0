"""Finds the words of the text layer that nobody can see, by the pixels of the rendered page.

Almost every word is visible: its box has pixels near the color of the text, and pixels of another color. Only for the
words that fail this test, for words on images and for words that overlap other words, the page is drawn a second time
without its text. A word that changes no pixel is invisible.

An invisible word stays if it repeats a picture, as the invisible text of a scan does (`repeated_text`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from jina_rag.parsing.pdf.repeated_text import repeats_picture
from jina_rag.parsing.pdf.words import SMALLEST, Color, LayerWord
from jina_rag.types import Box

Pixels: TypeAlias = npt.NDArray[np.uint8]
_Value = TypeVar("_Value", bound=np.generic)

# Distances of colors are the maximum over the channels, from 0 to 255. A smaller distance cannot be seen.
_CONTRAST = 16
# A pixel closer than this to the color of the text may be a pixel of the text.
_SAME_COLOR = 32
# Letters cover less than this fraction of the box of a word.
_LETTER_SHARE = 0.6
# The pixel of a word that is nearest to the color of the text has at most this fraction of the maximum distance.
_NEAREST = 0.5
# Rows and columns of the pixels that are compared first, as fractions of the box of a word.
_ROWS = (0.4, 0.55, 0.7)
_COLUMNS = (np.arange(14) + 0.5) / 14
# Of larger words, some pixels are compared.
_MANY_PIXELS = 30_000
# Words in boxes of fewer pixels than this have no contrast.
_LEAST_HEIGHT = 4
# A visible word changes at least this many pixels, and at least this fraction of its box.
_FEW_PIXELS = 2
_CHANGED_SHARE = 0.004
# Letters may reach over the box of a word by this number of pixels.
_BLUR = 2
# Fraction of the height of a box, at the top and at the bottom, into which the letters of other lines may reach.
_MARGIN = 0.2
# A word lies on an image that covers more than this fraction of the word.
_ON_IMAGE = 0.5
# Two words lie on each other if their cores overlap by more than this fraction of the smaller core.
_OVERLAP = 0.02
# A pixel moves straight to a color if no channel is further from the straight line than this fraction of the move.
_STRAIGHT = 0.35
# Maximum number of pairs of words that are compared on a page.
_MAX_PAIRS = 4_000_000


@dataclass(frozen=True, slots=True)
class TextFreePage:
    """A page drawn without its text.

    Attributes:
        pixels: RGB pixels of the same size as the screenshot.
        drawn: Indices of the words whose text could not be removed, for example the words of annotations.
    """

    pixels: Pixels
    drawn: frozenset[int]


class PaintOrder(Protocol):
    """The order in which the contents of a page are painted."""

    def is_behind_image(self, word: LayerWord) -> bool:
        """Return whether an image may be painted over a word.

        Args:
            word: The word.
        """

    def is_replaced(self, below: LayerWord, above: LayerWord) -> bool:
        """Return whether a shape or image is painted over a word before another word is painted at the same place.

        Args:
            below: The word that may be covered.
            above: The other word.
        """


@dataclass(frozen=True, slots=True)
class Drawing:
    """The rendered page, and functions that are called for few pages.

    Attributes:
        images: Boxes of the raster images in points of the displayed page.
        pixels: RGB pixels of the rendered page, shape (height, width, 3).
        zoom: Resolution of `pixels` in pixels per point.
        draw_without_text: Function that draws the page without its text.
        read_order: Function that reads the order in which the contents of the page are painted.
    """

    images: Sequence[Box]
    pixels: Pixels
    zoom: float
    draw_without_text: Callable[[], TextFreePage]
    read_order: Callable[[], PaintOrder]


def find_visible(words: Sequence[LayerWord], drawing: Drawing) -> list[bool]:
    """Return whether each word is visible, or repeats a visible picture.

    Args:
        words: Words of `clean_words`.
        drawing: The rendered page.
    """
    return _Check(words, drawing).run() if words else []


class _Check:
    """The check of one page."""

    def __init__(self, words: Sequence[LayerWord], drawing: Drawing) -> None:
        self._words = words
        self._drawing = drawing
        self._pixels = drawing.pixels
        self._has_letters = [any(map(str.isalnum, word.text)) for word in words]
        height, width = drawing.pixels.shape[:2]
        self._points = np.array([word.box for word in words], dtype=np.float32)
        scaled = self._points * drawing.zoom
        low = np.floor(scaled[:, :2] + 0.001).astype(np.intp).clip(0, (width - 1, height - 1))
        high = np.ceil(scaled[:, 2:] - 0.001).astype(np.intp).clip(low + 1, (width, height))
        self._boxes = np.concatenate([low, high], axis=1)

    def run(self) -> list[bool]:
        words = self._words
        visible = [word.size > SMALLEST for word in words]
        unpainted = {number for number, word in enumerate(words) if visible[number] and not word.is_painted}
        suspects: set[int] = set()
        for number in self._unclear():
            if visible[number] and words[number].is_painted:
                verdict = self._verdict(number)
                visible[number] = verdict is not False
                if verdict is None:
                    suspects.add(number)
        pairs = [pair for pair in self._overlaps() if visible[pair[0]] and visible[pair[1]]]
        mixed = {number for pair in pairs for number in pair if not self._is_same_color(*pair)}
        behind_images = self._behind_images([number for number in range(len(words)) if visible[number]])
        suspects |= (mixed | behind_images) - unpainted
        hidden = set(unpainted)
        if suspects:
            page = self._drawing.draw_without_text()
            hidden.update(
                number for number in suspects - page.drawn if not self._changes(number, page, by_color=number in mixed)
            )
            hidden.update(number for number in suspects & page.drawn if not self._has_contrast(number))
        hidden.update(
            self._replaced([pair for pair in pairs if hidden.isdisjoint(pair) and self._is_same_color(*pair)])
        )
        if hidden:  # including the unpainted words
            on_words = {number for pair in pairs for number in pair if not hidden.issuperset(pair)}
            # Painted text that is hidden by an image may repeat the image, as in some scans. No shape repeats text.
            candidates = sorted(number for number in hidden & (unpainted | behind_images) if number not in on_words)
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
        distances = _difference(sample, colors)
        nearest, farthest = distances.min(axis=1), distances.max(axis=1)
        share = (distances < np.minimum(_SAME_COLOR, farthest / 2)[:, None]).mean(axis=1)
        clear = (farthest >= _CONTRAST) & (nearest <= _NEAREST * farthest) & (share <= _LETTER_SHARE)
        clear &= np.array([word.color is not None for word in self._words])
        return [int(number) for number in np.flatnonzero(~clear)]

    def _verdict(self, number: int) -> bool | None:
        """Return whether a word is visible, by all pixels of the word; None if the pixels do not show it."""
        word = self._words[number]
        if word.color is None:
            return None if self._has_letters[number] else True
        pixels = self._area(number)
        step = 1 + math.isqrt(pixels.size // _MANY_PIXELS)
        distances = _distances(pixels[::step, ::step], word.color)
        farthest = int(distances.max())
        if farthest < _CONTRAST:
            return False
        if len(pixels) < _LEAST_HEIGHT or not self._has_letters[number]:
            return True
        if (distances < min(_SAME_COLOR, farthest / 2)).mean() > _LETTER_SHARE:
            return None
        nearest = (distances if self._is_alone(number) else self._core(distances, number)).min()
        return True if nearest <= _NEAREST * farthest else None

    def _is_alone(self, number: int) -> bool:
        """Return whether the box of a word overlaps the box of no other word."""
        x0, y0, x1, y1 = self._boxes[number]
        other_x0, other_y0, other_x1, other_y1 = self._boxes.T
        overlaps = (other_x0 < x1) & (other_x1 > x0) & (other_y0 < y1) & (other_y1 > y0)
        return int(overlaps.sum()) == 1

    def _has_contrast(self, number: int) -> bool:
        pixels = self._area(number)
        return len(pixels) < _LEAST_HEIGHT or _contrast(pixels) >= _CONTRAST

    def _area(self, number: int) -> Pixels:
        x0, y0, x1, y1 = self._boxes[number]
        return self._pixels[y0:y1, x0:x1]

    def _changes(self, number: int, page: TextFreePage, *, by_color: bool) -> bool:
        """Return whether the text of a word changes pixels, with `by_color` only pixels that get its color."""
        color, after = self._words[number].color, self._area(number)
        x0, y0, x1, y1 = self._boxes[number]
        before = page.pixels[y0:y1, x0:x1]
        if by_color and color:
            changed = _moves(before, after, color)
        else:
            changed = self._core(_difference(before, after) >= _CONTRAST, number)
        least = max(_FEW_PIXELS, _CHANGED_SHARE * changed.size)
        return bool(changed.sum() >= least) or self._has_ink_around(number, page)

    def _has_ink_around(self, number: int, page: TextFreePage) -> bool:
        """Return whether text that is in the box of no word is near a word, because the box of the word is wrong."""
        x0, y0, x1, y1 = (int(side) for side in self._boxes[number])
        margin = int(max((y1 - y0) / 2, self._words[number].size * self._drawing.zoom / 2))
        left, top, right, bottom = max(x0 - margin, 0), max(y0 - margin, 0), x1 + margin, y1 + margin
        near = np.s_[top:bottom, left:right]
        ink = _difference(page.pixels[near], self._pixels[near]) >= _CONTRAST
        boxes = self._boxes
        is_near = (boxes[:, 0] < right) & (boxes[:, 2] > left) & (boxes[:, 1] < bottom) & (boxes[:, 3] > top)
        for box in boxes[is_near]:
            word_x0, word_y0, word_x1, word_y1 = (int(side) for side in box)
            rows = slice(max(word_y0 - _BLUR - top, 0), max(word_y1 + _BLUR - top, 0))
            ink[rows, max(word_x0 - _BLUR - left, 0) : max(word_x1 + _BLUR - left, 0)] = False
        return bool(ink.sum() >= max(_FEW_PIXELS, _CHANGED_SHARE * (y1 - y0) * (x1 - x0)))

    def _overlaps(self) -> list[tuple[int, int]]:
        """Return pairs of words with different texts whose cores, without the upper and lower quarter, overlap."""
        numbers = np.flatnonzero(self._has_letters)
        cores = self._points[numbers]
        quarter = (cores[:, 3] - cores[:, 1]) / 4
        cores[:, 1] += quarter
        cores[:, 3] -= quarter
        order = np.argsort(cores[:, 1], kind="stable")
        numbers, cores = numbers[order], cores[order]
        # The candidates for a word are the words below that start above its lower side.
        counts = np.searchsorted(cores[:, 1], cores[:, 3]) - np.arange(len(cores)) - 1
        counts = np.minimum(counts.clip(0), _MAX_PAIRS // max(len(cores), 1))
        first = np.repeat(np.arange(len(cores)), counts)
        second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
        sizes = np.minimum(cores[first, 2:], cores[second, 2:]) - np.maximum(cores[first, :2], cores[second, :2])
        areas = np.prod(cores[:, 2:] - cores[:, :2], axis=1)
        overlap = np.prod(sizes.clip(0), axis=1) / np.minimum(areas[first], areas[second])
        pairs = []
        for at in np.flatnonzero(overlap > _OVERLAP):
            a, b = sorted((int(numbers[first[at]]), int(numbers[second[at]])))
            is_part = b == a + 1 and self._words[b].continues
            if not is_part and self._words[a].text != self._words[b].text:
                pairs.append((a, b))
        return pairs

    def _is_same_color(self, a: int, b: int) -> bool:
        first, second = self._words[a].color, self._words[b].color
        if first is None or second is None:
            return False
        return max(abs(p - q) for p, q in zip(first, second, strict=True)) < _SAME_COLOR

    def _replaced(self, pairs: Sequence[tuple[int, int]]) -> set[int]:
        """Return the words of one color that are covered before another word is painted at their place."""
        if not pairs:
            return set()
        order = self._drawing.read_order()
        return {
            below
            for first, second in pairs
            for below, above in ((first, second), (second, first))
            if order.is_replaced(self._words[below], self._words[above])
        }

    def _behind_images(self, numbers: Sequence[int]) -> set[int]:
        """Return the words over which an image may be painted."""
        on_images = np.zeros(len(self._words), dtype=bool)
        areas = np.prod(self._points[:, 2:] - self._points[:, :2], axis=1)
        for image in np.array(self._drawing.images, dtype=np.float32).reshape(-1, 4):
            sizes = np.minimum(self._points[:, 2:], image[2:]) - np.maximum(self._points[:, :2], image[:2])
            on_images |= np.prod(sizes.clip(0), axis=1) > _ON_IMAGE * areas
        candidates = [number for number in numbers if on_images[number]]
        if not candidates:
            return set()
        order = self._drawing.read_order()
        return {number for number in candidates if order.is_behind_image(self._words[number])}

    def _core(self, pixels: npt.NDArray[_Value], number: int) -> npt.NDArray[_Value]:
        """Return the middle rows of the box of a word, because the letters of other lines reach into the other rows."""
        margin = int(_MARGIN * len(pixels)) if self._has_letters[number] else 0
        return pixels[margin : len(pixels) - margin]


def _difference(a: Pixels, b: Pixels) -> Pixels:
    """Return the maximum difference over the channels, shape (height, width)."""
    difference = np.maximum(a, b) - np.minimum(a, b)
    # `max(axis=-1)` is several times slower for three channels.
    maximum: Pixels = np.maximum(np.maximum(difference[..., 0], difference[..., 1]), difference[..., 2])
    return maximum


def _distances(pixels: Pixels, color: Color) -> Pixels:
    return _difference(pixels, np.array(color, dtype=np.uint8))


def _moves(before: Pixels, after: Pixels, color: Color) -> npt.NDArray[np.bool_]:
    """Return whether each pixel changes on the straight line from its old color to the color of a text."""
    way = np.array(color, dtype=np.float32) - before
    change = after.astype(np.float32) - before
    share = (way * change).sum(axis=-1) / np.maximum((way * way).sum(axis=-1), 1)
    rest = np.abs(change - share[..., None] * way).max(axis=-1)
    size = np.abs(change).max(axis=-1)
    return (size >= _CONTRAST) & (share > 0) & (rest <= np.maximum(_STRAIGHT * size, 8))  # type: ignore[no-any-return]


def _contrast(pixels: Pixels) -> int:
    """Return the maximum difference of two pixels, over the channels."""
    return int((pixels.max(axis=(0, 1)) - pixels.min(axis=(0, 1))).max())
