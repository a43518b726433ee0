"""Words of a PDF page, read with PDFium. Words are split as in MuPDF, not at the spaces that PDFium inserts.

PDFium inserts a space at every gap and every change of the baseline. This module reads single characters and ends a
word only at a space in the document or at a gap as wide as a space. "m²", "Müller¹," and Chinese words therefore stay
single words.
"""

from __future__ import annotations

import ctypes
import math
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple

from jina_rag.parsing.layout.boxes import touch, union
from jina_rag.parsing.pdf.base import Handle
from jina_rag.parsing.pdf.ligatures import glyph_in_order, has_right_to_left, is_right_to_left, letters_in_order
from jina_rag.parsing.pdf.words import BITMAP_HEIGHT, SMALLEST, Color, LayerWord
from jina_rag.types import Box

# Distances are fractions of the font size. A gap above `_SPACE` starts a new word. After a character of a script
# without spaces, for example Chinese, only a gap above `_COLUMN` starts a new word. A vertical shift of `_RISE` or more
# starts a new line.
_SPACE = 0.15
_COLUMN = 0.8
_RISE = 0.8
# If PDFium inserted a space between two characters on one baseline, a gap of at least this width starts a new word.
_TOUCH = 0.03
# Two characters are on one baseline if the vertical shift between the characters is less than this.
_LEVEL = 0.02
# Codes that PDFium returns for a hyphen at the end of a line.
_HYPHENS = (0x0002, 0xFFFE)
_NO_BREAK_SPACE = 0x00A0
# Text render modes that fill, that stroke, and that only add the text to the clip path.
_FILL_MODES, _STROKE_MODES, _CLIP_MODE = (0, 2, 4, 6), (1, 2, 5, 6), 7
# Text with a lower opacity (0 to 255) counts as transparent.
_OPACITY = 12


def read_words(raw: ModuleType, page: Handle, orders: Mapping[int, int]) -> Iterator[LayerWord]:
    """Iterate over the words of a page in the order of the text layer.

    Args:
        raw: The module ``pypdfium2.raw``.
        page: An ``FPDF_PAGE`` handle.
        orders: Address of a text object → number of the drawing operation.

    Yields:
        The words, with boxes as (left, bottom, right, top) in page coordinates.
    """
    text = raw.FPDFText_LoadPage(page)
    if not text:
        return
    try:
        box = raw.FS_RECTF()
        raw.FPDF_GetPageBoundingBox(page, ctypes.byref(box))
        yield from _Reader(raw, text, orders).words((box.left, box.bottom, box.right, box.top))
    finally:
        raw.FPDFText_ClosePage(text)


@dataclass(frozen=True, slots=True)
class _Position:
    """Origin of a character, direction of the text line, and font size in points."""

    x: float
    y: float
    along: tuple[float, float]
    size: float


class _Paint(NamedTuple):
    """How a text object is painted, as in `LayerWord`."""

    color: Color | None
    is_painted: bool
    order: int | None


