"""Texts for a model that belong to somebody else: cleaned, fenced, counted, and cut to what a budget allows."""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CUT = "… cut"
_BEFORE = "cut …"
"""Stands where a text was cut."""
JOIN = "\n\n"
"""Stands between the parts of a context's text."""
_LEAST = 60
"""Tokens that a part is given at least; where there are fewer for each, fewer parts are given."""
_WINDOW = 4000
_WINDOW_PER_TOKEN = 16
"""Characters of a text that are looked at for each token of the budget: no model has so long tokens on the whole."""
_LONG_WORD = 40
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0e\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
"""What Unicode says is not to be drawn (Default_Ignorable_Code_Point), beyond controls and the kinds below."""
_JOINING = (
    "\u0600-\u07ff\u0840-\u08ff\u0900-\u109f\u1780-\u18af\u1900-\u1cff\ua800-\ua8ff\ua980-\uaaff\uabc0-\uabff"
    "\ufb50-\ufdff\ufe70-\ufefc\U00010a00-\U00011fff\U0001e900-\U0001e95f"
)
"""Scripts whose letters join: Arabic and its kin, those of India and its neighbours, Mongolian, Adlam."""
_EMOJI = (
    "\xa9\xae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u24c2\u25a0-\u27bf\u2900-\u297f\u2b00-\u2bff"
    "\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
_STYLE = re.compile(f"(?<![{_EMOJI}])(?<![#*0-9](?=\ufe0f\u20e3))\ufe0f")
"""The mark of a coloured emoji where none or another such mark stands before it."""
_JOINERS = re.compile(
    f"(?<![{_JOINING}])(?<![{_EMOJI}\ufe0f](?=\u200d[{_EMOJI}]))[\u200c\u200d]"
    f"|(?<=[{_JOINING}])[\u200c\u200d](?![{_JOINING}])"
)
"""Joiners and non-joiners that join nothing."""
_WORD = re.compile(r"[^\W\d_]+")
_VOWELLESS = re.compile(r"[^aeiou]{1,4}", re.IGNORECASE)
_RARE = re.compile(r"[^aeiouyAEIOUY]{4,}|[a-z][A-Z]|[jqxzJQXZ]|([A-Z]{2,})")
"""What words seldom hold: a row of consonants, a capital within, rare letters; and, less so, a row of capitals."""

_MIXED = re.compile("[A-Za-z](?=[0-9])|[0-9](?=[A-Za-z])")


def estimate_tokens(text: str) -> int:
    """About how many tokens a model makes of a text, rather too many than too few.

    A letter of an ordinary word or a space counts a third of a token, more in what is no word: up to one a letter in
    codes, abbreviations and random letters. A digit counts 0.55, each number 0.3 more and each border between letters
    and digits 0.2, another sign of ASCII 1, any other character half of its bytes in UTF-8: 1.5 for Chinese, Japanese,
    Korean and Thai, 1 for Cyrillic, Greek and Arabic. Measured against the tokenizer of XLM-R (multilingual-e5): 1 to
    1.4 times its count for codes, numbers and random letters, 2 times for English and German prose, more for other
    scripts.

    >>> estimate_tokens("A word or two"), estimate_tokens("東京都"), estimate_tokens("QX7-4KD")
    (6, 5, 7)
    """
    words = sum(count * _weight(word) for word, count in Counter(_WORD.findall(text)).items())
    plain = _WORD.sub("", text)
    numbers = re.findall("[0-9]+", plain)
    digits = sum(map(len, numbers))
    spaces = sum(map(str.isspace, plain))
    signs = sum(map(str.isascii, plain)) - digits - spaces
    mixed = len(_MIXED.findall(text))
    return math.ceil(words + 0.3 * len(numbers) + 0.55 * digits + 0.2 * mixed + spaces / 3 + signs + _wide(plain))


def _weight(word: str) -> float:
    """About how many tokens a model makes of a row of letters, without the space before it."""
    length = len(word)
    if not word.isascii():
        return sum(map(str.isascii, word)) / 3 + _wide(word)
    if length == 1:
        return 1.0
    if _VOWELLESS.fullmatch(word):
        return 0.9 * length
    rare = sum((0.3 if match[1] else 0.55) * len(match[0]) for match in _RARE.finditer(word))
    return max(1.0, length / 3 + (rare if rare > 0.1 * length else 0))


def _wide(text: str) -> float:
    rest = "".join(char for char in text if not char.isascii())
    return len(rest.encode("utf-8", "surrogatepass")) / 2


def sanitize(text: str) -> str:
    """A text without characters that a reader does not see but a model reads.

    Controls, marks of direction, invisible tags, selectors and fillers go, line ends become one kind, the empty cell of
    Braille a space. A single joiner stays between letters of scripts that join, or within an emoji; so does one mark of
    colour after an emoji. Halves of surrogate pairs become U+FFFD.
    """
    if text.isascii() and text.isprintable():
        return text
    text = re.sub("\r\n?|[\x0b\x0c\x85\u2028\u2029]", "\n", text)
    # A text holds few different characters: each is looked up once.
    replacements = {ord(char): new for char in set(text) if (new := _seen(char)) != char}
    text = text.translate(replacements) if replacements else text
    return text if text.isascii() else _JOINERS.sub("", _STYLE.sub("", text))


def _seen(char: str) -> str:
    """What stays of a character by itself."""
    if char in "\n\t\u200c\u200d":
        return char
    if "\ud800" <= char <= "\udfff":
        return "\ufffd"
    if char == "\u2800":
        return " "
    unseen = unicodedata.category(char) in ("Cc", "Cf") or _IGNORABLE.match(char)
    return "" if unseen else char


def fence(texts: Sequence[str]) -> str:
    """A tag's name that occurs in none of the texts, however it is written; the same for the same texts."""
    # Without signs and spaces, wide and other shapes as plain ones: a model may read these as the fence, too.
    plain = "\n".join("".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold())) for text in texts)
    digest = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
    while digest[:12] in plain:
        digest = hashlib.sha256(digest.encode()).hexdigest()
    return f"data-{digest[:12]}"


