"""Joins the characters of vertical text into columns.

The PDF libraries return vertical Chinese, Japanese and Korean text as one word per character, because a word of
horizontal text ends where the next character is on another line.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from jina_rag.parsing.layout.boxes import union
from jina_rag.types import Box

# Letters and punctuation of scripts that are written vertically, including the forms for vertical text.
_LETTERS = re.compile(
    "[\u2e80-\u312f\u3130-\u318f\u31a0-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\ufe10-\ufe1f"
    "\ufe30-\ufe4f\uff01-\uffef\U0001b000-\U0001b16f\U00020000-\U0003ffff]"
)
# Short horizontal text inside a column, for example the two digits of a day, and marks that fonts rotate.
_INSERT = re.compile(
    r"[0-9A-Za-z.,%!?'\"()\[\]<>\u2010-\u2027\u2030-\u205e\u2160-\u217f\u2190-\u2193\u2500-\u25ff]{1,4}"
)
# Distances are fractions of the width of the column. The centers of two characters of a column differ at most by
# `_SHIFT`, and the gap between the characters is at most `_GAP`. `_OVERLAP` allows the boxes of fonts with large
# ascenders.
_SHIFT = 0.25
_GAP = 0.5
_OVERLAP = 0.45
# The box of a piece of vertical text with at least two letters has at least this ratio of height to width.
_TALL = 1.5
# Two columns are side by side if they overlap vertically by this fraction of the shorter column.
_BESIDE = 0.3


@dataclass(slots=True)
class _Column:
    parts: list[tuple[str, Box]]
    box: Box
    width: float

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.parts)


def join_columns(words: Sequence[tuple[str, Box]]) -> list[tuple[str, Box]]:
    """Join consecutive words that form a column of vertical text. Adjacent columns are ordered from right to left.

    Args:
        words: (text, box) of each word in the order of the text layer, with boxes in points of the displayed page.

    Returns:
        (text, box) of the words and columns.
    """
    if not any(_is_letter(text) or _is_tall(text, box) for text, box in words):
        return list(words)
    columns: list[_Column] = []
    for text, box in words:
        if not columns or not _append(columns[-1], text, box):
            columns.append(_Column([(text, box)], box, box[2] - box[0]))
    ordered: list[tuple[str, Box]] = []
    for is_vertical, group in itertools.groupby(columns, key=_is_vertical):
        if is_vertical:
            ordered += [(column.text, column.box) for column in _right_to_left(list(group))]
        else:
            ordered += [part for column in group for part in column.parts]
    return ordered


def _is_vertical(column: _Column) -> bool:
    """Return whether a column is vertical text. Numbers below each other without a letter are a list."""
    if len(column.parts) == 1:
        return _is_tall(column.text, column.box)
    return _LETTERS.search(column.text) is not None


def _is_letter(text: str) -> bool:
    return len(text) == 1 and _LETTERS.match(text) is not None


def _is_tall(text: str, box: Box) -> bool:
    """Return whether a word is a piece of vertical text that a PDF library has joined."""
    return len(text) > 1 and box[3] - box[1] > _TALL * (box[2] - box[0]) and _LETTERS.search(text) is not None


def _append(column: _Column, text: str, box: Box) -> bool:
    """Append a word to a column if the word continues the column. Return whether the word was appended."""
    last_text, last = column.parts[-1]
    if not (_is_piece(text, box) and _is_piece(last_text, last)):
        return False
    width = max(column.width, box[2] - box[0])
    center = (column.box[0] + column.box[2]) / 2
    if abs((box[0] + box[2]) / 2 - center) > _SHIFT * width:
        return False
    if box[1] <= last[1] or not -_OVERLAP * width <= box[1] - last[3] <= _GAP * width:
        return False
    column.parts.append((text, box))
    column.box, column.width = union(column.box, box), width
    return True


def _is_piece(text: str, box: Box) -> bool:
    return _is_letter(text) or _is_tall(text, box) or _INSERT.fullmatch(text) is not None


def _right_to_left(columns: list[_Column]) -> list[_Column]:
    """Return adjacent columns in reading order: rows of columns from top to bottom, each row from right to left."""
    rows: list[list[_Column]] = []
    for column in columns:
        if rows and _are_beside(rows[-1][-1].box, column.box):
            rows[-1].append(column)
        else:
            rows.append([column])
    return [column for row in rows for column in sorted(row, key=lambda column: -column.box[2])]


def _are_beside(a: Box, b: Box) -> bool:
    overlap = min(a[3], b[3]) - max(a[1], b[1])
    is_apart = b[0] >= a[2] - _SHIFT * (a[2] - a[0]) or a[0] >= b[2] - _SHIFT * (b[2] - b[0])
    return is_apart and overlap > _BESIDE * min(a[3] - a[1], b[3] - b[1])
