"""What the page stream needs of a renderer beyond the public protocol, and what all renderers share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Protocol

from jina_rag.config import Limits
from jina_rag.errors import DocumentError, LimitExceededError
from jina_rag.protocols import PageRenderer
from jina_rag.types import Box, Page

# JPEG cannot hold more, and many viewers stop far below.
_MAX_SIDE = 32_000


class Renderer(PageRenderer, Protocol):
    """A `PageRenderer` that also tells where pixels may hold words that the text layer lacks."""

    def render_with_images(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        """Page `number` as `render` returns it, and the boxes of the raster pictures on it.

        Raises:
            DocumentError: As `render`.
        """
        ...


def check_size(path: Path, limits: Limits) -> None:
    """Refuse a file that is gone, unreadable, empty or too large, before a library opens it.

    Raises:
        DocumentError: With the reason.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DocumentError(f"The file cannot be read: {error.strerror or type(error).__name__}.") from error
    if size == 0:
        raise DocumentError("The file is empty (0 bytes).")
    if size > limits.max_bytes:
        raise LimitExceededError(
            f"The file has {size:,} bytes, more than the limit of {limits.max_bytes:,}: raise limits.max_bytes."
        )


def check_pages(count: int, limits: Limits) -> None:
    """Refuse a document without pages or with too many.

    Raises:
        DocumentError: With the reason.
    """
    if count < 1:
        raise DocumentError("The document has no pages.")
    if count > limits.max_pages:
        raise LimitExceededError(
            f"The document has {count:,} pages, more than the limit of {limits.max_pages:,}: "
            "split it or raise limits.max_pages."
        )


def fitting_scale(width: float, height: float, limits: Limits) -> float:
    """The factor, at most 1, that brings `width` x `height` pixels within the limits of a screenshot."""
    return min(1.0, math.sqrt(limits.max_render_pixels / max(width * height, 1)), _MAX_SIDE / max(width, height, 1))


def number_in_range(number: int, count: int) -> int:
    """Return `number`.

    Raises:
        DocumentError: If there is no such page.
    """
    if not 1 <= number <= count:
        raise DocumentError(f"There is no page {number}: the document has {count}.")
    return number
