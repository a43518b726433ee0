"""Words as an exact-match index sees them: candidates that dense vectors lose (codes, names, numbers).

Scripts written without spaces (Han, kana, Thai, Lao, Khmer, Myanmar; Hangul, too, whose particles are glued on)
become overlapping pairs of characters, since there are no word borders to go by; everything else becomes lower-cased
words, and a code such as ``AB-12/7`` is kept whole beside its parts. Weights follow BM25 (Robertson and Zaragoza,
2009), with the inverse document frequency left to the store, which knows the collection.
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
"""Terms on a typical page. A constant, so that a page's weights do not depend on when it was indexed."""

_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Myanmar, Khmer
    "\u3040-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\uac00-\ud7af"  # Hangul: spaced, but its particles are glued on
)
_PART = re.compile(r"[^\W_]+")
_PARAGRAPH = re.compile(r"§+\s*(\d+[a-z]?)\b")


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """(a run of characters, a character of a script without spaces). Compiled when needed: it takes 50 ms."""
    run = rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+(?:[-_./:+#'’][^\W_{_UNSPACED}]+)*"
    return re.compile(run), re.compile(rf"[{_UNSPACED}]")


def terms(text: str) -> Iterator[str]:
    """Split text into index terms.

    >>> list(terms("Part AB-12, § 7a: 東京都"))
    ['part', 'ab-12', 'ab12', 'ab', '12', '7a', '東京', '京都', '§7a']
    """
    folded = _folded(text)
    runs, unspaced = _patterns()
    for match in runs.finditer(folded):
        run = match.group()
        if unspaced.match(run):
            yield from ([run] if len(run) == 1 else (run[i : i + 2] for i in range(len(run) - 1)))
            continue
        yield run
        parts = _PART.findall(run)
        if len(parts) > 1:
            yield from _spellings(run)[1:]
            yield from parts
    yield from _paragraphs(folded)


def wholes(text: str) -> Iterator[str]:
    """The terms that are whole words, codes or paragraphs: neither parts of others nor pairs of characters.

    >>> list(wholes("Part AB-12, § 7a: 東京都"))
    ['part', 'ab-12', '7a', '§7a']
    """
    folded = _folded(text)
    runs, unspaced = _patterns()
    yield from (match.group() for match in runs.finditer(folded) if not unspaced.match(match.group()))
    yield from _paragraphs(folded)


def exact_vector(term: str) -> SparseVector:
    """What finds the pages with a code: as it is written, or without what stands between its parts."""
    return _sparse({_index(spelling): 1.0 for spelling in _spellings(term)})


def _spellings(term: str) -> list[str]:
    """A term, and a code of letters and digits without its separators: whoever asks for AB12 means AB-12 as well."""
    plain = "".join(_PART.findall(term))
    mixed = any(map(str.isdigit, plain)) and any(map(str.isalpha, plain))
    return [term, plain] if mixed and plain != term and not term.startswith("§") else [term]


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _paragraphs(folded: str) -> Iterator[str]:
    return (f"§{match.group(1)}" for match in _PARAGRAPH.finditer(folded))


def document_vector(text: str) -> SparseVector:
    """Term weights of a page: the saturated and length-normalised term frequency of BM25."""
    counts = Counter(_index(term) for term in terms(text))
    length = sum(counts.values())
    norm = K1 * (1 - B + B * length / AVERAGE_LENGTH)
    return _sparse({index: tf * (K1 + 1) / (tf + norm) for index, tf in counts.items()})


def query_vector(text: str) -> SparseVector:
    """Term weights of a question: 1 for each different term; the store multiplies by the IDF."""
    return _sparse({_index(term): 1.0 for term in terms(text)})


def _index(term: str) -> int:
    """A 32-bit number for a term; two terms in 4,000,000 share one by chance, which costs a candidate at most."""
    return zlib.crc32(term.encode("utf-8", "surrogatepass"))


def _sparse(weights: dict[int, float]) -> SparseVector:
    order = sorted(weights)
    return SparseVector(
        indices=np.array(order, dtype=np.uint32),
        values=np.array([weights[i] for i in order], dtype=np.float32),
    )
