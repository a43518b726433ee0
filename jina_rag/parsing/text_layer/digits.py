"""Comparison of the digits of the text layer with the pixels of the page.

A small network classifies the picture of each digit. A font whose character map exchanges digits gives a text that is
plausible for every language model, so only the pixels tell the difference. The network was trained on digits rendered
from freely licensed fonts by ``tools/train_digit_shapes.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.resources import files
from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from jina_rag.types import Box, Float32, Word

if TYPE_CHECKING:
    from PIL.Image import Image

ROWS, COLUMNS = 12, 10
"""Size to which the picture of a digit is scaled."""
FEATURES = ROWS * COLUMNS + 1
"""Length of the feature vector of a digit: the pixels and the ratio of width to height."""
# Minimum size of a digit in pixels. Smaller digits are not legible.
_MIN_HEIGHT = 7
_MIN_WIDTH = 3
# Difference between text and background, 0 to 255, below which a word is not checked.
_MIN_CONTRAST = 60
# A pixel belongs to a digit if its ink is at least this fraction of the darkest pixel of the word.
_INK = 0.35
# A row of pixels is a rule if more than this fraction of it has ink.
_RULE = 0.92
# Ratio of width to height of a digit together with the empty space around it, for text that is not rotated.
_ASPECT = (0.25, 0.8)
# Length of the words that are checked. The digits of a single word have equal widths in nearly all fonts.
_LENGTHS = range(2, 9)


def is_number(text: str) -> bool:
    """Return whether the digits of a word can be compared with the pixels: two to eight ASCII digits.

    Args:
        text: Text of a word.
    """
    return len(text) in _LENGTHS and text.isascii() and text.isdigit()


def digit_probabilities(image: Image, words: Sequence[Word]) -> tuple[npt.NDArray[np.intp], Float32]:
    """Classify the digits of words by their pixels.

    Args:
        image: RGB screenshot of the page.
        words: Words for which `is_number` is True.

    Returns:
        Index into `words` of each digit that is legible, shape (digits,); and the probability of each of the ten
        digits, shape (digits, 10), float32. All digits of a word are legible, or none, in the order of the text.
    """
    owners: list[int] = []
    features: list[Float32] = []
    for index, word in enumerate(words):
        vectors = word_features(image, word.box, len(word.text))
        owners += [index] * len(vectors)
        features += vectors
    if not features:
        return np.zeros(0, np.intp), np.zeros((0, 10), np.float32)
    hidden_weights, hidden_bias, weights, bias = _network()
    # einsum instead of a matrix product, because NumPy would start threads for the product.
    hidden = np.maximum(np.einsum("ij,jk->ik", np.stack(features), hidden_weights) + hidden_bias, 0)
    logits = np.einsum("ij,jk->ik", hidden, weights) + bias
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.array(owners, np.intp), (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


def word_features(image: Image, box: Box, length: int) -> list[Float32]:
    """Return the feature vector of each digit of a word; an empty list if a digit is not legible.

    Each vector has shape (ROWS * COLUMNS + 1,), float32: the ink of the digit, and its aspect ratio.

    Args:
        image: RGB screenshot of the page.
        box: Box of the word, as fractions of the page.
        length: Number of digits in the word.
    """
    width, height = image.size
    left, top, right, bottom = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    if bottom - top < _MIN_HEIGHT or not _ASPECT[0] <= (right - left) / length / (bottom - top) <= _ASPECT[1]:
        return []
    origin = max(int(left), 0), max(int(top), 0)
    crop = image.crop((*origin, min(round(right + 0.5), width), min(round(bottom + 0.5), height)))
    pixels = np.asarray(crop)[:, :, 1].astype(np.float32)
    if pixels.size == 0:
        return []
    ink = np.abs(pixels - float(np.median(pixels)))
    contrast = float(ink.max())
    if contrast < _MIN_CONTRAST:
        return []
    ink /= contrast
    # Rules of a table fill a row of pixels. The digits are the block of adjacent rows with the most ink.
    is_rule = (ink >= _INK).mean(axis=1) > _RULE
    ink[is_rule] = 0
    rows = np.flatnonzero((ink >= _INK).any(axis=1))
    if len(rows) == 0:
        return []
    blocks = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    block = max(blocks, key=lambda rows: float(ink[rows].sum()))
    ink = ink[block[0] : block[-1] + 1]
    edges = np.linspace(left - origin[0], right - origin[0], length + 1).round().astype(int).tolist()
    vectors = []
    for start, end in pairwise(edges):
        vector = _features(ink[:, start:end])
        if vector is None:
            return []
        vectors.append(vector)
    return vectors


def _features(ink: Float32) -> Float32 | None:
    is_ink = ink >= _INK
    rows, columns = np.flatnonzero(is_ink.any(axis=1)), np.flatnonzero(is_ink.any(axis=0))
    if len(rows) == 0 or len(columns) == 0:
        return None
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    if bottom - top < _MIN_HEIGHT or right - left < _MIN_WIDTH - 1:
        return None
    scaled = _scaling(bottom - top, ROWS) @ ink[top:bottom, left:right] @ _scaling(right - left, COLUMNS).T
    return np.append(scaled.ravel(), (right - left) / (bottom - top)).astype(np.float32)


@lru_cache(maxsize=256)
def _scaling(size: int, target: int) -> Float32:
    """Return the matrix, shape (target, size), that averages `size` pixels to `target` pixels."""
    edges = np.linspace(0, size, target + 1)
    starts, ends = edges[:-1, None], edges[1:, None]
    pixels = np.arange(size)[None]
    overlap = np.minimum(ends, pixels + 1) - np.maximum(starts, pixels)
    matrix = overlap.clip(min=0)
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True), np.float32)


@cache
def _network() -> tuple[Float32, Float32, Float32, Float32]:
    data = (files("jina_rag.parsing.text_layer") / "_assets" / "digit_shapes.npz").read_bytes()
    with np.load(BytesIO(data), allow_pickle=False) as arrays:
        hidden, hidden_bias, weights, bias = (
            arrays[name].astype(np.float32) for name in ("hidden_weights", "hidden_bias", "weights", "bias")
        )
    return hidden, hidden_bias, weights, bias
