"""Sparse vectors for lexical search. Lexical search finds codes, names and numbers that dense search misses.

The text is first brought to one spelling (`jina_rag.normalization.term_text`). Text in scripts without spaces between
words (Han, kana, Thai, Lao, Khmer, Myanmar) is split into bigrams of letters; the marks of a letter stay with the
letter. Hangul is also split into bigrams, because Korean attaches particles to words. All other text is split into
words, marks included. A code, for example ``AB-12/7``, yields a term for the whole code and a term for each part. Term
weights follow BM25; the store multiplies the weight of a term by the inverse document frequency of the term in the
collection.

Source: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009).
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import product

import numpy as np

from jina_rag.normalization import SOFT, SOFT_SPACE, UNSPACED, WIDE_DASH, marks, term_text
from jina_rag.types import SparseVector

K1 = 1.2
B = 0.75
AVERAGE_LENGTH = 300.0
"""Number of terms on a typical page, for the length normalization of BM25.

The number is constant, so that the weights of a page do not depend on the other pages of the index.
"""

_PARAGRAPH = re.compile(r"§+\s*(\d+[a-z]?)\b")
_JOINERS = rf"[-{WIDE_DASH}_./:+#'^{SOFT}{SOFT_SPACE}]"
_SEPARATOR = re.compile(rf'{_JOINERS}|"')
_PLAIN_RUN = re.compile(rf"[^\W_]+(?:{_JOINERS}[^\W_]+)*")
"""A word or code of a `TermText` that is plain. The expression of other texts takes 40 ms to compile."""
_SOFT_BREAK = re.compile(f"[{SOFT}{SOFT_SPACE}]")
_REVERSED_START = re.compile("(?<![^\\W\\d_])[وفبكل]?اال(?=[^\\W\\d_])(?!له\\b)")
"""Start of a word in a text with reversed lam-alef: no Arabic word starts with two alefs and a lam."""
_MAX_REVERSED = 3
"""Maximum number of alef and lam pairs of a word of which each is tried in both orders."""


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return the expressions of a word or code, letters with their marks, and of an unspaced character."""
    letter = rf"[^\W_{UNSPACED}]"
    word = rf"{letter}+(?:[{marks()}]+{letter}*)*"
    joiner = rf"{_JOINERS}|(?<=[\u05d0-\u05ea])\"(?=[\u05d0-\u05ea])"
    return re.compile(rf"[{UNSPACED}]+|{word}(?:(?:{joiner}){word})*"), re.compile(rf"[{UNSPACED}]")


@cache
def _cluster() -> re.Pattern[str]:
    """Return the expression of a letter with its marks; a letter after a Khmer or Myanmar stacker is part of it."""
    unmarked = rf"[{UNSPACED}](?:[{marks()}]+(?:(?<=[\u1039\u17d2])[{UNSPACED}])?)*"
    return re.compile(rf"[{marks()}]+|{unmarked}")


def terms(text: str) -> Iterator[str]:
    """Yield the index terms of a text.

    Args:
        text: Text of a page or query.

    >>> list(terms("Part AB‑12, § 7a: 東京都"))
    ['part', 'ab-12', 'ab12', 'ab', '12', '7a', '東京', '京都', '§7a']
    """
    folded, is_plain, is_arabic = term_text(text)
    runs = _PLAIN_RUN if is_plain else _patterns()[0]
    unspaced = None if is_plain else _patterns()[1]
    is_reversed = is_arabic and _REVERSED_START.search(folded) is not None
    for run in runs.findall(folded):
        if unspaced is not None and not run.isascii() and unspaced.match(run):
            yield from _bigrams(run)
            continue
        if run.isalnum():  # most words have no separator; checked first, because a regular expression takes longer
            yield run
        else:
            yield from _run_terms(run)
        if is_reversed and "ال" in run:
            yield from _reversed_spellings(run)
    if "§" in folded:
        yield from _paragraphs(folded)


def whole_terms(text: str) -> Iterator[str]:
    """Yield the terms that are whole words, codes or section numbers (§ 7a); omit parts of codes and character bigrams.

    Args:
        text: Text of a page or query.

    >>> list(whole_terms("Part AB-12, § 7a: 東京都"))
    ['part', 'ab-12', '7a', '§7a']
    """
    folded, is_plain, _ = term_text(text)
    runs = _PLAIN_RUN if is_plain else _patterns()[0]
    unspaced = None if is_plain else _patterns()[1]
    for run in runs.findall(folded):
        if unspaced is not None and unspaced.match(run):
            continue
        run = _SOFT_BREAK.sub("", run)
        yield run.replace(WIDE_DASH, "-")
        yield from _codes_of_range(run)
    yield from _paragraphs(folded)


