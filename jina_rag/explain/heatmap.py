"""Drawing on page screenshots: rasterized weights, color overlays and labeled frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jina_rag.errors import IndexStateError
from jina_rag.stores.images import decode_errors
from jina_rag.types import Box, Float32

if TYPE_CHECKING:
    from PIL.Image import Image

_LOW = np.array([255, 221, 87], dtype=np.float32)
_HIGH = np.array([214, 40, 40], dtype=np.float32)
_FRAME = (29, 78, 216)
_MAX_OVERLAY_SIDE = 800
"""Maximum side of the overlay in pixels. The size suffices for blurred edges, and drawing is ten times as fast as at
full size."""
_BACKGROUND_BLUR = 0.015
"""Blur radius that removes letters and keeps the page background, as a fraction of the longer side."""


def load_image(path: Path, box: Box | None = None, *, max_side: int | None = None) -> Image:
    """Load an image file, or a box of the image, as an RGB image.

    Args:
        path: Path of the image file.
        box: Box to crop, as fractions of the image; the crop has at least 1 pixel per side. None loads the whole image.
        max_side: Maximum length of the longer side in pixels; larger images are scaled down. None keeps the size.

    Raises:
        IndexStateError: If the file is missing or damaged.
    """
    from PIL import Image as pillow

    try:
        with pillow.open(path, formats=("JPEG", "PNG", "WEBP", "TIFF")) as file:
            if box is None:
                image = file.convert("RGB")
            else:
                (width, height), (x0, y0, x1, y1) = file.size, box
                left, top = min(int(x0 * width), width - 1), min(int(y0 * height), height - 1)
                right, bottom = max(left + 1, round(x1 * width)), max(top + 1, round(y1 * height))
                image = file.crop((left, top, right, bottom)).convert("RGB")
    except decode_errors() as exc:
        raise IndexStateError(
            f"The page image {path} is missing or damaged ({exc}). Run `jina-rag verify` to list the files to ingest "
            "with force=True (--force)."
        ) from exc
    if max_side is None or max(image.size) <= max_side:
        return image
    # Scaling a very narrow image must not reduce a side to 0 pixels.
    width, height = (max(1, round(side * max_side / max(image.size))) for side in image.size)
    return image.resize((width, height), pillow.Resampling.LANCZOS)


def raster(boxes: Float32, weights: Float32, size: tuple[int, int]) -> Float32:
    """Rasterize weights: each pixel gets the greatest weight of the boxes that cover it.

    Args:
        boxes: Boxes on the page, shape (n, 4), float32, as fractions of the page.
        weights: Weights of the boxes, shape (n,), float32.
        size: Width and height of the result in pixels.

    Returns:
        Weights of the pixels, shape (height, width), float32; 0 outside of all boxes. A box covers at least 1 pixel.
    """
    columns, rows = size
    canvas = np.zeros((rows, columns), dtype=np.float32)
    low = np.floor(boxes[:, :2] * (columns, rows)).clip(0, (columns - 1, rows - 1)).astype(int)
    # With a rounding error, an edge on a pixel boundary would cover the next pixel; subtract a small margin.
    high = np.ceil(boxes[:, 2:] * (columns, rows) - 1e-3).astype(int)
    high = np.maximum(high, low + 1)
    for i in np.flatnonzero(weights > 0):
        patch = canvas[low[i, 1] : high[i, 1], low[i, 0] : high[i, 0]]
        np.maximum(patch, weights[i], out=patch)
    return canvas


def overlay(page: Image, boxes: Float32, weights: Float32, *, blur: float) -> Image:
    """Return the page with the weights as a color overlay, from white through yellow to red.

    Args:
        page: RGB image.
        boxes: Shape (n, 4), float32, as fractions of the page.
        weights: Shape (n,), float32, from 0 to 1.
        blur: Blur radius as a fraction of the page's longer side.
    """
    from PIL import Image as pillow
    from PIL import ImageChops, ImageFilter

    scale = min(1.0, _MAX_OVERLAY_SIDE / max(page.size))
    canvas = raster(boxes, weights, (max(1, round(page.width * scale)), max(1, round(page.height * scale))))
    blurred_canvas = pillow.fromarray((canvas * 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(max(canvas.shape) * blur)
    )
    intensity = (np.asarray(blurred_canvas, dtype=np.float32) / 255)[..., None]
    tint = 255 - intensity * (255 - (_LOW + (_HIGH - _LOW) * intensity))
    colors = pillow.fromarray(tint.astype(np.uint8)).resize(page.size, pillow.Resampling.BILINEAR)
    # Multiplying keeps black text black under any color.
    tinted_page = ImageChops.multiply(page, colors)
    small = page.convert("L").resize((canvas.shape[1], canvas.shape[0]), pillow.Resampling.BILINEAR)
    background = small.filter(ImageFilter.GaussianBlur(max(canvas.shape) * _BACKGROUND_BLUR))
    dark_mask = background.point([255 - max(0, min(255, (level - 70) * 4)) for level in range(256)])
    if dark_mask.getextrema()[1] == 0:
        return tinted_page
    # Multiplying does not change a dark background. Screen blending lightens a dark background and keeps white text
    # white.
    light = intensity * (_LOW + (_HIGH - _LOW) * intensity)
    lightened_page = ImageChops.screen(
        page, pillow.fromarray(light.astype(np.uint8)).resize(page.size, pillow.Resampling.BILINEAR)
    )
    return pillow.composite(lightened_page, tinted_page, dark_mask.resize(page.size, pillow.Resampling.BILINEAR))


def draw_frame(image: Image, frame: Box, label: str) -> None:
    """Draw a labeled frame on the image, in place.

    Args:
        image: RGB image.
        frame: Box to draw a frame around, as fractions of the image.
        label: Text at the corner of the frame with the least detail; "" for none.
    """
    from PIL import ImageDraw, ImageFont

    width, height = image.size
    line = max(2, round(max(image.size) / 350))
    box = (frame[0] * width, frame[1] * height, frame[2] * width, frame[3] * height)
    draw = ImageDraw.Draw(image)
    draw.rectangle(box, outline=_FRAME, width=line)
    if label:
        font = ImageFont.load_default(max(12, round(max(image.size) / 70)))
        left, top, right, bottom = draw.textbbox((0, 0), label, font=font)
        pad = line * 2
        size = (round(right - left) + 2 * pad, round(bottom - top) + 2 * pad)
        x, y = _label_position(image, box, size)
        draw.rectangle((x, y, x + size[0], y + size[1]), fill=_FRAME)
        draw.text((x + pad - left, y + pad - top), label, fill="white", font=font)


def _label_position(image: Image, box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[int, int]:
    """Return the upper left pixel of a label of `size` at the corner of `box` with the least detail."""
    (width, height), (x0, y0, x1, y1) = size, (round(side) for side in box)
    corners = [
        (min(max(x, 0), max(0, image.width - width)), min(max(y, 0), max(0, image.height - height)))
        for y in (y0 - height, y1, y0, y1 - height)
        for x in (x0, x1 - width)
    ]
    gray = np.asarray(image.convert("L"))
    # The detail of a corner is measured as the standard deviation of the gray values.
    return min(corners, key=lambda xy: float(gray[xy[1] : xy[1] + height, xy[0] : xy[0] + width].std()))
