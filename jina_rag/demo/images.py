"""Pictures inside an HTML file: made small enough to travel, and written as data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jina_rag.types import Box

if TYPE_CHECKING:
    from PIL.Image import Image

_QUALITIES = (84, 76, 68, 60, 50)


@dataclass(frozen=True, slots=True)
class InlineImage:
    """A picture ready for an ``<img>``: its data URI, and its size in pixels."""

    uri: str
    width: int
    height: int


def data_uri(content: bytes, media_type: str) -> str:
    """A ``data:`` address that holds `content` itself, for ``src`` in a file that needs no network."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def inline_image(source: bytes | Image, *, max_width: int, max_bytes: int, crop: Box | None = None) -> InlineImage:
    """Turn a picture into a JPEG data URI that is at most so wide and so heavy.

    Args:
        source: An image file's content, or a PIL image.
        max_width: In pixels; a narrower picture is not blown up. The height is held to 1.6 times as much.
        max_bytes: Of the JPEG, before base64 adds a third. Met by lower quality first, then by fewer pixels.
        crop: A part to cut out, as fractions of the picture.
    """
    from PIL import Image as pillow

    if isinstance(source, bytes):
        with pillow.open(io.BytesIO(source)) as file:
            image = file.convert("RGB")
    else:
        image = source.convert("RGB")
    if crop is not None:
        image = image.crop(_pixels(crop, image.size))
    image.thumbnail((max_width, round(1.6 * max_width)), pillow.Resampling.LANCZOS)
    content = _jpeg(image, max_bytes)
    while len(content) > max_bytes and min(image.size) > 32:
        image = image.resize((image.width * 3 // 4, image.height * 3 // 4), pillow.Resampling.LANCZOS)
        content = _jpeg(image, max_bytes)
    return InlineImage(data_uri(content, "image/jpeg"), image.width, image.height)


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


def _jpeg(image: Image, max_bytes: int) -> bytes:
    """The image as JPEG, in the best of a few qualities that fits; in the lowest if none does."""
    content = b""
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=quality, optimize=True, progressive=True)
        content = buffer.getvalue()
        if len(content) <= max_bytes:
            break
    return content
