"""Reconstruction of text lines from words with boxes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from jina_rag.parsing.layout.boxes import union
from jina_rag.types import Box, Word

_NUMBER = re.compile(r"[^\w]*\d[\d.,]*[^\w]*")


@dataclass(frozen=True, slots=True)
class TextLine:
    """A line of text: consecutive words without a wide gap.

    Attributes:
        text: The words, joined by spaces.
        box: Box around the words, in points of the displayed page.
        words: Number of words.
        numbers: Number of words that are numbers.
    """

    text: str
    box: Box
    words: int
    numbers: int


def text_lines(words: Sequence[Word], width: float, height: float) -> list[TextLine]:
    """Join consecutive words of the same row into lines. A gap of at least one line height starts a new line.

    Args:
        words: Words in the order of the text layer, with boxes as fractions of the page.
        width: Width of the page in points.
        height: Height of the page in points.
    """
    lines: list[TextLine] = []
    current: list[tuple[str, Box]] = []
    for word in words:
        x0, y0, x1, y1 = word.box
        box = (x0 * width, y0 * height, x1 * width, y1 * height)
        if current and not _continues(current[-1][1], box):
            lines.append(_line(current))
            current = []
        current.append((word.text, box))
    if current:
        lines.append(_line(current))
    return lines


def _continues(last: Box, box: Box) -> bool:
    high = min(last[3] - last[1], box[3] - box[1])
    return min(last[3], box[3]) - max(last[1], box[1]) > 0.5 * high and -high < box[0] - last[2] < high


def _line(words: Sequence[tuple[str, Box]]) -> TextLine:
    box = reduce(union, [box for _, box in words])
    numbers = sum(1 for text, _ in words if text.strip("()[]%€$£-+–−.,:;").replace(",", "").replace(".", "").isdigit())
    return TextLine(" ".join(text for text, _ in words), box, len(words), numbers)
