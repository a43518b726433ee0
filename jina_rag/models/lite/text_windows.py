"""Overlapping windows over long texts. Each token vector comes from the window with the most context."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple


class Window(NamedTuple):
    """A window of tokens to encode, and the range of tokens whose vectors are kept.

    Attributes:
        start: Index of the first token of the window.
        stop: Index after the last token of the window.
        keep_start: Index of the first token whose vector is kept.
        keep_stop: Index after the last token whose vector is kept.
    """

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def windows(count: int, size: int, overlap: int) -> list[Window]:
    """Return the fewest windows of at most `size` tokens that cover a text.

    All windows have the same length, so that the windows of a text form one batch without padding and the last window
    has full context.

    Args:
        count: Tokens of the text.
        size: Limit of tokens per window.
        overlap: Minimum number of tokens that adjacent windows share, from 0 to `size` - 1.

    >>> windows(10, size=6, overlap=2)
    [Window(start=0, stop=6, keep_start=0, keep_stop=5), Window(start=4, stop=10, keep_start=5, keep_stop=10)]
    """
    if count <= 0:
        return []
    number = 1 if count <= size else -(-(count - overlap) // (size - overlap))
    length = -(-(count + (number - 1) * overlap) // number)
    starts = [round(i * (count - length) / (number - 1)) for i in range(number)] if number > 1 else [0]
    # Divide each overlap in the middle, where a token has equally much context in both windows.
    borders = [
        0,
        *((after + before + length) // 2 for before, after in pairwise(starts)),
        count,
    ]
    return [Window(s, s + length, borders[i], borders[i + 1]) for i, s in enumerate(starts)]
