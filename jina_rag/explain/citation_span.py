"""The passage around a place of a page: the lines of its paragraph, or the bright patches that hang together."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import numpy.typing as npt

from jina_rag.types import Box, Float32

LINES = 8
"""Lines of a passage at most."""
_WORD_GAP = 1.6
"""Words of a line stand closer than this many times their height; columns do not."""
_LINE_GAP = 0.9
_HEIGHTS = 1.7
"""A heading is no line of the paragraph under it: its letters are larger."""
_BRIGHT = 0.5
_SLACK = np.float32(1e-3)
"""Patches that touch are no further apart than this."""
_CELLS = 512
_SQUARE = 1.41
"""A page's height by its width, about: places are fractions of either."""


def paragraph(boxes: Float32, start: int, weights: Float32) -> Box:
    """The lines above and below a word that belong to it, those that speak more to the question first."""
    line = _line(boxes, start)
    lines = [line]
    edges = {-1: line, 1: line}
    while len(lines) < LINES:
        next_lines = {side: _next_line(boxes, edge, side) for side, edge in edges.items()}
        open_sides = [side for side, line_words in next_lines.items() if line_words is not None]
        if not open_sides:
            break
        side = max(open_sides, key=lambda side: float(weights[next_lines[side]].mean()))
        line_words = next_lines[side]
        assert line_words is not None
        edges[side] = line_words
        lines.append(line_words)
    return around(boxes[np.concatenate(lines)])


def _line(boxes: Float32, start: int) -> npt.NDArray[np.int_]:
    """Indices of the words that stand in one line with a word, without a gap as between columns."""
    y0, y1 = boxes[start, 1], boxes[start, 3]
    heights = boxes[:, 3] - boxes[:, 1]
    overlap = np.minimum(boxes[:, 3], y1) - np.maximum(boxes[:, 1], y0)
    level = np.flatnonzero(overlap >= 0.5 * np.minimum(heights, y1 - y0))
    level = level[np.argsort(boxes[level, 0], kind="stable")]
    gap = _WORD_GAP * max(float(np.median(heights[level])), 1e-4)
    # Pages are higher than wide: a fraction of the width is less than one of the height.
    far = np.maximum.accumulate(boxes[level, 2])[:-1]
    breaks = np.flatnonzero(boxes[level[1:], 0] - far > gap * _SQUARE) + 1
    return next(run for run in np.split(level, breaks) if start in run)


def _next_line(boxes: Float32, line: npt.NDArray[np.int_], side: int) -> npt.NDArray[np.int_] | None:
    """The next line below (side 1) or above (-1) of the same paragraph."""
    x0, y0, x1, y1 = around(boxes[line])
    height = float(np.median(boxes[line, 3] - boxes[line, 1]))
    away = boxes[:, 1] - y1 if side > 0 else y0 - boxes[:, 3]
    over = np.minimum(boxes[:, 2], x1) - np.maximum(boxes[:, 0], x0)
    heights = boxes[:, 3] - boxes[:, 1]
    alike = (heights <= _HEIGHTS * height) & (heights * _HEIGHTS >= height)
    # Boxes of neighbouring lines overlap a little where they are as high as the font.
    near = np.flatnonzero((away > -0.5 * height) & (away <= _LINE_GAP * height) & (over > 0) & alike)
    near = np.setdiff1d(near, line)
    if not len(near):
        return None
    neighbour = _line(boxes, int(near[away[near].argmin()]))
    left, _, right, _ = around(boxes[neighbour])
    # What only touches from the side is another column or a label.
    overlap = min(right, x1) - max(left, x0)
    return (
        neighbour if overlap >= 0.3 * min(right - left, x1 - x0) and not np.intersect1d(neighbour, line).size else None
    )


def nearest(boxes: Float32, place: Float32) -> int:
    """The box that lies most on a place, or is nearest to it."""
    over = np.minimum(boxes[:, 2:], place[2:]) - np.maximum(boxes[:, :2], place[:2])
    overlap = np.where((over > 0).all(axis=1), over.clip(0).prod(axis=1), 0)
    if overlap.max() > 0:
        return int(overlap.argmax())
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    return int(np.square(middles - (place[:2] + place[2:]) / 2).sum(axis=1).argmin())


def are_patches(boxes: Float32) -> bool:
    """Whether boxes are the tiles of a picture: all of one size, without gaps."""
    if len(boxes) < 4:
        return False
    sizes = boxes[:, 2:] - boxes[:, :2]
    x0, y0, x1, y1 = around(boxes)
    usual = np.median(sizes, axis=0)
    even = bool((np.abs(sizes - usual) <= 0.25 * usual + 1e-6).mean() > 0.8)
    return even and 0.95 <= float(sizes.prod(axis=1).sum()) / max((x1 - x0) * (y1 - y0), 1e-9) <= 1.05


def blob(boxes: Float32, weights: Float32, bright: int) -> Box:
    """Around the patches at least half as bright as the brightest that hang together with it."""
    bright_patches = np.flatnonzero(weights >= _BRIGHT * weights[bright])
    return around(boxes[bright_patches[_together(boxes[bright_patches], int(np.searchsorted(bright_patches, bright)))]])


def _together(boxes: Float32, start: int) -> list[int]:
    """The boxes that hang together with one, but for a rounding error, itself included.

    Boxes that touch have a cell of a raster in common, whose cells are about as large as they are: each is compared
    with few others.
    """
    low, high = boxes[:, :2] - _SLACK, boxes[:, 2:] + _SLACK
    side = np.median(boxes[:, 2:] - boxes[:, :2], axis=0).clip(1 / _CELLS, 1)
    first, last = (np.floor(ends / side).clip(0, _CELLS - 1).astype(np.int_).tolist() for ends in (low, high))
    of_cell: dict[tuple[int, int], set[int]] = {}

    def cells(i: int) -> Iterator[tuple[int, int]]:
        (x0, y0), (x1, y1) = first[i], last[i]
        return product(range(x0, x1 + 1), range(y0, y1 + 1))

    for i in range(len(boxes)):
        for cell in cells(i):
            of_cell.setdefault(cell, set()).add(i)
    own_low, own_high, lows, highs = (ends.tolist() for ends in (boxes[:, :2], boxes[:, 2:], low, high))
    members, frontier = {start}, [start]
    while frontier:
        i = frontier.pop()
        (x0, y0), (x1, y1) = lows[i], highs[i]
        for cell in cells(i):
            near = of_cell[cell]
            near -= members
            for j in [
                j
                for j in near
                if own_low[j][0] <= x1 and own_low[j][1] <= y1 and own_high[j][0] >= x0 and own_high[j][1] >= y0
            ]:
                members.add(j)
                frontier.append(j)
    return sorted(members)


def valid_boxes(boxes: Float32) -> npt.NDArray[np.bool_]:
    """Which boxes are some place: finite, and not turned around; shape (n,)."""
    valid = np.isfinite(boxes).all(axis=1)
    valid &= (boxes[:, :2] <= boxes[:, 2:]).all(axis=1)
    return np.asarray(valid, dtype=np.bool_)


def around(boxes: Float32) -> Box:
    """The smallest box around boxes, shape (n, 4)."""
    x0, y0 = boxes[:, :2].min(axis=0).tolist()
    x1, y1 = boxes[:, 2:].max(axis=0).tolist()
    return (x0, y0, x1, y1)