class _Reader:
    """Reader of the words of one text page."""

    def __init__(self, raw: ModuleType, text: Handle, orders: Mapping[int, int]) -> None:
        self._orders = orders
        self._reversed: tuple[float, float] | None = None  # direction of the last word, if PDFium has reversed it
        self._bytes = tuple(ctypes.c_uint() for _ in range(4))
        self._raw = raw
        self._text = text
        self._numbers = (ctypes.c_double(), ctypes.c_double())
        self._matrix = raw.FS_MATRIX()

    def words(self, page: Box) -> Iterator[LayerWord]:
        """Yield the words. Characters that are completely outside the page are ignored."""
        line: list[LayerWord] = []  # words of a line of right-to-left text that PDFium has reversed
        for word in self._words(page):
            if line and (self._reversed is None or word.continues or not _follows(line[-1], word, self._reversed)):
                yield from reversed(line)
                line = []
            if self._reversed is None:
                yield word
            else:
                line.append(word)
        yield from reversed(line)

    def _words(self, page: Box) -> Iterator[LayerWord]:
        raw, text = self._raw, self._text
        code_at, box_at = raw.FPDFText_GetUnicode, raw.FPDFText_GetLooseCharBox
        rect = raw.FS_RECTF()
        reference = ctypes.byref(rect)
        letters: list[str] = []
        boxes: list[Box] = []  # of the letters
        bounds: Box = (0.0, 0.0, 0.0, 0.0)
        last, last_box = -1, bounds
        last_address: int | None = -1
        given, glyph_address = [""], last_address  # letters of the last glyph, as PDFium gives them; its text object
        paint = next_paint = _Paint(None, True, None)
        continues = False
        # Gap before the character: "" for no gap, "space" for a space of the document, "line" for a line break and
        # "inserted" for a space that PDFium inserted.
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
                    gap = "line" if code in (0x0A, 0x0D) else gap or "inserted"
                continue
            if code > sys.maxunicode or not box_at(text, index, reference):
                continue
            box = (rect.left, rect.bottom, rect.right, rect.top)
            if box[2] <= page[0] or box[0] >= page[2] or box[3] <= page[1] or box[1] >= page[3]:
                continue
            letter = chr(code)
            item = raw.FPDFText_GetTextObject(text, index)
            address = ctypes.cast(item, ctypes.c_void_p).value
            if address != last_address:
                last_address = address
                next_paint = self._paint(item, address)
            ends = letters and (gap or _has_gap(box, last_box)) and self._ends(gap, letter, index, box, last, last_box)
            if ends or (letters and next_paint[:2] != paint[:2]):
                yield self._word(letters, boxes, bounds, paint, last, continues)
                letters, boxes, continues = [], [], not ends
            elif not letters:
                continues = False
            if not letters:
                paint = next_paint
            bounds = union(bounds, box) if letters else box
            # The letters of one glyph have the same box. PDFium reverses them in right-to-left text.
            if letters and box == last_box and address == glyph_address and is_right_to_left(letter):
                given.append(letter)
                letters[-len(given) + 1 :] = glyph_in_order(given)
            else:
                given, glyph_address = [letter], address
                letters.append(letter)
            boxes.append(box)
            last, last_box, gap = index, box, ""
        if letters:
            yield self._word(letters, boxes, bounds, paint, last, continues)

    def _word(
        self, letters: list[str], boxes: Sequence[Box], box: Box, paint: _Paint, index: int, continues: bool
    ) -> LayerWord:
        color, is_painted, order = paint
        position = self._position(index)
        text = _join_letters(letters)
        self._reversed = None
        if len(boxes) == len(letters) > 1 and has_right_to_left(text):
            in_order = _join_letters(letters_in_order(letters, boxes, position.along))
            if in_order != text:
                text, self._reversed = in_order, position.along
        return LayerWord(text, box, color, is_painted, position.size, continues, order)

    def _paint(self, item: Handle, address: int | None) -> _Paint:
        """Return color, whether text is painted, and the number of the drawing operation, of a text object."""
        if not item:
            return _Paint(None, True, None)
        raw = self._raw
        mode = raw.FPDFTextObj_GetTextRenderMode(item)
        colors: set[Color | None] = set()
        opacity = 0
        for modes, get_color in (
            (_FILL_MODES, raw.FPDFPageObj_GetFillColor),
            (_STROKE_MODES, raw.FPDFPageObj_GetStrokeColor),
        ):
            if mode in modes:
                is_plain = get_color(item, *map(ctypes.byref, self._bytes))
                red, green, blue, alpha = (value.value for value in self._bytes)
                opacity = max(opacity, alpha if is_plain else 255)
                colors.add((red, green, blue) if is_plain else None)
        color = colors.pop() if len(colors) == 1 else None
        return _Paint(color, opacity >= _OPACITY or mode == _CLIP_MODE, self._orders.get(address or 0))

    def _ends(self, gap: str, letter: str, index: int, box: Box, last: int, last_box: Box) -> bool:
        """Return whether a new word starts after the character `last`, given the gap that PDFium reported."""
        if gap == "space":
            return True
        if unicodedata.category(letter).startswith("M"):
            return False
        position = self._position(index)
        start, end = _extent(box, position.along)
        last_start, last_end = _extent(last_box, position.along)
        # `after` is the gap if this character follows the last character, `ahead` the gap in right-to-left text. Both
        # are negative if the characters overlap.
        after, ahead = (start - last_end) / position.size, (last_start - end) / position.size
        if not gap:
            # PDFium inserts no space between the characters of one drawing command, even at a wide gap.
            return max(after, ahead) > _SPACE
        last_position = self._position(last)
        cosine, sine = position.along
        rise = abs(cosine * (position.y - last_position.y) - sine * (position.x - last_position.x)) / position.size
        if rise >= _RISE:
            return True
        widest = _COLUMN
        if _may_precede_space(self._raw.FPDFText_GetUnicode(self._text, last)):
            widest = _TOUCH if gap != "line" and rise < _LEVEL else _SPACE
        gap_width = ahead if unicodedata.bidirectional(letter) in ("R", "AL") else after
        return not -_SPACE < gap_width < widest

    def _position(self, index: int) -> _Position:
        raw, text, matrix = self._raw, self._text, self._matrix
        x, y = self._numbers
        raw.FPDFText_GetCharOrigin(text, index, ctypes.byref(x), ctypes.byref(y))
        raw.FPDFText_GetMatrix(text, index, ctypes.byref(matrix))
        length = math.hypot(matrix.a, matrix.b) or 1.0
        scale = math.sqrt(abs(matrix.a * matrix.d - matrix.b * matrix.c))
        size = raw.FPDFText_GetFontSize(text, index) * scale
        if size <= SMALLEST:
            size = self._glyph_size(index, size)
        return _Position(x.value, y.value, (matrix.a / length, matrix.b / length), size or 1.0)

    def _glyph_size(self, index: int, size: float) -> float:
        """Return the size in points of a glyph of a bitmap font, and `size` for a glyph of another font."""
        raw, rect = self._raw, self._raw.FS_RECTF()
        sides = tuple(ctypes.c_float() for _ in range(4))
        glyph = text = 0.0
        if raw.FPDFText_GetLooseCharBox(self._text, index, ctypes.byref(rect)):
            glyph = max(abs(rect.right - rect.left), abs(rect.top - rect.bottom))
        if glyph <= BITMAP_HEIGHT * size:
            return size
        item = raw.FPDFText_GetTextObject(self._text, index)
        if item and raw.FPDFPageObj_GetBounds(item, *map(ctypes.byref, sides)):
            left, bottom, right, top = (side.value for side in sides)
            text = min(abs(right - left), abs(top - bottom))
        return max(glyph, text)


