"""Visible area and unit of the pages of a PDF that is open in PDFium. Wrong page boxes are replaced in memory."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from types import ModuleType

from jina_rag.parsing.pdf.base import Handle
from jina_rag.parsing.pdf.page_boxes import HUGE_SIDE, LETTER, MIN_SIDE, crop_to_contents, is_huge, is_valid
from jina_rag.types import Box

_USER_UNIT = re.compile(rb"/UserUnit\s+(\d+\.?\d*)")
SMALL_SIDE = 200.0
"""Only the UserUnit of pages whose longer side is below this number of units is read, because reading it takes time."""


def repair_page(raw: ModuleType, page: Handle) -> None:
    """Replace wrong boxes of a page in memory, as PDF viewers do.

    Args:
        raw: The module ``pypdfium2.raw``.
        page: An ``FPDF_PAGE`` handle.
    """
    box = visible_area(raw, page)
    if not is_valid(box):
        # PDFium ignores an empty CropBox. The MediaBox of a node above the page can be read in no other way.
        raw.FPDFPage_SetCropBox(page, 0, 0, 0, 0)
        box = visible_area(raw, page)
    if not is_valid(box):
        raw.FPDFPage_SetMediaBox(page, *LETTER)
        box = visible_area(raw, page)
    if is_huge(box):
        raw.FPDFPage_SetCropBox(page, *crop_to_contents(box, _content_boxes(raw, page)))


def user_unit(copy: bytes, length: float) -> float:
    """Return the length of a unit of a page in points, 1 for almost every page.

    PDFium does not apply the UserUnit of a page. The unit matters for small pages only: their screenshots would be too
    small to read.

    Args:
        copy: A PDF with the page, as returned by `PdfiumFile.copy_page`.
        length: Length of the longer side of the page before the UserUnit is applied, in points.
    """
    match = _USER_UNIT.search(copy)
    unit = float(match[1]) if match else 1.0
    return unit if 0 < unit * length <= HUGE_SIDE and unit * length >= MIN_SIDE else 1.0


def visible_area(raw: ModuleType, page: Handle) -> Box:
    """Return the visible area of a page: (left, bottom, right, top) in units of the page.

    Args:
        raw: The module ``pypdfium2.raw``.
        page: An ``FPDF_PAGE`` handle.
    """
    box = raw.FS_RECTF()
    raw.FPDF_GetPageBoundingBox(page, ctypes.byref(box))
    return box.left, box.bottom, box.right, box.top


def _content_boxes(raw: ModuleType, page: Handle) -> Iterator[Box]:
    sides = tuple(ctypes.c_float() for _ in range(4))
    for index in range(raw.FPDFPage_CountObjects(page)):
        item = raw.FPDFPage_GetObject(page, index)
        if raw.FPDFPageObj_GetBounds(item, *map(ctypes.byref, sides)):
            left, bottom, right, top = (side.value for side in sides)
            yield left, bottom, right, top
