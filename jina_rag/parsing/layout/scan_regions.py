"""Detection of charts, tables and figures on scanned pages, from the marks outside the words."""

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

# Longer side of the analyzed image in pixels, so that one pixel of an A4 page is one point, the unit of `regions`.
_LONG_SIDE = 842
# Minimum gray-value difference between a mark and the paper, of 255.
_CONTRAST = 40
_SPECK = 4
# An image with fewer words and no regions is a single photo, drawing or chart.
_PHOTO_WORDS = 60
# An image with marks on more than this fraction is not a scanned sheet of paper.
_MAX_MARKED_SHARE = 0.4
_FULL_PAGE: Box = (0.0, 0.0, 1.0, 1.0)


def find_regions_in_pixels(image: Image, words: Sequence[Word]) -> tuple[Region, ...]:
    """Return the charts, tables and figures on the image of a page.

    Args:
        image: RGB image of the page.
        words: Words that OCR read from the image.

    Returns:
        Regions as in `regions.find_regions`. An image with fewer than 60 words is returned as one figure if its marks
        form no region or cover more than 40 % of the image.
    """
    cv2 = require("cv2", package="opencv-python-headless")
    from PIL import Image as pillow

    scale = _LONG_SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    # Erosion keeps the darkest pixel, so that thin rules survive the downscaling.
    grey = np.asarray(image.convert("L"))
    if scale < 1:
        grey = cv2.erode(grey, np.ones((round(1 / scale), round(1 / scale)), np.uint8))
    small = np.asarray(pillow.fromarray(grey).resize((width, height), pillow.Resampling.NEAREST)).astype(np.int16)
    marks = (np.abs(small - int(np.median(small))) > _CONTRAST).astype(np.uint8)
    has_marks = bool(marks.any())
    if marks.mean() > _MAX_MARKED_SHARE:
        return (Region("figure", _FULL_PAGE),) if len(words) < _PHOTO_WORDS else ()
    for word in words:
        x0, y0, x1, y1 = (round(side * size) for side, size in zip(word.box, (width, height) * 2, strict=True))
        marks[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1] = 0
    _, _, statistics, _ = cv2.connectedComponentsWithStats(marks, connectivity=8)
    boxes = statistics[1:, :4].astype(np.float32)
    boxes = boxes[boxes[:, 2:].max(axis=1, initial=0) > _SPECK]
    boxes[:, 2:] += boxes[:, :2]
    shapes = Shapes(width, height, drawings=boxes, curved=np.zeros(len(boxes), dtype=bool))
    regions = find_regions(shapes, text_lines(words, width, height))
    if not regions and has_marks and len(words) < _PHOTO_WORDS:
        return (Region("figure", _FULL_PAGE),)
    return regions
