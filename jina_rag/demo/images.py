"""Page images for an HTML file: scaled down, compressed and written as data URIs."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jina_rag.images import inline_jpeg
from jina_rag.types import Box

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class InlineImage:
    """Image data for an ``<img>`` element.

    Attributes:
        uri: JPEG data URI.
        width: Width in pixels.
        height: Height in pixels.
    """

    uri: str
    width: int
    height: int


def inline_image(source: bytes | Image, *, max_width: int, max_bytes: int, crop: Box | None = None) -> InlineImage:
    """Return an image as a JPEG data URI of limited size.

    Args:
        source: Content of an image file, or a PIL image.
        max_width: Maximum width in pixels; the maximum height is 1.6 times as large. Smaller images keep their size.
        max_bytes: Maximum size of the JPEG in bytes; see `inline_jpeg`.
        crop: Box to cut out, as fractions of the image from 0 to 1; None for the whole image.
    """
    from PIL import Image as pillow

    image = pillow.open(io.BytesIO(source)) if isinstance(source, bytes) else source
    if crop is not None:
        image = image.crop(_pixels(crop, image.size))
    uri, size = inline_jpeg(image, width=max_width, height=round(1.6 * max_width), max_bytes=max_bytes)
    return InlineImage(uri, *size)


def around(box: Box, *, width: float = 0.7, height: float = 0.2, margin: float = 0.02) -> Box:
    """Return `box` enlarged by a margin and to a minimum size, and shifted to stay on the page.

    Args:
        box: Box (x0, y0, x1, y1) as fractions of the page.
        width: Minimum width, as a fraction of the page width.
        height: Minimum height, as a fraction of the page height.
        margin: Margin on each side, as a fraction of the page.
    """
    x0, x1 = _enlarge(box[0], box[2], width, margin)
    y0, y1 = _enlarge(box[1], box[3], height, margin)
    return (x0, y0, x1, y1)


def _enlarge(low: float, high: float, minimum: float, margin: float) -> tuple[float, float]:
    """Return the interval from `low` to `high`, enlarged in one dimension and shifted to stay between 0 and 1."""
    extent = min(1.0, max(minimum, high - low + 2 * margin))
    start = min(max(0.0, (low + high - extent) / 2), 1.0 - extent)
    return start, start + extent


def _pixels(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Convert a box to pixels, at least 1 x 1 pixel and inside the image."""
    width, height = size
    left = min(max(0, int(box[0] * width)), width - 1)
    top = min(max(0, int(box[1] * height)), height - 1)
    right = min(max(left + 1, round(box[2] * width)), width)
    bottom = min(max(top + 1, round(box[3] * height)), height)
    return left, top, right, bottom
