"""Sparse vectors for lexical search. Lexical search finds codes, names and numbers that dense search misses.

Text in scripts without spaces between words (Han, kana, Thai, Lao, Khmer, Myanmar) is split into character bigrams.
Hangul is also split into bigrams, because Korean attaches particles to words. All other text is split into case-folded
words. A code, for example ``AB-12/7``, yields a term for the whole code and a term for each part. Term weights follow
BM25; the store multiplies the weight of a term by the inverse document frequency of the term in the collection.

Source: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009).
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import cache

import numpy as np

from jina_rag.types import SparseVector

K1 = 1.2
B = 0.75
AVERAGE_LENGTH = 300.0
"""Number of terms on a typical page, for the length normalization of BM25.

The number is constant, so that the weights of a page do not depend on the other pages of the index.
"""

_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Myanmar, Khmer
    "\u3040-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\uac00-\ud7af"  # Hangul: has spaces, but attaches particles to words
)
_PART = re.compile(r"[^\W_]+")
_PARAGRAPH = re.compile(r"§+\s*(\d+[a-z]?)\b")


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return the regular expressions of a word or code and of an unspaced character, cached: compiling takes 50 ms."""
    run = rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+(?:[-_./:+#'’][^\W_{_UNSPACED}]+)*"
    return re.compile(run), re.compile(rf"[{_UNSPACED}]")


def terms(text: str) -> Iterator[str]:
    """Yield the index terms of a text.

    Args:
        text: Text of a page or query.

    >>> list(terms("Part AB-12, § 7a: 東京都"))
    ['part', 'ab-12', 'ab12', 'ab', '12', '7a', '東京', '京都', '§7a']
    """
    folded = _folded(text)
    runs, unspaced = _patterns()
    for match in runs.finditer(folded):
        run = match.group()
        if not run.isascii() and unspaced.match(run):
            yield from ([run] if len(run) == 1 else (run[i : i + 2] for i in range(len(run) - 1)))
            continue
        yield run
        if run.isalnum():  # most words have no separator; checked first, because a regular expression takes longer
            continue
        parts = _PART.findall(run)
        if len(parts) > 1:
            yield from _spellings(run)[1:]
            yield from parts
    yield from _paragraphs(folded)


def whole_terms(text: str) -> Iterator[str]:
    """Yield the terms that are whole words, codes or section numbers (§ 7a); omit parts of codes and character bigrams.

    Args:
        text: Text of a page or query.

    >>> list(whole_terms("Part AB-12, § 7a: 東京都"))
    ['part', 'ab-12', '7a', '§7a']
    """
    folded = _folded(text)
    runs, unspaced = _patterns()
    yield from (match.group() for match in runs.finditer(folded) if not unspaced.match(match.group()))
    yield from _paragraphs(folded)


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
    without_separators = "".join(_PART.findall(term))
    mixed = any(map(str.isdigit, without_separators)) and any(map(str.isalpha, without_separators))
    return [term, without_separators] if mixed and without_separators != term and not term.startswith("§") else [term]


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


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
