"""Reading order of the text lines of a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from jina_rag.ocr.lines import Line
from jina_rag.types import Float32

# A block of lines is a column of text if the block has at least _MIN_LINES lines with a median ratio of width to height
# of at least _LINE_ASPECT. Blocks of shorter lines next to each other are table cells and are read row
# by row.
_LINE_ASPECT = 8
_MIN_LINES = 3


def reading_order(lines: Sequence[Line]) -> list[int]:
    """Return the indices of `lines` in reading order: column by column, or row by row on a page without columns.

    The lines are first rotated together, so that most of the text runs from left to right. Columns of vertical
    Chinese or Japanese text are therefore read from right to left.

    Args:
        lines: Lines of one image, in any order.
    """
    if not lines:
        return []
    characters_by_direction: Counter[int] = Counter()
    for line in lines:
        characters_by_direction[_quarters(line)] += len(line.text)
    direction = characters_by_direction.most_common(1)[0][0]
    boxes = np.array([_upright_box(line, direction) for line in lines], dtype=np.float32)
    return _order(boxes, list(range(len(lines))))


def _quarters(line: Line) -> int:
    """Return the direction of the text: 0 to the right, 1 down, 2 to the left, 3 up."""
    x, y = line.quad[1] - line.quad[0]
    if abs(x) >= abs(y):
        return 0 if x >= 0 else 2
    return 1 if y >= 0 else 3


def _upright_box(line: Line, quarters: int) -> tuple[float, float, float, float]:
    x, y = line.quad[:, 0], line.quad[:, 1]
    # Rotate the page counterclockwise by `quarters` quarter turns. After the rotation, the text runs to the right.
    x, y = {0: (x, y), 1: (y, -x), 2: (-x, -y), 3: (-y, x)}[quarters]
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def _order(boxes: Float32, members: list[int]) -> list[int]:
    blocks = _columns(boxes, members) or _bands(boxes, members)
    if not blocks:
        return _rows(boxes, members)
    return [index for block in blocks for index in _order(boxes, block)]


def _columns(boxes: Float32, members: list[int]) -> list[list[int]]:
    """Split at the widest empty vertical strip; return an empty list unless both sides are columns of text."""
    sides = _split(boxes, members, 0)
    for side in sides:
        side_boxes = boxes[side]
        aspects = (side_boxes[:, 2] - side_boxes[:, 0]) / np.maximum(side_boxes[:, 3] - side_boxes[:, 1], 1)
        if len(side) < _MIN_LINES or np.median(aspects) < _LINE_ASPECT:
            return []
    return sides


def _bands(boxes: Float32, members: list[int]) -> list[list[int]]:
    """Split at the widest empty horizontal strip; return an empty list if the boxes have no gap."""
    return _split(boxes, members, 1) if len(members) >= 2 * _MIN_LINES else []


def _split(boxes: Float32, members: list[int], axis: int) -> list[list[int]]:
    """Split boxes at the widest gap along an axis; return an empty list if the boxes have no gap."""
    starts, ends = boxes[members, axis], boxes[members, axis + 2]
    order = np.argsort(starts)
    gaps = starts[order][1:] - np.maximum.accumulate(ends[order])[:-1]
    if len(gaps) == 0 or gaps.max() <= 0:
        return []
    boundary = float(starts[order][int(gaps.argmax()) + 1])
    return [[i for i in members if boxes[i, axis] < boundary], [i for i in members if boxes[i, axis] >= boundary]]


def _rows(boxes: Float32, members: list[int]) -> list[int]:
    """Order boxes by row, then from left to right.

    Each row has an anchor: the remaining box with the highest center. A box belongs to the row if the center of the
    box is at most half the height of the anchor below the center of the anchor.
    """
    remaining = sorted(members, key=lambda i: boxes[i, 1] + boxes[i, 3])
    order: list[int] = []
    while remaining:
        middle = (boxes[remaining[0], 1] + boxes[remaining[0], 3]) / 2
        half_height = (boxes[remaining[0], 3] - boxes[remaining[0], 1]) / 2
        row = [i for i in remaining if (boxes[i, 1] + boxes[i, 3]) / 2 <= middle + half_height]
        order += sorted(row, key=lambda i: float(boxes[i, 0]))
        remaining = remaining[len(row) :]
    return order
