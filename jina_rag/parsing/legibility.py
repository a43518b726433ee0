"""Check whether scaling an image down removes the strokes of its text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jina_rag.types import Float32

if TYPE_CHECKING:
    from PIL.Image import Image

LEGIBLE_SCALE = 2 / 3
"""At this scale and above, text stays legible."""
# The check samples a grid of _GRID x _GRID square tiles.
_GRID = 8
_TILE_SIDE = 128
# Least standard deviation of the gray values (0 to 255) of a tile with text.
_MIN_DEVIATION = 25.0
# Share of the variance of a tile that scaling down may remove. Measured on text in several sizes and scales, a share of
# 0.3 is reached at a font size of 8 to 9 pixels; OCR reads 8 pixels well, and no word at 4 pixels.
_MAX_LOSS = 0.35
# Number of tiles that must lose more, because a single tile may have a texture.
_MIN_TILES = 2


def detail_lost(image: Image, size: tuple[int, int]) -> bool:
    """Return whether scaling an image down removes details as fine as the strokes of small text.

    Contrast in fine lines counts, and noise on an even surface does not. The check takes about 30 ms.

    Args:
        image: The decoded image, with at most 8 bits per channel.
        size: Width and height of the scaled image in pixels.
    """
    scale = max(size) / max(image.size)
    if scale >= 1:
        return False
    side = min(_TILE_SIDE, *image.size)
    lefts, tops = (np.linspace(0, length - side, _GRID).astype(int).tolist() for length in image.size)
    losses = 0
    for top in sorted(set(tops)):
        for left in sorted(set(lefts)):
            losses += _loss(image.crop((left, top, left + side, top + side)), scale) > _MAX_LOSS
            if losses >= _MIN_TILES:
                return True
    return False


def _loss(tile: Image, scale: float) -> float:
    """Return the share of the variance of a tile that scaling removes; 0 for a tile without contrast."""
    from PIL import Image as pillow

    gray = _gray(tile)
    if gray.std() < _MIN_DEVIATION:
        return 0.0
    small_side = max(1, round(tile.width * scale))
    pixels = pillow.fromarray(gray)
    small = pixels.resize((small_side, small_side), pillow.Resampling.LANCZOS)
    restored = np.asarray(small.resize(tile.size, pillow.Resampling.BICUBIC))
    return float(((gray - restored) ** 2).mean() / gray.var())


def _gray(tile: Image) -> Float32:
    """Return the gray values of a tile, shape (height, width), float32, 0 to 255."""
    if tile.has_transparency_data:
        from PIL import Image as pillow

        tile = tile.convert("RGBA")
        white = pillow.new("RGB", tile.size, "white")
        white.paste(tile, mask=tile.getchannel("A"))
        tile = white
    return np.asarray(tile.convert("L")).astype(np.float32)
