"""Detection of duplicate queries, and of queries whose words are copied from a relevant page.

Keyword search finds the source page of a copied query, so every setting scores high on copied queries and the measures
do not show the differences between settings.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jina_rag.models.lite.stopwords import PARTICLES, STOP_WORDS
from jina_rag.sparse import terms

# 119 queries that a person wrote without copying share at most 77 % of their content words with the page, and at most
# 4 words in sequence. Both limits are higher.
MIN_COPIED_SHARE, MIN_WORDS, MIN_COPIED_RUN = 0.85, 5, 6
"""Minimum values for `Leak.is_copied`: share of content words, number of content words, and words in the run."""
MIN_JACCARD = 0.8
"""Smallest Jaccard similarity of the words of two near-duplicate queries, from 0 to 1."""
_WORD = re.compile(r"[^\W_]+")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_PER_WORD = 2
"""Number of characters that count as one word in scripts without spaces."""


@dataclass(frozen=True, slots=True)
class Leak:
    """Words that a query shares with a page.

    Attributes:
        share: Fraction (0 to 1) of the query's content words that occur on the page.
        words: Number of distinct content words in the query.
        run: The longest sequence of words that the query and the page have in common, case-folded.
        run_words: Length of `run` in words; two characters count as one word in scripts without spaces.
    """

    share: float
    words: int
    run: str
    run_words: float

    @property
    def is_copied(self) -> bool:
        """True if the page contains 6 consecutive words or 85 % of the (at least 5) content words of the query."""
        return self.run_words >= MIN_COPIED_RUN or (self.words >= MIN_WORDS and self.share >= MIN_COPIED_SHARE)


def find_leak(query: str, page: str) -> Leak:
    """Compare a query with the text of a relevant page.

    Args:
        query: Text of the query.
        page: Text of the page.

    Returns:
        The share of the content words that occur on the page, and the longest common sequence of words.
    """
    content = content_words(query)
    share = len(content & set(terms(page))) / len(content) if content else 0.0
    run = _longest_run(_fold_words(query), _fold_words(page))
    return Leak(share, len(content), _join(run), sum(1 / _PER_WORD if _UNSPACED.match(u) else 1 for u in run))


def content_words(text: str) -> frozenset[str]:
    """Return the distinct words of a text except stop words.

    In scripts without spaces, each pair of adjacent characters is a word.

    Args:
        text: Any text.
    """
    return frozenset(term for term in terms(text) if term not in STOP_WORDS and term not in PARTICLES)


def normalized_query(text: str) -> str:
    """Return a normalized text that is equal for queries that differ only in case, punctuation or white space.

    Args:
        text: Text of the query.
    """
    return " ".join(_fold_words(text)) or text.strip()


def near_duplicate_queries(queries: Mapping[str, str]) -> Iterator[tuple[str, str, float]]:
    """Yield (first query id, second query id, similarity) for each pair of near-duplicate queries.

    The similarity is the Jaccard similarity of the words of the two queries, from 0 to 1. Queries that contain
    different numbers are not near-duplicates. Queries of fewer than 5 distinct words are skipped.

    Args:
        queries: query_id → text.
    """
    words = {query_id: frozenset(terms(text)) for query_id, text in queries.items()}
    queries_by_word: dict[str, list[str]] = defaultdict(list)
    order = {query_id: position for position, query_id in enumerate(queries)}
    query_counts: dict[str, int] = defaultdict(int)
    for vocabulary in words.values():
        for word in vocabulary:
            query_counts[word] += 1
    for query_id, vocabulary in words.items():
        if len(vocabulary) < MIN_WORDS:
            continue
        # Prefix filter (Chaudhuri et al., 2006): two sets that share 4/5 of their words also share at least one word
        # of the rarest fifth of each set, so only queries with a common rare word are compared.
        prefix = len(vocabulary) - int(MIN_JACCARD * len(vocabulary)) + 1
        rare = sorted(vocabulary, key=lambda word: (query_counts[word], word))[:prefix]
        candidates = {candidate for word in rare for candidate in queries_by_word[word]}
        for candidate in sorted(candidates, key=order.__getitem__):
            share = len(vocabulary & words[candidate]) / len(vocabulary | words[candidate])
            if share >= MIN_JACCARD and _numbers(vocabulary) == _numbers(words[candidate]):
                yield candidate, query_id, share
        for word in rare:
            queries_by_word[word].append(query_id)


def _numbers(words: frozenset[str]) -> frozenset[str]:
    return frozenset(word for word in words if any(map(str.isdigit, word)))


def _fold_words(text: str) -> list[str]:
    """Return the case-folded words in order; in scripts without spaces, each character is one word."""
    words: list[str] = []
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()):
        words += word if _UNSPACED.search(word) else [word]
    return words


def _join(words: list[str]) -> str:
    return ("" if words and _UNSPACED.match(words[0]) else " ").join(words)


def _longest_run(query_words: list[str], page_words: list[str]) -> list[str]:
    text = f" {' '.join(page_words)} "
    longest: list[str] = []
    start, end = 0, 1
    while end <= len(query_words):
        if f" {' '.join(query_words[start:end])} " in text:
            if end - start > len(longest):
                longest = query_words[start:end]
            end += 1
        else:
            start += 1
            end = max(end, start + 1)
    return longest
