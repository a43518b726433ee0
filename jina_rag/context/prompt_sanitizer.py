"""Preparation of untrusted text for a chat model: removal of invisible characters, tags, and cuts to a token budget."""

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

CUT_MARK = "… cut"
_CUT_MARK_BEFORE = "cut …"
"""Marks a cut at the beginning of a text; `CUT_MARK` marks a cut at the end."""
PART_SEPARATOR = "\n\n"
"""Separates the parts of a context's text."""
_MIN_PART_TOKENS = 60
"""Minimum number of tokens per source. If the budget is too small for all sources, the last sources get no text."""
_MIN_WINDOW = 4000
_WINDOW_PER_TOKEN = 16
"""Number of characters read per token of the budget: more than the mean token length of any model, so that the
characters fill the budget."""
_MAX_WORD = 40
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0e\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
"""Invisible characters (Unicode Default_Ignorable_Code_Point), without control characters, joiners and U+FE0F."""
_JOINING_SCRIPTS = (
    "\u0600-\u07ff\u0840-\u08ff\u0900-\u109f\u1780-\u18af\u1900-\u1cff\ua800-\ua8ff\ua980-\uaaff\uabc0-\uabff"
    "\ufb50-\ufdff\ufe70-\ufefc\U00010a00-\U00011fff\U0001e900-\U0001e95f"
)
"""Character ranges of the scripts that use joiners: Arabic and related scripts, Indic and Southeast Asian scripts,
Mongolian, and Adlam."""
_EMOJI = (
    "\xa9\xae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u24c2\u25a0-\u27bf\u2900-\u297f\u2b00-\u2bff"
    "\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
_STRAY_SELECTOR = re.compile(f"(?<![{_EMOJI}])(?<![#*0-9](?=\ufe0f\u20e3))\ufe0f")
"""U+FE0F (emoji presentation) without a preceding emoji or keycap base."""
_STRAY_JOINERS = re.compile(
    f"(?<![{_JOINING_SCRIPTS}])(?<![{_EMOJI}\ufe0f](?=\u200d[{_EMOJI}]))[\u200c\u200d]"
    f"|(?<=[{_JOINING_SCRIPTS}])[\u200c\u200d](?![{_JOINING_SCRIPTS}])"
)
"""Joiners (U+200D) and non-joiners (U+200C) outside of joining scripts and emoji sequences."""
_WORD = re.compile(r"[^\W\d_]+")
_NO_VOWELS = re.compile(r"[^aeiou]{1,4}", re.IGNORECASE)
_RARE_LETTERS = re.compile(r"[^aeiouyAEIOUY]{4,}|[a-z][A-Z]|[jqxzJQXZ]|([A-Z]{2,})")
"""Letters that are rare in ordinary words: four consonants in a row, an inner capital, and j, q, x or z. Group 1 of the
expression matches several capitals in a row."""

_LETTER_DIGIT_BORDER = re.compile("[A-Za-z](?=[0-9])|[0-9](?=[A-Za-z])")


def estimate_tokens(text: str) -> int:
    """Estimate the number of tokens of a text, with a bias towards overestimation.

    - A letter of an ordinary word or a space counts 1/3 token; a letter of a code, abbreviation or random string up to
      1 token.
    - A digit counts 0.55 tokens. Each number adds 0.3 tokens, and each border between letters and digits adds 0.2
      tokens.
    - Any other ASCII character counts 1 token.
    - A non-ASCII character counts half a token per UTF-8 byte: 1.5 tokens for Chinese, Japanese, Korean and Thai, 1
      token for Cyrillic, Greek and Arabic.

    Compared with the number of tokens of the XLM-R tokenizer (multilingual-e5), the estimate is 1 to 1.4 times as high
    for codes, numbers and random letters, twice as high for English and German prose, and higher for other scripts.

    Args:
        text: Any text.

    Returns:
        Estimated number of tokens.

    Example:
        >>> estimate_tokens("A word or two"), estimate_tokens("東京都"), estimate_tokens("QX7-4KD")
        (6, 5, 7)
    """
    words = sum(count * _word_tokens(word) for word, count in Counter(_WORD.findall(text)).items())
    plain = _WORD.sub("", text)
    numbers = re.findall("[0-9]+", plain)
    digits = sum(map(len, numbers))
    spaces = sum(map(str.isspace, plain))
    signs = sum(map(str.isascii, plain)) - digits - spaces
    borders = len(_LETTER_DIGIT_BORDER.findall(text))
    return math.ceil(
        words + 0.3 * len(numbers) + 0.55 * digits + 0.2 * borders + spaces / 3 + signs + _non_ascii(plain)
    )


def _word_tokens(word: str) -> float:
    """Return the estimated number of tokens of a run of letters."""
    length = len(word)
    if not word.isascii():
        return sum(map(str.isascii, word)) / 3 + _non_ascii(word)
    if length == 1:
        return 1.0
    if _NO_VOWELS.fullmatch(word):
        return 0.9 * length
    rare = sum((0.3 if match[1] else 0.55) * len(match[0]) for match in _RARE_LETTERS.finditer(word))
    return max(1.0, length / 3 + (rare if rare > 0.1 * length else 0))


def _non_ascii(text: str) -> float:
    rest = "".join(char for char in text if not char.isascii())
    return len(rest.encode("utf-8", "surrogatepass")) / 2


def sanitize(text: str) -> str:
    """Remove characters that a reader does not see but a model reads.

    Control characters, bidirectional marks, tag characters, variation selectors and fillers are removed. Line ends
    become newlines, blank Braille cells become spaces, and lone surrogates become U+FFFD. A single joiner is kept
    between letters of joining scripts and inside emoji sequences, and one U+FE0F is kept after an emoji.

    Args:
        text: Any text.

    Returns:
        The sanitized text.
    """
    if text.isascii() and text.isprintable():
        return text
    text = re.sub("\r\n?|[\x0b\x0c\x85\u2028\u2029]", "\n", text)
    # A text has few distinct characters, so each distinct character is checked once.
    replacements = {ord(char): new for char in set(text) if (new := _visible(char)) != char}
    text = text.translate(replacements) if replacements else text
    return text if text.isascii() else _STRAY_JOINERS.sub("", _STRAY_SELECTOR.sub("", text))


def _visible(char: str) -> str:
    """Return the replacement of a character: the same character, a space, U+FFFD, or "" for an invisible character."""
    if char in "\n\t\u200c\u200d":
        return char
    if "\ud800" <= char <= "\udfff":
        return "\ufffd"
    if char == "\u2800":
        return " "
    invisible = unicodedata.category(char) in ("Cc", "Cf") or _IGNORABLE.match(char)
    return "" if invisible else char


def fence(texts: Sequence[str]) -> str:
    """Return a tag name that no text contains in any spelling; equal texts always give the same name."""
    # A model may read a variant of the tag name as the tag name. The comparison therefore ignores everything except
    # letters and digits, after NFKC normalization and case folding.
    plain = "\n".join("".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold())) for text in texts)
    digest = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
    while digest[:12] in plain:
        digest = hashlib.sha256(digest.encode()).hexdigest()
    return f"data-{digest[:12]}"


