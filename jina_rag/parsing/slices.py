"""Division of very tall and very wide images into slices, each of which becomes a page.

Scaled down to `IngestSettings.max_image_side`, a long screenshot would have text of a few pixels, which neither OCR nor
an embedder can read.
"""

from __future__ import annotations

import math

from jina_rag.config import IngestSettings
from jina_rag.parsing.renderer import MAX_SIDE

MIN_SHORT_SIDE = 200
"""Minimum length of the shorter side of an image that is divided, in pixels."""
MAX_ASPECT = 3
"""An image is divided only if the longer side is more than this number of times as long as the shorter side."""
OVERLAP = 0.1
"""Overlap of two adjacent slices, as a fraction of the length of a slice. A line of text at the end of a slice is thus
complete in the next slice."""
_PAGE_ASPECT = math.sqrt(2)
"""Least ratio of length to breadth of a slice if the limits allow it: the shape of a sheet of paper."""
_EMBEDDER_PIXELS = 602_112
"""Slices of narrow images are extended to this area, which jina-embeddings-v4 encodes without scaling down."""

PixelBox = tuple[int, int, int, int]


def is_elongated(width: float, height: float, settings: IngestSettings) -> bool:
    """Return whether an image is divided into slices.

    Args:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        settings: Settings of the ingestion, for `max_image_side`.
    """
    short, long = sorted((width, height))
    return short >= MIN_SHORT_SIDE and long > MAX_ASPECT * short and long > settings.max_image_side


def slice_scale(width: int, height: int, settings: IngestSettings) -> float:
    """Return the factor, at most 1, by which an elongated image is scaled before it is divided.

    The factor is 1 unless the shorter side exceeds the limits of the longer side of a screenshot.

    Args:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        settings: Settings of the ingestion, for `max_image_side` and `limits`.
    """
    # At the lowest scale, the slices are squares within the limit of pixels.
    return min(1.0, min(_longest(settings), math.isqrt(settings.limits.max_render_pixels)) / min(width, height))


def slice_boxes(width: int, height: int, settings: IngestSettings) -> list[PixelBox]:
    """Return the slices of an elongated image, from top to bottom or from left to right.

    The slices have equal lengths and cover the image. Their number depends on the lengths of the sides only, not on
    which side is the longer one.

    Args:
        width: Width in pixels of the image, after scaling by `slice_scale`.
        height: Height in pixels of the scaled image.
        settings: Settings of the ingestion, for `max_image_side` and `limits`.

    Returns:
        Boxes (left, top, right, bottom) in pixels of the scaled image.
    """
    short, long = sorted((width, height))
    area = max(_PAGE_ASPECT * short**2, _EMBEDDER_PIXELS)
    length = max(1, min(_longest(settings), int(min(area, settings.limits.max_render_pixels) / short)))
    count = max(1, math.ceil((long / length - OVERLAP) / (1 - OVERLAP)))
    length = min(long, length, math.ceil(long / (count - OVERLAP * (count - 1))))
    starts = [round(number * (long - length) / max(count - 1, 1)) for number in range(count)]
    if height >= width:
        return [(0, start, width, start + length) for start in starts]
    return [(start, 0, start + length, height) for start in starts]


def scaled_size(width: int, height: int, scale: float) -> tuple[int, int]:
    """Return the size of a scaled image, at least 1 x 1 pixel.

    Args:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        scale: Factor, at most 1.
    """
    return max(1, round(width * scale)), max(1, round(height * scale))


def slice_count(width: int, height: int, settings: IngestSettings) -> int:
    """Return the number of pages of an image; 1 unless the image is elongated.

    Args:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        settings: Settings of the ingestion, for `max_image_side` and `limits`.
    """
    if not is_elongated(width, height, settings):
        return 1
    return len(slice_boxes(*scaled_size(width, height, slice_scale(width, height, settings)), settings))


def _longest(settings: IngestSettings) -> int:
    return min(settings.max_image_side, MAX_SIDE)
