"""The visible area of a page, from page boxes that may be missing or invalid, as PDF viewers compute it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from jina_rag.parsing.layout.boxes import bounds, clip_box
from jina_rag.types import Box

LETTER: Box = (0.0, 0.0, 612.0, 792.0)
"""The page of PDF viewers for a page without a valid MediaBox."""
MIN_SIDE = 1.0
"""A box with a side below this number of points is invalid."""
MAX_COORDINATE = 1e7
"""A box with a coordinate above this number is invalid. PDFium reads integers above 2^31 as 0."""
HUGE_SIDE = 50_000.0
"""A page with a side above this number of points (the format allows 14,400) is cropped to its contents."""
_MARGIN = 36.0


def visible_box(media: Sequence[float] | None, crop: Sequence[float] | None) -> Box:
    """Return the visible area of a page: the intersection of the CropBox and the MediaBox.

    An invalid MediaBox is replaced by `LETTER`. A CropBox that is invalid or outside the MediaBox is ignored.

    Args:
        media: Numbers of the MediaBox in points; None for no MediaBox.
        crop: Numbers of the CropBox in points; None for no CropBox.
    """
    area = _valid(media) or LETTER
    cropped = _valid(crop)
    return (cropped and is_valid(inner := clip_box(cropped, area)) and inner) or area


def is_valid(box: Box | None) -> bool:
    """Return whether a box has finite coordinates and sides of at least `MIN_SIDE`.

    Args:
        box: The box in points, with x0 < x1 and y0 < y1.
    """
    if box is None or not all(math.isfinite(side) and abs(side) <= MAX_COORDINATE for side in box):
        return False
    return box[2] - box[0] >= MIN_SIDE and box[3] - box[1] >= MIN_SIDE


def is_huge(box: Box) -> bool:
    """Return whether a page is so large that its contents would be invisible specks."""
    return max(box[2] - box[0], box[3] - box[1]) > HUGE_SIDE


def crop_to_contents(page: Box, contents: Iterable[Box]) -> Box:
    """Return the box around the contents of a page, with a margin of half an inch; the page if nothing is on it.

    Args:
        page: The visible area of the page in points.
        contents: Boxes of the contents in points. Boxes that cover the page (a background) are ignored.
    """
    parts = [part for box in contents if (part := clip_box(box, page)) and not is_huge(part)]
    if not parts:
        return page
    x0, y0, x1, y1 = bounds([corner for part in parts for corner in (part[:2], part[2:])])
    return clip_box((x0 - _MARGIN, y0 - _MARGIN, x1 + _MARGIN, y1 + _MARGIN), page) or page


def _valid(values: Sequence[float] | None) -> Box | None:
    if values is None or len(values) != 4:
        return None
    box = bounds([values[:2], values[2:]])
    return box if is_valid(box) else None
