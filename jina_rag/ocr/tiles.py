"""Division of long images into overlapping tiles, and merging of the line outlines of adjacent tiles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from jina_rag.types import Float32

# Aspect ratio of the tiles into which long images are divided, so that text stays legible after scaling down.
_TILE_ASPECT = 1.6
_MIN_TILE_SIDE = 640
# An image of less than this many tile lengths is not divided.
_MIN_TILES = 1.5
# Two outlines are the same line if their common area covers at least this fraction of the smaller outline. Areas count
# only inside the overlap of the tiles.
_MIN_COMMON_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows or columns `start` to `end` of an image.

    Adjacent tiles overlap. The seam is the middle of the overlap.

    Attributes:
        start: First row or column.
        end: Row or column after the last one.
        first: Position of the seam to the previous tile; 0 for the first tile.
        last: Position of the seam to the next tile; beyond the image for the last tile.
    """

    start: int
    end: int
    first: float
    last: float


def tiles_of(long: int, short: int) -> list[Tile]:
    """Return the tiles of an image.

    Args:
        long: Length of the longer side of the image in pixels, along which the image is divided.
        short: Length of the shorter side in pixels.
    """
    size = max(int(short * _TILE_ASPECT), _MIN_TILE_SIDE)
    if long <= size * _MIN_TILES:
        return [Tile(0, long, 0, long + 1)]
    overlap = size // 8
    starts = range(0, long - overlap, size - overlap)
    tiles = []
    for start in starts:
        first = start + overlap / 2 if start else 0
        last = start + size - overlap / 2 if start != starts[-1] else long + 1
        tiles.append(Tile(start, min(start + size, long), first, last))
    return tiles


def merge_tiles(tiles: Iterable[tuple[Tile, Sequence[Float32]]], axis: int) -> list[Float32]:
    """Return the outlines of the lines of an image, each line once.

    A line beside a seam is complete in one tile. A line across a seam is in both tiles, and the end of each tile may
    cut it: lines along a wide image, or vertical lines in a tall image, can cross many tiles. The outlines of such
    a line are merged.

    Args:
        tiles: The tiles in order, each with the outlines in the tile: corners in pixels of the image, shape (4, 2),
            float32, clockwise from the top left corner.
        axis: Coordinate along which the image is divided: 0 for x, 1 for y.

    Returns:
        Outlines in pixels of the image, shape (4, 2), float32, clockwise from the top left corner.
    """
    lines: list[Float32] = []
    previous: Tile | None = None
    open_lines: dict[int, Float32] = {}  # position in `lines` → outline in the previous tile of a line in the overlap
    for tile, quads in tiles:
        next_start = 2 * tile.last - tile.end
        next_open_lines: dict[int, Float32] = {}
        for quad in quads:
            start, end = float(quad[:, axis].min()), float(quad[:, axis].max())
            if end <= tile.first or start >= tile.last:
                continue  # complete in the other tile
            position = None
            # The tiles may place a line that touches the seam on different sides, so the whole overlap is compared.
            if previous is not None and start < previous.end:
                position = _same_line(quad, open_lines, (tile.start, previous.end), axis)
            if position is None:
                position = len(lines)
                lines.append(quad)
            else:
                lines[position] = _union(lines[position], quad)
            if end > next_start:
                next_open_lines[position] = quad
        open_lines, previous = next_open_lines, tile
    return lines


def _same_line(quad: Float32, open_lines: dict[int, Float32], window: tuple[int, int], axis: int) -> int | None:
    """Return the position of the outline in `open_lines` that shows the same line, compared inside the overlap."""
    clipped = _clip(quad, window, axis)
    shares = {position: _common_share(clipped, _clip(other, window, axis)) for position, other in open_lines.items()}
    best = max(shares, key=lambda position: shares[position], default=None)
    return best if best is not None and shares[best] >= _MIN_COMMON_SHARE else None


def _clip(quad: Float32, window: tuple[int, int], axis: int) -> Float32:
    """Return the polygon of a quad inside the overlap of two tiles, shape (corners, 2), float32."""
    import cv2

    (x0, y0), (x1, y1) = quad.min(axis=0) - 1, quad.max(axis=0) + 1
    if axis:
        y0, y1 = max(y0, window[0]), min(y1, window[1])
    else:
        x0, x1 = max(x0, window[0]), min(x1, window[1])
    if x0 >= x1 or y0 >= y1:
        return np.empty((0, 2), np.float32)
    part = cv2.intersectConvexConvex(quad, np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float32))[1]
    return np.empty((0, 2), np.float32) if part is None else part.reshape(-1, 2).astype(np.float32)


def _common_share(first: Float32, second: Float32) -> float:
    import cv2

    if len(first) < 3 or len(second) < 3:
        return 0.0
    smaller = min(cv2.contourArea(first), cv2.contourArea(second))
    return float(cv2.intersectConvexConvex(first, second)[0]) / max(smaller, 1.0)


def _union(first: Float32, second: Float32) -> Float32:
    """Return the smallest rectangle around two outlines."""
    import cv2

    points = np.concatenate([first, second])
    if _is_upright(first) and _is_upright(second):
        (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
        return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float32)
    corners = cv2.boxPoints(cv2.minAreaRect(points))
    left, right = np.split(corners[np.argsort(corners[:, 0])], 2)
    left, right = left[np.argsort(left[:, 1])], right[np.argsort(right[:, 1])]
    return np.array([left[0], right[0], right[1], left[1]], np.float32)


def _is_upright(quad: Float32) -> bool:
    (x0, y0), (x1, y1) = quad[0], quad[2]
    return np.array_equal(quad, [(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
