"""Regions of a page that is nothing but a picture: what is left of it when the words are taken away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jina_rag._extras import require
from jina_rag.parsing.layout.regions import Shapes, find_regions
from jina_rag.parsing.layout.text_lines import text_lines
from jina_rag.types import Box, Region, Word

if TYPE_CHECKING:
    from PIL.Image import Image

# About one pixel a point on a page of paper, so that the distances of `regions` hold.
_LONG_SIDE = 842
# How much darker or lighter than the paper a mark is.
_CONTRAST = 40
_SPECK = 4
# A picture with fewer words and no regions is a photo, a drawing or a chart as a whole.
_PHOTO_WORDS = 60
# With marks on more of it than this it is no paper with something on it.
_NO_PAPER = 0.4
_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def find_regions_in_pixels(image: Image, words: Sequence[Word]) -> tuple[Region, ...]:
    """Find charts, tables and figures in the picture of a page.

    Args:
        image: RGB.
        words: What OCR read in it.

    Returns:
        As `regions.find_regions`; the whole picture as one figure if it has few words
        and shows something.
    """
    cv2 = require("cv2", package="opencv-python-headless")
    from PIL import Image as pillow

    scale = _LONG_SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    # The darkest pixel decides, or thin rules would fade away in the small copy.
    grey = np.asarray(image.convert("L"))
    if scale < 1:
        grey = cv2.erode(grey, np.ones((round(1 / scale), round(1 / scale)), np.uint8))
    small = np.asarray(pillow.fromarray(grey).resize((width, height), pillow.Resampling.NEAREST)).astype(np.int16)
    marks = (np.abs(small - int(np.median(small))) > _CONTRAST).astype(np.uint8)
    anything = bool(marks.any())
    if marks.mean() > _NO_PAPER:
        return (Region("figure", _WHOLE),) if len(words) < _PHOTO_WORDS else ()
    for word in words:
        x0, y0, x1, y1 = (round(side * size) for side, size in zip(word.box, (width, height) * 2, strict=True))
        marks[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1] = 0
    _, _, statistics, _ = cv2.connectedComponentsWithStats(marks, connectivity=8)
    boxes = statistics[1:, :4].astype(np.float32)
    boxes = boxes[boxes[:, 2:].max(axis=1, initial=0) > _SPECK]
    boxes[:, 2:] += boxes[:, :2]
    shapes = Shapes(width, height, drawings=boxes, curved=np.zeros(len(boxes), dtype=bool))
    regions = find_regions(shapes, text_lines(words, width, height))
    if not regions and anything and len(words) < _PHOTO_WORDS:
        return (Region("figure", _WHOLE),)
    return regions
