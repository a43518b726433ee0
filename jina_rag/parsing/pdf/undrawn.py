"""Detection of page contents that are missing in the screenshot, from single colors where contents should be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from jina_rag.parsing.layout.boxes import area
from jina_rag.parsing.layout.regions import Shapes
from jina_rag.parsing.pdf.document_warnings import BLANK, UNDRAWN, UNIFORM
from jina_rag.types import Box

if TYPE_CHECKING:
    from PIL.Image import Image

_PAPER_WHITE = (255, 255, 255)
# Number of pixel rows that are checked at a time for different colors.
_BAND_ROWS = 64
# Images that cover less than this fraction of the page are not checked, and images after the first `_MAX_PICTURES`.
_MIN_PICTURE_SHARE = 0.01
_MAX_PICTURES = 50


def find_undrawn(
    image: Image,
    shapes: Shapes,
    *,
    has_words: bool,
    has_hidden_content: Callable[[], bool],
    has_lost_picture: Callable[[bool], bool],
) -> list[str]:
    """Return the warning for a page whose screenshot lacks contents of the page; an empty list for other pages.

    Args:
        image: RGB image of the page.
        shapes: Images and vector shapes of the page.
        has_words: Whether the text layer of the page has words.
        has_hidden_content: Function as in `base.PageContents`.
        has_lost_picture: Function as in `base.PageContents`.
    """
    color = _single_color(image, (0, 0, *image.size))
    if color == _PAPER_WHITE:
        return [BLANK] if has_words or shapes.images or len(shapes.drawings) or has_hidden_content() else []
    if color is not None:
        return [UNIFORM] if has_words or has_lost_picture(True) else []
    smallest = _MIN_PICTURE_SHARE * shapes.width * shapes.height
    boxes = (_pixels_inside(box, shapes, image.size) for box in shapes.images if area(box) >= smallest)
    has_plain_picture = any(_single_color(image, box) is not None for box in itertools.islice(boxes, _MAX_PICTURES))
    return [UNDRAWN] if has_lost_picture(has_plain_picture) else []


def _pixels_inside(box: Box, shapes: Shapes, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the pixels that are completely inside a box in points."""
    x, y = size[0] / shapes.width, size[1] / shapes.height
    return math.ceil(box[0] * x) + 1, math.ceil(box[1] * y) + 1, int(box[2] * x) - 1, int(box[3] * y) - 1


def _single_color(image: Image, box: tuple[int, int, int, int]) -> tuple[int, ...] | None:
    """Return the color of all pixels in a box; None for several colors and for an empty box."""
    left, top, right, bottom = box
    if right <= left:
        return None
    color: tuple[int, ...] | None = None
    # Almost every page and image has two colors in one of the first bands.
    for y in range(top, bottom, _BAND_ROWS):
        extremes = image.crop((left, y, right, min(y + _BAND_ROWS, bottom))).getextrema()
        low, high = (tuple(channel[at] for channel in extremes) for at in (0, 1))  # type: ignore[index]
        if low != high or color not in (None, low):
            return None
        color = low
    return color
