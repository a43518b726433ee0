"""The words of a page as PDFium knows them: one character after the other, with the spaces it made up undone.

PDFium ends a word at every gap and every change of the baseline. A space is wanted where the document has one or the
gap is as wide as one, so that "m²", "Müller¹," and words of Chinese stay whole; this follows what MuPDF does.
"""

from __future__ import annotations

import ctypes
import math
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from jina_rag.parsing.layout.boxes import touch, union
from jina_rag.parsing.pdf.base import Handle
from jina_rag.types import Box

# As shares of the size of the type. Beyond `_SPACE` on the same line begins a word, beyond `_COLUMN` also after
# characters that no space follows, beyond `_RISE` up or down a line.
_SPACE = 0.15
_COLUMN = 0.8
_RISE = 0.8
# On one line PDFium is believed about spaces wider than this.
_TOUCH = 0.03
# The baseline of two characters is the same within this.
_LEVEL = 0.02
# What PDFium puts in the place of a hyphen that ends a line.
_HYPHENS = (0x0002, 0xFFFE)
_NO_BREAK_SPACE = 0x00A0


def read_words(raw: ModuleType, page: Handle) -> Iterator[tuple[str, Box]]:
    """Read the words of a page in the order of its text layer.

    Args:
        raw: ``pypdfium2.raw``.
        page: An ``FPDF_PAGE``.

    Returns:
        Texts as they stand in the document, and boxes (left, bottom, right, top) in the page's own coordinates.
    """
    text = raw.FPDFText_LoadPage(page)
    if not text:
        return
    try:
        box = raw.FS_RECTF()
        raw.FPDF_GetPageBoundingBox(page, ctypes.byref(box))
        yield from _Reader(raw, text).words((box.left, box.bottom, box.right, box.top))
    finally:
        raw.FPDFText_ClosePage(text)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a character stands: its origin, the direction of its line, the size of its type."""

    x: float
    y: float
    along: tuple[float, float]
    size: float


class _Reader:
    """One run over the characters of a text page."""

    def __init__(self, raw: ModuleType, text: Handle) -> None:
        self._raw = raw
        self._text = text
        self._numbers = (ctypes.c_double(), ctypes.c_double())
        self._matrix = raw.FS_MATRIX()

    def words(self, page: Box) -> Iterator[tuple[str, Box]]:
        """The words, without the characters that lie wholly outside the box of the page."""
        raw, text = self._raw, self._text
        code_at, box_at = raw.FPDFText_GetUnicode, raw.FPDFText_GetLooseCharBox
        rect = raw.FS_RECTF()
        reference = ctypes.byref(rect)
        letters: list[str] = []
        bounds: Box = (0.0, 0.0, 0.0, 0.0)
        last, last_box = -1, bounds
        # What stands between the last character and this one: nothing, a space, or a space or line end PDFium made up.
        gap = ""
        for index in range(raw.FPDFText_CountChars(text)):
            code = code_at(text, index)
            if code <= 0x20 or code == _NO_BREAK_SPACE or code in _HYPHENS or 0x202A <= code <= 0x202E:
                if code in _HYPHENS and letters and raw.FPDFText_IsHyphen(text, index) == 1:
                    letters.append("-")
                    gap = "space"
                elif raw.FPDFText_IsGenerated(text, index) != 1:
                    gap = "space"
                elif gap != "space":
                    gap = "line" if code in (0x0A, 0x0D) else gap or "made up"
                continue
            if code > sys.maxunicode or not box_at(text, index, reference):
                continue
            box = (rect.left, rect.bottom, rect.right, rect.top)
            if box[2] <= page[0] or box[0] >= page[2] or box[3] <= page[1] or box[1] >= page[3]:
                continue
            letter = chr(code)
            if letters and (gap or _apart(box, last_box)) and self._ends(gap, letter, index, box, last, last_box):
                yield _text(letters), bounds
                letters = []
            bounds = union(bounds, box) if letters else box
            letters.append(letter)
            last, last_box, gap = index, box, ""
        if letters:
            yield _text(letters), bounds

    def _ends(self, gap: str, letter: str, index: int, box: Box, last: int, last_box: Box) -> bool:
        """Whether the last character ends its word, with what PDFium put between it and this one."""
        if gap == "space":
            return True
        if unicodedata.category(letter).startswith("M"):
            return False
        here = self._place(index)
        start, end = _extent(box, here.along)
        last_start, last_end = _extent(last_box, here.along)
        # How far after the last one and before it; below 0 where they overlap.
        after, ahead = (start - last_end) / here.size, (last_start - end) / here.size
        if not gap:
            # PDFium lets what one command draws stand together, however far apart.
            return max(after, ahead) > _SPACE
        before = self._place(last)
        cosine, sine = here.along
        rise = abs(cosine * (here.y - before.y) - sine * (here.x - before.x)) / here.size
        if rise >= _RISE:
            return True
        widest = _COLUMN
        if _may_precede_a_space(self._raw.FPDFText_GetUnicode(self._text, last)):
            widest = _TOUCH if gap != "line" and rise < _LEVEL else _SPACE
        far = ahead if unicodedata.bidirectional(letter) in ("R", "AL") else after
        return not -_SPACE < far < widest

    def _place(self, index: int) -> _Place:
        raw, text, matrix = self._raw, self._text, self._matrix
        x, y = self._numbers
        raw.FPDFText_GetCharOrigin(text, index, ctypes.byref(x), ctypes.byref(y))
        raw.FPDFText_GetMatrix(text, index, ctypes.byref(matrix))
        length = math.hypot(matrix.a, matrix.b) or 1.0
        scale = math.sqrt(abs(matrix.a * matrix.d - matrix.b * matrix.c))
        size = raw.FPDFText_GetFontSize(text, index) * scale
        return _Place(x.value, y.value, (matrix.a / length, matrix.b / length), size or 1.0)


def _text(letters: list[str]) -> str:
    """One text; where PDFium gives the halves of a character, as on Windows, they become one again."""
    text = "".join(letters)
    if text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in letters):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _apart(a: Box, b: Box) -> bool:
    """Whether there is something like a space between two characters; many more pass than have one."""
    least = 0.1 * (a[3] - a[1])
    return not touch(a, b, least, least)


def _may_precede_a_space(code: int) -> bool:
    """Whether a gap after it may stand for a space: not after signs of mathematics, nor in Chinese and Japanese."""
    return not (
        0x20D0 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or 0xFF00 <= code <= 0xFF60 or 0x20000 <= code < 0xE0000
    )


def _extent(box: Box, along: tuple[float, float]) -> tuple[float, float]:
    """From where to where a box reaches in a direction."""
    ends = [along[0] * x + along[1] * y for x in box[::2] for y in box[1::2]]
    return min(ends), max(ends)