def _join_letters(letters: list[str]) -> str:
    """Join letters into a word. On Windows, PDFium returns surrogate pairs, which are combined into characters."""
    text = "".join(letters)
    if text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in letters):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _has_gap(a: Box, b: Box) -> bool:
    """Return whether a space may separate two characters. The check is fast and has many false positives."""
    least = 0.1 * (a[3] - a[1])
    return not touch(a, b, least, least)


def _may_precede_space(code: int) -> bool:
    """Return whether a gap after a character can be a space. False for mathematical signs, Chinese and Japanese."""
    return not (
        0x20D0 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or 0xFF00 <= code <= 0xFF60 or 0x20000 <= code < 0xE0000
    )


def _follows(first: LayerWord, second: LayerWord, along: tuple[float, float]) -> bool:
    """Return whether a word stands on the line of another one, farther along the direction of the line."""
    across = -along[1], along[0]
    (low, high), (second_low, second_high) = _extent(first.box, across), _extent(second.box, across)
    overlap = min(high, second_high) - max(low, second_low)
    is_ahead = _extent(second.box, along)[0] > _extent(first.box, along)[0]
    return is_ahead and overlap > 0.5 * min(high - low, second_high - second_low)


def _extent(box: Box, along: tuple[float, float]) -> tuple[float, float]:
    """Return the start and end of a box along a direction."""
    ends = [along[0] * x + along[1] * y for x in box[::2] for y in box[1::2]]
    return min(ends), max(ends)