class Budget:
    """Token budget of a text that consists of parts.

    Tokens are counted for each part and for the joined parts. The greater of the two numbers is deducted from the
    budget.

    Attributes:
        limit: Maximum number of tokens.
        used: Number of tokens used.
    """

    def __init__(self, count: Callable[[str], int], limit: int) -> None:
        """Create an unused budget.

        Args:
            count: Function that returns the number of tokens of a text.
            limit: Maximum number of tokens.
        """
        self._count = count
        self.limit = limit
        self._texts: list[str] = []
        self._sum = 0
        self.used = 0

    @property
    def remaining(self) -> int:
        """Number of unused tokens."""
        return self.limit - self.used

    def count(self, text: str) -> int:
        """Return the number of tokens of a text."""
        return self._count(text)

    def take(self, text: str) -> str:
        """Deduct the tokens of `text` and return `text`; return "" if the remaining budget is too small."""
        if not text or not self.fits(text):
            return ""
        self._sum += self._count(text)
        self._texts.append(text)
        self.used = max(self._sum, self._count(PART_SEPARATOR.join(self._texts)))
        return text

    def fits(self, text: str) -> bool:
        """Return whether the remaining budget is sufficient for `text`."""
        together = self._count(PART_SEPARATOR.join([*self._texts, text]))
        return bool(max(self._sum + self._count(text), together) <= self.limit)


