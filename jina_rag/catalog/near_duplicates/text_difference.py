"""What two texts of a page differ in, beyond what OCR mistakes: words joined or split, glyphs that look alike."""

from __future__ import annotations

import difflib
import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

_MAX_PAIRS = 2500
"""Pairs of words that are compared at most; where there are more, the texts are of no use to each other."""
_MISREAD_RATIO = 0.88
_GLYPH_CLASSES = str.maketrans("ilj1|oqcevnszbg", "11111" + "0000" + "uu" + "5289")
"""Characters that OCR takes for each other; digits stay apart from digits."""


def normalized_words(words: Iterable[str]) -> dict[int, str]:
    """Words without case, accents and punctuation, by their number; single letters are left out.

    Punctuation is misread most often, and marks of single letters come from ticked boxes and lines.

    >>> plain_words("Müller: x 3 Euro".split())
    {0: 'muller', 2: '3', 3: 'euro'}
    """
    normalized = ("".join(filter(str.isalnum, unicodedata.normalize("NFKD", word).casefold())) for word in words)
    return {number: word for number, word in enumerate(normalized) if len(word) > 1 or word.isdigit()}


def word_overlap(a: Sequence[str], b: Sequence[str]) -> float:
    """The share of words that two texts have in common: intersection over union of the multisets."""
    first, second = Counter(a), Counter(b)
    return (first & second).total() / max((first | second).total(), 1)


def unmatched_words(a: Sequence[str], b: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of each side that the other has nothing alike for."""
    first, second = list((Counter(a) - Counter(b)).elements()), list((Counter(b) - Counter(a)).elements())
    # Words that are joined or split on the other side.
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
    """Whether a number stands in the place of another: as long, half of it equal, and a digit for another digit.

    In small print that is too little to be seen in the images, and OCR takes digits for letters, not for digits.
    Where all other words are equal, any other number of that length is another number.
    """
    if len(only_a) * len(only_b) > _MAX_PAIRS:  # a script that OCR cannot read: the words tell nothing
        return False
    is_only_difference = len(only_a) + len(only_b) <= 2
    for one, other in itertools.product(only_a, only_b):
        if len(one) == len(other) and any(a != b and (a + b).isdigit() for a, b in zip(one, other, strict=True)):
            equal = sum(a == b for a, b in zip(_glyph_classes(one), _glyph_classes(other), strict=False))
            if is_only_difference or (len(one) > 1 and 2 * equal >= len(one)):
                return True
    return False


def _is_ocr_variant(a: str, b: str) -> bool:
    """Whether OCR may have read one of two words as the other: glyphs that look alike, or a slip in a long word."""
    if _glyph_classes(a) == _glyph_classes(b):
        return True
    same_digits = list(filter(str.isdigit, a)) == list(filter(str.isdigit, b))
    return same_digits and difflib.SequenceMatcher(None, a, b, autojunk=False).ratio() >= _MISREAD_RATIO


def _glyph_classes(word: str) -> str:
    return word.replace("rn", "m").replace("vv", "w").translate(_GLYPH_CLASSES)
