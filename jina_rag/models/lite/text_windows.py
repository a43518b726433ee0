"""Long texts in overlapping windows, and each token's vector from the window that shows most around it."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple


class Window(NamedTuple):
    """A stretch of tokens to encode, and the part of it whose vectors are kept.

    Attributes:
        start: First token of the window.
        stop: One past its last.
        keep_start: First token whose vector is taken from this window.
        keep_stop: One past the last.
    """

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def windows(count: int, size: int, overlap: int) -> list[Window]:
    """As few windows of at most `size` tokens as cover `count` tokens, with at least `overlap` in common.

    All windows have the same length, so that they fit one batch without padding and none is left with little
    context.

    Args:
        count: Tokens of the text.
        size: Longest window.
        overlap: Tokens that neighbours share; less than `size`.

    >>> windows(10, size=6, overlap=2)
    [Window(start=0, stop=6, keep_start=0, keep_stop=5), Window(start=4, stop=10, keep_start=5, keep_stop=10)]
    """
    if count <= 0:
        return []
    number = 1 if count <= size else -(-(count - overlap) // (size - overlap))
    length = -(-(count + (number - 1) * overlap) // number)
    starts = [round(i * (count - length) / (number - 1)) for i in range(number)] if number > 1 else [0]
    # Halfway through an overlap both windows show equally much around a token.
    borders = [
        0,
        *((after + before + length) // 2 for before, after in pairwise(starts)),
        count,
    ]
    return [Window(s, s + length, borders[i], borders[i + 1]) for i, s in enumerate(starts)]
