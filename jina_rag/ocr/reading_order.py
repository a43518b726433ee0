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
    return _order(boxes, list(range(len(lines))))


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


def _order(boxes: Float32, members: list[int]) -> list[int]:
    blocks = _columns(boxes, members) or _bands(boxes, members)
    if not blocks:
        return _rows(boxes, members)
    return [index for block in blocks for index in _order(boxes, block)]


def _columns(boxes: Float32, members: list[int]) -> list[list[int]]:
    """Split at the widest empty vertical strip, if both sides hold lines of text; empty if they do not."""
    sides = _split(boxes, members, 0)
    for side in sides:
        part = boxes[side]
        aspects = (part[:, 2] - part[:, 0]) / np.maximum(part[:, 3] - part[:, 1], 1)
        if len(side) < _MIN_LINES or np.median(aspects) < _LINE_ASPECT:
            return []
    return sides


def _bands(boxes: Float32, members: list[int]) -> list[list[int]]:
    """Split at the widest empty horizontal strip; empty if there is none."""
    return _split(boxes, members, 1) if len(members) >= 2 * _MIN_LINES else []


def _split(boxes: Float32, members: list[int], axis: int) -> list[list[int]]:
    """The boxes before and after the widest gap between them along an axis; empty if there is none."""
    starts, ends = boxes[members, axis], boxes[members, axis + 2]
    order = np.argsort(starts)
    gaps = starts[order][1:] - np.maximum.accumulate(ends[order])[:-1]
    if len(gaps) == 0 or gaps.max() <= 0:
        return []
    first = float(starts[order][int(gaps.argmax()) + 1])
    return [[i for i in members if boxes[i, axis] < first], [i for i in members if boxes[i, axis] >= first]]


def _rows(boxes: Float32, members: list[int]) -> list[int]:
    """Top to bottom; pieces whose middles are within half a height share a row, left to right."""
    rest = sorted(members, key=lambda i: boxes[i, 1] + boxes[i, 3])
    order: list[int] = []
    while rest:
        middle = (boxes[rest[0], 1] + boxes[rest[0], 3]) / 2
        reach = (boxes[rest[0], 3] - boxes[rest[0], 1]) / 2
        row = [i for i in rest if (boxes[i, 1] + boxes[i, 3]) / 2 <= middle + reach]
        order += sorted(row, key=lambda i: float(boxes[i, 0]))
        rest = rest[len(row) :]
    return order
