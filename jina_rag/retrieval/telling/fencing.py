"""Texts for a model that belong to somebody else: cleaned, fenced, counted, and cut to what a budget allows."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence

CUT = "… cut"
_BEFORE = "cut …"
"""Stands where a text was cut."""
JOIN = "\n\n"
"""Stands between the parts of a context's text."""
_LEAST = 60
"""Tokens that a part is given at least; where there are fewer for each, fewer parts are given."""
_LONG_WORD = 40
_JOINERS = "\u200c\u200d"
_UNSEEN = range(0xE0000, 0xE1000)
"""Tags and selectors, with which a text can be hidden in another."""


def estimate_tokens(text: str) -> int:
    """About how many tokens a model makes of a text, rather too many than too few.

    A letter of ASCII or a space counts a third of a token, another character of ASCII (digits, signs) a half, any other
    character half of its bytes in UTF-8: 1.5 for Chinese, Japanese, Korean and Thai, 1 for Cyrillic, Greek and Arabic.

    >>> estimate_tokens("A word or two"), estimate_tokens("東京都")
    (5, 5)
    """
    letters = sum(map(len, re.findall(r"[A-Za-z ]+", text)))
    plain = sum(map(str.isascii, text))
    rest = len("".join(char for char in text if not char.isascii()).encode("utf-8", "surrogatepass"))
    return math.ceil(letters / 3 + (plain - letters) / 2 + rest / 2)


def cleaned(text: str) -> str:
    """A text without characters that a reader does not see but a model reads.

    Controls, marks of direction, invisible tags and selectors go, line ends become one kind; joiners that scripts need
    stay. Halves of surrogate pairs become U+FFFD.
    """
    if text.isascii() and text.isprintable():
        return text
    text = re.sub("\r\n?|[\x0b\x0c\x85\u2028\u2029]", "\n", text)
    return "".join(_seen(text))


def _seen(text: str) -> Iterator[str]:
    for char in text:
        if char in "\n\t" or char in _JOINERS:
            yield char
        elif "\ud800" <= char <= "\udfff":
            yield "\ufffd"
        elif unicodedata.category(char) not in ("Cc", "Cf") and ord(char) not in _UNSEEN:
            yield char


def fence(texts: Sequence[str]) -> str:
    """A tag's name that occurs in none of the texts, however it is written; the same for the same texts."""
    # Without signs and spaces, wide and other shapes as plain ones: a model may read these as the fence, too.
    plain = "\n".join("".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold())) for text in texts)
    digest = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
    while digest[:12] in plain:
        digest = hashlib.sha256(digest.encode()).hexdigest()
    return f"data-{digest[:12]}"


class Budget:
    """Counts what is taken, by parts and as one text: whichever is more."""

    def __init__(self, count: Callable[[str], int], most: int) -> None:
        self._count = count
        self._most = most
        self._texts: list[str] = []
        self._sum = 0
        self.used = 0

    @property
    def left(self) -> int:
        """Tokens that are left."""
        return self._most - self.used

    def count(self, text: str) -> int:
        """Tokens of a text by itself."""
        return self._count(text)

    def taken(self, text: str) -> str:
        """The text if it still fits, else ""."""
        if not text or not self.fits(text):
            return ""
        self._sum += self._count(text)
        self._texts.append(text)
        self.used = max(self._sum, self._count(JOIN.join(self._texts)))
        return text

    def fits(self, text: str) -> bool:
        """Whether a text can still be taken."""
        together = self._count(JOIN.join([*self._texts, text]))
        return bool(max(self._sum + self._count(text), together) <= self._most)


def shares(needs: Sequence[int], total: int) -> list[int]:
    """How much each of the first sources gets: what it needs, or one amount for all that need more.

    Fewer than there are, where for all there would be less than `_LEAST`.
    """
    for count in range(len(needs), 0, -1):
        left, open_count, level = total, count, 0
        for need in sorted(needs[:count]):
            level = left // open_count
            if need > level:
                break
            left, open_count = left - need, open_count - 1
        else:
            return list(needs[:count])
        if level >= _LEAST or count == 1:
            return [min(need, level) for need in needs[:count]]
    return []


def fitting(body: Callable[[str], str], text: str, budget: Budget, most: int, *, focus: int = 0) -> str | None:
    """The text, or the longest part of it around `focus` that fits, cut between words; None if not even nothing fits.

    Args:
        body: Puts what stands around a text.
        text: The text.
        budget: What is left for all.
        most: What is left for this one.
        focus: The character that matters most: a part begins somewhat before it.
    """

    def fits(part: str) -> bool:
        whole = body(part)
        return bool(budget.count(whole) <= most) and budget.fits(whole)

    if fits(text):
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(_cut(text, middle, focus)) else (low, middle - 1)
    # Somebody's counting may fall where a text grows: what is taken is tried itself.
    while low > 0 and not fits(_cut(text, low, focus)):
        low -= 1
    if low > 0:
        return _cut(text, low, focus)
    return CUT if fits(CUT) else None


def _cut(text: str, length: int, focus: int = 0) -> str:
    """So many characters of a text, back to the borders of words unless it is a script without spaces."""
    start = max(0, min(focus - length // 4, len(text) - length))
    part = text[start : start + length]
    if start + length < len(text) and not text[start + length].isspace():
        # A border is looked for over the length of a long word.
        border = max(part.rfind(space, max(0, length - _LONG_WORD)) for space in " \n\t")
        part = part[: border if border > 0 else length]
    if start > 0 and not text[start - 1].isspace():
        borders = [at for space in " \n\t" if (at := part.find(space, 0, _LONG_WORD)) >= 0]
        part = part[min(borders) :] if borders else part
    if not part.strip():
        return CUT
    # Where only the beginning is missing, the mark of the end would be wrong, and a mark there must be.
    before = f"{_BEFORE} " if start > 0 else ""
    after = f" {CUT}" if start + length < len(text) or not before else ""
    return f"{before}{part.strip()}{after}"
