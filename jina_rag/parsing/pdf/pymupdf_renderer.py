"""PDF pages through PyMuPDF: screenshots as a viewer shows them, words with boxes, pictures, regions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

from jina_rag._extras import require
from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError, PasswordRequiredError
from jina_rag.parsing.layout.regions import Shapes, find_regions
from jina_rag.parsing.layout.text_lines import text_lines
from jina_rag.parsing.pdf.document_warnings import (
    BEYOND_REPAIR,
    BLANK,
    NO_AREA,
    NOT_RENDERED,
    REPAIRED,
    needs_password,
    zoom_of,
)
from jina_rag.parsing.pdf.pymupdf_shapes import find_drawings, no_drawings
from jina_rag.parsing.pdf.words import cut_words, fractions, place_words, visible
from jina_rag.parsing.renderer import check_pages, check_size, number_in_range
from jina_rag.parsing.sources import SourceFile
from jina_rag.types import Box, Page, PageScreenshot, Word

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
# PyMuPDF's objects, which have no types we could name.
Handle: TypeAlias = Any

# MuPDF keeps state that all documents share: one thread at a time, whatever document it works on.
_LOCK = threading.RLock()


class PdfDocument:
    """A `Renderer` of one PDF. May be used from any thread, one call at a time in the whole process.

    Raises:
        PasswordRequiredError: If none of the passwords opens it.
        LimitExceededError: If it is larger than the limits allow.
        DocumentError: If it is no PDF, damaged beyond repair, or has no pages.
    """

    def __init__(self, source: SourceFile, settings: IngestSettings) -> None:
        self._source = source
        self._settings = settings
        check_size(source.path, settings.limits)
        with _LOCK:
            self._pymupdf = _library()
            self._document = self._open()
            try:
                self._unlock()
                self._count = int(self._guarded("The document cannot be read", lambda: self._document.page_count))
                check_pages(self._count, settings.limits)
            except BaseException:
                self._document.close()
                raise
            repaired = bool(self._document.is_repaired)
        self._warnings = (REPAIRED,) if repaired else ()

    @property
    def page_count(self) -> int:
        """Number of pages."""
        return self._count

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence if the file had to be repaired."""
        return self._warnings

    def render(self, number: int) -> Page:
        """See `PageRenderer.render`."""
        return self.render_with_images(number)[0]

    def render_with_images(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        """See `Renderer.render_with_pictures`."""
        with _LOCK:
            return self._guarded(NOT_RENDERED, lambda: self._page(number))

    def close(self) -> None:
        """Release the file."""
        with _LOCK:
            if not self._document.is_closed:
                self._document.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> Handle:
        path = self._source.path
        try:
            # MuPDF takes names as UTF-8 only; a file with another name is read by us.
            str(path).encode("utf-8")
            arguments: dict[str, Handle] = {"filename": str(path)}
        except UnicodeEncodeError:
            arguments = {"stream": path.read_bytes()}
        return self._guarded(BEYOND_REPAIR, lambda: self._pymupdf.open(**arguments, filetype="pdf"))

    def _unlock(self) -> None:
        if not self._document.needs_pass:
            return
        passwords = self._settings.passwords_for(self._source.path)
        if not any(self._document.authenticate(password) for password in passwords):
            raise PasswordRequiredError(needs_password(bool(passwords)))

    def _guarded(self, problem: str, call: Callable[[], T]) -> T:
        """Call into MuPDF, its errors turned into ours."""
        try:
            return call()
        except (RuntimeError, ValueError, OSError, MemoryError, self._pymupdf.mupdf.FzErrorBase) as error:
            if isinstance(error, self._pymupdf.FileDataError):  # its message is a path
                raise DocumentError(f"{problem}.") from error
            detail = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise DocumentError(f"{problem}: {detail.rstrip('.')}.") from error

    def _page(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        page = self._document.load_page(number_in_range(number, self._count) - 1)
        width, height = page.rect.width, page.rect.height
        if not (width > 0 and height > 0):
            raise DocumentError(NO_AREA)
        warnings: list[str] = []
        self._pymupdf.TOOLS.reset_mupdf_warnings()
        screenshot = self._screenshot(page, width, height, warnings)
        words, shapes = self._contents(page, width, height, warnings)
        if self._is_suspiciously_white(page, screenshot.image, words, shapes):
            warnings.append(BLANK)
        images = tuple(fractions(box, width, height) for box in shapes.images)
        regions = (
            find_regions(shapes, text_lines(words, width, height), text_page=bool(words))
            if self._settings.regions
            else ()
        )
        return (
            Page(
                doc_id=self._source.doc_id,
                path=self._source.path,
                number=number,
                count=self._count,
                screenshot=screenshot,
                words=tuple(words),
                regions=regions,
                warnings=tuple(warnings),
            ),
            images,
        )

    def _screenshot(self, page: Handle, width: float, height: float, warnings: list[str]) -> PageScreenshot:
        from PIL import Image

        zoom = zoom_of(width, height, self._settings, warnings)
        pixmap = page.get_pixmap(matrix=self._pymupdf.Matrix(zoom, zoom), colorspace=self._pymupdf.csRGB, alpha=False)
        image = Image.frombuffer("RGB", (pixmap.width, pixmap.height), pixmap.samples, "raw", "RGB", 0, 1)
        return PageScreenshot(image=image, dpi=zoom * 72)

    def _contents(self, page: Handle, width: float, height: float, warnings: list[str]) -> tuple[list[Word], Shapes]:
        """Words, pictures and drawings as they stand on the displayed page."""
        rotation = page.rotation
        to_display = page.rotation_matrix
        # PyMuPDF mixes both coordinate systems on turned pages; unturned there is only one.
        page.set_rotation(0)
        try:
            words = self._words(page, to_display, width, height)
            images = [
                box
                for info in page.get_image_info()
                if (box := visible(tuple(self._pymupdf.Rect(info["bbox"]) * to_display), width, height))
            ]
            drawings, curved = (
                find_drawings(page, to_display, width, height) if self._settings.regions else no_drawings()
            )
        finally:
            page.set_rotation(rotation)
        cut_words(words, self._settings.limits.max_words, warnings)
        return words, Shapes(width, height, tuple(images), drawings, curved)

    def _words(self, page: Handle, to_display: Handle, width: float, height: float) -> list[Word]:
        library = self._pymupdf
        # Ligatures come as letters; codes without a meaning come as U+FFFD, which `place_words` drops.
        flags = library.TEXT_PRESERVE_WHITESPACE | library.TEXT_MEDIABOX_CLIP
        found = page.get_text("words", flags=flags, sort=False) or _words_without_width(page, flags)
        turned = ((word[4], tuple(library.Rect(word[:4]) * to_display)) for word in found)
        return place_words(turned, width, height)

    def _is_suspiciously_white(self, page: Handle, image: Image, words: list[Word], shapes: Shapes) -> bool:
        if any(channel[0] < 255 for channel in image.getextrema()):  # type: ignore[index]
            return False
        complaints = self._pymupdf.TOOLS.mupdf_warnings()
        return bool(words or shapes.images or len(shapes.drawings) or complaints)


def _words_without_width(page: Handle, flags: int) -> list[tuple[Handle, ...]]:
    """Words of fonts whose widths are wrong: PyMuPDF leaves them out, as their boxes are empty.

    Each gets the box of its block, made as wide as it is high.
    """
    return [
        (x0, y0, max(x1, x0 + y1 - y0), y1, word)
        for x0, y0, x1, y1, text, *_ in page.get_text("blocks", flags=flags)
        for word in text.split()
    ]


def _library() -> ModuleType:
    pymupdf = require("pymupdf")
    # Its complaints are kept for `_is_suspiciously_white`, not printed.
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    return pymupdf
