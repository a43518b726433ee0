"""Fonts of the characters of a PDF page, read with PDFium. The check of the text layer needs them on few pages."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable
from types import ModuleType

import numpy as np

from jina_rag.parsing.layout.boxes import clip_to_page, to_fractions, touch, union
from jina_rag.parsing.pdf.base import Handle
from jina_rag.parsing.text_layer.suspects import TextRun, is_lost
from jina_rag.types import Box

# Codes that PDFium returns for a hyphen at the end of a line.
_HYPHENS = (0x0002, 0xFFFE)
_SPACES = (0x00, 0x09, 0x0A, 0x0D, 0x20, 0xA0)
_BLANK = frozenset((*_HYPHENS, *_SPACES))
# A run ends at a gap of more than this share of the height of the characters.
_GAP = 1.0
_MIN_LOST = 3


def may_lose_text(raw: ModuleType, page: Handle) -> bool:
    """Return whether a page has characters without a valid code.

    Args:
        raw: The module ``pypdfium2.raw``.
        page: An ``FPDF_PAGE`` handle.
    """
    text = raw.FPDFText_LoadPage(page)
    if not text:
        return False
    try:
        count = raw.FPDFText_CountChars(text)
        codes = np.zeros(count + 1, np.uint16)
        raw.FPDFText_GetText(text, 0, count, codes.ctypes.data_as(ctypes.POINTER(ctypes.c_ushort)))
    finally:
        raw.FPDFText_ClosePage(text)
    unusual = codes[((codes < 0x20) | ((codes >= 0x7F) & (codes < 0xA0)) | (codes >= 0xD800)) & (codes != 0)]
    return sum(is_lost(code) for code in unusual.tolist() if code not in _BLANK) >= _MIN_LOST


def read_runs(
    raw: ModuleType, page: Handle, to_display: Callable[[Box], Box], width: float, height: float
) -> list[TextRun]:
    """Return the runs of characters of a page in the order of the text layer.

    Args:
        raw: The module ``pypdfium2.raw``.
        page: An ``FPDF_PAGE`` handle.
        to_display: Function from a box in page coordinates to points of the displayed page.
        width: Width of the displayed page in points.
        height: Height of the displayed page in points.
    """
    text = raw.FPDFText_LoadPage(page)
    if not text:
        return []
    try:
        parts = _parts(raw, text)
    finally:
        raw.FPDFText_ClosePage(text)
    runs = []
    for font, box, lost, length in parts:
        clipped = clip_to_page(to_display(box), width, height)
        if clipped:
            runs.append(TextRun(font, to_fractions(clipped, width, height), lost, length))
    return runs


def _parts(raw: ModuleType, text: Handle) -> list[tuple[str, Box, int, int]]:
    """Return (font, box, lost characters, characters) of each run, with boxes in page coordinates."""
    rect = raw.FS_RECTF()
    names = _FontNames(raw)
    fonts: dict[int | None, str] = {}
    parts: list[tuple[str, Box, int, int]] = []
    last: Box | None = None
    for index in range(raw.FPDFText_CountChars(text)):
        code = raw.FPDFText_GetUnicode(text, index)
        # Without an entry in the character map, PDFium returns the code of the glyph, which may be that of a space.
        if code in _BLANK and raw.FPDFText_HasUnicodeMapError(text, index) != 1:
            continue
        lost = int(code in _BLANK or is_lost(code))
        if not raw.FPDFText_GetLooseCharBox(text, index, ctypes.byref(rect)):
            continue
        box = (rect.left, rect.bottom, rect.right, rect.top)
        item = raw.FPDFText_GetTextObject(text, index)
        address = ctypes.cast(item, ctypes.c_void_p).value
        if address not in fonts:
            fonts[address] = names.of(item)
        font = fonts[address]
        gap = _GAP * min(box[2] - box[0], box[3] - box[1])
        if last and parts[-1][0] == font and _is_next(last, box, gap):
            _, around, lost_before, length = parts[-1]
            parts[-1] = font, union(around, box), lost_before + lost, length + 1
        else:
            parts.append((font, box, lost, 1))
        last = box
    return parts


def _is_next(last: Box, box: Box, gap: float) -> bool:
    """Return whether two characters are neighbors on one line, horizontal or vertical."""
    return touch(last, box, gap, gap) and any(
        min(last[axis + 2], box[axis + 2]) - max(last[axis], box[axis]) > 0.5 * (box[axis + 2] - box[axis])
        for axis in (0, 1)
    )


class _FontNames:
    """Names of the fonts of a page. Fonts with the same name are numbered, because they may differ in their maps."""

    def __init__(self, raw: ModuleType) -> None:
        self._raw = raw
        self._names: dict[int | None, str] = {}
        self._counts: Counter[str] = Counter()

    def of(self, item: Handle) -> str:
        """Return the name of the font of a text object; "" if it is unknown."""
        font = self._raw.FPDFTextObj_GetFont(item) if item else None
        if not font:
            return ""
        address = ctypes.cast(font, ctypes.c_void_p).value
        if address not in self._names:
            name = self._read(font)
            self._counts[name] += 1
            number = self._counts[name]
            self._names[address] = f"{name} ({number})" if number > 1 else name
        return self._names[address]

    def _read(self, font: Handle) -> str:
        size = self._raw.FPDFFont_GetBaseFontName(font, None, 0)
        buffer = ctypes.create_string_buffer(max(int(size), 1))
        self._raw.FPDFFont_GetBaseFontName(font, buffer, size)
        return buffer.value.decode("utf-8", "replace")
