"""Letters and digits of right-to-left text, in the order of reading.

A font may map one glyph to several letters, for example the lam-alef of Arabic. The PDF libraries reverse text that a
page draws from left to right, letter by letter, and so reverse the letters inside such a glyph: األدوات for الأدوات.
The positions of the letters tell which letters belong to one glyph. Text in the order of reading stays as it is.

MuPDF also reverses Arabic-Indic digits, which are read from left to right, and ends a word where the direction changes,
for example in the middle of KX-٤٤٧١-B.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

_TOLERANCE = 0.02
"""Maximum distance of two positions that count as equal, as a fraction of the font size."""
_MAX_GAP = 0.15
"""Maximum distance of the parts of one word, as a fraction of the font size."""
_ALEFS = "اأإآٱ"
_ARABIC_NUMBER = re.compile(r"[\u0660-\u0669](?:[./,:\u066b\u066c]?[\u0660-\u0669])+")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe]")


def has_right_to_left(text: str) -> bool:
    """Return whether a text has a letter of a right-to-left script."""
    return not text.isascii() and _RIGHT_TO_LEFT.search(text) is not None


def is_right_to_left(letter: str) -> bool:
    """Return whether a letter belongs to a right-to-left script; False for marks and digits."""
    return unicodedata.bidirectional(letter) in ("R", "AL")


def glyph_in_order(letters: Sequence[str]) -> list[str]:
    """Return the letters of one right-to-left glyph that a PDF library has reversed in the order of reading.

    A glyph of lam and alef always starts with lam: some fonts map it to the reversed letters.

    Args:
        letters: The letters of the glyph in the order of the library.
    """
    return list(letters) if len(letters) == 2 and _is_lam_alef(*letters) else list(reversed(letters))


def letters_in_order(letters: Sequence[str], boxes: Sequence[Sequence[float]], along: tuple[float, float]) -> list[str]:
    """Return the letters of a word of PDFium, with right-to-left letters in the order of reading.

    PDFium reverses right-to-left text, because most files draw it from left to right. Where a file draws it from right
    to left, by moving back between the letters of a drawing command, each letter stands to the right of the previous
    one.

    Args:
        letters: The letters.
        boxes: Box of each letter in points; the letters of one glyph have the same box, and are in the order of
            reading.
        along: Direction of the line, a unit vector.
    """
    in_order = list(letters)
    is_part = [is_right_to_left(letter) or unicodedata.category(letter) == "Mn" for letter in letters]
    start = 0
    for is_right, run in groupby(is_part):
        end = start + len(list(run))
        centers = [sum(_extent(box, along)) for box in boxes[start:end]] if is_right else []
        if is_right and centers[-1] > centers[0] and centers == sorted(centers):
            glyphs = [[number for number, _ in glyph] for _, glyph in groupby(enumerate(centers), lambda item: item[1])]
            in_order[start:end] = [letters[start + number] for glyph in reversed(glyphs) for number in glyph]
        start = end
    return in_order


def _is_lam_alef(first: str, second: str) -> bool:
    return first == "ل" and second in _ALEFS


def words_in_order(entries: Sequence[tuple[Any, ...]], blocks: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """Return the words of MuPDF with letters and digits in the order of reading, and the parts of each word joined.

    Args:
        entries: Words of ``TextPage.extractWORDS``.
        blocks: Blocks of ``TextPage.extractRAWDICT``. Each span gets the key ``text``, in the order of reading, too.
    """
    lines: dict[tuple[int, int], tuple[str, str]] = {}
    gaps: dict[tuple[int, int], float] = {}
    for block in blocks:
        for number, line in enumerate(block.get("lines", ())):
            for span in line["spans"]:
                span["text"] = text_in_order(span["chars"], line["dir"], span["size"])
            original = "".join(character["c"] for span in line["spans"] for character in span["chars"])
            lines[block["number"], number] = original, "".join(span["text"] for span in line["spans"])
            gaps[block["number"], number] = _MAX_GAP * max((span["size"] for span in line["spans"]), default=0.0)
    ends: dict[tuple[int, int], int] = {}
    words: list[tuple[Any, ...]] = []
    for x0, y0, x1, y1, text, *numbers in entries:
        line_number = numbers[0], numbers[1]
        original, in_order = lines.get(line_number, ("", ""))
        previous_end = ends.get(line_number)
        start = original.find(text, previous_end or 0)
        word = x0, y0, x1, y1, text, *numbers
        if start >= 0:
            ends[line_number] = start + len(text)
            word = x0, y0, x1, y1, in_order[start : start + len(text)], *numbers
            if start == previous_end and _distance(words[-1], word) <= gaps[line_number]:
                word = _joined(words.pop(), word)
        words.append(word)
    return words


def _distance(first: Sequence[Any], second: Sequence[Any]) -> float:
    """Return the distance of the boxes of two words, at most 0 if the boxes touch."""
    return float(max(max(first[axis], second[axis]) - min(first[axis + 2], second[axis + 2]) for axis in (0, 1)))


def _joined(first: Sequence[Any], second: Sequence[Any]) -> tuple[Any, ...]:
    low, high = map(min, first[:2], second[:2]), map(max, first[2:4], second[2:4])
    return (*low, *high, first[4] + second[4], *first[5:])


def text_in_order(characters: Sequence[Mapping[str, Any]], along: tuple[float, float], size: float) -> str:
    """Return the text of a span of MuPDF with digits, and the letters of each glyph, in the order of reading.

    MuPDF gives the width of a glyph to the first of its letters, and places the others at the end of the glyph. Where
    MuPDF has reversed the text, letters without width come before a letter that ends at their position.

    Args:
        characters: The ``chars`` of a span of ``TextPage.extractRAWDICT``.
        along: Direction of the line, a unit vector.
        size: Font size in points.
    """
    letters = [str(character["c"]) for character in characters]
    if not has_right_to_left("".join(letters)):
        return "".join(letters)
    extents = [_extent(character["bbox"], along) for character in characters]
    tolerance = _TOLERANCE * size

    def follows(index: int, at: float) -> bool:
        """Return whether a letter has no width and is at a position."""
        start, end = extents[index]
        return end - start <= tolerance and is_right_to_left(letters[index]) and abs(start - at) <= tolerance

    used = 0  # number of the letters whose glyph is known
    for index, (start, end) in enumerate(extents):
        if index < used or end - start <= tolerance or not is_right_to_left(letters[index]):
            continue
        first = last = index
        while first > used and follows(first - 1, end):
            first -= 1
        if first == index:  # the letters are not reversed
            while last + 1 < len(letters) and follows(last + 1, end):
                last += 1
            if last == index + 1 and _is_lam_alef(letters[last], letters[index]):
                letters[index : last + 1] = letters[last], letters[index]
        else:
            letters[first : index + 1] = glyph_in_order(letters[first : index + 1])
        used = last + 1
    for number in _ARABIC_NUMBER.finditer("".join(letters)):
        first, last = number.start(), number.end() - 1
        if extents[last] < extents[first]:
            letters[first : last + 1] = reversed(letters[first : last + 1])
    return "".join(letters)


def _extent(box: Sequence[float], along: tuple[float, float]) -> tuple[float, float]:
    """Return the start and end of a box along a direction."""
    ends = [along[0] * x + along[1] * y for x in box[::2] for y in box[1::2]]
    return min(ends), max(ends)