def _run_terms(run: str) -> Iterator[str]:
    """Yield the terms of a word or code: the whole, the whole without separators, and the parts."""
    if run.isalnum():
        yield run
        return
    if _SOFT_BREAK.search(run):
        for word in (_SOFT_BREAK.sub("", run), *_SOFT_BREAK.split(run)):
            yield from _run_terms(word)
        return
    whole = run.replace(WIDE_DASH, "-")
    yield whole
    parts = _SEPARATOR.split(whole)
    if len(parts) > 1:
        yield from _spellings(whole)[1:]
        for code in _codes_of_range(run):
            yield from _spellings(code)
        yield from parts


def _codes_of_range(run: str) -> list[str]:
    """Return the codes that a dash separates, for example in KX-4471–KX-4480; [] if no part of a dash is a code."""
    return [code for code in run.split(WIDE_DASH) if not code.isalnum()] if WIDE_DASH in run else []


def _bigrams(run: str) -> Iterator[str]:
    """Yield the bigrams of letters of an unspaced script; for a single letter, the letter."""
    letters = run if run.isalpha() else _cluster().findall(run)
    yield from ([run] if len(letters) == 1 else ("".join(letters[i : i + 2]) for i in range(len(letters) - 1)))


def _reversed_spellings(word: str) -> Iterator[str]:
    """Yield the spellings of a word with pairs of alef and lam in reverse order.

    PDF text layers in visual order have the letters of a lam-alef ligature in the wrong order. Alef and lam are also
    separate letters in many words, so each pair of the word is tried in both orders. Of more than `_MAX_REVERSED`
    pairs, all are reversed, with and without the article.
    """
    pieces = word.split("ال")
    if len(pieces) - 1 > _MAX_REVERSED:
        yield word.replace("ال", "لا")
        if word.startswith("ال"):
            yield "ال" + word[2:].replace("ال", "لا")
        return
    for pairs in list(product(("ال", "لا"), repeat=len(pieces) - 1))[1:]:
        yield pieces[0] + "".join(pair + piece for pair, piece in zip(pairs, pieces[1:], strict=True))


def exact_vector(term: str) -> SparseVector:
    """Return the sparse query vector of an identifier, with weight 1 for each spelling of the identifier.

    The spellings are the identifier as written and, if the identifier has letters and digits, the identifier without
    separators.

    Args:
        term: A term from `whole_terms`.
    """
    return _sparse({_index(spelling): 1.0 for spelling in _spellings(term)})


def _spellings(term: str) -> list[str]:
    """Return the term and, for a code of letters and digits, the term without separators (AB-12 and AB12)."""
    without_separators = _SEPARATOR.sub("", term)
    mixed = any(map(str.isdigit, without_separators)) and any(map(str.isalpha, without_separators))
    return [term, without_separators] if mixed and without_separators != term and not term.startswith("§") else [term]


def _paragraphs(folded: str) -> Iterator[str]:
    return (f"§{match.group(1)}" for match in _PARAGRAPH.finditer(folded))


def document_vector(text: str) -> SparseVector:
    """Return the term weights of a page: the saturated and length-normalized term frequency of BM25.

    Args:
        text: Text of the page.
    """
    counts: Counter[int] = Counter()
    for term, count in Counter(terms(text)).items():
        counts[_index(term)] += count
    length = counts.total()
    norm = K1 * (1 - B + B * length / AVERAGE_LENGTH)
    return _sparse({index: tf * (K1 + 1) / (tf + norm) for index, tf in counts.items()})


def query_vector(text: str) -> SparseVector:
    """Return the term weights of a query: 1 for each distinct term. The store multiplies the weights by the IDF.

    Args:
        text: Text of the query.
    """
    return _sparse({_index(term): 1.0 for term in terms(text)})


def _index(term: str) -> int:
    """Return the 32-bit hash of a term. Rare collisions of two terms only add candidates to a search."""
    return zlib.crc32(term.encode("utf-8", "surrogatepass"))


def _sparse(weights: dict[int, float]) -> SparseVector:
    order = sorted(weights)
    return SparseVector(
        indices=np.array(order, dtype=np.uint32),
        values=np.array([weights[i] for i in order], dtype=np.float32),
    )
