"""The order in which a person reads lines of text that are scattered over a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from jina_rag.ocr.lines import Line
from jina_rag.types import Float32

# Only blocks of real lines stand side by side as columns; short pieces side by side are rows of a table.
_LINE_ASPECT = 8
_MIN_LINES = 3


def reading_order(lines: Sequence[Line]) -> list[int]:
    """Indices of `lines` in reading order: columns of text one after the other, else row by row.

    The page is turned so that most characters stand upright first, which puts the columns of vertical
    Chinese or Japanese text from right to left.
    """
    if not lines:
        return []
    turns: Counter[int] = Counter()
    for line in lines:
        turns[_quarters(line)] += len(line.text)
    turn = turns.most_common(1)[0][0]
    boxes = np.array([_upright_box(line, turn) for line in lines], dtype=np.float32)
    return _ordered(boxes, list(range(len(lines))))


def _quarters(line: Line) -> int:
    """Which way the text runs: 0 to the right, 1 down, 2 to the left, 3 up."""
    x, y = line.quad[1] - line.quad[0]
    if abs(x) >= abs(y):
        return 0 if x >= 0 else 2
    return 1 if y >= 0 else 3


def _upright_box(line: Line, quarters: int) -> tuple[float, float, float, float]:
    x, y = line.quad[:, 0], line.quad[:, 1]
    # Turning the page back by a quarter: what ran down now runs right, what was right is now on top.
    x, y = {0: (x, y), 1: (y, -x), 2: (-x, -y), 3: (-y, x)}[quarters]
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _ordered(boxes: Float32, members: list[int]) -> list[int]:
    blocks = _columns(boxes, members)
    if blocks is None:
        blocks = _bands(boxes, members)
    if blocks is None:
        return _rows(boxes, members)
    return [index for block in blocks for index in _ordered(boxes, block)]


def _columns(boxes: Float32, members: list[int]) -> list[list[int]] | None:
    """Split at the widest empty vertical strip, if both sides hold lines of text."""
    split = _widest_gap(boxes[members, 0], boxes[members, 2])
    if split is None:
        return None
    sides = [[i for i in members if boxes[i, 0] < split], [i for i in members if boxes[i, 0] >= split]]
    for side in sides:
        part = boxes[side]
        aspects = (part[:, 2] - part[:, 0]) / np.maximum(part[:, 3] - part[:, 1], 1)
        if len(side) < _MIN_LINES or np.median(aspects) < _LINE_ASPECT:
            return None
    return sides


def _bands(boxes: Float32, members: list[int]) -> list[list[int]] | None:
    """Split at the widest empty horizontal strip, if there is one."""
    if len(members) < 2 * _MIN_LINES:
        return None
    split = _widest_gap(boxes[members, 1], boxes[members, 3])
    if split is None:
        return None
    return [[i for i in members if boxes[i, 1] < split], [i for i in members if boxes[i, 1] >= split]]


def _widest_gap(starts: Float32, ends: Float32) -> float | None:
    order = np.argsort(starts)
    reach = np.maximum.accumulate(ends[order])[:-1]
    gaps = starts[order][1:] - reach
    if len(gaps) == 0 or gaps.max() <= 0:
        return None
    widest = int(gaps.argmax())
    return float(starts[order][widest + 1])


def _rows(boxes: Float32, members: list[int]) -> list[int]:
    """Top to bottom; pieces whose middles are within half a height share a row, left to right."""
    rest = sorted(members, key=lambda i: boxes[i, 1] + boxes[i, 3])
    ordered: list[int] = []
    while rest:
        middle = (boxes[rest[0], 1] + boxes[rest[0], 3]) / 2
        reach = (boxes[rest[0], 3] - boxes[rest[0], 1]) / 2
        row = [i for i in rest if (boxes[i, 1] + boxes[i, 3]) / 2 <= middle + reach]
        ordered += sorted(row, key=lambda i: float(boxes[i, 0]))
        rest = rest[len(row) :]
    return ordered
