"""Identifiers in a question: part numbers, error codes, paragraphs, which mean exactly what they say.

Vectors know that ``KX-4471-B`` is a part number, and little of which one. So a question's identifiers are looked up in
the lexical index, each by itself, and a page that has one gains a little: the more, the fewer pages have it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from jina_rag import sparse
from jina_rag.protocols import MultiVectorStore
from jina_rag.stores import schema

MOST = 8
"""Identifiers of a question that are looked up."""
COMMON = 20
"""An identifier that more pages have tells nothing: a year, the name of a series."""

_DIGIT = re.compile(r"\d")
_LETTER = re.compile(r"[^\W\d_]")
_ORDINAL = re.compile(r"\d+(?:st|nd|rd|th|er|re|ème|e|º|ª|%)")
_YEAR = re.compile(r"(?:1[89]|20)\d\d")
_LONG_NUMBER = 4


def identifiers(text: str) -> list[str]:
    """The terms of a question that name one thing, as the lexical index has them, in order and without repetition.

    These are terms of letters and digits, of digits with something between them, with underscores, numbers of four
    digits and more that are no year, and paragraphs.

    >>> identifiers("Which torque does KX-4471-B need since 2019, see § 12a and ERR_IO?")
    ['kx-4471-b', '§12a', 'err_io']
    """
    return [term for term in dict.fromkeys(sparse.wholes(text)) if _is_identifier(term)][:MOST]


def _is_identifier(term: str) -> bool:
    if term.startswith("§"):
        return True
    if not _DIGIT.search(term):
        return "_" in term
    if _ORDINAL.fullmatch(term):
        return False
    if _LETTER.search(term) or not term.isdigit():
        return True
    return len(term) >= _LONG_NUMBER and not _YEAR.fullmatch(term)


def identifier_shares(text: str, store: MultiVectorStore, where: Mapping[str, Any]) -> dict[str, float]:
    """The pages that have an identifier of the query, with how much that tells, 0 to 1.

    Args:
        text: The query.
        store: Where pages are looked up; one quick call for each identifier.
        where: The search's filter.

    Returns:
        Page id → share of the query's identifiers that it has, each weighted by how rare it is.
    """
    terms = identifiers(text)
    shares: dict[str, float] = {}
    for term in terms:
        pages = {**where, schema.KIND: "page"}
        hits = store.nearest(sparse.exact_vector(term), limit=COMMON + 1, where=pages, keys=())
        if len(hits) > COMMON:
            continue
        weight = 1 - math.log(max(len(hits), 1)) / math.log(COMMON + 1)
        for hit in hits:
            shares[hit.id] = shares.get(hit.id, 0.0) + weight / len(terms)
    return shares
