"""Detection of pictures that PDFium cannot decode and omits, or fills with black, without an error."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType

import numpy as np

from jina_rag.parsing.pdf.base import Handle

_MAX_DEPTH = 16
# Maximum number of pictures that are decoded, and of page objects that are read.
_MAX_PICTURES = 100
_MAX_OBJECTS = 20_000
# Filters whose decoded data has no length that follows from the size of the picture.
_PICTURE_FILTERS = (b"DCT", b"JPX", b"JBIG2", b"CCITT", b"CCF")
# A picture with less than this fraction of its data is lost.
_MIN_DATA_SHARE = 0.05
_FILTER_BYTES = 64
# Lower values (0 to 255) are colors, and higher values of the opacity can be seen.
_WHITE = 250
_VISIBLE = 16


def has_lost_picture(raw: ModuleType, page: Handle) -> bool:
    """Return whether PDFium cannot decode a raster image of a page.

    Args:
        raw: The module ``pypdfium2.raw``.
        page: An ``FPDF_PAGE`` handle.
    """
    pictures = _pictures(raw, raw.FPDFPage_CountObjects(page), partial(raw.FPDFPage_GetObject, page), 0)
    return any(_is_lost(raw, page, picture) for picture, _ in zip(pictures, range(_MAX_PICTURES), strict=False))


def has_colored_picture(raw: ModuleType, document: Handle, page: Handle) -> bool:
    """Return whether a raster image of a page has pixels that are not white.

    Args:
        raw: The module ``pypdfium2.raw``.
        document: An ``FPDF_DOCUMENT`` handle.
        page: An ``FPDF_PAGE`` handle.
    """
    pictures = _pictures(raw, raw.FPDFPage_CountObjects(page), partial(raw.FPDFPage_GetObject, page), 0)
    return any(
        _is_colored(raw, document, page, picture) for picture, _ in zip(pictures, range(_MAX_PICTURES), strict=False)
    )


def _is_colored(raw: ModuleType, document: Handle, page: Handle, picture: Handle) -> bool:
    bitmap = raw.FPDFImageObj_GetRenderedBitmap(document, page, picture)  # with the masks of the image
    if not bitmap:
        return True
    try:
        rows, stride = raw.FPDFBitmap_GetHeight(bitmap), raw.FPDFBitmap_GetStride(bitmap)
        content = ctypes.string_at(raw.FPDFBitmap_GetBuffer(bitmap), rows * stride)
        pixels = np.frombuffer(content, dtype=np.uint8).reshape(rows, -1, 4)  # always BGRA
        return bool(((pixels[..., :3].min(axis=-1) < _WHITE) & (pixels[..., 3] >= _VISIBLE)).any())
    finally:
        raw.FPDFBitmap_Destroy(bitmap)


def _pictures(raw: ModuleType, count: int, get: Callable[[int], Handle], depth: int) -> Iterator[Handle]:
    for index in range(min(count, _MAX_OBJECTS)):
        item = get(index)
        kind = raw.FPDFPageObj_GetType(item)
        if kind == raw.FPDF_PAGEOBJ_IMAGE:
            yield item
        elif kind == raw.FPDF_PAGEOBJ_FORM and depth < _MAX_DEPTH:
            inner = max(raw.FPDFFormObj_CountObjects(item), 0)
            yield from _pictures(raw, inner, partial(raw.FPDFFormObj_GetObject, item), depth + 1)


def _is_lost(raw: ModuleType, page: Handle, picture: Handle) -> bool:
    bitmap = raw.FPDFImageObj_GetBitmap(picture)
    if not bitmap:
        return True
    raw.FPDFBitmap_Destroy(bitmap)
    # PDFium draws a picture black if a general filter, for example Flate, fails at the first byte.
    name = ctypes.create_string_buffer(_FILTER_BYTES)
    filters = raw.FPDFImageObj_GetImageFilterCount(picture)
    if filters < 1 or not raw.FPDFImageObj_GetImageFilter(picture, filters - 1, name, _FILTER_BYTES):
        return False
    data = raw.FPDF_IMAGEOBJ_METADATA()
    if name.value.startswith(_PICTURE_FILTERS) or not raw.FPDFImageObj_GetImageMetadata(picture, page, data):
        return False
    expected = data.width * data.height * data.bits_per_pixel / 8
    return bool(raw.FPDFImageObj_GetImageDataDecoded(picture, None, 0) < _MIN_DATA_SHARE * expected)
