"""Differences between two page texts, ignoring OCR errors: joined or split words and similar glyphs."""

from __future__ import annotations

import difflib
import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

_MAX_PAIRS = 2500
"""Maximum number of word pairs to compare; with more pairs, the texts are considered unrelated."""
_MISREAD_RATIO = 0.88
_GLYPH_CLASSES = str.maketrans("ilj1|oqcevnszbg", "11111" + "0000" + "uu" + "5289")
"""Classes of characters that OCR confuses; no two digits are in the same class."""


def normalize_words(words: Iterable[str]) -> dict[int, str]:
    """Return words without case, accents and punctuation, by position in `words`; single letters are dropped.

    OCR misreads punctuation most often, and reads ticked boxes and lines as single letters.

    >>> normalize_words("Müller: x 3 Euro".split())
    {0: 'muller', 2: '3', 3: 'euro'}
    """
    normalized = ("".join(filter(str.isalnum, unicodedata.normalize("NFKD", word).casefold())) for word in words)
    return {number: word for number, word in enumerate(normalized) if len(word) > 1 or word.isdigit()}


def overlap(a: Sequence[str], b: Sequence[str]) -> float:
    """Return the Jaccard similarity of the word multisets of two texts, from 0 to 1."""
    first, second = Counter(a), Counter(b)
    return (first & second).total() / max((first | second).total(), 1)


def unmatched_words(a: Sequence[str], b: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words of each text that have no equal or similar word in the other text.

    Args:
        a: Words of the first text, as returned by `normalize_words`.
        b: Words of the second text, as returned by `normalize_words`.
    """
    first, second = list((Counter(a) - Counter(b)).elements()), list((Counter(b) - Counter(a)).elements())
    # Drop words that are joined or split in the other text.
    first_text, second_text = "".join(first), "".join(second)
    first = [word for word in first if word not in second_text]
    second = [word for word in second if word not in first_text]
    if len(first) * len(second) > _MAX_PAIRS:
        return first, second
    only_a = []
    for word in first:
        variant = next((other for other in second if _is_ocr_variant(word, other)), None)
        if variant is None:
            only_a.append(word)
        else:
            second.remove(variant)
    return only_a, second


def has_changed_number(only_a: Sequence[str], only_b: Sequence[str]) -> bool:
    """Return whether a number of one text replaces a number of the other text.

    A replacement has the length of the replaced number, a changed digit, and at least half of the characters unchanged.
    If all other words are equal, any number of the same length with a changed digit is a replacement. The texts are
    compared because images do not show a changed digit in small print. The result is reliable because OCR confuses
    digits with letters, but not with other digits.

    Args:
        only_a: Unmatched words of the first text; see `unmatched_words`.
        only_b: Unmatched words of the second text.
    """
    if len(only_a) * len(only_b) > _MAX_PAIRS:  # many unmatched words: OCR cannot read the script
        return False
    is_only_difference = len(only_a) + len(only_b) <= 2
    for one, other in itertools.product(only_a, only_b):
        if len(one) == len(other) and any(a != b and (a + b).isdigit() for a, b in zip(one, other, strict=True)):
            equal = sum(a == b for a, b in zip(_glyph_classes(one), _glyph_classes(other), strict=False))
            if is_only_difference or (len(one) > 1 and 2 * equal >= len(one)):
                return True
    return False


def _is_ocr_variant(a: str, b: str) -> bool:
    """Return whether two words may be OCR readings of the same word: similar glyphs, or one error in a long word."""
    if _glyph_classes(a) == _glyph_classes(b):
        return True
    same_digits = list(filter(str.isdigit, a)) == list(filter(str.isdigit, b))
    return same_digits and difflib.SequenceMatcher(None, a, b, autojunk=False).ratio() >= _MISREAD_RATIO


def _glyph_classes(word: str) -> str:
    return word.replace("rn", "m").replace("vv", "w").translate(_GLYPH_CLASSES)
