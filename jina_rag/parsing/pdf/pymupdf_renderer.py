"""PDF renderer with PyMuPDF."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from jina_rag._extras import require
from jina_rag.errors import DocumentError, PasswordRequiredError
from jina_rag.parsing.layout.boxes import clip_to_page
from jina_rag.parsing.layout.regions import Shapes
from jina_rag.parsing.pdf import xfa
from jina_rag.parsing.pdf.base import Handle, PageContents, PdfRenderer
from jina_rag.parsing.pdf.document_warnings import (
    BEYOND_REPAIR,
    MISSING_PAGE,
    NO_AREA,
    NOT_RENDERED,
    REPAIRED,
    WRONG_COUNT,
    encryption_message,
    undescribed_font,
)
from jina_rag.parsing.pdf.pymupdf_contents import has_colored_picture, has_hidden_content
from jina_rag.parsing.pdf.pymupdf_fonts import undescribed_fonts
from jina_rag.parsing.pdf.pymupdf_ligatures import LigatureMaps
from jina_rag.parsing.pdf.pymupdf_runs import LostTextFonts, read_runs
from jina_rag.parsing.pdf.pymupdf_shapes import find_drawings
from jina_rag.parsing.pdf.pymupdf_structure import count_pages, repair_page, replace_missing_page
from jina_rag.parsing.pdf.pymupdf_words import MuPdfPaintOrder, read_words, unrotated, without_text
from jina_rag.parsing.pdf.visibility import TextFreePage
from jina_rag.parsing.pdf.words import LayerWord, clean_words
from jina_rag.parsing.renderer import attempt
from jina_rag.parsing.text_layer.suspects import MIN_LOST, TextRun, count_lost
from jina_rag.types import Box

# Messages of MuPDF about images that it draws in a single color, and about images that it omits.
_PICTURE_PROBLEM = re.compile(r"image|jpe?g|jbig2|jpx|fax|lzw|zlib|flate|run length|brotli|unpack|colorspace", re.I)
_LOST_PICTURE = re.compile(
    r"JPX|openjpeg error|image (?:width|height) is|unknown colorspace|unknown filter|Unsupported combination"
)
_ERROR_CODE = re.compile(r"^code=\d+: ")


LOCK = threading.RLock()
"""MuPDF has global state that all documents share, so only one thread at a time may call MuPDF."""


class PyMuPdfRenderer(PdfRenderer):
    """A `Renderer` for a PDF with MuPDF."""

    _lock = LOCK
    _lost_text_fonts: LostTextFonts | None = None
    _ligature_maps: LigatureMaps | None = None
    _lost_characters = 0
    """Number of characters without a valid code on the page whose words were read last."""

    def _open(self, resources: ExitStack) -> tuple[int, tuple[str, ...]]:
        self._pymupdf = load_library()
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
            count, has_wrong_tree = count_pages(self._pymupdf, self._document, self._settings.limits.max_pages)
            warnings = xfa.pymupdf_warnings(self._document)
        return count, (REPAIRED,) * self._document.is_repaired + (WRONG_COUNT,) * has_wrong_tree + warnings

    @contextmanager
    def _convert_errors(self, problem: str = NOT_RENDERED) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, OSError, MemoryError, self._pymupdf.mupdf.FzErrorBase) as error:
            if isinstance(error, self._pymupdf.FileDataError):  # the message contains only the path
                raise DocumentError(f"{problem}. Replace or re-export the file.") from error
            message = _ERROR_CODE.sub("", str(error).strip())
            detail = message.splitlines()[0][:200] if message else type(error).__name__
            raise DocumentError(f"{problem}: {detail.rstrip('.')}. Replace or re-export the file.") from error

    def _read(self, number: int, warnings: list[str]) -> PageContents:
        if replace_missing_page(self._pymupdf, self._document, number):
            warnings.append(MISSING_PAGE)
        unit = repair_page(self._pymupdf, self._document, number)
        self._ligature_maps = self._ligature_maps or LigatureMaps(self._document)
        attempt(partial(self._ligature_maps.complete, number), None, "fonts", warnings)
        page = self._document.load_page(number - 1)
        width, height = page.rect.width * unit, page.rect.height * unit
        if not (width > 0 and height > 0):
            raise DocumentError(NO_AREA)
        tools = self._pymupdf.TOOLS
        tools.mupdf_warnings()  # `reset_mupdf_warnings` would leave the number of repetitions of the last message
        screenshot, pixels = self._screenshot(page, width, height, warnings)
        to_display = page.rotation_matrix * self._pymupdf.Matrix(unit, unit)
        with unrotated(page):
            words: list[LayerWord] = attempt(
                lambda: self._words(page, to_display, width, height), [], "words", warnings
            )
            images: tuple[Box, ...] = attempt(
                lambda: self._images(page, to_display, width, height), (), "images", warnings
            )
            drawings: tuple[Any, ...] = ()
            if self._settings.regions:
                drawings = attempt(lambda: find_drawings(page, to_display, width, height), (), "drawings", warnings)
        shapes = Shapes(width, height, images, *drawings)
        messages = tools.mupdf_warnings()
        fonts: list[str] = attempt(
            lambda: undescribed_fonts(self._pymupdf, self._document, number), [], "fonts", warnings
        )
        warnings += map(undescribed_font, fonts)
        return PageContents(
            screenshot,
            pixels,
            words,
            shapes,
            read_order=lambda: self._paint_order(number, width),
            has_colored_picture=lambda: has_colored_picture(self._pymupdf, self._document, number),
            has_hidden_content=lambda: bool(messages) and self._has_hidden_content(number, messages),
            has_lost_picture=lambda is_plain: bool((_PICTURE_PROBLEM if is_plain else _LOST_PICTURE).search(messages)),
        )

    def _has_hidden_content(self, number: int, messages: str) -> bool:
        return has_hidden_content(self._pymupdf, self._document, number, messages)

    def _pixels(self, page: Handle, width: float, height: float, zoom: float) -> tuple[tuple[int, int], bytes]:
        scale = zoom * width / page.rect.width  # in pixels per unit of the page, which is a point for almost every page
        pixmap = page.get_pixmap(matrix=self._pymupdf.Matrix(scale, scale), colorspace=self._pymupdf.csRGB, alpha=False)
        return (pixmap.width, pixmap.height), pixmap.samples

    def _pictures(self, page: Handle) -> list[tuple[float, float]]:
        library, area = self._pymupdf, page.rect.width * page.rect.height
        infos: list[Handle] = attempt(page.get_image_info, [], "pictures", [])
        return [(info["width"] * info["height"], library.Rect(info["bbox"]).get_area() / area) for info in infos]

    def _images(self, page: Handle, to_display: Handle, width: float, height: float) -> tuple[Box, ...]:
        boxes = (tuple(self._pymupdf.Rect(info["bbox"]) * to_display) for info in page.get_image_info())
        return tuple(box for points in boxes if (box := clip_to_page(points, width, height)))

    def _words(self, page: Handle, to_display: Handle, width: float, height: float) -> list[LayerWord]:
        library = self._pymupdf
        words = read_words(library, page)
        self._lost_characters = count_lost(word.text for word in words)
        if to_display != library.Identity:  # the product takes 20 microseconds a word
            for word in words:
                word.box = tuple(library.Rect(word.box) * to_display)
        return clean_words(words, width, height)

    def _runs(self, number: int, width: float, height: float) -> list[TextRun]:
        page = self._document.load_page(number - 1)
        to_display = page.rotation_matrix * self._pymupdf.Matrix(*[width / page.rect.width] * 2)
        with unrotated(page):
            return read_runs(self._pymupdf, page, to_display, width, height)

    def _may_lose_text(self, number: int) -> bool:
        if self._lost_text_fonts is None:
            self._lost_text_fonts = LostTextFonts(self._document)
        page = self._document.load_page(number - 1)
        return self._lost_characters >= MIN_LOST or self._lost_text_fonts.any(page)

    def _draw_without_text(self, number: int, contents: PageContents) -> TextFreePage:
        width, height = contents.shapes.width, contents.shapes.height
        with without_text(self._document, number) as page:
            _, samples = self._pixels(page, width, height, contents.screenshot.dpi / 72)
            to_display = self._to_display(page, width)
            with unrotated(page):
                remaining = self._words(page, to_display, width, height)
        painted = {(word.text, word.box) for word in remaining if word.is_painted}
        return TextFreePage(
            np.frombuffer(samples, dtype=np.uint8).reshape(contents.pixels.shape),
            frozenset(at for at, word in enumerate(contents.words) if (word.text, word.box) in painted),
        )

    def _paint_order(self, number: int, width: float) -> MuPdfPaintOrder:
        page = self._document.load_page(number - 1)
        to_display = self._to_display(page, width)
        with unrotated(page):
            return MuPdfPaintOrder(page, lambda box: tuple(self._pymupdf.Rect(box) * to_display))

    def _to_display(self, page: Handle, width: float) -> Handle:
        """Return the matrix from the unrotated page to the displayed page, which is `width` points wide."""
        unit = width / page.rect.width
        return page.rotation_matrix * self._pymupdf.Matrix(unit, unit)


def load_library() -> ModuleType:
    """Return the module ``pymupdf``, which prints no messages."""
    pymupdf = require("pymupdf")
    # MuPDF does not print warnings. `has_hidden_content` reads the warnings with `mupdf_warnings`.
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    return pymupdf
