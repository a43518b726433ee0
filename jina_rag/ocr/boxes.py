"""Recognition of text whose place is known: the lines are not searched, so the models read only a few pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jina_rag.types import Box, Float32, Word

if TYPE_CHECKING:
    from PIL.Image import Image

    from jina_rag.ocr.recognition import Pixels

# A box with at least this ratio of height to width has vertical text.
_VERTICAL_ASPECT = 1.5
# Contrast, 0 to 255, of a row or column that has text.
_MIN_CONTRAST = 40
_MARGIN = 3
_MIN_SIDE = 6


@dataclass(frozen=True, slots=True)
class BoxReading:
    """Text that OCR read in a box.

    Attributes:
        text: The characters; empty if nothing was read.
        score: Mean confidence of the characters, 0 to 1.
        words: The words, with boxes as fractions of the image and `ocr` set to True.
    """

    text: str = ""
    score: float = 0.0
    words: tuple[Word, ...] = ()


def read_boxes(image: Image, boxes: Sequence[Box]) -> list[BoxReading]:
    """Return the text in each of the boxes. A box contains one line, horizontal or vertical.

    Args:
        image: RGB image.
        boxes: Boxes as fractions of the image.

    Raises:
        MissingDependencyError: If rapidocr, onnxruntime or OpenCV is not installed.
        CheckpointError: If the weights in the wheel of rapidocr are damaged or have an unknown graph.
    """
    from jina_rag.ocr.lines import Line, read_quads
    from jina_rag.ocr.weights import load_models

    models = load_models()
    pixels = np.asarray(image)
    size = image.size
    bounds = [_text_bounds(pixels, box) for box in boxes]
    quads: list[Float32] = []
    owners: list[int] = []
    for number, bound in enumerate(bounds):
        if bound is None:
            continue
        x0, y0, x1, y1 = bound
        quad = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float32)
        is_vertical = y1 - y0 >= _VERTICAL_ASPECT * (x1 - x0) and boxes[number][3] > boxes[number][1]
        # Vertical text may run up, run down, or consist of upright characters, which are read one line at a time.
        directions = (np.roll(quad, -3, axis=0), np.roll(quad, -1, axis=0)) if is_vertical else (quad,)
        quads += directions
        owners += [number] * len(directions)
    best: dict[int, Line] = {}
    for owner, line in zip(owners, read_quads(models, pixels, quads), strict=True):
        if owner not in best or line.score > best[owner].score:
            best[owner] = line
    readings = {n: BoxReading(line.text, line.score, tuple(line.words((0, 0), size))) for n, line in best.items()}
    return [readings.get(number, BoxReading()) for number in range(len(boxes))]


def _text_bounds(pixels: Pixels, box: Box) -> tuple[int, int, int, int] | None:
    """Return the part of a box that has text, with a margin, in pixels; None for a box without contrast."""
    height, width = pixels.shape[:2]
    left, top = max(int(box[0] * width) - 1, 0), max(int(box[1] * height) - 1, 0)
    right, bottom = min(round(box[2] * width) + 1, width), min(round(box[3] * height) + 1, height)
    if right - left < _MIN_SIDE or bottom - top < _MIN_SIDE:
        return None
    crop = pixels[top:bottom, left:right].max(axis=2).astype(np.int16)
    is_mark = np.abs(crop - int(np.median(crop))) > _MIN_CONTRAST
    rows, columns = np.flatnonzero(is_mark.any(axis=1)), np.flatnonzero(is_mark.any(axis=0))
    if len(rows) == 0 or len(columns) == 0:
        return None
    return (
        max(left + int(columns[0]) - _MARGIN, 0),
        max(top + int(rows[0]) - _MARGIN, 0),
        min(left + int(columns[-1]) + 1 + _MARGIN, width),
        min(top + int(rows[-1]) + 1 + _MARGIN, height),
    )
