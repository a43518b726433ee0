"""Screenshots and what is drawn on them: weights as numbers for each pixel, as colours over a page, a framed box."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jina_rag.errors import IndexStateError
from jina_rag.stores.images import unreadable
from jina_rag.types import Box, Float32

if TYPE_CHECKING:
    from PIL.Image import Image

_LOW = np.array([255, 221, 87], dtype=np.float32)
_HIGH = np.array([214, 40, 40], dtype=np.float32)
_FRAME = (29, 78, 216)
_DRAWN = 800
"""Soft borders need no more pixels than this, and drawing takes a tenth of the time."""
_GROUND = 0.015
"""Of the longer side: what is brighter or darker over more than this is no letter but what letters stand on."""


def load_image(path: Path, box: Box | None = None, *, max_side: int | None = None) -> Image:
    """A picture from its file, RGB.

    Args:
        path: The file.
        box: What to cut out of it, in fractions, a pixel at least; None for the whole.
        max_side: Longest side in pixels; a larger picture is scaled down.

    Raises:
        IndexStateError: If the file is not there or damaged.
    """
    from PIL import Image as pillow

    try:
        with pillow.open(path) as file:
            if box is None:
                image = file.convert("RGB")
            else:
                (width, height), (x0, y0, x1, y1) = file.size, box
                left, top = min(int(x0 * width), width - 1), min(int(y0 * height), height - 1)
                right, bottom = max(left + 1, round(x1 * width)), max(top + 1, round(y1 * height))
                image = file.crop((left, top, right, bottom)).convert("RGB")
    except unreadable() as exc:
        raise IndexStateError(
            f"The page image {path} is missing or damaged ({exc}): `jina-rag verify` tells what to ingest with --force."
        ) from exc
    if max_side is None or max(image.size) <= max_side:
        return image
    # A line of a pixel's width stays one.
    width, height = (max(1, round(side * max_side / max(image.size))) for side in image.size)
    return image.resize((width, height), pillow.Resampling.LANCZOS)


def raster(boxes: Float32, weights: Float32, size: tuple[int, int]) -> Float32:
    """The weights as a picture: each pixel has the greatest weight of the boxes that cover it.

    Args:
        boxes: Shape (places, 4), fractions of the page.
        weights: Shape (places,).
        size: Width and height in pixels.

    Returns:
        Shape (height, width) float32; 0 where there is no box. A box covers a pixel at least.
    """
    columns, rows = size
    canvas = np.zeros((rows, columns), dtype=np.float32)
    low = np.floor(boxes[:, :2] * (columns, rows)).clip(0, (columns - 1, rows - 1)).astype(int)
    # A border that lies on a pixel's border, but for a rounding error, covers nothing of the next.
    high = np.ceil(boxes[:, 2:] * (columns, rows) - 1e-3).astype(int)
    high = np.maximum(high, low + 1)
    for i in np.flatnonzero(weights > 0):
        patch = canvas[low[i, 1] : high[i, 1], low[i, 0] : high[i, 0]]
        np.maximum(patch, weights[i], out=patch)
    return canvas


def overlay(page: Image, boxes: Float32, weights: Float32, *, soft: float) -> Image:
    """The page with the weights as colours over it, from white by yellow to red.

    Args:
        page: RGB.
        boxes: Shape (places, 4).
        weights: Shape (places,) in [0, 1].
        soft: How far borders are softened, as a share of the page's longer side.
    """
    from PIL import Image as pillow
    from PIL import ImageChops, ImageFilter

    scale = min(1.0, _DRAWN / max(page.size))
    canvas = raster(boxes, weights, (max(1, round(page.width * scale)), max(1, round(page.height * scale))))
    soft_canvas = pillow.fromarray((canvas * 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(max(canvas.shape) * soft)
    )
    shine = (np.asarray(soft_canvas, dtype=np.float32) / 255)[..., None]
    tint = 255 - shine * (255 - (_LOW + (_HIGH - _LOW) * shine))
    colours = pillow.fromarray(tint.astype(np.uint8)).resize(page.size, pillow.Resampling.BILINEAR)
    # Multiply rather than cover: black text stays black under any colour.
    tinted_page = ImageChops.multiply(page, colours)
    small = page.convert("L").resize((canvas.shape[1], canvas.shape[0]), pillow.Resampling.BILINEAR)
    ground = small.filter(ImageFilter.GaussianBlur(max(canvas.shape) * _GROUND))
    dark = ground.point([255 - max(0, min(255, (level - 70) * 4)) for level in range(256)])
    if dark.getextrema()[1] == 0:
        return tinted_page
    # On a dark ground nothing can be darkened: there the colour is light, and white text stays white.
    glow = shine * (_LOW + (_HIGH - _LOW) * shine)
    lightened_page = ImageChops.screen(
        page, pillow.fromarray(glow.astype(np.uint8)).resize(page.size, pillow.Resampling.BILINEAR)
    )
    return pillow.composite(lightened_page, tinted_page, dark.resize(page.size, pillow.Resampling.BILINEAR))


def draw_frame(image: Image, frame: Box, label: str) -> None:
    """Frame a box, with a label in the corner where it hides least."""
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
        x, y = _quietest_corner(image, box, size)
        draw.rectangle((x, y, x + size[0], y + size[1]), fill=_FRAME)
        draw.text((x + pad - left, y + pad - top), label, fill="white", font=font)


def _quietest_corner(image: Image, box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[int, int]:
    """Where a label of that size beside a corner of the frame hides least: its upper left pixel."""
    (width, height), (x0, y0, x1, y1) = size, (round(side) for side in box)
    places = [
        (min(max(x, 0), max(0, image.width - width)), min(max(y, 0), max(0, image.height - height)))
        for y in (y0 - height, y1, y0, y1 - height)
        for x in (x0, x1 - width)
    ]
    grey = np.asarray(image.convert("L"))
    # Flat is quiet, whatever its colour.
    return min(places, key=lambda place: float(grey[place[1] : place[1] + height, place[0] : place[0] + width].std()))
