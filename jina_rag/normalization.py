"""Normalization of text: spellings that mean the same become equal on both sides, in pages, queries, names and filters.

The stored text of a page and the names of files stay as they are; only comparisons use the normalized forms. There are
three forms, because a form that finds more also confuses more:

- the **name** form (`name_form`) compares paths, ids, globs and the strings of metadata filters;
- the **token** form (`token_form`) is what the embedded models tokenize, words of pages and queries alike;
- the **term** form (`term_text`) is the input of `jina_rag.sparse`, which makes the terms and codes of lexical search.

| spelling | becomes | name | token | term |
| --- | --- | --- | --- | --- |
| NFD, NFC, ligatures, full and half width, Arabic presentation forms | NFKC | yes | yes | yes |
| decimal digits of all scripts; Arabic decimal separators | ``0`` to ``9``; ``.`` and ``,`` | yes | yes | yes |
| hyphens U+2010 to U+2012, minus, Hebrew maqaf, Armenian hyphen | ``-`` | yes | yes | yes |
| en dash between letters or digits | ``-`` | yes | yes | yes (1) |
| em dash, bars and the katakana long mark inside a code | ``-`` | yes | yes | yes (1) |
| apostrophes, prime, modifier letters, acute accent, geresh; gershayim | ``'``; ``"`` | yes | yes | yes |
| soft hyphen between letters; next to a digit | removed; ``-`` | yes | yes | yes (2) |
| zero-width space and non-joiner between letters with two cases | removed | yes | yes | yes (2) |
| zero-width space and non-joiner between other letters | removed | yes | kept (3) | yes (2) |
| other invisible characters: joiners, direction marks, variation selectors | removed | yes | yes | yes |
| fractions (½, 1½) and the fraction slash | ``1/2``, ``1 1/2`` | kept | yes | yes |
| superscript digits after a letter (m²); after a digit (10²) | ``m2``; ``10^2`` | yes | yes | ``m^2`` (2) |
| trade mark signs; circled numbers and squared units (①, ㎡) | a space; NFKC between spaces | yes | yes | yes |
| tatweel; points of Arabic, Hebrew and Syriac | removed | tatweel | yes | yes |
| lam-alef reversed at the start of a word (األدوات) | الأدوات | no | yes | also (4) |
| lam-alef that may be reversed in another place of such a text (كالم) | both: كالم كلام | no | yes (4) | also (4) |
| upper case; İ and ı | case-folded; ``i`` | no | no | yes |
| alef with hamza, madda or wasla; teh marbuta; alef maksura | bare alef; heh; yeh | no | no | yes |
| Persian and Urdu yeh, kaf and heh | yeh, kaf and heh of Arabic | no | no | yes |

1. A range of codes (``A-1–A-9``) gives the whole and each of the two codes.
2. The parts of the word are terms, too.
3. The models were trained with a space in this place.
4. `jina_rag.sparse` adds the repaired spellings of all words of such a text to the terms, and the embedded models read
   all spellings of a word. Which spelling is right cannot be seen: خالد and خلاد are both names.

Not folded, because the difference has a meaning: accents and umlauts, hiragana and katakana, simplified and traditional
Chinese, superscripts and plain digits after a digit, letters of different scripts that look alike, vowel signs of
Indic scripts, Thai and other scripts where the marks are letters. In names, a character whose NFKC form has a wildcard,
a separator or a dot stays as it is (``＊``, ``／``, ``½``, ``…``), so that no name gains a wildcard or a folder.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache, reduce
from itertools import groupby
from operator import or_
from typing import NamedTuple

SOFT = "\u00ad"
"""Soft hyphen between two letters in the term form: the word is one word, and its parts are also words."""
SOFT_SPACE = "\u200c"
"""Zero-width space or non-joiner between two letters in the term form, with the same meaning."""
WIDE_DASH = "\u2013"
"""Dash of the term form that joins a code or separates two codes."""
UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Myanmar, Khmer
    "\u3040-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\uac00-\ud7af"  # Hangul: has spaces, but attaches particles to words
)
"""Characters of scripts without spaces between words, as ranges of a regular expression."""

_INVISIBLE = (
    "\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200d-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_TATWEEL = "\u0640\u07fa"
_POINTS = (
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"  # Hebrew
    "\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u0898-\u089f\u08ca-\u08ff"
    "\u0711\u0730-\u074a"  # Syriac
)
_HYPHENS = "\u02d7\u058a\u05be\u1806\u2010-\u2012\u2043\u207b\u208b\u2212\u2796\u2e17\u2e40\u30a0\ufe63\uff0d"
_WIDE_DASHES = "\u2013-\u2015\u2500\ufe31\ufe32\ufe58"
_APOSTROPHES = "\u02b9\u02bb\u02bc\u02be\u02bf\u02c8\u02ca\u055a\u05f3\u2018\u2019\u201b\u2032\ua78b\ua78c\uff07"
_INDIC = "\u0900-\u0dff"
_SUPERSCRIPTS = "\u00b2\u00b3\u00b9\u2070\u2074-\u2079"

_SIMPLE = {"\u05f4": '"', "\u2044": "/", "\u2215": "/", "\u066a": "%", "\u066b": ".", "\u066c": ","}
_SIGNS = {"\u00b4": "'", "\u2122": " ", "\u2120": " "}
"""Characters of which NFKC would make a space and a mark, or letters; replaced before NFKC."""
_SET_APART = re.compile(
    rf"(?P<raised>[\u207a\u207b]?[{_SUPERSCRIPTS}]+)|(?P<fraction>[\u00bc-\u00be\u2150-\u215e\u2189])"
    r"|(?P<enclosed>[\u2460-\u249b\u24b6-\u24ff\u2776-\u2793\u3200-\u33ff\U0001f100-\U0001f16f])"
)
"""Characters that NFKC would merge with their neighbors: replaced before NFKC."""
_ARABIC_LETTERS = str.maketrans("أإآٱةىیکہەۀۂ", "ااااهييكهههه")
_REVERSED = re.compile(r"(?<![^\W\d_])([وفبكل]?)ا([أإآا])ل(?=[^\W\d_])(?!له\b)")
"""Start of a word with a reversed lam-alef: no Arabic word starts with two alefs and a lam,
except in a common misspelling of Allah."""
_ALEF_LAM = re.compile("([أإآا])ل")
_FIXED_START = re.compile(r"ال[أإآا]?(?=[^\W\d_]{2})|[وفبكل]ال[أإآا]")
"""Start of a word in a text with reversed lam-alef that is in the right order: an article, or repaired."""
_PREFIX_AND_ARTICLE = re.compile(r"[وفبكل]ال(?=[^\W\d_]{2})")
"""Start of a word that is a prefix and an article (بالسلامة) or a letter and a reversed lam-alef (بلادنا)."""
_SYNTAX = frozenset("*?[]!/\\.:")
_BREAKS = re.compile("[\u00ad\u200b\u200c]+")
_TERM_BREAKS = re.compile("\u00ad\\s+|[\u00ad\u200b\u200c]+")
_DASHES = re.compile(f"[{_WIDE_DASHES}\u30fc]")
_DASHES_IN_NAMES = re.compile(f"[{_WIDE_DASHES}]")
_INVISIBLE_RUN = re.compile(f"[{_INVISIBLE}{_TATWEEL}]+")
_POINT_RUN = re.compile(f"[{_POINTS}]+")
_NO_BOUNDARY = re.compile(f"[{_INDIC}{UNSPACED}]")
"""Letters between which an invisible break is no word boundary."""
_BRACKETS = re.compile(r"(\[!?\]?[^\]]*\])")
_SCRIPTS = (0x300, 0x1F000)
"""Code points between which the marks of all scripts lie, except variation selectors."""


def token_form(text: str) -> str:
    """Return the spelling of a word or text that the embedded models tokenize.

    Args:
        text: Words of a page or query.

    >>> token_form("ＫＸ‑٤٤٧١–B, 10² m²: ﬁ")
    'KX-4471-B, 10^2 m2: fi'
    """
    if text.isascii():
        return text
    text, steps = _plain(text, points=False)
    return _REVERSED.sub(r"\1ال\2", text) if steps & _IS_ARABIC else text


def has_reversed_lam_alef(text: str) -> bool:
    """Return whether a word of a text starts with a reversed lam-alef, as in text layers that are in visual order.

    Args:
        text: A word or text.

    >>> has_reversed_lam_alef("األدوات"), has_reversed_lam_alef("الأدوات")
    (True, False)
    """
    return "ل" in text and _REVERSED.search(_plain(text, points=False)[0]) is not None


class TermText(NamedTuple):
    """A text from which `jina_rag.sparse` makes terms.

    Attributes:
        text: The case-folded spelling of the text. Inside words, it may have the characters `SOFT`, `SOFT_SPACE` and
            `WIDE_DASH`.
        is_plain: Whether the text has no combining marks, no characters of scripts without spaces, and no Hebrew.
        is_arabic: Whether the text has Arabic letters.
    """

    text: str
    is_plain: bool = True
    is_arabic: bool = False


def term_text(text: str) -> TermText:
    """Return the case-folded spelling of a text, the input of `jina_rag.sparse`.

    Args:
        text: Text of a page or query.

    >>> term_text("Straße ＫＸ‑４４７１ مَكْتَبَة").text
    'strasse kx-4471 مكتبه'
    """
    if text.isascii():
        return TermText(text.lower())
    text, steps = _plain(text, for_terms=True, points=False)
    text = text.casefold()
    if not unicodedata.is_normalized("NFKC", text):
        text = unicodedata.normalize("NFKC", text)
    if steps & _DOTTED:
        text = text.replace("i\u0307", "i").replace("\u0131", "i")
    if steps & _IS_ARABIC:
        text = text.translate(_ARABIC_LETTERS)
    return TermText(text, is_plain=not steps & _NOT_PLAIN, is_arabic=bool(steps & _IS_ARABIC))


def name_form(name: str) -> str:
    """Return the spelling by which paths, ids and the strings of filters are compared; case and points are kept.

    Args:
        name: Path, id or other string.

    >>> name_form("U\u0308bersicht KX‑4471.pdf") == "Übersicht KX-4471.pdf"
    True
    """
    return name if name.isascii() else _name_form(name)


def pattern_form(pattern: str) -> str:
    """Return the `name_form` of a glob; inside brackets, only the Unicode form (NFC) changes.

    Args:
        pattern: A glob; see `jina_rag.globs`.

    >>> pattern_form("*‑[–a]") == "*-[–a]"
    True
    """
    return pattern if pattern.isascii() else _pattern_form(pattern)


def same_name(name: str, other: str) -> bool:
    """Return whether two names are equal, or differ only in spellings of the same text."""
    return name == other or (not (name.isascii() and other.isascii()) and name_form(name) == name_form(other))


@lru_cache(maxsize=20_000)
def token_form_with_offsets(word: str, *, is_reversed: bool = False) -> tuple[str, tuple[int, ...] | None]:
    """Return the token form of a word, and for each of its characters the start in the word, and the end of the word.

    Args:
        word: A word, without white space.
        is_reversed: Whether the word is from a text with a reversed lam-alef; see `has_reversed_lam_alef`. The token
            form then has all spellings of a word that may have further ones, separated by spaces.

    Returns:
        The token form of n characters, and n + 1 character positions in `word`, ascending in each spelling; None
        instead of the positions if the token form has the characters of the word at the same positions.

    >>> token_form_with_offsets("\u00bdm²")
    ('1/2 m2', (0, 0, 0, 1, 1, 2, 3))
    """
    form, offsets = _form_with_offsets(word)
    spellings = _readings(form) if is_reversed else [form]
    if len(spellings) == 1:
        return form, offsets
    return " ".join(spellings), (offsets or tuple(range(len(form) + 1))) * len(spellings)


def _readings(word: str) -> list[str]:
    """Return the possible spellings of a word of a text with reversed lam-alef, all of the same length.

    The word may have no lam-alef, or lam-alef for each pair of alef and lam, or for each pair after the article.

    >>> _readings("بالسالمة")
    ['بالسالمة', 'بلاسلامة', 'بالسلامة']
    """
    fixed, article = _FIXED_START.match(word), _PREFIX_AND_ARTICLE.match(word)
    starts = dict.fromkeys((fixed.end() if fixed else 0, *([article.end()] if article else [])))
    return list(dict.fromkeys([word, *(word[:start] + _ALEF_LAM.sub(r"ل\1", word[start:]) for start in starts)]))


def _form_with_offsets(word: str) -> tuple[str, tuple[int, ...] | None]:
    form = token_form(word)
    if len(form) == len(word) or not form:
        return form, None
    # The form of each prefix has the length at which its last character ends. A prefix ends before a character that
    # starts a letter, because a mark or an invisible character belongs to the letter before it.
    offsets: list[int] = []
    start = 0
    for end in range(1, len(word) + 1):
        if end < len(word) and unicodedata.category(word[end]) in ("Mn", "Mc", "Cf"):
            continue
        size = len(form) if end == len(word) else min(len(token_form(word[:end])), len(form))
        offsets += [start] * (size - len(offsets))
        start = end
    return form, (*offsets[: len(form)], len(word))


# Steps of the normalization. A text needs the steps of its characters, and most texts need few. Bits of an int, because
# an enumeration would take longer than the rest.
_APART, _SIGN, _HIDDEN, _POINTED, _REPLACED, _BROKEN, _DASHED, _IS_ARABIC, _DOTTED, _NOT_PLAIN = (
    1 << bit for bit in range(10)
)


@cache
def _step_patterns() -> tuple[tuple[int, re.Pattern[str]], ...]:
    return (
        (_APART, _SET_APART),
        (_SIGN, re.compile(f"[{''.join(_SIGNS)}]")),
        (_HIDDEN, _INVISIBLE_RUN),
        (_POINTED, _POINT_RUN),
        (_BROKEN, _BREAKS),
        (_DASHED, _DASHES),
        (_IS_ARABIC, re.compile("[\u0622-\u06d5]")),
        (_NOT_PLAIN, re.compile(f"[\u0590-\u05ff{UNSPACED}]")),
        (_DOTTED, re.compile("[\u0130\u0131\u0307]")),
    )


@lru_cache(maxsize=8192)
def _steps_of(letter: str) -> int:
    steps = 0 if _replacement(letter) is None else _REPLACED
    for step, pattern in _step_patterns():
        if pattern.match(letter):
            steps |= step
    return steps | _NOT_PLAIN if unicodedata.category(letter)[0] == "M" else steps


def _letters(text: str) -> tuple[list[str], int]:
    """Return the distinct characters of a text beyond ASCII, and the steps that these characters need."""
    letters = [letter for letter in set(text) if letter > "\x7f"]
    return letters, reduce(or_, map(_steps_of, letters), 0)


@lru_cache(maxsize=8192)
def _replacement(letter: str) -> str | None:
    """Return what replaces a character in every context; None if nothing does."""
    if letter in _SIMPLE:
        return _SIMPLE[letter]
    if letter in _APOSTROPHES:
        return "'"
    if letter in _HYPHENS:
        return "-"
    digit = unicodedata.decimal(letter, None)
    return None if digit is None else str(digit)


def _plain(text: str, *, for_terms: bool = False, points: bool = True) -> tuple[str, int]:
    """Return the text in NFKC where NFKC keeps the meaning, with one spelling of dashes, digits and apostrophes.

    Args:
        text: The text.
        for_terms: Whether to return the marks of the term form.
        points: Whether points of Arabic, Hebrew and Syriac stay.

    Returns:
        The text, and the steps of its characters.
    """
    if not unicodedata.is_normalized("NFC", text):  # a decomposed letter before a superscript is a letter
        text = unicodedata.normalize("NFC", text)
    letters, steps = _letters(text)
    if steps & _APART:
        text = _SET_APART.sub(_term_apart if for_terms else _token_apart, text)
    if steps & _SIGN:
        for sign, plain in _SIGNS.items():
            text = text.replace(sign, plain)
    normalized = unicodedata.normalize("NFKC", text)
    if normalized != text:
        text = normalized
        letters, steps = _letters(text)
    if steps & _HIDDEN:
        text = _INVISIBLE_RUN.sub("", text)
        text = unicodedata.normalize("NFC", text)  # the character may have separated a letter and its mark
    if steps & _REPLACED:
        for letter in letters:
            replacement = _replacement(letter)
            if replacement is not None:
                text = text.replace(letter, replacement)
    if steps & _POINTED and not points:
        text = _POINT_RUN.sub("", text)
    if steps & _BROKEN:
        text = _TERM_BREAKS.sub(_term_break, text) if for_terms else _BREAKS.sub(_token_break, text)
    if steps & _DASHED:
        text = _DASHES.sub(_term_dash if for_terms else _token_dash, text)
    return text, steps


@cache
def marks() -> str:
    """Return the combining marks of all scripts as ranges of a regular expression; computed once, in 10 ms."""
    runs: list[list[int]] = []
    for code in range(*_SCRIPTS):
        if unicodedata.category(chr(code))[0] == "M":
            if runs and code == runs[-1][1] + 1:
                runs[-1][1] = code
            else:
                runs.append([code, code])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in runs)


def _around(match: re.Match[str]) -> tuple[str, str]:
    """Return the character before and the character after a match; "" at the end of the text."""
    text, start, end = match.string, match.start(), match.end()
    return text[start - 1 : start] if start else "", text[end : end + 1]


def _token_apart(match: re.Match[str]) -> str:
    return _compatible(match, raised_after_letter="")


def _term_apart(match: re.Match[str]) -> str:
    return _compatible(match, raised_after_letter="^")


def _compatible(match: re.Match[str], *, raised_after_letter: str) -> str:
    """Return NFKC of a character, set apart from neighbors with which the characters would form another number."""
    before, after = _around(match)
    text = unicodedata.normalize("NFKC", match.group())
    if match.lastgroup == "enclosed":
        return f" {text} "
    end = " " if after.isalnum() else ""
    if match.lastgroup == "fraction":
        return (" " if _is_letter_or_digit(before) else "") + text.replace("\u2044", "/") + end
    mark = "^" if before.isdigit() or before == ")" else raised_after_letter if _is_letter_or_digit(before) else ""
    return mark + text.replace("\u2212", "-") + end


def _term_break(match: re.Match[str]) -> str:
    """Return the replacement of a soft hyphen, a zero-width space or a non-joiner in the term form."""
    before, after = _around(match)
    text = match.group()
    if not (_is_letter(before) and _is_letter(after)):
        if text[-1].isspace():
            return " "
        return "-" if SOFT in text and before.isalnum() and after.isalnum() else ""
    if _NO_BOUNDARY.match(before) or _NO_BOUNDARY.match(after):
        return ""
    return SOFT if SOFT in text else SOFT_SPACE


def _token_break(match: re.Match[str]) -> str:
    """Return the replacement of a soft hyphen, a zero-width space or a non-joiner in the token form."""
    before, after = _around(match)
    if _is_letter(before) and _is_letter(after):
        # In scripts with two cases, the character only allows a line break or prevents a ligature.
        is_cased = before.lower() != before.upper() and after.lower() != after.upper()
        return "" if is_cased else match.group().replace(SOFT, "")
    return "-" if SOFT in match.group() and before.isalnum() and after.isalnum() else ""


def _is_letter_or_digit(letter: str) -> bool:
    return letter.isalnum() or _is_letter(letter)


def _is_letter(letter: str) -> bool:
    return letter.isalpha() or (letter != "" and unicodedata.category(letter)[0] == "M")


def _term_dash(match: re.Match[str]) -> str:
    return WIDE_DASH if _joins(match) else match.group()


def _token_dash(match: re.Match[str]) -> str:
    return "-" if _joins(match) else match.group()


def _joins(match: re.Match[str]) -> bool:
    """Return whether a dash joins two words or numbers: an en dash, or a longer dash or long mark inside a code."""
    before, after = _around(match)
    if not (_is_letter_or_digit(before) and _is_letter_or_digit(after)):
        return False
    if match.group() == WIDE_DASH:
        return True
    if match.group() == "\u30fc" and not (before.isascii() and after.isascii()):  # a long vowel of katakana
        return False
    return before.isdigit() or after.isdigit() or (before.isupper() and after.isupper())


_IN_NAMES = _HIDDEN | _REPLACED | _BROKEN | _DASHED
"""Steps that change a name in NFKC."""


@lru_cache(maxsize=4096)
def _name_form(name: str) -> str:
    if unicodedata.is_normalized("NFKC", name) and not _letters(name)[1] & _IN_NAMES:
        return name
    parts: list[str] = []
    for is_kept, letters in groupby(name, _stays_in_names):
        part = "".join(letters)
        parts.append(part if is_kept else _fold_name(part))
    return unicodedata.normalize("NFC", "".join(parts))


@lru_cache(maxsize=256)
def _pattern_form(pattern: str) -> str:
    parts = _BRACKETS.split(unicodedata.normalize("NFC", pattern))
    return "".join(part if number % 2 else _name_form(part) for number, part in enumerate(parts))


def _fold_name(part: str) -> str:
    return _DASHES_IN_NAMES.sub("-", _BREAKS.sub("", _plain(part)[0]))


def _stays_in_names(letter: str) -> bool:
    """Return whether folding a character would add a wildcard, a separator or a dot to a name."""
    return not letter.isascii() and not _SYNTAX.isdisjoint(_plain(letter)[0])
