"""Where the lines of text are in an image: which parts of it to search, and a network for each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jina_rag.ocr.interruption import check_interruption
from jina_rag.ocr.recognition import Pixels
from jina_rag.ocr.weights import Models
from jina_rag.types import Float32

# The network halves the image five times.
_MULTIPLE = 32
# Longer images are cut into tiles this much longer than wide, so that their text stays legible.
_TILE = 1.6
_MIN_TILE = 640
# Below this difference between the darkest and the lightest value nothing is written there.
_CONTRAST = 24
_MARGIN = 16
# Rows of an image that fit into the processor's cache.
_ROWS = 64


@dataclass(frozen=True, slots=True)
class _Tile:
    """Rows (or columns) `start` to `end` of an image; its lines have their middle in `first` to `last`."""

    start: int
    end: int
    first: float
    last: float


def find_lines(models: Models, pixels: Pixels, *, max_side: int) -> list[Float32]:
    """Find lines of text.

    Args:
        models: Its detector is used.
        pixels: Shape (height, width, 3), RGB.
        max_side: The image, or each tile of a long one, is scaled down to this many pixels first.

    Returns:
        Corners in pixels, each (4, 2) float32, clockwise from the top left one.
    """
    height, width = pixels.shape[:2]
    along = 1 if height >= width else 0
    tiles = _tiles(max(height, width), min(height, width))
    quads = []
    for tile in tiles:
        part = pixels[tile.start : tile.end] if along else pixels[:, tile.start : tile.end]
        if _contrast(part) < _CONTRAST:
            continue
        shift = np.array((0, tile.start) if along else (tile.start, 0), dtype=np.float32)
        for quad in _find_quads(models, part, max_side):
            corners = quad + shift
            if tile.first <= corners[:, along].mean() < tile.last:
                quads.append(corners)
    return quads


def _tiles(long: int, short: int) -> list[_Tile]:
    size = max(int(short * _TILE), _MIN_TILE)
    if long <= size * 1.5:
        return [_Tile(0, long, 0, long + 1)]
    overlap = size // 8
    starts = range(0, long - overlap, size - overlap)
    tiles = []
    for start in starts:
        first = start + overlap / 2 if start else 0
        last = start + size - overlap / 2 if start != starts[-1] else long + 1
        tiles.append(_Tile(start, min(start + size, long), first, last))
    return tiles


def _find_quads(models: Models, pixels: Pixels, max_side: int) -> Float32:
    import cv2

    # Averaging keeps thin strokes.
    height, width = pixels.shape[:2]
    scale = min(1.0, max_side / max(height, width))
    size = [max(_MULTIPLE, round(side * scale / _MULTIPLE) * _MULTIPLE) for side in (width, height)]
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    image = np.empty((1, 3, size[1], size[0]), np.float32)
    # The networks were trained on OpenCV's order of the channels.
    for plane, channel in zip(image[0], cv2.split(small)[::-1], strict=True):
        np.multiply(channel, np.float32(2 / 255), out=plane, casting="unsafe")
    image -= 1
    check_interruption()
    certainty = models.detector.run(None, {"x": image})[0]
    quads, _ = models.outlines(certainty, (height, width))
    return np.asarray(quads, dtype=np.float32).reshape(-1, 4, 2)


def content_bounds(pixels: Pixels) -> tuple[int, int, int, int] | None:
    """The box (x0, y0, x1, y1) in pixels outside which nothing can be written; None if nothing is at all.

    Empty margins are a good part of most pages, and looking for lines costs time for every pixel.
    """
    # In each channel by itself: letters may differ from the paper in colour alone.
    rows = np.flatnonzero((_spread(pixels, 1) >= _CONTRAST).any(axis=1))
    columns = np.flatnonzero((_spread(pixels, 0) >= _CONTRAST).any(axis=1))
    if len(rows) == 0 or len(columns) == 0:
        return None
    height, width = pixels.shape[:2]
    return (
        max(int(columns[0]) - _MARGIN, 0),
        max(int(rows[0]) - _MARGIN, 0),
        min(int(columns[-1]) + 1 + _MARGIN, width),
        min(int(rows[-1]) + 1 + _MARGIN, height),
    )


def _spread(pixels: Pixels, axis: int) -> Pixels:
    """Lightest less darkest value of each channel along an axis, as np.ptp gives it, in a fraction of the time."""
    return _along(np.maximum, pixels, axis) - _along(np.minimum, pixels, axis)


def _contrast(pixels: Pixels) -> int:
    """Lightest less darkest value of an image, in the channel where they are furthest apart."""
    most, least = (_along(pick, pixels, 0) for pick in (np.maximum, np.minimum))
    return int((most.max(axis=0).astype(int) - least.min(axis=0)).max())


def _along(pick: np.ufunc, pixels: Pixels, axis: int) -> Pixels:
    """Lightest or darkest value of each channel along an axis."""
    if axis == 0:
        return np.asarray(pick.reduce(pixels, axis=0), dtype=np.uint8)
    parts = []
    for start in range(0, len(pixels), _ROWS):
        part = pixels[start : start + _ROWS]
        # Folded in halves, which overlap if they must: many values at once, where NumPy would take three.
        while (width := part.shape[1]) > 1:
            half = (width + 1) // 2
            part = pick(part[:, :half], part[:, width - half :])
        parts.append(part[:, 0])
    return np.concatenate(parts)
