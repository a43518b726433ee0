"""Words of a PDF's text layer, from whichever library read them: cleaned, clipped to the page, without shadows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jina_rag.parsing.layout.boxes import fractions, visible
from jina_rag.types import Box, Word

# Not printable, but they tell how letters join in Persian and Indic scripts.
_JOINERS = "\u200c\u200d"


def place_words(texts: Iterable[tuple[str, Box]], width: float, height: float) -> list[Word]:
    """Make words of what a library reads.

    Args:
        texts: Texts and boxes in points of the displayed page, in the order of the text layer.
        width: Of the page, in points.
        height: Of the page, in points.
    """
    words: dict[tuple[object, ...], Word] = {}
    for raw, points in texts:
        text = clean(raw)
        box = visible(points, width, height)
        if text and box:
            box = fractions(box, width, height)
            # Shadows and fake bold draw the same word again in the same place.
            words.setdefault((text, *(round(side, 3) for side in box)), Word(text, box))
    return list(words.values())


def cut_words(words: Sequence[Word], limit: int, warnings: list[str]) -> Sequence[Word]:
    """Drop the words beyond the limit, with a warning."""
    if len(words) <= limit:
        return words
    warnings.append(f"The page has {len(words):,} words; the first {limit:,} were kept.")
    return words[:limit]


def clean(text: str) -> str:
    """Drop what is no character: control codes, lone surrogates, and the mark for unknown glyphs."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(filter(_is_character, text))


def _is_character(character: str) -> bool:
    return character in _JOINERS or (character != "\ufffd" and character.isprintable() and not character.isspace())
