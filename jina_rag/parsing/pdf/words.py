"""Cleanup of text-layer words, shared by the PDF renderers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jina_rag.parsing.layout.boxes import clip_to_page, to_fractions
from jina_rag.types import Box, Word

# These characters are not printable, but Persian and Indic scripts require them to join letters correctly.
_JOINERS = "\u200c\u200d"


def place_words(texts: Iterable[tuple[str, Box]], width: float, height: float) -> list[Word]:
    """Return the words of a page without invalid characters, duplicates, and words outside the page.

    Args:
        texts: (text, box) of each word in the order of the text layer, with boxes in points of the displayed page.
        width: Width of the page in points.
        height: Height of the page in points.

    Returns:
        The words, with boxes as fractions of the page and clipped to the page.
    """
    words: dict[tuple[object, ...], Word] = {}
    for raw, points in texts:
        text = clean(raw)
        box = clip_to_page(points, width, height)
        if text and box:
            box = to_fractions(box, width, height)
            # Text with a shadow or simulated bold contains a word several times at the same position.
            words.setdefault((text, *(round(side, 3) for side in box)), Word(text, box))
    return list(words.values())


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
