"""What all renderers share: how a document is opened, checked, rendered page by page and closed.

A renderer of another kind of document is a `DocumentRenderer`; another one of PDFs is a `pdf.base.PdfRenderer`, in a
file of its own. `documents.open_document` chooses among them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import ClassVar, Self

from jina_rag.config import IngestSettings, Limits
from jina_rag.errors import DocumentError, LimitExceededError
from jina_rag.parsing.sources import SourceFile
from jina_rag.types import Box, Page, PageScreenshot, Region, Word

NO_PAGES = "The document has no pages."
# JPEG cannot hold more, and many viewers stop far below.
_MAX_SIDE = 32_000


class Renderer(ABC):
    """One open document, rendered page by page. A context manager."""

    def __init__(self, source: SourceFile, settings: IngestSettings) -> None:
        self._source = source
        self._settings = settings
        self._count = 0
        self._warnings: tuple[str, ...] = ()

    @property
    def page_count(self) -> int:
        """Number of pages; of an image, of its frames."""
        return self._count

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was wrong with the document as a whole but could be mended, in sentences."""
        return self._warnings

    def render(self, number: int) -> Page:
        """Return page `number` (1-based), with the words of its text layer and its regions, without OCR.

        Raises:
            DocumentError: If this page cannot be rendered.
        """
        return self.render_with_images(number)[0]

    @abstractmethod
    def render_with_images(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        """Page `number` as `render` returns it, and the boxes of its raster images, which may hold words.

        Raises:
            DocumentError: As `render`.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the document. Closing twice is fine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DocumentRenderer(Renderer):
    """A `Renderer` that works in this process. A subclass says how its library opens a document and reads a page.

    Raises:
        PasswordRequiredError: If none of the passwords opens it.
        LimitExceededError: If it is larger than the limits allow.
        DocumentError: If it cannot be read at all, or has no pages.
    """

    _lock: ClassVar[AbstractContextManager[object]] = nullcontext()
    """Held during every call of the library."""

    def __init__(self, source: SourceFile, settings: IngestSettings) -> None:
        super().__init__(source, settings)
        check_size(source.path, settings.limits)
        with self._lock, ExitStack() as resources:
            self._count, self._warnings = self._open(resources)
            check_pages(self._count, settings.limits)
            self._resources = resources.pop_all()

    def render_with_images(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        """See `Renderer.render_with_images`."""
        if not 1 <= number <= self._count:
            raise DocumentError(f"There is no page {number}: the document has {self._count}.")
        with self._lock, self._own_errors():
            return self._page(number)

    def close(self) -> None:
        """Release the document. Closing twice is fine."""
        with self._lock:
            self._resources.close()

    @abstractmethod
    def _open(self, resources: ExitStack) -> tuple[int, tuple[str, ...]]:
        """Open the document; return its number of pages and its warnings.

        Args:
            resources: What `close` releases.
        """

    @abstractmethod
    def _own_errors(self) -> AbstractContextManager[None]:
        """Turn the errors that the library raises for a page into `DocumentError`."""

    @abstractmethod
    def _page(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        """Page `number`, which exists, and the boxes of the raster images on it."""

    def _make_page(
        self,
        number: int,
        screenshot: PageScreenshot,
        warnings: Sequence[str],
        *,
        words: Sequence[Word] = (),
        regions: tuple[Region, ...] = (),
    ) -> Page:
        return Page(
            doc_id=self._source.doc_id,
            path=self._source.path,
            number=number,
            count=self._count,
            screenshot=screenshot,
            words=tuple(words),
            regions=regions,
            warnings=tuple(warnings),
        )


def unreadable(error: OSError) -> DocumentError:
    """What to raise for a file that the system does not let us read."""
    return DocumentError(f"The file cannot be read: {error.strerror or type(error).__name__}.")


def check_size(path: Path, limits: Limits) -> None:
    """Refuse a file that is gone, unreadable, empty or too large, before a library opens it.

    Raises:
        DocumentError: With the reason.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise unreadable(error) from error
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
        raise DocumentError(NO_PAGES)
    if count > limits.max_pages:
        raise LimitExceededError(
            f"The document has {count:,} pages, more than the limit of {limits.max_pages:,}: "
            "split it or raise limits.max_pages."
        )


def fitting_scale(width: float, height: float, limits: Limits) -> float:
    """The factor, at most 1, that brings `width` x `height` pixels within the limits of a screenshot."""
    return min(1.0, math.sqrt(limits.max_render_pixels / max(width * height, 1)), _MAX_SIDE / max(width, height, 1))
