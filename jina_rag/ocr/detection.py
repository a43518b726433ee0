"""Detection of text lines in an image, tile by tile.

Source: Liao et al., Real-time Scene Text Detection with Differentiable Binarization (AAAI 2020); the model is from
PP-OCR (Du et al., 2020).
"""

from __future__ import annotations

import numpy as np

from jina_rag.ocr.interruption import check_interruption
from jina_rag.ocr.recognition import Pixels
from jina_rag.ocr.tiles import merge_tiles, tiles_of
from jina_rag.ocr.weights import Models
from jina_rag.types import Float32

# The network halves the resolution five times, so the sides of the input must be multiples of 2**5.
_SIDE_MULTIPLE = 32
# Contrast of a channel: the highest minus the lowest value (0 to 255). An area has no text if every channel has less
# than the minimum contrast.
_MIN_CONTRAST = 24
_MARGIN = 16
# If the median height of the lines in the scaled image is below this number of pixels, the outlines are inexact: the
# font size is below 7 pixels. The lines are then detected again in an image that is larger by _FINER.
_MIN_LINE_HEIGHT = 14.5
_FINER = 1.6
# Number of image rows per NumPy operation; these rows fit into the processor's cache.
_ROW_CHUNK = 64


def find_lines(models: Models, pixels: Pixels, *, max_side: int) -> list[Float32]:
    """Return the outlines of the text lines of an image.

    Args:
        models: The loaded OCR models, of which `detector` and `outlines` are used.
        pixels: Shape (height, width, 3), uint8, RGB.
        max_side: Longest side of the image in pixels, or of each tile of a long image. Larger images and tiles are
            scaled down; if their text is then small, to 1.6 times this length.

    Returns:
        The corners of each line in pixels, shape (4, 2), float32, clockwise from the top left corner.
    """
    height, width = pixels.shape[:2]
    axis = 1 if height >= width else 0
    tiles = []
    for tile in tiles_of(max(height, width), min(height, width)):
        part = pixels[tile.start : tile.end] if axis else pixels[:, tile.start : tile.end]
        shift = np.array((0, tile.start) if axis else (tile.start, 0), dtype=np.float32)
        has_text = _contrast(part) >= _MIN_CONTRAST
        tiles.append((tile, [quad + shift for quad in _find_in_tile(models, part, max_side)] if has_text else []))
    return merge_tiles(tiles, axis)


def _find_in_tile(models: Models, pixels: Pixels, max_side: int) -> Float32:
    quads = _find_quads(models, pixels, max_side)
    scale = max_side / max(pixels.shape)
    if scale >= 1 or not len(quads):
        return quads
    sides = np.linalg.norm(quads - np.roll(quads, 1, axis=1), axis=2)
    if np.median(sides.min(axis=1)) * scale >= _MIN_LINE_HEIGHT:
        return quads
    return _find_quads(models, pixels, round(max_side * _FINER))


def _find_quads(models: Models, pixels: Pixels, max_side: int) -> Float32:
    import cv2

    # INTER_AREA averages pixels, so thin strokes stay visible after scaling down.
    height, width = pixels.shape[:2]
    scale = min(1.0, max_side / max(height, width))
    size = [max(_SIDE_MULTIPLE, round(side * scale / _SIDE_MULTIPLE) * _SIDE_MULTIPLE) for side in (width, height)]
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    image = np.empty((1, 3, size[1], size[0]), np.float32)
    # The models were trained on OpenCV's channel order, BGR.
    for plane, channel in zip(image[0], cv2.split(small)[::-1], strict=True):
        np.multiply(channel, np.float32(2 / 255), out=plane, casting="unsafe")
    image -= 1
    check_interruption()
    probabilities = models.detector.run(None, {"x": image})[0]
    quads, _ = models.outlines(probabilities, (height, width))
    return np.asarray(quads, dtype=np.float32).reshape(-1, 4, 2)


def content_bounds(pixels: Pixels) -> tuple[int, int, int, int] | None:
    """Return the box of the content of an image, without the empty margins.

    The time of line detection grows with the number of pixels, and margins are a large part of most pages. Cropping an
    image to this box therefore makes line detection faster.

    Args:
        pixels: Shape (height, width, 3), uint8, RGB.

    Returns:
        The box (x0, y0, x1, y1) in pixels, or None for an image without contrast.
    """
    # Each channel is checked separately, because text may differ from the background in color only.
    rows = np.flatnonzero((_spread(pixels, 1) >= _MIN_CONTRAST).any(axis=1))
    columns = np.flatnonzero((_spread(pixels, 0) >= _MIN_CONTRAST).any(axis=1))
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
    """Return the maximum minus the minimum of each channel along an axis; faster than np.ptp."""
    return _channel_extremes(np.maximum, pixels, axis) - _channel_extremes(np.minimum, pixels, axis)


def _contrast(pixels: Pixels) -> int:
    """Return the largest value range (maximum minus minimum) of any image channel."""
    highest, lowest = (_channel_extremes(ufunc, pixels, 0) for ufunc in (np.maximum, np.minimum))
    return int((highest.max(axis=0).astype(int) - lowest.min(axis=0)).max())


def _channel_extremes(ufunc: np.ufunc, pixels: Pixels, axis: int) -> Pixels:
    """Return the maximum (np.maximum) or minimum (np.minimum) of each channel along an axis."""
    if axis == 0:
        return np.asarray(ufunc.reduce(pixels, axis=0), dtype=np.uint8)
    parts = []
    for start in range(0, len(pixels), _ROW_CHUNK):
        part = pixels[start : start + _ROW_CHUNK]
        # Compare the halves of each row (overlapping for odd widths) until one column is left. NumPy vectorizes this
        # comparison, but not a reduction over rows of three channels.
        while (width := part.shape[1]) > 1:
            half = (width + 1) // 2
            part = ufunc(part[:, :half], part[:, width - half :])
        parts.append(part[:, 0])
    return np.concatenate(parts)
