"""Detection of page contents that are missing in the screenshot, from single colors where contents should be."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable

from jina_rag.parsing.layout.boxes import area
from jina_rag.parsing.layout.regions import Shapes
from jina_rag.parsing.pdf.document_warnings import BLANK, UNDRAWN, UNIFORM
from jina_rag.parsing.pdf.visibility import Pixels
from jina_rag.types import Box

_PAPER_WHITE = (255, 255, 255)
# Distances of the rows and columns that are checked first.
_SAMPLE = (17, 5)
# Images that cover less than this fraction of the page are not checked, and images after the first `_MAX_PICTURES`.
_MIN_PICTURE_SHARE = 0.01
_MAX_PICTURES = 50
# Operators that paint text, paths, images and forms.
_PAINTS = re.compile(rb"(?:^|[\s\]>)])(?:Tj|TJ|'|\"|Do|sh|EI|S|s|f|F|f\*|B|B\*|b|b\*)(?=\s|$)")


def find_undrawn(
    pixels: Pixels,
    shapes: Shapes,
    *,
    has_words: bool,
    has_colored_picture: Callable[[], bool],
    has_hidden_content: Callable[[], bool],
    has_lost_picture: Callable[[bool], bool],
) -> list[str]:
    """Return the warning for a page whose screenshot lacks contents of the page; an empty list for other pages.

    Args:
        pixels: RGB pixels of the page, shape (height, width, 3), uint8.
        shapes: Images and vector shapes of the page.
        has_words: Whether the text layer of the page has words.
        has_colored_picture: Function as in `base.PageContents`.
        has_hidden_content: Function as in `base.PageContents`.
        has_lost_picture: Function as in `base.PageContents`.
    """
    size = pixels.shape[1], pixels.shape[0]
    color = _single_color(pixels, (0, 0, *size))
    if color == _PAPER_WHITE:
        has_content = (
            has_words
            or len(shapes.drawings)
            or bool(shapes.images and (has_colored_picture() or has_lost_picture(True)))
        )
        return [BLANK] if has_content or has_hidden_content() else []
    if color is not None:
        return [UNIFORM] if has_words or has_lost_picture(True) else []
    smallest = _MIN_PICTURE_SHARE * shapes.width * shapes.height
    boxes = (_pixels_inside(box, shapes, size) for box in shapes.images if area(box) >= smallest)
    has_plain_picture = any(_single_color(pixels, box) is not None for box in itertools.islice(boxes, _MAX_PICTURES))
    return [UNDRAWN] if has_lost_picture(has_plain_picture) else []


def paints(content: bytes) -> bool:
    """Return whether a content stream has operators that paint something.

    Args:
        content: The decoded content stream.
    """
    return bool(_PAINTS.search(content))


def _pixels_inside(box: Box, shapes: Shapes, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the pixels that are completely inside a box in points."""
    x, y = size[0] / shapes.width, size[1] / shapes.height
    return math.ceil(box[0] * x) + 1, math.ceil(box[1] * y) + 1, int(box[2] * x) - 1, int(box[3] * y) - 1


def _single_color(pixels: Pixels, box: tuple[int, int, int, int]) -> tuple[int, ...] | None:
    """Return the color of all pixels in a box; None for several colors and for an empty box."""
    left, top, right, bottom = box
    area = pixels[top:bottom, left:right] if right > left and bottom > top else pixels[:0]
    if not area.size:
        return None
    # A sample of the pixels has two colors on almost every page and in almost every image.
    if (area[:: _SAMPLE[0], :: _SAMPLE[1]] != area[0, 0]).any() or (area != area[0, 0]).any():
        return None
    return tuple(area[0, 0].tolist())
