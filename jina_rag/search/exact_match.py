"""Exact matching of identifiers in a query, for example part numbers, error codes and section numbers (§).

Embeddings recognize ``KX-4471-B`` as a part number, but hardly distinguish one part number from another part number.
The search therefore looks up each identifier in the lexical index. Pages that contain the identifier receive a bonus,
which grows with the rarity of the identifier.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from jina_rag import sparse
from jina_rag.stores import schema
from jina_rag.types import StoreHit, StoreQuery, Where

MAX_IDENTIFIERS = 8
"""Maximum number of identifiers per query that are looked up in the lexical index."""
MAX_PAGES_PER_IDENTIFIER = 20
"""Maximum number of pages that contain an identifier. An identifier on more pages is ignored, for example a year or the
name of a series."""

_DIGIT = re.compile(r"\d")
_LETTER = re.compile(r"[^\W\d_]")
_ORDINAL = re.compile(r"\d+(?:st|nd|rd|th|er|re|ème|e|º|ª|%)")
_YEAR = re.compile(r"(?:1[89]|20)\d\d")
_LONG_NUMBER = 4


def identifiers(text: str) -> list[str]:
    """Return the distinct identifiers of a query, in the order and the spelling of the lexical index.

    An identifier is one of these terms: letters and digits, except ordinals; digits with separators; a term with an
    underscore; a number of at least four digits, except years; a section number (§). At most 8 identifiers are
    returned.

    >>> identifiers("Which torque does KX-4471-B need since 2019, see § 12a and ERR_IO?")
    ['kx-4471-b', '§12a', 'err_io']

    Args:
        text: Text of the query.
    """
    return [term for term in dict.fromkeys(sparse.whole_terms(text)) if _is_identifier(term)][:MAX_IDENTIFIERS]


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


def identifier_queries(text: str, where: Where) -> list[StoreQuery]:
    """Return one store query for each identifier of a search query.

    Args:
        text: Text of the search query.
        where: Filter of the search as conditions on payload keys.
    """
    pages = {**where, schema.KIND: "page"}
    limit = MAX_PAGES_PER_IDENTIFIER + 1
    return [StoreQuery(sparse.exact_vector(term), limit, pages) for term in identifiers(text)]


def identifier_shares(hits_by_identifier: Sequence[Sequence[StoreHit]]) -> dict[str, float]:
    """Return the fraction of the query's identifiers that each page contains; pages without identifiers are omitted.

    Args:
        hits_by_identifier: The hits of each query of `identifier_queries`.

    Returns:
        Page id → fraction from 0 to 1, in which rare identifiers have a greater weight than frequent identifiers.
    """
    shares: dict[str, float] = {}
    for hits in hits_by_identifier:
        if len(hits) > MAX_PAGES_PER_IDENTIFIER:
            continue
        weight = 1 - math.log(max(len(hits), 1)) / math.log(MAX_PAGES_PER_IDENTIFIER + 1)
        for hit in hits:
            shares[hit.id] = shares.get(hit.id, 0.0) + weight / len(hits_by_identifier)
    return shares
