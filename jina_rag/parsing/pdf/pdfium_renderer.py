"""PDF renderer with PDFium (pypdfium2), a permissively licensed alternative to PyMuPDF.

Screenshots, words, images and regions are defined as in `pymupdf_renderer`.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from jina_rag.errors import DocumentError
from jina_rag.parsing.layout.boxes import clip_to_page
from jina_rag.parsing.layout.regions import Shapes
from jina_rag.parsing.pdf import xfa
from jina_rag.parsing.pdf.base import Handle, PageContents, PdfRenderer
from jina_rag.parsing.pdf.document_warnings import NOT_RENDERED, REPAIRED, WRONG_COUNT, undrawn_font
from jina_rag.parsing.pdf.drawings import place_drawings
from jina_rag.parsing.pdf.pdfium_contents import has_content
from jina_rag.parsing.pdf.pdfium_fonts import undrawn_fonts
from jina_rag.parsing.pdf.pdfium_library import LOCK, PdfiumFile
from jina_rag.parsing.pdf.pdfium_pictures import has_colored_picture, has_lost_picture
from jina_rag.parsing.pdf.pdfium_runs import may_lose_text, read_runs
from jina_rag.parsing.pdf.pdfium_shapes import Matrix, PageObjects, read_shapes, transform
from jina_rag.parsing.pdf.pdfium_structure import SMALL_SIDE, user_unit, visible_area
from jina_rag.parsing.pdf.pdfium_text_objects import PdfiumPaintOrder, TextRemoval
from jina_rag.parsing.pdf.pdfium_words import read_words
from jina_rag.parsing.pdf.visibility import TextFreePage
from jina_rag.parsing.pdf.words import LayerWord, clean_words
from jina_rag.parsing.renderer import attempt
from jina_rag.parsing.text_layer.suspects import TextRun
from jina_rag.types import Box

_WHITE = 0xFFFFFFFF
# Maximum size of the copy of a page that is searched for the UserUnit.
_COPY_BYTES = 4 * 2**20


class PdfiumRenderer(PdfRenderer):
    """A `Renderer` for a PDF with PDFium.

    Raises:
        MissingDependencyError: If pypdfium2 is not installed.
    """

    _lock = LOCK
    _annotations_file: PdfiumFile | None = None
    """Second copy of the document, opened on first use, in which annotations are converted to page objects."""

    def _open(self, resources: ExitStack) -> tuple[int, tuple[str, ...]]:
        self._file = self._open_file(resources)
        file = self._file
        warnings = xfa.pdfium_warnings(file)
        return file.page_count, (REPAIRED,) * file.is_repaired + (WRONG_COUNT,) * file.has_wrong_tree + warnings

    def _open_file(self, resources: ExitStack) -> PdfiumFile:
        file = PdfiumFile(self._source.path, self._settings.passwords_for(self._source.path))
        resources.callback(file.close)
        return file

    @contextmanager
    def _convert_errors(self) -> Iterator[None]:
        try:
            yield
        except (MemoryError, ValueError, OSError, OverflowError) as error:
            reason = str(error).rstrip(".") or type(error).__name__
            raise DocumentError(f"{NOT_RENDERED}: {reason}. Replace or re-export the file.") from error

    def _read(self, number: int, warnings: list[str]) -> PageContents:
        if not self._file.document:
            raise DocumentError(f"{NOT_RENDERED}: the document is closed. Reopen the document.")
        raw = self._file.raw
        with self._file.page(number - 1) as page:
            to_display, width, height = _display(self._file, page, number - 1)
            screenshot, pixels = self._screenshot(page, width, height, warnings)
            fonts: list[str] = attempt(lambda: undrawn_fonts(raw, page), [], "fonts", warnings)
            warnings += map(undrawn_font, fonts)
            with ExitStack() as resources:
                layers = [page]
                layers += attempt(
                    lambda: resources.enter_context(self._annotations(page, number - 1)), [], "annotations", warnings
                )

                objects = attempt(
                    lambda: read_shapes(raw, layers, drawings=self._settings.regions),
                    PageObjects(),
                    "images and drawings",
                    warnings,
                )

                def read() -> list[LayerWord]:
                    words = []
                    for layer in layers:
                        for word in read_words(raw, layer, objects.text_orders):
                            word.box = _display_box(word.box, to_display)
                            word.is_annotation = layer is not page
                            words.append(word)
                    return clean_words(words, width, height)

                words: list[LayerWord] = attempt(read, [], "words", warnings)
        images = [
            (order, box)
            for order, points in zip(objects.image_orders, objects.images, strict=True)
            if (box := clip_to_page(_display_box(points, to_display), width, height))
        ]
        drawings, curved = place_drawings(objects.boxes, objects.curved, to_display, width, height)
        return PageContents(
            screenshot,
            pixels,
            words,
            Shapes(width, height, tuple(box for _, box in images), drawings, curved),
            read_order=lambda: PdfiumPaintOrder(images, lambda: self._covers(number)),
            has_hidden_content=lambda: self._has_hidden_content(number, objects.count),
            has_lost_picture=lambda is_plain: is_plain and self._has_lost_picture(number),
            has_colored_picture=lambda: self._has_colored_picture(number),
        )

    def _has_hidden_content(self, number: int, objects: int) -> bool:
        if not objects and has_content(self._file, number - 1):
            return True
        with self._file.page(number - 1) as page:
            return _has_annotations(self._file, page, drawn=True)

    def _has_lost_picture(self, number: int) -> bool:
        with self._file.page(number - 1) as page:
            return has_lost_picture(self._file.raw, page)

    def _has_colored_picture(self, number: int) -> bool:
        with self._file.page(number - 1) as page:
            return has_colored_picture(self._file.raw, self._file.document, page)

    def _runs(self, number: int, width: float, height: float) -> list[TextRun]:
        with self._file.page(number - 1) as page:
            to_display, _, _ = _display(self._file, page, number - 1)
            return read_runs(self._file.raw, page, lambda box: _display_box(box, to_display), width, height)

    def _may_lose_text(self, number: int) -> bool:
        with self._file.page(number - 1) as page:
            return may_lose_text(self._file.raw, page)

    def _pixels(self, page: Handle, width: float, height: float, zoom: float) -> tuple[tuple[int, int], bytearray]:
        raw = self._file.raw
        columns, rows = (max(1, math.ceil(side * zoom - 0.001)) for side in (width, height))
        pixels = bytearray(columns * rows * 3)
        buffer = (ctypes.c_ubyte * len(pixels)).from_buffer(pixels)
        bitmap = raw.FPDFBitmap_CreateEx(columns, rows, raw.FPDFBitmap_BGR, buffer, columns * 3)
        if not bitmap:
            raise MemoryError
        try:
            raw.FPDFBitmap_FillRect(bitmap, 0, 0, columns, rows, _WHITE)
            area = (bitmap, page, 0, 0, columns, rows, 0, raw.FPDF_ANNOT | raw.FPDF_REVERSE_BYTE_ORDER)
            raw.FPDF_RenderPageBitmap(*area)
            if self._file.form:
                raw.FPDF_FFLDraw(self._file.form, *area)
        finally:
            raw.FPDFBitmap_Destroy(bitmap)
        return (columns, rows), pixels

    def _pictures(self, page: Handle) -> list[tuple[float, float]]:
        raw = self._file.raw
        area = raw.FPDF_GetPageWidthF(page) * raw.FPDF_GetPageHeightF(page)
        objects = attempt(lambda: read_shapes(raw, [page], drawings=False), PageObjects(), "pictures", [])
        sizes = zip(objects.image_pixels, objects.images, strict=True)
        return [(pixels, (x1 - x0) * (y1 - y0) / area) for pixels, (x0, y0, x1, y1) in sizes] if area > 0 else []

    def _draw_without_text(self, number: int, contents: PageContents) -> TextFreePage:
        with self._text_removed(number) as (page, _, width, height):
            _, content = self._pixels(page, width, height, contents.screenshot.dpi / 72)
        return TextFreePage(
            np.frombuffer(content, dtype=np.uint8).reshape(contents.pixels.shape),
            frozenset(at for at, word in enumerate(contents.words) if word.is_annotation),
        )

    def _covers(self, number: int) -> list[tuple[int, Box]]:
        with self._text_removed(number) as (_, covers, _, _):
            return covers

    @contextmanager
    def _text_removed(self, number: int) -> Iterator[tuple[Handle, list[tuple[int, Box]], float, float]]:
        """Open a page without its text. Yield the page, the `TextRemoval.covers`, and the displayed size in points."""
        with self._file.page(number - 1) as page:
            to_display, width, height = _display(self._file, page, number - 1)
            covers = TextRemoval(self._file.raw, page, lambda box: _display_box(box, to_display)).covers
            yield page, covers, width, height

    @contextmanager
    def _annotations(self, page: Handle, index: int) -> Iterator[list[Handle]]:
        """Yield a list with one page, which has only the annotations of `page`; an empty list without annotations."""
        if not _has_annotations(self._file, page):
            yield []
            return
        if self._annotations_file is None:
            self._annotations_file = self._open_file(self._resources)
        objects = self._file.raw.FPDFPage_CountObjects(page)
        with self._annotations_file.annotations(index, objects) as annotations:
            yield [annotations]


def _display(file: PdfiumFile, page: Handle, index: int) -> tuple[Matrix, float, float]:
    """Return the matrix from page coordinates (y axis up) to the displayed page, and the displayed width and height."""
    raw = file.raw
    left, bottom, right, top = visible_area(raw, page)
    longer = max(right - left, top - bottom)
    u = user_unit(file.copy_page(index, _COPY_BYTES), longer) if longer < SMALL_SIDE else 1.0
    width, height = (right - left) * u, (top - bottom) * u
    rotation = raw.FPDFPage_GetRotation(page)
    if rotation == 1:
        return (0.0, u, u, 0.0, -bottom * u, -left * u), height, width
    if rotation == 2:
        return (-u, 0.0, 0.0, u, right * u, -bottom * u), width, height
    if rotation == 3:
        return (0.0, -u, -u, 0.0, top * u, right * u), height, width
    return (u, 0.0, 0.0, -u, -left * u, top * u), width, height


def _display_box(box: Box, matrix: Matrix) -> Box:
    return *transform(box[:2], matrix), *transform(box[2:], matrix)


def _has_annotations(file: PdfiumFile, page: Handle, *, drawn: bool = False) -> bool:
    """Return whether the page has annotations other than links and popups.

    Args:
        file: The open document.
        page: An ``FPDF_PAGE`` handle.
        drawn: Whether to ignore form fields, which may be empty, and hidden annotations, too.
    """
    raw = file.raw
    ignored_subtypes = [raw.FPDF_ANNOT_LINK, raw.FPDF_ANNOT_POPUP]
    hidden = 0
    if drawn:
        ignored_subtypes += [raw.FPDF_ANNOT_WIDGET, raw.FPDF_ANNOT_UNKNOWN]
        hidden = raw.FPDF_ANNOT_FLAG_HIDDEN | raw.FPDF_ANNOT_FLAG_NOVIEW
    for index in range(raw.FPDFPage_GetAnnotCount(page)):
        annotation = raw.FPDFPage_GetAnnot(page, index)
        try:
            if not annotation or raw.FPDFAnnot_GetSubtype(annotation) in ignored_subtypes:
                continue
            if not raw.FPDFAnnot_GetFlags(annotation) & hidden:
                return True
        finally:
            raw.FPDFPage_CloseAnnot(annotation)
    return False
