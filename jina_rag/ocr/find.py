"""Where the lines of text are in an image.

Source: Liao et al., Real-time Scene Text Detection with Differentiable Binarization (AAAI 2020), for the way
from the map of probabilities to boxes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jina_rag.ocr.weights import Session
from jina_rag.types import Float32

Pixels = npt.NDArray[np.uint8]

# The network halves the image five times.
_MULTIPLE = 32
_PIXEL_THRESHOLD = 0.3
_LINE_THRESHOLD = 0.5
_MIN_SIDE = 3
# The map marks the core of each line, shrunk in training; growing it back by this ratio gives the line.
_GROW = 1.6
# Longer images are cut into tiles this much longer than wide, so that their text stays legible.
_TILE = 1.6
_MIN_TILE = 640
# Below this difference between the darkest and the lightest value nothing is written there.
_CONTRAST = 24
_MARGIN = 16


@dataclass(frozen=True, slots=True)
class _Tile:
    """Rows (or columns) `start` to `end` of an image; its lines have their middle in `first` to `last`."""

    start: int
    end: int
    first: float
    last: float


def find_lines(session: Session, pixels: Pixels, *, max_side: int) -> list[Float32]:
    """Find lines of text.

    Args:
        session: The detection model.
        pixels: Shape (height, width, 3), BGR.
        max_side: The image, or each tile of a long one, is scaled down to this many pixels first.

    Returns:
        Corners in pixels, each (4, 2) float32, clockwise from the top left one.
    """
    height, width = pixels.shape[:2]
    along = 1 if height >= width else 0
    quads = []
    for tile in _tiles(max(height, width), min(height, width)):
        part = pixels[tile.start : tile.end] if along else pixels[:, tile.start : tile.end]
        if np.ptp(part, axis=(0, 1)).max() < _CONTRAST:
            continue
        shift = np.array((0, tile.start) if along else (tile.start, 0), dtype=np.float32)
        for quad in _find(session, part, max_side):
            placed = quad + shift
            if tile.first <= placed[:, along].mean() < tile.last:
                quads.append(placed)
    return quads


def _tiles(long: int, short: int) -> list[_Tile]:
    size = max(int(short * _TILE), _MIN_TILE)
    if long <= size * 1.5:
        return [_Tile(0, long, 0, long + 1)]
    overlap = size // 8
    starts = range(0, long - overlap, size - overlap)
    return [
        _Tile(
            start,
            min(start + size, long),
            start + overlap / 2 if start else 0,
            start + size - overlap / 2 if start != starts[-1] else long + 1,
        )
        for start in starts
    ]


def _find(session: Session, pixels: Pixels, max_side: int) -> list[Float32]:
    import cv2

    height, width = pixels.shape[:2]
    scale = min(1.0, max_side / max(height, width))
    size = [max(_MULTIPLE, round(side * scale / _MULTIPLE) * _MULTIPLE) for side in (width, height)]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small: Pixels = np.asarray(cv2.resize(pixels, size, interpolation=method), dtype=np.uint8)
    heat = session.run(None, {session.get_inputs()[0].name: normalised(small)[None]})[0][0, 0]
    mask = cv2.dilate((heat > _PIXEL_THRESHOLD).astype(np.uint8), np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    factor = np.array([width / size[0], height / size[1]], dtype=np.float32)
    quads = []
    for contour in contours:
        centre, (wide, high), angle = cv2.minAreaRect(contour)
        if min(wide, high) < _MIN_SIDE or _mean_inside(heat, contour) < _LINE_THRESHOLD:
            continue
        grow = wide * high * _GROW / (wide + high)  # area x ratio / perimeter, on either side
        corners = cv2.boxPoints((centre, (wide + grow, high + grow), angle)).astype(np.float32) * factor
        quads.append(_from_top_left(corners).clip(0, np.array((width, height), dtype=np.float32)))
    return quads


def written_part(pixels: Pixels) -> tuple[int, int, int, int] | None:
    """The box (x0, y0, x1, y1) in pixels outside which nothing can be written; None if nothing is at all.

    Empty margins are a good part of most pages, and looking for lines costs time for every pixel.
    """
    # In each channel by itself: letters may differ from the paper in colour alone.
    rows = np.flatnonzero((np.ptp(pixels, axis=1) >= _CONTRAST).any(axis=1))
    columns = np.flatnonzero((np.ptp(pixels, axis=0) >= _CONTRAST).any(axis=1))
    if len(rows) == 0 or len(columns) == 0:
        return None
    height, width = pixels.shape[:2]
    return (
        max(int(columns[0]) - _MARGIN, 0),
        max(int(rows[0]) - _MARGIN, 0),
        min(int(columns[-1]) + 1 + _MARGIN, width),
        min(int(rows[-1]) + 1 + _MARGIN, height),
    )


def normalised(pixels: Pixels) -> Float32:
    """Scale to -1..1 and put the channels first, as both models were trained."""
    return np.ascontiguousarray((pixels.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1))


def _mean_inside(heat: Float32, contour: npt.NDArray[np.integer[Any] | np.floating[Any]]) -> float:
    import cv2

    x, y, w, h = cv2.boundingRect(contour)
    inside = np.zeros((h, w), np.uint8)
    cv2.fillPoly(inside, [contour - np.array((x, y), dtype=np.int32)], 1)
    return float(cv2.mean(heat[y : y + h, x : x + w], inside)[0])


def _from_top_left(corners: Float32) -> Float32:
    """Order four corners of a rectangle clockwise (y down), starting top left."""
    middle = corners.mean(axis=0)
    clockwise = corners[np.argsort(np.arctan2(corners[:, 1] - middle[1], corners[:, 0] - middle[0]))]
    return np.roll(clockwise, -int(clockwise.sum(axis=1).argmin()), axis=0)
