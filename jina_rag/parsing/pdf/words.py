"""Words of the text layer as the PDF libraries return them, and the cleanup that all PDF renderers share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from jina_rag.parsing.layout.boxes import clip_to_page, to_fractions, union
from jina_rag.parsing.pdf.vertical_text import join_columns
from jina_rag.types import Box, Word

Color: TypeAlias = tuple[int, int, int]

# These characters are not printable, but Persian and Indic scripts require them to join letters correctly.
_JOINERS = "\u200c\u200d"
# Simulated bold and shadows draw a word again at most this far away: 0.5 points, and the rounding of coordinates.
_SHADOW = 0.52
# Side of the cells in which repeated words are searched, in points.
_CELL = 4.0
SMALLEST = 1.0
"""Text of this font size in points, or smaller, cannot be read."""
BITMAP_HEIGHT = 2.0
"""The font size of a bitmap font is the size of a pixel; its letters are higher than this many times the font size."""
# The letters of a bitmap font are wider than this many times the font size, on average.
_BITMAP_ADVANCE = 1.25
# Average width of a letter, and its height above and below the baseline, as fractions of the font size.
_ADVANCE, _ASCENT, _DESCENT = 0.5, 0.8, 0.2
# A word that is repeated next to itself is at least one word width away. A shadow is closer than this fraction.
_SHADOW_SHARE = 0.75


@dataclass(slots=True)  # not frozen, because a page has hundreds of words and frozen instances are slow to create
class LayerWord:
    """A word of the text layer before the words that nobody can see are dropped.

    Attributes:
        text: The characters.
        box: Box in points of the displayed page. The two corners may be in any order.
        color: Color, RGB from 0 to 255; None if the text has a pattern, two colors or an unknown color.
        is_painted: Whether the text is filled or stroked. False for text render mode 3 and for transparent text.
        size: Font size in points of the displayed page.
        continues: Whether the word is the continuation of the word before, in another color.
        order: Number of the drawing operation on the page; None if it is unknown.
        is_annotation: Whether the word belongs to an annotation or form field.
    """

    text: str
    box: Box
    color: Color | None = None
    is_painted: bool = True
    size: float = 12.0
    continues: bool = False
    order: int | None = None
    is_annotation: bool = False


def clean_words(words: Iterable[LayerWord], width: float, height: float) -> list[LayerWord]:
    """Remove invalid characters, clip the boxes, and return the words that have characters and lie on the page.

    Args:
        words: Words in the order of the text layer.
        width: Width of the page in points.
        height: Height of the page in points.
    """
    cleaned = []
    for word in words:
        text = clean(word.text)
        if text and word.size <= SMALLEST:
            _measure(word, text)
        box = clip_to_page(word.box, width, height)
        if text and box:
            word.text, word.box = text, box
            cleaned.append(word)
    return cleaned


def _measure(word: LayerWord, text: str) -> None:
    """Set the font size of a word in a bitmap font from its box, and a box without height to that of its letters."""
    (x0, x1), (y0, y1) = sorted(word.box[::2]), sorted(word.box[1::2])
    across, along = sorted((x1 - x0, y1 - y0))
    if math.hypot(across, along) <= (BITMAP_HEIGHT + _BITMAP_ADVANCE * len(text)) * word.size:
        return
    word.size = max(across, min(along, along / len(text) / _ADVANCE))
    if across >= word.size / 2:
        return
    if x1 - x0 >= y1 - y0:
        word.box = x0, y1 - _ASCENT * word.size, x1, y1 + _DESCENT * word.size
    else:
        word.box = x1 - _ASCENT * word.size, y0, x1 + _DESCENT * word.size, y1


def place_words(words: Sequence[LayerWord], is_visible: Sequence[bool], width: float, height: float) -> list[Word]:
    """Return the visible words of a page: each word once, and each column of vertical text as one word.

    Args:
        words: Words of `clean_words`.
        is_visible: Whether each word is visible.
        width: Width of the page in points.
        height: Height of the page in points.
    """
    columns = join_columns(list(_drop_shadows(_join_parts(words, is_visible))))
    return [Word(text, to_fractions(box, width, height)) for text, box in columns]


def _join_parts(words: Sequence[LayerWord], is_visible: Sequence[bool]) -> Iterator[tuple[str, Box]]:
    """Yield (text, box) of the visible words. The parts of a word in several colors are joined again."""
    text, box = "", (0.0, 0.0, 0.0, 0.0)
    for word, visible in zip(words, is_visible, strict=True):
        if text and not (visible and word.continues):
            yield text, box
            text = ""
        if visible:
            text, box = text + word.text, union(box, word.box) if text else word.box
    if text:
        yield text, box


def _drop_shadows(words: Iterable[tuple[str, Box]]) -> Iterator[tuple[str, Box]]:
    """Drop words that repeat an earlier word at most 0.5 points away, as simulated bold and shadows do."""
    boxes_by_cell: dict[tuple[str, int, int], list[Box]] = {}
    for text, box in words:
        low, high = ([int((side + shift) // _CELL) for side in box[:2]] for shift in (-_SHADOW, _SHADOW))
        cells = {(text, x, y) for x in (low[0], high[0]) for y in (low[1], high[1])}
        if not any(_is_shadow(box, other) for cell in cells for other in boxes_by_cell.get(cell, ())):
            yield text, box
        cell = text, int(box[0] // _CELL), int(box[1] // _CELL)
        boxes_by_cell.setdefault(cell, []).append(box)


def _is_shadow(a: Box, b: Box) -> bool:
    shift = max(abs(p - q) for p, q in zip(a, b, strict=True))
    return shift <= min(_SHADOW, _SHADOW_SHARE * max(a[2] - a[0], a[3] - a[1]))


def truncate_words(words: Sequence[Word], limit: int, warnings: list[str]) -> Sequence[Word]:
    """Return at most `limit` words, and append a warning to `warnings` if words are dropped.

    Args:
        words: Words of a page, in the order of the text layer.
        limit: Maximum number of words to return.
        warnings: Warnings of the page, to which the warning is appended.
    """
    if len(words) <= limit:
        return words
    warnings.append(
        f"The page has {len(words):,} words; words after the first {limit:,} were dropped. "
        "Raise Limits.max_words (--limit max_words=N)."
    )
    return words[:limit]


def clean(text: str) -> str:
    """Return `text` without control characters, lone surrogates and U+FFFD (unknown glyphs)."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(filter(_is_character, text))


def _is_character(character: str) -> bool:
    return character in _JOINERS or (character != "\ufffd" and character.isprintable() and not character.isspace())
