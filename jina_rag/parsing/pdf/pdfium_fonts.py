"""Detection of text that PDFium cannot draw, because its font is not embedded and the system has no similar font."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType

from jina_rag.parsing.pdf.base import Handle

_MAX_DEPTH = 16
# Maximum number of page objects that are read. Each takes 2 microseconds.
_MAX_OBJECTS = 5_000
_NAME_BYTES = 200
_TEXT_BYTES = 200


def undrawn_fonts(raw: ModuleType, page: Handle) -> list[str]:
    """Return the names of the fonts of a page whose text is not drawn, sorted.

    PDFium draws text without glyphs as nothing: the boxes of the text have no height.

    Args:
        raw: The module ``pypdfium2.raw``.
        page: An ``FPDF_PAGE`` handle.
    """
    is_embedded: dict[int | None, bool] = {}
    undrawn: dict[int | None, tuple[Handle, list[Handle]]] = {}
    drawn: set[int | None] = set()
    texts = _texts(raw, raw.FPDFPage_CountObjects(page), partial(raw.FPDFPage_GetObject, page))
    for item in itertools.islice(texts, _MAX_OBJECTS):
        font = raw.FPDFTextObj_GetFont(item)
        address = ctypes.cast(font, ctypes.c_void_p).value
        if address not in is_embedded:
            is_embedded[address] = bool(raw.FPDFFont_GetIsEmbedded(font))
        if is_embedded[address] or address in drawn:
            continue
        if _has_glyphs(raw, item):
            drawn.add(address)
        else:
            undrawn.setdefault(address, (font, []))[1].append(item)
    fonts = [(font, items) for address, (font, items) in undrawn.items() if address not in drawn]
    if not fonts:  # almost every page
        return []
    text_page = raw.FPDFText_LoadPage(page)
    try:
        spaces = [all(_is_space(raw, text_page, item) for item in items) for _, items in fonts]
        return sorted({_name(raw, font) for (font, _), is_space in zip(fonts, spaces, strict=True) if not is_space})
    finally:
        raw.FPDFText_ClosePage(text_page)


def _texts(raw: ModuleType, count: int, get: Callable[[int], Handle], depth: int = 0) -> Iterator[Handle]:
    for index in range(min(count, _MAX_OBJECTS)):
        item = get(index)
        kind = raw.FPDFPageObj_GetType(item)
        if kind == raw.FPDF_PAGEOBJ_TEXT:
            yield item
        elif kind == raw.FPDF_PAGEOBJ_FORM and depth < _MAX_DEPTH:
            inner = max(raw.FPDFFormObj_CountObjects(item), 0)
            yield from _texts(raw, inner, partial(raw.FPDFFormObj_GetObject, item), depth + 1)


def _has_glyphs(raw: ModuleType, item: Handle) -> bool:
    """Return whether the box of a text object has an area, or the text is invisible on purpose."""
    if raw.FPDFTextObj_GetTextRenderMode(item) in (raw.FPDF_TEXTRENDERMODE_INVISIBLE, raw.FPDF_TEXTRENDERMODE_CLIP):
        return True
    left, bottom, right, top = (ctypes.c_float() for _ in range(4))
    if not raw.FPDFPageObj_GetBounds(item, *map(ctypes.byref, (left, bottom, right, top))):
        return True
    width, height = right.value - left.value, top.value - bottom.value
    return min(width, height) > 0 or max(width, height) <= 0


def _is_space(raw: ModuleType, text_page: Handle, item: Handle) -> bool:
    buffer = (ctypes.c_ushort * _TEXT_BYTES)()
    length = raw.FPDFTextObj_GetText(item, text_page, buffer, ctypes.sizeof(buffer))
    text = bytes(buffer)[: max(0, min(length, ctypes.sizeof(buffer)) - 2)].decode("utf-16-le", "replace")
    return bool(text) and not text.strip(" \u00a0\r\n\t\0")


def _name(raw: ModuleType, font: Handle) -> str:
    buffer = ctypes.create_string_buffer(_NAME_BYTES)
    raw.FPDFFont_GetBaseFontName(font, buffer, _NAME_BYTES)
    return buffer.value.decode("utf-8", "replace")
