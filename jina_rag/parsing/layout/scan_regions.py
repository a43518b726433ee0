"""Detection of charts, tables and figures on scanned pages, from all marks on the paper except words."""

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

# Longer side of the analyzed image in pixels. At this size, a pixel of an A4 page is one point, the unit of `regions`.
_LONG_SIDE = 842
# A pixel whose gray value (0 to 255) differs from the paper by more than this is a mark.
_CONTRAST = 40
_SPECK = 4
# If no region is found on an image with fewer words than this, the image is a single photo, drawing or chart.
_PHOTO_WORDS = 60
# If marks cover more than this fraction of an image, the image is not a scanned sheet of paper.
_MAX_MARKED_SHARE = 0.4
_FULL_PAGE: Box = (0.0, 0.0, 1.0, 1.0)


def find_regions_in_pixels(image: Image, words: Sequence[Word]) -> tuple[Region, ...]:
    """Return the charts, tables and figures on the screenshot of a scanned page.

    Args:
        image: RGB image of the page.
        words: Words that OCR read from the image.

    Returns:
        Regions as returned by `regions.find_regions`. An image with fewer than 60 words is returned as one figure if no
        region is found, or if more than 40 % of its pixels differ from the paper.
    """
    cv2 = require("cv2", package="opencv-python-headless")
    from PIL import Image as pillow

    scale = _LONG_SIDE / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    # Erosion replaces each pixel by the darkest neighbor, so that downscaling does not remove thin rules.
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