class Budget:
    """Counts what is taken, by parts and as one text: whichever is more.

    Attributes:
        most: Tokens that may be taken in all.
        used: Tokens that were taken.
    """

    def __init__(self, count: Callable[[str], int], most: int) -> None:
        self._count = count
        self.most = most
        self._texts: list[str] = []
        self._sum = 0
        self.used = 0

    @property
    def remaining(self) -> int:
        """Tokens that are left."""
        return self.most - self.used

    def count(self, text: str) -> int:
        """Tokens of a text by itself."""
        return self._count(text)

    def take(self, text: str) -> str:
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
        return bool(max(self._sum + self._count(text), together) <= self.most)


def shares(needs: Sequence[int], total: int) -> list[int]:
    """How much each of the first sources gets: what it needs, or one amount for all that need more.

    Fewer than there are, where for all there would be less than `_LEAST`.
    """
    for count in range(len(needs), 0, -1):
        remaining, open_count, level = total, count, 0
        for need in sorted(needs[:count]):
            level = remaining // open_count
            if need > level:
                break
            remaining, open_count = remaining - need, open_count - 1
        else:
            return list(needs[:count])
        if level >= _LEAST or count == 1:
            return [min(need, level) for need in needs[:count]]
    return []


def on_one_line(text: str) -> str:
    """Cleaned, and each run of space, line ends included, one space."""
    return " ".join(sanitize(text).split())


def metadata_json(metadata: Mapping[str, Any]) -> str:
    """As JSON; what JSON has no words for (keys that are no texts, things within themselves) as Python writes it."""
    try:
        return json.dumps(metadata, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return str(metadata)


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A cleaned text, or the part of a very long one that a budget could take at most.

    Attributes:
        text: Without space around it.
        length: Of the whole in characters.
        before: Whether something is missing before it.
        after: Whether something is missing behind it.
    """

    text: str
    length: int
    before: bool = False
    after: bool = False

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return not (self.before or self.after)


def excerpt(text: str | None, focus: str, tokens: int) -> Excerpt:
    """Clean a text, only around the words in focus where it is far longer than so many tokens."""
    text = text or ""
    most = max(_WINDOW, _WINDOW_PER_TOKEN * tokens)
    if len(text) <= most:
        clean = sanitize(text).strip()
        return Excerpt(clean, len(clean))
    text = text.strip()
    start = max(0, min(text.find(focus) - most // 4, len(text) - most))
    clean = sanitize(text[start : start + most]).strip()
    return Excerpt(clean, len(text), start > 0, start + most < len(text))


def fitting(body: Callable[[str], str], text: Excerpt, budget: Budget, most: int, *, focus: int = 0) -> str | None:
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

    if text.whole and fits(text.text):
        return text.text
    low, high = 0, len(text.text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(_cut(text, middle, focus)) else (low, middle - 1)
    # Somebody's counting may fall where a text grows: what is taken is tried itself.
    while low > 0 and not fits(_cut(text, low, focus)):
        low -= 1
    if low > 0:
        return _cut(text, low, focus)
    return CUT if fits(CUT) else None


def _cut(excerpt: Excerpt, length: int, focus: int = 0) -> str:
    """So many characters of a text, back to the borders of words unless it is a script without spaces."""
    text = excerpt.text
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
    before = f"{_BEFORE} " if start > 0 or excerpt.before else ""
    after = f" {CUT}" if start + length < len(text) or excerpt.after or not before else ""
    return f"{before}{part.strip()}{after}"