def allocate_tokens(needs: Sequence[int], total: int) -> list[int]:
    """Allocate tokens to sources: each source gets the number of tokens that it needs, up to a common maximum.

    Args:
        needs: Number of tokens that each source needs.
        total: Number of available tokens.

    Returns:
        Number of tokens of each source. The list is shorter than `needs` if the common maximum would be less than
        `_MIN_PART_TOKENS`; the last sources then get no tokens.
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
        if level >= _MIN_PART_TOKENS or count == 1:
            return [min(need, level) for need in needs[:count]]
    return []


def on_one_line(text: str) -> str:
    """Sanitize `text` and replace each run of whitespace, including line ends, by one space."""
    return " ".join(sanitize(text).split())


def metadata_json(metadata: Mapping[str, Any]) -> str:
    """Return metadata as JSON. If JSON cannot represent the metadata (tuple keys, circular values), return `str`."""
    try:
        return json.dumps(metadata, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        return str(metadata)


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A sanitized text, or the part of a very long text that can fit a budget.

    Attributes:
        text: Sanitized text without surrounding whitespace.
        length: Length of the complete text in characters.
        cut_before: Whether text before the excerpt is missing.
        cut_after: Whether text after the excerpt is missing.
    """

    text: str
    length: int
    cut_before: bool = False
    cut_after: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether the excerpt is the complete text."""
        return not (self.cut_before or self.cut_after)


def excerpt(text: str | None, focus: str, tokens: int) -> Excerpt:
    """Return a sanitized text. For a very long text, return only the part around `focus`.

    Args:
        text: Text of a page; None counts as empty.
        focus: Words around which a very long text is cut.
        tokens: Token budget. A text is cut if it has more than 4,000 characters and more than 16 characters per token.
    """
    text = text or ""
    limit = max(_MIN_WINDOW, _WINDOW_PER_TOKEN * tokens)
    if len(text) <= limit:
        clean = sanitize(text).strip()
        return Excerpt(clean, len(clean))
    text = text.strip()
    start = max(0, min(text.find(focus) - limit // 4, len(text) - limit))
    clean = sanitize(text[start : start + limit]).strip()
    return Excerpt(clean, len(text), start > 0, start + limit < len(text))


def fit_text(body: Callable[[str], str], text: Excerpt, budget: Budget, limit: int, *, focus: int = 0) -> str | None:
    """Return the text, or the longest part around `focus` that fits, cut between words.

    Args:
        body: Function that adds the lines around a text: source number, tags and header.
        text: Text to fit.
        budget: Budget of the whole context.
        limit: Maximum number of tokens of this source, including the lines around the text.
        focus: Index of the character around which the text is cut.

    Returns:
        The text, or a part with cut marks; `CUT_MARK` if no word fits, None if `CUT_MARK` does not fit either.
    """

    def fits(part: str) -> bool:
        full_text = body(part)
        return bool(budget.count(full_text) <= limit) and budget.fits(full_text)

    if text.is_complete and fits(text.text):
        return text.text
    low, high = 0, len(text.text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(_cut(text, middle, focus)) else (low, middle - 1)
    # The caller's token counter may return less for a longer text, which misleads the binary search: check the final
    # length.
    while low > 0 and not fits(_cut(text, low, focus)):
        low -= 1
    if low > 0:
        return _cut(text, low, focus)
    return CUT_MARK if fits(CUT_MARK) else None


def _cut(excerpt: Excerpt, length: int, focus: int = 0) -> str:
    """Return `length` characters of an excerpt with cut marks, shortened to word boundaries if the text has spaces."""
    text = excerpt.text
    start = max(0, min(focus - length // 4, len(text) - length))
    part = text[start : start + length]
    if start + length < len(text) and not text[start + length].isspace():
        # If no word boundary is within the length of a long word, cut inside the word.
        border = max(part.rfind(space, max(0, length - _MAX_WORD)) for space in " \n\t")
        part = part[: border if border > 0 else length]
    if start > 0 and not text[start - 1].isspace():
        borders = [at for space in " \n\t" if (at := part.find(space, 0, _MAX_WORD)) >= 0]
        part = part[min(borders) :] if borders else part
    if not part.strip():
        return CUT_MARK
    # A shortened text has at least one cut mark: the end is marked if the beginning has no mark.
    prefix = f"{_CUT_MARK_BEFORE} " if start > 0 or excerpt.cut_before else ""
    suffix = f" {CUT_MARK}" if start + length < len(text) or excerpt.cut_after or not prefix else ""
    return f"{prefix}{part.strip()}{suffix}"
