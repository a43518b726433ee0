"""Base classes of the document renderers, and the checks of resource limits that all renderers share.

To add a file format, subclass `DocumentRenderer`. To add a PDF renderer, subclass `pdf.base.PdfRenderer`. The function
`documents.open_document` selects the renderer.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from jina_rag.config import IngestSettings, Limits
from jina_rag.errors import DocumentError, LimitExceededError
from jina_rag.parsing.sources import SourceFile
from jina_rag.types import Box, Page, PageScreenshot, Region, Word

NO_PAGES = "The document has no pages. Replace or re-export the file."
# Maximum side of a screenshot in pixels. JPEG allows about 65,500 pixels, but many viewers support fewer pixels.
MAX_SIDE = 32_000
_Result = TypeVar("_Result")


class Renderer(ABC):
    """An open document whose pages are rendered on request. As a context manager, a renderer closes the document."""

    def __init__(self, source: SourceFile, settings: IngestSettings) -> None:
        self._source = source
        self._settings = settings
        self._count = 0
        self._warnings: tuple[str, ...] = ()

    @property
    def page_count(self) -> int:
        """Number of pages of the document. Each frame of a TIFF file is a page."""
        return self._count

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the whole document, one message per recoverable problem."""
        return self._warnings

    def render(self, number: int) -> Page:
        """Return a page with the words of the text layer and the regions. OCR is not run.

        Args:
            number: Page number, 1-based.

        Raises:
            DocumentError: If the page does not exist or cannot be rendered.
        """
        return self.render_with_images(number)[0]

    @abstractmethod
    def render_with_images(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        """Return a page as `render` does, and the boxes of the raster images, in which OCR may find words.

        Args:
            number: Page number, 1-based.

        Returns:
            The page, and the boxes of the raster images as fractions of the page.

        Raises:
            DocumentError: If the page does not exist or cannot be rendered.
        """

    @abstractmethod
    def close(self, *, wait: bool = True) -> None:
        """Close the document. Calling `close` again has no effect.

        Args:
            wait: Whether to wait until a worker process has closed the document.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DocumentRenderer(Renderer):
    """A `Renderer` that runs in the current process. A subclass opens the document and renders the pages.

    Raises:
        PasswordRequiredError: If the document is encrypted and none of the configured passwords is valid.
        LimitExceededError: If the document exceeds a limit.
        DocumentError: If the document cannot be read or has no pages.
    """

    _lock: ClassVar[AbstractContextManager[object]] = nullcontext()
    """Lock held during every call of the rendering library."""

    def __init__(self, source: SourceFile, settings: IngestSettings) -> None:
        super().__init__(source, settings)
        check_size(source.path, settings.limits)
        with self._lock, ExitStack() as resources:
            self._count, self._warnings = self._open(resources)
            check_pages(self._count, settings.limits)
            self._resources = resources.pop_all()

    def render_with_images(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        """Return a page as `render` does, and the boxes of the raster images.

        Args:
            number: Page number, 1-based.

        Returns:
            The page, and the boxes of the raster images as fractions of the page.

        Raises:
            DocumentError: If the page does not exist or cannot be rendered.
        """
        if not 1 <= number <= self._count:
            raise DocumentError(f"Page {number} does not exist; the last page is {self._count}.")
        with self._lock, self._convert_errors():
            return self._page(number)

    def close(self, *, wait: bool = True) -> None:
        """Close the document. Calling `close` again has no effect.

        Args:
            wait: Ignored, because the document is closed in the current process.
        """
        with self._lock:
            self._resources.close()

    @abstractmethod
    def _open(self, resources: ExitStack) -> tuple[int, tuple[str, ...]]:
        """Open the document and return the number of pages and the warnings.

        Args:
            resources: Stack of the resources that `close` releases.
        """

    @abstractmethod
    def _convert_errors(self) -> AbstractContextManager[None]:
        """Return a context manager that raises errors of the rendering library as `DocumentError`."""

    @abstractmethod
    def _page(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        """Return an existing page, and the boxes of the raster images as fractions of the page."""

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


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory allocation failed. MuPDF and Pillow report this cause only in the text of an error.

    Args:
        error: The error of a rendering library.
    """
    causes = [error, error.__cause__]
    return any(isinstance(cause, MemoryError) or "malloc" in str(cause).lower() for cause in causes if cause)


def attempt(read: Callable[[], _Result], default: _Result, contents: str, warnings: list[str]) -> _Result:
    """Return what `read` returns. If `read` fails, append a warning and return `default`: the page is kept.

    Args:
        read: Function that reads a part of the contents of a page.
        default: Result if `read` fails.
        contents: Name of the contents, for the warning.
        warnings: Warnings of the page, to which the warning is appended.

    Raises:
        Exception: The error of `read`, if memory allocation failed: the process may not be able to render the page.
    """
    try:
        return read()
    except Exception as error:
        if is_out_of_memory(error):
            raise
        warnings.append(_not_read(contents, error))
        return default


def _not_read(contents: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:80].rstrip(". ") or "no cause"
    return f"The {contents} of the page could not be read ({type(error).__name__}: {reason}). The page has none."


def unreadable_file(error: OSError) -> DocumentError:
    """Return the DocumentError for a file that the operating system cannot read.

    Args:
        error: The error of the operating system.
    """
    return DocumentError(
        f"The file cannot be read: {error.strerror or type(error).__name__}. Check the path and the permissions."
    )


def check_size(path: Path, limits: Limits) -> None:
    """Raise an error for a file that is missing, unreadable, empty or too large.

    Args:
        path: Path of the file.
        limits: Resource limits, for `max_bytes`.

    Raises:
        DocumentError: If the file is missing, unreadable or empty.
        LimitExceededError: If the file is larger than `max_bytes`.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise unreadable_file(error) from error
    if size == 0:
        raise DocumentError("The file is empty (0 bytes). Replace or re-export the file.")
    if size > limits.max_bytes:
        raise LimitExceededError(
            f"The file has {size:,} bytes (limit {limits.max_bytes:,}). Raise Limits.max_bytes (--limit max_bytes=N)."
        )


def check_pages(count: int, limits: Limits) -> None:
    """Raise an error for a document without pages or with too many pages.

    Args:
        count: Number of pages.
        limits: Resource limits, for `max_pages`.

    Raises:
        DocumentError: If the document has no pages.
        LimitExceededError: If the document has more pages than `max_pages`.
    """
    if count < 1:
        raise DocumentError(NO_PAGES)
    if count > limits.max_pages:
        raise LimitExceededError(
            f"The document has {count:,} pages, more than the limit of {limits.max_pages:,}. "
            "Split the document, or raise Limits.max_pages (--limit max_pages=N)."
        )


def fitting_scale(width: float, height: float, limits: Limits) -> float:
    """Return the factor, at most 1, by which an image is scaled to stay within the limits of a screenshot.

    Args:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        limits: Resource limits, for `max_render_pixels`.
    """
    return min(1.0, math.sqrt(limits.max_render_pixels / max(width * height, 1)), MAX_SIDE / max(width, height, 1))
