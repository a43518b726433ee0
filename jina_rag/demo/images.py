"""Pictures inside an HTML file: made small enough to travel, and written as data URIs."""

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
    """A picture ready for an ``<img>``: its data URI, and its size in pixels."""

    uri: str
    width: int
    height: int


def inline_image(source: bytes | Image, *, max_width: int, max_bytes: int, crop: Box | None = None) -> InlineImage:
    """Turn a picture into a JPEG data URI that is at most so wide and so heavy.

    Args:
        source: An image file's content, or a PIL image.
        max_width: In pixels; a narrower picture is not blown up. The height is held to 1.6 times as much.
        max_bytes: As of `inline_jpeg`.
        crop: A part to cut out, as fractions of the picture.
    """
    from PIL import Image as pillow

    image = pillow.open(io.BytesIO(source)) if isinstance(source, bytes) else source
    if crop is not None:
        image = image.crop(_pixels(crop, image.size))
    uri, size = inline_jpeg(image, width=max_width, height=round(1.6 * max_width), max_bytes=max_bytes)
    return InlineImage(uri, *size)


def around(box: Box, *, width: float = 0.7, height: float = 0.2, margin: float = 0.02) -> Box:
    """A box grown by a margin, and to at least `width` by `height` of the page, without leaving the page."""
    x0, x1 = _widened(box[0], box[2], width, margin)
    y0, y1 = _widened(box[1], box[3], height, margin)
    return (x0, y0, x1, y1)


def _widened(low: float, high: float, least: float, margin: float) -> tuple[float, float]:
    """One side of `around`."""
    extent = min(1.0, max(least, high - low + 2 * margin))
    start = min(max(0.0, (low + high - extent) / 2), 1.0 - extent)
    return start, start + extent


def _pixels(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box in pixels, at least one wide and high, inside the picture."""
    width, height = size
    left = min(max(0, int(box[0] * width)), width - 1)
    top = min(max(0, int(box[1] * height)), height - 1)
    right = min(max(left + 1, round(box[2] * width)), width)
    bottom = min(max(top + 1, round(box[3] * height)), height)
    return left, top, right, bottom
