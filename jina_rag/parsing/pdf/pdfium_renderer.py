"""PDF pages through PDFium (pypdfium2), under a permissive licence: the second renderer beside `pdf.PdfDocument`.

Screenshots, words, pictures and regions mean the same; `pdfium_words`, `pdfium_shapes` and `pdfium_contents` read them.
"""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError
from jina_rag.parsing.layout.regions import Shapes, find_regions
from jina_rag.parsing.layout.text_lines import text_lines
from jina_rag.parsing.pdf.document_warnings import BLANK, NO_AREA, NOT_RENDERED, REPAIRED, zoom_of
from jina_rag.parsing.pdf.pdfium_contents import has_content
from jina_rag.parsing.pdf.pdfium_library import LOCK, PdfiumFile
from jina_rag.parsing.pdf.pdfium_shapes import read_shapes
from jina_rag.parsing.pdf.pdfium_words import read_words
from jina_rag.parsing.pdf.pymupdf_shapes import place_drawings
from jina_rag.parsing.pdf.words import cut_words, fractions, place_words, visible
from jina_rag.parsing.renderer import check_pages, check_size, number_in_range
from jina_rag.parsing.sources import SourceFile
from jina_rag.types import Box, Page, PageScreenshot, Word

if TYPE_CHECKING:
    from PIL.Image import Image

Handle: TypeAlias = Any
Matrix: TypeAlias = tuple[float, float, float, float, float, float]

_WHITE = 0xFFFFFFFF


class PdfiumDocument:
    """A `Renderer` of one PDF. May be used from any thread, one call at a time in the whole process.

    Raises:
        PasswordRequiredError: If none of the passwords opens it.
        LimitExceededError: If it is larger than the limits allow.
        DocumentError: If it is no PDF, damaged beyond repair, or has no pages.
        MissingDependencyError: If pypdfium2 is not installed.
    """

    def __init__(self, source: SourceFile, settings: IngestSettings) -> None:
        self._source = source
        self._settings = settings
        # Opened where a page needs it: the document again, its annotations made part of the pages.
        self._flat: PdfiumFile | None = None
        check_size(source.path, settings.limits)
        with LOCK:
            self._file = self._open()
            try:
                self._count = self._file.page_count
                check_pages(self._count, settings.limits)
                repaired = self._file.is_repaired
            except BaseException:
                self._file.close()
                raise
        self._warnings = (REPAIRED,) if repaired else ()

    @property
    def page_count(self) -> int:
        """Number of pages."""
        return self._count

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence if the file had to be repaired, as far as PDFium tells."""
        return self._warnings

    def render(self, number: int) -> Page:
        """See `PageRenderer.render`."""
        return self.render_with_images(number)[0]

    def render_with_images(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        """See `Renderer.render_with_pictures`."""
        number_in_range(number, self._count)
        with LOCK:
            if not self._file.document:
                raise DocumentError(f"{NOT_RENDERED}: the document is closed.")
            try:
                return self._page(number)
            except (MemoryError, ValueError, OSError, OverflowError) as error:
                raise DocumentError(f"{NOT_RENDERED}: {str(error).rstrip('.') or type(error).__name__}.") from error

    def close(self) -> None:
        """Release the file."""
        with LOCK:
            self._file.close()
            if self._flat:
                self._flat.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> PdfiumFile:
        return PdfiumFile(self._source.path, self._settings.passwords_for(self._source.path))

    def _page(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        warnings: list[str] = []
        with self._file.page(number - 1) as page:
            to_display, width, height = _display(self._file, page)
            screenshot = self._screenshot(page, width, height, warnings)
            with self._annotations(page, number - 1) as annotations:
                layers = [page, *annotations]
                words = self._words(layers, to_display, width, height)
                shapes, objects = self._shapes(layers, to_display, width, height)
        cut_words(words, self._settings.limits.max_words, warnings)
        if _is_white(screenshot.image) and (
            words or shapes.images or len(shapes.drawings) or (not objects and has_content(self._file, number - 1))
        ):
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

        raw = self._file.raw
        zoom = zoom_of(width, height, self._settings, warnings)
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
        image = Image.frombuffer("RGB", (columns, rows), pixels, "raw", "RGB", 0, 1)
        return PageScreenshot(image=image, dpi=zoom * 72)

    @contextmanager
    def _annotations(self, page: Handle, index: int) -> Iterator[list[Handle]]:
        """A page of nothing but the form fields and notes of this one, which PDFium keeps apart; none without any."""
        if not _has_annotations(self._file, page):
            yield []
            return
        if self._flat is None:
            self._flat = self._open()
        with self._flat.annotations(index, self._file.raw.FPDFPage_CountObjects(page)) as flat:
            yield [flat]

    def _words(self, layers: list[Handle], to_display: Matrix, width: float, height: float) -> list[Word]:
        found = itertools.chain.from_iterable(read_words(self._file.raw, layer) for layer in layers)
        return place_words(((text, _turned(box, to_display)) for text, box in found), width, height)

    def _shapes(self, layers: list[Handle], to_display: Matrix, width: float, height: float) -> tuple[Shapes, int]:
        found = read_shapes(self._file.raw, layers, drawings=self._settings.regions)
        images = (visible(_turned(box, to_display), width, height) for box in found.images)
        drawings, curved = place_drawings(found.boxes, found.curved, to_display, width, height)
        return Shapes(width, height, tuple(filter(None, images)), drawings, curved), found.objects


def _display(file: PdfiumFile, page: Handle) -> tuple[Matrix, float, float]:
    """The matrix from the page's own coordinates, whose y points up, to the displayed page; its width and height."""
    raw = file.raw
    box = raw.FS_RECTF()
    raw.FPDF_GetPageBoundingBox(page, ctypes.byref(box))
    left, bottom, right, top = box.left, box.bottom, box.right, box.top
    wide, high = right - left, top - bottom
    if not (0 < wide < math.inf and 0 < high < math.inf):
        raise DocumentError(NO_AREA)
    turn = raw.FPDFPage_GetRotation(page)
    if turn == 1:
        return (0.0, 1.0, 1.0, 0.0, -bottom, -left), high, wide
    if turn == 2:
        return (-1.0, 0.0, 0.0, 1.0, right, -bottom), wide, high
    if turn == 3:
        return (0.0, -1.0, -1.0, 0.0, top, right), high, wide
    return (1.0, 0.0, 0.0, -1.0, -left, top), wide, high


def _turned(box: Box, matrix: Matrix) -> Box:
    a, b, c, d, e, f = matrix
    x0, y0, x1, y1 = box
    return a * x0 + c * y0 + e, b * x0 + d * y0 + f, a * x1 + c * y1 + e, b * x1 + d * y1 + f


def _has_annotations(file: PdfiumFile, page: Handle) -> bool:
    """Whether anything but links stands on the page."""
    raw = file.raw
    silent = (raw.FPDF_ANNOT_LINK, raw.FPDF_ANNOT_POPUP)
    for index in range(raw.FPDFPage_GetAnnotCount(page)):
        annotation = raw.FPDFPage_GetAnnot(page, index)
        try:
            if annotation and raw.FPDFAnnot_GetSubtype(annotation) not in silent:
                return True
        finally:
            raw.FPDFPage_CloseAnnot(annotation)
    return False


def _is_white(image: Image) -> bool:
    return all(channel[0] == 255 for channel in image.getextrema())  # type: ignore[index]
