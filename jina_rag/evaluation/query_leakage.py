"""Questions that give their page away, because they were copied from it; and questions that are asked twice.

A set of such questions measures the search for known words, and says that every setting is good.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from jina_rag.models.lite.stopwords import PARTICLES, STOP_WORDS
from jina_rag.sparse import terms

SHARE, LEAST_WORDS, RUN = 0.85, 5, 6
"""A question is flagged if this share of so many content words stands in its page, or a run of so many words.

Of 119 questions that a person wrote in words of his own, none had more than 0.77, or a run of more than 4 words."""
ALIKE = 0.8
"""Two questions are nearly the same from this share of common words on."""
_WORD = re.compile(r"[^\W_]+")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_PER_WORD = 2
"""Characters that make a word in scripts without spaces."""


@dataclass(frozen=True, slots=True)
class Leak:
    """What a question has in common with a page.

    Attributes:
        share: Of the question's content words, those that stand in the page.
        words: The question's content words.
        run: The longest run of words that both have, as the question has it.
        run_words: Its length in words; two characters are one in scripts without spaces.
    """

    share: float
    words: int
    run: str
    run_words: float

    @property
    def is_copied(self) -> bool:
        """Whether it is too much to be chance."""
        return self.run_words >= RUN or (self.words >= LEAST_WORDS and self.share >= SHARE)


def leak(query: str, page: str) -> Leak:
    """Hold a question against the text of a page that answers it."""
    content = content_words(query)
    share = len(content & set(terms(page))) / len(content) if content else 0.0
    run = _longest_run(_units(query), _units(page))
    return Leak(share, len(content), _joined(run), sum(1 / _PER_WORD if _UNSPACED.match(u) else 1 for u in run))


def content_words(text: str) -> frozenset[str]:
    """The different words of a text that carry content; pairs of characters in scripts without spaces."""
    return frozenset(term for term in terms(text) if term not in STOP_WORDS and term not in PARTICLES)


def same_query(text: str) -> str:
    """What two questions have in common that differ in case, punctuation or white space only."""
    return " ".join(_units(text)) or text.strip()


def near_pairs(queries: Mapping[str, str]) -> Iterator[tuple[str, str, float]]:
    """Pairs of questions that nearly repeat each other, with the share of common words (Jaccard).

    Those that differ in a number ask for different things, and so do those of few words.

    Args:
        queries: Id → question.
    """
    words = {query_id: frozenset(terms(text)) for query_id, text in queries.items()}
    holders: dict[str, list[str]] = defaultdict(list)
    order = {query_id: place for place, query_id in enumerate(queries)}
    rarity: dict[str, int] = defaultdict(int)
    for vocabulary in words.values():
        for word in vocabulary:
            rarity[word] += 1
    for query_id, vocabulary in words.items():
        if len(vocabulary) < LEAST_WORDS:
            continue
        # Sets that share 4 of 5 words share one of the rarest fifth of either (prefix filter, Chaudhuri et al., 2006).
        prefix = len(vocabulary) - int(ALIKE * len(vocabulary)) + 1
        rare = sorted(vocabulary, key=lambda word: (rarity[word], word))[:prefix]
        others = {other for word in rare for other in holders[word]}
        for other in sorted(others, key=order.__getitem__):
            share = len(vocabulary & words[other]) / len(vocabulary | words[other])
            if share >= ALIKE and _numbers(vocabulary) == _numbers(words[other]):
                yield other, query_id, share
        for word in rare:
            holders[word].append(query_id)


def _numbers(words: frozenset[str]) -> frozenset[str]:
    return frozenset(word for word in words if any(map(str.isdigit, word)))


def _units(text: str) -> list[str]:
    """Words in order, folded; in scripts without spaces every character is one."""
    units: list[str] = []
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()):
        units += word if _UNSPACED.search(word) else [word]
    return units


def _joined(units: list[str]) -> str:
    return ("" if units and _UNSPACED.match(units[0]) else " ").join(units)


def _longest_run(short: list[str], long: list[str]) -> list[str]:
    text = f" {' '.join(long)} "
    best: list[str] = []
    start, end = 0, 1
    while end <= len(short):
        if f" {' '.join(short[start:end])} " in text:
            if end - start > len(best):
                best = short[start:end]
            end += 1
        else:
            start += 1
            end = max(end, start + 1)
    return best
