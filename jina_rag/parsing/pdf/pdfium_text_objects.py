"""Removal of the text from a page that is open in PDFium, and the shapes that cover text."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from types import ModuleType

from jina_rag.parsing.layout.boxes import area, bounds, intersection
from jina_rag.parsing.pdf.base import Handle
from jina_rag.parsing.pdf.pdfium_shapes import IDENTITY, MAX_DEPTH, Matrix, matrix_of, product, transform
from jina_rag.parsing.pdf.words import LayerWord
from jina_rag.types import Box

# Minimum fractions of a word that a shape and an image cover.
_COVERED = 0.9
_COVERED_BY_IMAGE = 0.5


class PdfiumPaintOrder:
    """A `PaintOrder` of a page that is open in PDFium.

    Args:
        images: (number of the drawing operation, box in points of the displayed page) of each image.
        read_covers: Function that returns the same values for images and filled paths.
    """

    def __init__(self, images: Sequence[tuple[int, Box]], read_covers: Callable[[], list[tuple[int, Box]]]) -> None:
        self._images = images
        self._read_covers = cache(read_covers)

    def is_behind_image(self, word: LayerWord) -> bool:
        """Return whether an image may be painted over a word.

        Args:
            word: The word.
        """
        if word.order is None:
            return False
        least = _COVERED_BY_IMAGE * area(word.box)
        return any(number > word.order and intersection(box, word.box) > least for number, box in self._images)

    def is_replaced(self, below: LayerWord, above: LayerWord) -> bool:
        """Return whether a shape or image is painted over a word before another word is painted at the same place.

        Args:
            below: The word that may be covered.
            above: The other word.
        """
        if below.order is None or above.order is None or above.order < below.order + 2:
            return False
        least = _COVERED * area(below.box)
        return any(
            below.order < number < above.order and intersection(cover, below.box) >= least
            for number, cover in self._read_covers()
        )


class TextRemoval:
    """Makes the text objects of a page invisible until the page is closed. Annotations keep their text.

    Args:
        raw: The module ``pypdfium2.raw``.
        page: An ``FPDF_PAGE`` handle.
        to_display: Function that converts a box from page coordinates to the displayed page.

    Attributes:
        covers: (number of the drawing operation, box in points of the displayed page) of images and filled paths.
    """

    def __init__(self, raw: ModuleType, page: Handle, to_display: Callable[[Box], Box]) -> None:
        self.covers: list[tuple[int, Box]] = []
        self._raw = raw
        self._to_display = to_display
        self._count = 0
        self._visit(raw.FPDFPage_CountObjects(page), lambda at: raw.FPDFPage_GetObject(page, at), IDENTITY, 0)

    def _visit(self, count: int, get: Callable[[int], Handle], matrix: Matrix, depth: int) -> None:
        """Visit the objects of a page or form XObject. The objects are counted as in `pdfium_shapes.read_shapes`."""
        raw = self._raw
        for at in range(count):
            item = get(at)
            self._count += 1
            kind = raw.FPDFPageObj_GetType(item)
            if kind == raw.FPDF_PAGEOBJ_TEXT:
                raw.FPDFPageObj_SetIsActive(item, False)
            elif kind == raw.FPDF_PAGEOBJ_IMAGE or (kind == raw.FPDF_PAGEOBJ_PATH and self._is_filled(item)):
                self.covers.append((self._count, self._box(item, matrix)))
            elif kind == raw.FPDF_PAGEOBJ_FORM and depth < MAX_DEPTH:
                self._visit(
                    max(raw.FPDFFormObj_CountObjects(item), 0),
                    lambda inner, form=item: raw.FPDFFormObj_GetObject(form, inner),  # type: ignore[misc]
                    product(matrix_of(raw, item), matrix),
                    depth + 1,
                )

    def _is_filled(self, path: Handle) -> bool:
        mode, stroke = ctypes.c_int(), ctypes.c_int()
        self._raw.FPDFPath_GetDrawMode(path, ctypes.byref(mode), ctypes.byref(stroke))
        return bool(mode.value)

    def _box(self, item: Handle, matrix: Matrix) -> Box:
        sides = tuple(ctypes.c_float() for _ in range(4))
        self._raw.FPDFPageObj_GetBounds(item, *map(ctypes.byref, sides))
        left, bottom, right, top = (side.value for side in sides)
        corners = ((left, bottom), (left, top), (right, bottom), (right, top))
        x0, y0, x1, y1 = self._to_display(bounds([transform(corner, matrix) for corner in corners]))
        return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
