"""What two texts of a page differ in, beyond what OCR mistakes: words joined or split, glyphs that look alike."""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter
from collections.abc import Sequence

_FEW = 4
_MANY = 2500
"""Pairs of words that are compared at most; where there are more, the texts are of no use to each other."""
_ALIKE = 0.88
_GLYPHS = str.maketrans(
    {
        **dict.fromkeys("ilj1|", "1"),
        **dict.fromkeys("oqce", "0"),
        **dict.fromkeys("vn", "u"),
        "s": "5",
        "z": "2",
        "b": "8",
        "g": "9",
    }
)
"""Characters that OCR takes for each other; digits stay apart from digits."""


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text without case, accents, punctuation and single letters."""
    return tuple(words_at(text).values())


def words_at(text: str) -> dict[int, str]:
    """As `words_of`, by their number among the words of the text."""
    found = {}
    for i, word in enumerate(text.split()):
        # Punctuation is misread most often, and marks of single letters come from ticked boxes and lines.
        plain = "".join(filter(str.isalnum, unicodedata.normalize("NFKD", word).casefold()))
        if len(plain) > 1 or plain.isdigit():
            found[i] = plain
    return found


def unlike(a: Sequence[str], b: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of each side that the other has nothing alike for."""
    first, second = _left(a, b), _left(b, a)
    # Words that are joined or split on the other side.
    joined = ("".join(first), "".join(second))
    first = [word for word in first if word not in joined[1]]
    second = [word for word in second if word not in joined[0]]
    if len(first) * len(second) > _MANY:
        return first, second
    lost = []
    for word in first:
        alike = next((other for other in second if _is_misread(word, other)), None)
        if alike is None:
            lost.append(word)
        else:
            second.remove(alike)
    return lost, second


def is_renumbered(lost: Sequence[str], added: Sequence[str]) -> bool:
    """Whether a number stands in the place of another: as long, half of it equal, and a digit for another digit.

    In small print that is too little to be seen in the pictures, and OCR takes digits for letters, not for digits.
    Where nearly all words are equal, any other number of that length is another number.
    """
    others = len(lost) + len(added)
    if len(lost) * len(added) > _MANY:  # a script that OCR cannot read: the words tell nothing
        return False
    shortest = 1 if others <= 2 else 3 if others <= _FEW else 99
    for one in lost:
        for other in added:
            if shortest <= len(one) == len(other) and one.isdigit() and other.isdigit():
                return True
            pairs = list(zip(_glyphs(one), _glyphs(other), strict=False))
            equal = sum(a == b for a, b in pairs)
            if len(one) == len(other) > 1 and 2 * equal >= len(one):
                if any(a != b and a.isdigit() and b.isdigit() for a, b in zip(one, other, strict=True)):
                    return True
    return False


def _left(words: Sequence[str], others: Sequence[str]) -> list[str]:
    there = Counter(others)
    left = []
    for word in words:
        if there[word]:
            there[word] -= 1
        else:
            left.append(word)
    return left


def _is_misread(a: str, b: str) -> bool:
    """Whether OCR may have read one of two words as the other: glyphs that look alike, or a slip in a long word."""
    if _glyphs(a) == _glyphs(b):
        return True
    if [c for c in a if c.isdigit()] != [c for c in b if c.isdigit()]:
        return False
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio() >= _ALIKE


def _glyphs(word: str) -> str:
    return word.replace("rn", "m").replace("vv", "w").translate(_GLYPHS)
