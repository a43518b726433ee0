"""PDF renderer with PyMuPDF."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType

from jina_rag._extras import require
from jina_rag.errors import DocumentError, PasswordRequiredError
from jina_rag.parsing.layout.boxes import clip_to_page
from jina_rag.parsing.layout.regions import Shapes
from jina_rag.parsing.pdf.base import Handle, PageContents, PdfRenderer
from jina_rag.parsing.pdf.document_warnings import BEYOND_REPAIR, NO_AREA, NOT_RENDERED, REPAIRED, encryption_message
from jina_rag.parsing.pdf.drawings import Drawings
from jina_rag.parsing.pdf.pymupdf_shapes import find_drawings
from jina_rag.parsing.pdf.words import place_words
from jina_rag.parsing.renderer import attempt
from jina_rag.types import Box, Word


class PyMuPdfRenderer(PdfRenderer):
    """A `Renderer` for a PDF with MuPDF."""

    # MuPDF has global state that all documents share, so only one thread at a time may call MuPDF.
    _lock = threading.RLock()

    def _open(self, resources: ExitStack) -> tuple[int, tuple[str, ...]]:
        self._pymupdf = _library()
        path = self._source.path
        with self._convert_errors(BEYOND_REPAIR):
            try:
                # MuPDF accepts only UTF-8 file names. Files with other names are read into memory.
                str(path).encode("utf-8")
                self._document = self._pymupdf.open(filename=str(path), filetype="pdf")
            except UnicodeEncodeError:
                self._document = self._pymupdf.open(stream=path.read_bytes(), filetype="pdf")
        resources.callback(self._document.close)
        if self._document.needs_pass:
            passwords = self._settings.passwords_for(path)
            if not any(self._document.authenticate(password) for password in passwords):
                raise PasswordRequiredError(encryption_message(bool(passwords)))
        with self._convert_errors("The document cannot be read"):
            count = int(self._document.page_count)
        return count, (REPAIRED,) if self._document.is_repaired else ()

    @contextmanager
    def _convert_errors(self, problem: str = NOT_RENDERED) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, OSError, MemoryError, self._pymupdf.mupdf.FzErrorBase) as error:
            if isinstance(error, self._pymupdf.FileDataError):  # the message contains only the path
                raise DocumentError(f"{problem}. Replace or re-export the file.") from error
            detail = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise DocumentError(f"{problem}: {detail.rstrip('.')}. Replace or re-export the file.") from error

    def _read(self, number: int, warnings: list[str]) -> PageContents:
        page = self._document.load_page(number - 1)
        width, height = page.rect.width, page.rect.height
        if not (width > 0 and height > 0):
            raise DocumentError(NO_AREA)
        tools = self._pymupdf.TOOLS
        tools.reset_mupdf_warnings()
        screenshot = self._screenshot(page, width, height, warnings)
        rotation = page.rotation
        to_display = page.rotation_matrix
        # On rotated pages, PyMuPDF mixes rotated and unrotated coordinates, so the rotation is set to 0.
        page.set_rotation(0)
        try:
            words = attempt(lambda: self._words(page, to_display, width, height), [], "words", warnings)
            images = attempt(lambda: self._images(page, to_display, width, height), (), "images", warnings)
            drawings: Drawings | tuple[()] = ()
            if self._settings.regions:
                drawings = attempt(lambda: find_drawings(page, to_display, width, height), (), "drawings", warnings)
        finally:
            page.set_rotation(rotation)
        shapes = Shapes(width, height, images, *drawings)
        return PageContents(screenshot, words, shapes, has_hidden_content=lambda: bool(tools.mupdf_warnings()))

    def _pixels(self, page: Handle, width: float, height: float, zoom: float) -> tuple[tuple[int, int], bytes]:
        pixmap = page.get_pixmap(matrix=self._pymupdf.Matrix(zoom, zoom), colorspace=self._pymupdf.csRGB, alpha=False)
        return (pixmap.width, pixmap.height), pixmap.samples

    def _images(self, page: Handle, to_display: Handle, width: float, height: float) -> tuple[Box, ...]:
        boxes = (tuple(self._pymupdf.Rect(info["bbox"]) * to_display) for info in page.get_image_info())
        return tuple(box for points in boxes if (box := clip_to_page(points, width, height)))

    def _words(self, page: Handle, to_display: Handle, width: float, height: float) -> list[Word]:
        library = self._pymupdf
        # With these flags, MuPDF expands ligatures and returns unmapped codes as U+FFFD, which `place_words` drops.
        flags = library.TEXT_PRESERVE_WHITESPACE | library.TEXT_MEDIABOX_CLIP
        entries = page.get_text("words", flags=flags, sort=False) or _words_without_width(page, flags)
        if to_display == library.Identity:  # a page without rotation; the product would take 20 microseconds a word
            texts = ((entry[4], entry[:4]) for entry in entries)
        else:
            texts = ((entry[4], tuple(library.Rect(entry[:4]) * to_display)) for entry in entries)
        return place_words(texts, width, height)


def _words_without_width(page: Handle, flags: int) -> list[tuple[Handle, ...]]:
    """Return the words of fonts with invalid widths. PyMuPDF omits words with empty boxes.

    Each word gets the box of the text block, widened so that the width is at least the height.
    """
    return [
        (x0, y0, max(x1, x0 + y1 - y0), y1, word)
        for x0, y0, x1, y1, text, *_ in page.get_text("blocks", flags=flags)
        for word in text.split()
    ]


def _library() -> ModuleType:
    pymupdf = require("pymupdf")
    # MuPDF does not print warnings. `has_hidden_content` reads the warnings with `mupdf_warnings`.
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    return pymupdf
