"""Measure how often a search ranks the right page first if page and query spell the same thing differently.

    python benchmarks/spellings.py [--pages 120] [--queries 40] [--only NAME] [--embedder lite-en]

The pages of an index differ only in a part number, or in a word of a script. For each spelling, all pages have the
spelling and the queries are plain, and the pages are plain and the queries have the spelling. The plain spelling on
both sides is the reference.
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from jina_rag import DocumentIndex

Spelling = Callable[[str], str]


def _digits(zero: str) -> Spelling:
    return lambda code: code.translate({48 + digit: chr(ord(zero) + digit) for digit in range(10)})


def _wide(code: str) -> str:
    return "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in code)


CODES: dict[str, Spelling] = {
    "hyphen U+2010": lambda code: code.replace("-", "\u2010"),
    "non-breaking hyphen U+2011": lambda code: code.replace("-", "\u2011"),
    "figure dash U+2012": lambda code: code.replace("-", "\u2012"),
    "en dash U+2013": lambda code: code.replace("-", "\u2013"),
    "em dash U+2014": lambda code: code.replace("-", "\u2014"),
    "minus U+2212": lambda code: code.replace("-", "\u2212"),
    "small hyphen U+FE63": lambda code: code.replace("-", "\ufe63"),
    "full-width hyphen U+FF0D": lambda code: code.replace("-", "\uff0d"),
    "two kinds of dashes": lambda code: code.replace("-", "\u2013", 1).replace("-", "\u2011"),
    "soft hyphens instead of hyphens": lambda code: code.replace("-", "\u00ad"),
    "soft hyphens after hyphens": lambda code: code.replace("-", "-\u00ad"),
    "zero-width spaces": lambda code: code.replace("-", "-\u200b"),
    "word joiners and a mark": lambda code: "\ufeff" + code.replace("-", "\u2060-\u2060"),
    "full width": _wide,
    "full width, katakana long mark": lambda code: _wide(code).replace("\uff0d", "\u30fc"),
    "mathematical bold": lambda code: code.translate(
        {48 + n: chr(0x1D7CE + n) for n in range(10)} | {65 + n: chr(0x1D400 + n) for n in range(26)}
    ),
    "Arabic-Indic digits": _digits("\u0660"),
    "Persian digits": _digits("\u06f0"),
    "Devanagari digits": _digits("\u0966"),
    "Bengali digits": _digits("\u09e6"),
    "Tamil digits": _digits("\u0be6"),
    "Thai digits": _digits("\u0e50"),
    "full-width digits": _digits("\uff10"),
    "lower case": str.lower,
}
"""Spellings of a part number, for example KX-4471-B."""

_ARABIC_POINTS = "\u064e\u064f\u0650\u0652\u0651\u064b"
_HEBREW_POINTS = "\u05b8\u05b7\u05b6\u05b4\u05b9\u05bc"


def _pointed(points: str) -> Spelling:
    return lambda word: "".join(letter + points[index % len(points)] for index, letter in enumerate(word))


def _presentation(word: str) -> str:
    """Return an Arabic word with the isolated presentation form of each letter."""
    return "".join(unicodedata.lookup(f"{unicodedata.name(letter)} ISOLATED FORM") for letter in word)


PART = "Spare part {}: gasket set for the feed pump, see drawing.", "Which gasket set is part {}?"
ARABIC = "توقيع عقد مع شركة {} للتجارة", "عقد مع شركة {}"
HEBREW = "חוזה עם חברת {} למסחר", "חוזה עם חברת {}"
HINDI = "{} कंपनी के साथ अनुबंध", "{} कंपनी"
GERMAN = "Vertrag mit der Firma {} GmbH", "Vertrag Firma {}"
TURKISH = "{} firması ile sözleşme", "{} firması"
THAI = "สัญญากับบริษัท{} จำกัด", "บริษัท{}"
_ARABIC_LETTERS = "بتجدرسعفقكمنهو"
_LAM_ALEF = re.compile("ل([اأإآ])")


def _replace(*pairs: tuple[str, str]) -> Spelling:
    def spelling(word: str) -> str:
        for old, new in pairs:
            word = word.replace(old, new)
        return word

    return spelling


def _decomposed(word: str) -> str:
    return unicodedata.normalize("NFD", word)


def _spaced(space: str) -> Spelling:
    return lambda word: word[:2] + space + word[2:]


WORDS: dict[str, tuple[tuple[str, str], Sequence[str], str, Spelling]] = {
    "Arabic with points": (ARABIC, _ARABIC_LETTERS, "م", _pointed(_ARABIC_POINTS)),
    "Arabic with tatweel": (ARABIC, _ARABIC_LETTERS, "م", "ـ".join),
    "Arabic presentation forms": (ARABIC, _ARABIC_LETTERS, "م", _presentation),
    "Arabic, lam-alef reversed": (
        ARABIC,
        [*_ARABIC_LETTERS, "لا", "لأ"],
        "الأ",
        lambda word: _LAM_ALEF.sub(r"\1ل", word),
    ),
    "Arabic, Persian letters": (ARABIC, "بتكيدرس", "مكي", _replace(("ك", "ک"), ("ي", "ی"))),
    "Hebrew with points": (HEBREW, "אבגדהוזחטיכלמנסעפצקרשת", "מ", _pointed(_HEBREW_POINTS)),
    "Devanagari, NFD": (HINDI, "कखगचजटडतदनपबमरलस", "क\u093cि", _decomposed),
    "Latin, NFD": (GERMAN, "äöüßéèçabcdefgmnrst", "Ü", _decomposed),
    "Latin, soft hyphens": (GERMAN, "aeioubcdfgmnrst", "Ba", lambda word: word[:3] + "\u00ad" + word[3:]),
    "Latin, zero-width spaces": (GERMAN, "aeioubcdfgmnrst", "Ba", _spaced("\u200b")),
    "Latin, ligatures": (GERMAN, "aeioubcdgmnrst", "Waffi", _replace(("ffi", "\ufb03"))),
    "Latin, apostrophes": (GERMAN, "aeioubcdgmnrst", "O'", _replace(("'", "\u2019"))),
    "Turkish, capitals": (TURKISH, "aeiıoubcdgmnrst", "ili", lambda word: word.replace("i", "İ").upper()),
    "no-break space": (PART, "0123456789", "KX 4", _replace((" ", "\u00a0"))),
    "narrow no-break space": (PART, "0123456789", "KX 4", _replace((" ", "\u202f"))),
    "thin space": (PART, "0123456789", "KX 4", _replace((" ", "\u2009"))),
    "part number with umlaut, NFD": (PART, "0123456789", "Öl-", _decomposed),
    "part number with ligature": (PART, "0123456789", "fi-", _replace(("fi", "\ufb01"))),
    "part number with superscript": (PART, "0123456789", "m²-", _replace(("²", "2"))),
    "Thai, vowel am in two characters": (THAI, "กขคงจชดตทนบปพมรลวส", "น้ำ", _replace(("\u0e33", "\u0e4d\u0e32"))),
}
"""Spellings of a word that only one page has: sentences of a page and a query, letters and start of the words."""


def part_numbers(count: int, rng: random.Random) -> list[str]:
    """Return part numbers that differ in their digits and the last letter."""
    codes: dict[str, None] = {}
    while len(codes) < count:
        codes[f"KX-{rng.randint(4000, 4999)}-{rng.choice('ABCDEFGH')}"] = None
    return list(codes)


def words(letters: Sequence[str], start: str, count: int, rng: random.Random) -> list[str]:
    """Return words of random letters with the same start."""
    names: dict[str, None] = {}
    while len(names) < count:
        names[start + "".join(rng.choices(letters, k=5))] = None
    return list(names)


def hit_count(pages: Sequence[str], queries: Sequence[str], embedder: str) -> int:
    """Return for how many queries the page with the same number ranks first."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        DocumentIndex.open(Path(scratch) / "kb", embedder=embedder) as index,
    ):
        index.add(list(pages), ids=[str(number) for number in range(len(pages))])
        results = index.search_many(list(queries), k=1, details=False)
        return sum(hits[0].doc_id == str(number) for number, hits in enumerate(results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=120)
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--only", default="", help="part of the names of the spellings to measure")
    parser.add_argument("--embedder", default="lite")
    options = parser.parse_args()
    rng = random.Random(7)
    codes = part_numbers(options.pages, rng)
    page, query = PART
    spellings: dict[str, Spelling] = {"plain": str, **CODES}
    sets = {name: (codes, page, query, spelling) for name, spelling in spellings.items()}
    for name, ((page, query), letters, start, spelling) in WORDS.items():
        names = words(letters, start, options.pages, rng)
        sets[f"plain for: {name}"] = (names, page, query, str)
        sets[name] = (names, page, query, spelling)
    for name, (items, page, query, spelling) in sets.items():
        if options.only not in name:
            continue
        plain = [page.format(item) for item in items], [query.format(item) for item in items[: options.queries]]
        spelled = (
            [page.format(spelling(item)) for item in items],
            [query.format(spelling(item)) for item in items[: options.queries]],
        )
        in_pages = hit_count(spelled[0], plain[1], options.embedder)
        in_queries = in_pages if spelling is str else hit_count(plain[0], spelled[1], options.embedder)
        print(f"{name:40} in pages {in_pages}, in queries {in_queries} of {options.queries}", flush=True)


if __name__ == "__main__":
    main()
