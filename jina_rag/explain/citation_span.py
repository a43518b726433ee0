"""Box of the passage to cite: the lines of a paragraph, or a cluster of image patches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import numpy.typing as npt

from jina_rag.types import Box, Float32

MAX_LINES = 8
"""Maximum number of lines in a passage."""
_WORD_GAP = 1.6
"""Maximum gap between two words of a line, in word heights. The gap between two columns is wider."""
_LINE_GAP = 0.9
_MAX_HEIGHT_RATIO = 1.7
"""Maximum ratio of the heights of two lines in a paragraph. A heading and a line of text exceed this ratio."""
_MIN_RELATIVE_WEIGHT = 0.5
_TOUCH_TOLERANCE = np.float32(1e-3)
"""Maximum distance between patches that touch, as a fraction of the page."""
_CELLS = 512
_PAGE_ASPECT = 1.41
"""Approximate ratio of page height to page width, which converts fractions of the height to fractions of the width."""


def paragraph_box(boxes: Float32, start: int, weights: Float32) -> Box:
    """Return the box around a word's paragraph, or around `MAX_LINES` lines of a longer paragraph.

    Lines are added above and below the line of the word. Lines with greater mean weights are added first.

    Args:
        boxes: Word boxes, shape (n, 4), float32, as fractions of the page.
        start: Index of the word in `boxes`.
        weights: Weights of the words in the heat map, shape (n,), float32, from 0 to 1.
    """
    line = _line(boxes, start)
    lines = [line]
    edges = {-1: line, 1: line}
    while len(lines) < MAX_LINES:
        next_lines = {side: _next_line(boxes, edge, side) for side, edge in edges.items()}
        open_sides = [side for side, line_words in next_lines.items() if line_words is not None]
        if not open_sides:
            break
        side = max(open_sides, key=lambda side: float(weights[next_lines[side]].mean()))
        line_words = next_lines[side]
        assert line_words is not None
        edges[side] = line_words
        lines.append(line_words)
    return bounding_box(boxes[np.concatenate(lines)])


def _line(boxes: Float32, start: int) -> npt.NDArray[np.int_]:
    """Return the indices of the words in the line of word `start`; the line ends at the gap between two columns."""
    y0, y1 = boxes[start, 1], boxes[start, 3]
    heights = boxes[:, 3] - boxes[:, 1]
    overlap = np.minimum(boxes[:, 3], y1) - np.maximum(boxes[:, 1], y0)
    same_line = np.flatnonzero(overlap >= 0.5 * np.minimum(heights, y1 - y0))
    same_line = same_line[np.argsort(boxes[same_line, 0], kind="stable")]
    gap = _WORD_GAP * max(float(np.median(heights[same_line])), 1e-4)
    # `gap` is a fraction of the page height; `_PAGE_ASPECT` converts the gap to a fraction of the page width.
    right_edges = np.maximum.accumulate(boxes[same_line, 2])[:-1]
    breaks = np.flatnonzero(boxes[same_line[1:], 0] - right_edges > gap * _PAGE_ASPECT) + 1
    return next(run for run in np.split(same_line, breaks) if start in run)


def _next_line(boxes: Float32, line: npt.NDArray[np.int_], side: int) -> npt.NDArray[np.int_] | None:
    """Return the line below (`side` 1) or above (`side` -1) in the paragraph; None at the end of the paragraph."""
    x0, y0, x1, y1 = bounding_box(boxes[line])
    height = float(np.median(boxes[line, 3] - boxes[line, 1]))
    distance = boxes[:, 1] - y1 if side > 0 else y0 - boxes[:, 3]
    shared_width = np.minimum(boxes[:, 2], x1) - np.maximum(boxes[:, 0], x0)
    heights = boxes[:, 3] - boxes[:, 1]
    similar = (heights <= _MAX_HEIGHT_RATIO * height) & (heights * _MAX_HEIGHT_RATIO >= height)
    # Boxes as tall as the font overlap slightly with the boxes of adjacent lines.
    near = np.flatnonzero((distance > -0.5 * height) & (distance <= _LINE_GAP * height) & (shared_width > 0) & similar)
    near = np.setdiff1d(near, line)
    if not len(near):
        return None
    neighbor = _line(boxes, int(near[distance[near].argmin()]))
    left, _, right, _ = bounding_box(boxes[neighbor])
    # A neighboring line that overlaps little with the cited line horizontally is a label or part of another column.
    overlap = min(right, x1) - max(left, x0)
    return neighbor if overlap >= 0.3 * min(right - left, x1 - x0) and not np.intersect1d(neighbor, line).size else None


def nearest(boxes: Float32, target: Float32) -> int:
    """Return the index of the box that overlaps `target` most; if no box overlaps, the index of the nearest box.

    Args:
        boxes: Boxes to choose from, shape (n, 4), float32.
        target: Box to compare with, shape (4,), float32.
    """
    extent = np.minimum(boxes[:, 2:], target[2:]) - np.maximum(boxes[:, :2], target[:2])
    overlap = np.where((extent > 0).all(axis=1), extent.clip(0).prod(axis=1), 0)
    if overlap.max() > 0:
        return int(overlap.argmax())
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    return int(np.square(middles - (target[:2] + target[2:]) / 2).sum(axis=1).argmin())


def are_patches(boxes: Float32) -> bool:
    """Return whether boxes, shape (n, 4), are image patches: at least four boxes of one size without gaps."""
    if len(boxes) < 4:
        return False
    sizes = boxes[:, 2:] - boxes[:, :2]
    x0, y0, x1, y1 = bounding_box(boxes)
    usual = np.median(sizes, axis=0)
    even = bool((np.abs(sizes - usual) <= 0.25 * usual + 1e-6).mean() > 0.8)
    return even and 0.95 <= float(sizes.prod(axis=1).sum()) / max((x1 - x0) * (y1 - y0), 1e-9) <= 1.05


def patch_box(boxes: Float32, weights: Float32, peak: int) -> Box:
    """Return the box around the patches that are connected to `peak` and have at least half of the weight of `peak`.

    Args:
        boxes: Shape (n, 4), float32, as fractions of the page.
        weights: Shape (n,), float32, from 0 to 1.
        peak: Index of the patch with the greatest weight.
    """
    bright = np.flatnonzero(weights >= _MIN_RELATIVE_WEIGHT * weights[peak])
    return bounding_box(boxes[bright[_connected_indices(boxes[bright], int(np.searchsorted(bright, peak)))]])


def _connected_indices(boxes: Float32, start: int) -> list[int]:
    """Return the sorted indices of the boxes connected to box `start`, including `start`.

    Only boxes that share a cell of a raster are compared, which limits the number of comparisons. The cells are about
    as large as a box, so that boxes that touch share a cell.
    """
    low, high = boxes[:, :2] - _TOUCH_TOLERANCE, boxes[:, 2:] + _TOUCH_TOLERANCE
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
            neighbors = of_cell[cell]
            neighbors -= members
            for j in [
                j
                for j in neighbors
                if own_low[j][0] <= x1 and own_low[j][1] <= y1 and own_high[j][0] >= x0 and own_high[j][1] >= y0
            ]:
                members.add(j)
                frontier.append(j)
    return sorted(members)


def valid_boxes(boxes: Float32) -> npt.NDArray[np.bool_]:
    """Return a mask that is True for finite boxes that are not inverted, shape (n,), bool.

    Args:
        boxes: Shape (n, 4), float32.
    """
    valid = np.isfinite(boxes).all(axis=1)
    valid &= (boxes[:, :2] <= boxes[:, 2:]).all(axis=1)
    return np.asarray(valid, dtype=np.bool_)


def bounding_box(boxes: Float32) -> Box:
    """Return the smallest box that contains all boxes.

    Args:
        boxes: Shape (n, 4), float32, with n of at least 1.
    """
    x0, y0 = boxes[:, :2].min(axis=0).tolist()
    x1, y1 = boxes[:, 2:].max(axis=0).tolist()
    return (x0, y0, x1, y1)
