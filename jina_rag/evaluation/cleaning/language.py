"""Language filter for query-passage pairs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from jina_rag._extras import require
from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.cleaning.pairs import Dropped, OnDrop, Pair

_MAX_READ = 500
"""Number of characters that identify a language. The rest of a text would take time and rarely change the result."""
_WORDLESS = frozenset({"zxx"})
"""Codes that py3langid returns for a text without words, for example a text of numbers."""


@dataclass(frozen=True, slots=True)
class Languages:
    """A step that drops pairs whose query or passage is in a language outside `codes`.

    The step identifies the languages of query and passage separately. A text is foreign if its most probable language
    is outside `codes` and at least `odds` times as probable as the most probable language in `codes`. A pair with an
    ambiguous text therefore stays. A text with fewer than `least` bytes of letters is identified together with the
    other text of the pair, because a few words often exist in several languages.

    The cited paper uses fastText's model. This step uses py3langid (extra ``eval``), a naive Bayes classifier over byte
    n-grams (Lui and Baldwin, 2012). py3langid has a BSD license, contains the weights, supports 140 languages, and
    depends on NumPy only.

    Attributes:
        codes: Language codes of py3langid, for example ``"en"``.
        odds: Minimum ratio between the probability of a foreign language and the highest probability of a language in
            `codes`.
        least: Minimum number of UTF-8 bytes of letters for a text to be identified alone.

    Raises:
        InvalidInputError: If `codes` is empty or a string, or `odds` is below 1.

    Source: Günther et al., arXiv 2307.11224, language filtering.
    """

    name: ClassVar[str] = "languages"
    codes: tuple[str, ...] = ("en",)
    odds: float = 20.0
    least: int = 20

    def __post_init__(self) -> None:
        if isinstance(self.codes, str) or not self.codes:
            raise InvalidInputError(f'codes is {self.codes!r}; expected a non-empty list, for example ["en", "de"].')
        if not self.odds >= 1:
            raise InvalidInputError(f"odds is {self.odds}; expected a number of at least 1.")

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings of the step: language codes, `odds`, `least`, and the version of py3langid."""
        version = require("py3langid", extra="eval").__version__
        return {
            "wanted": list(self.codes),
            "odds": self.odds,
            "least": self.least,
            "identifier": f"py3langid {version}",
        }

    def run(self, pairs: Iterable[Pair], drop: OnDrop, scratch: Path) -> Iterator[Pair]:
        """Yield the pairs without a foreign text, in input order.

        Args:
            pairs: Input pairs, which the step reads once.
            drop: Called with each pair that the step drops.
            scratch: Unused.

        Raises:
            MissingDependencyError: If py3langid is not installed.
            InvalidInputError: If py3langid does not support a language of `codes`.
        """
        rank = _identifier()
        supported_codes = {code for code, _ in rank(b"language")}
        if unknown := [code for code in self.codes if code not in supported_codes]:
            raise InvalidInputError(
                f"Unsupported language {unknown[0]!r} (--language); expected an ISO 639-1 code that py3langid "
                'supports, for example "en" or "zh".'
            )
        for pair in pairs:
            foreign = self._foreign(pair, rank)
            if foreign is None:
                yield pair
            else:
                side, language = foreign
                detail = {"side": side, "language": language}
                drop(Dropped(pair.number, self.name, "language", None, detail, pair.record))

    def _foreign(self, pair: Pair, rank: Callable[[bytes], list[tuple[str, float]]]) -> tuple[str, str] | None:
        for side, text, other in (("passage", pair.passage, pair.query), ("query", pair.query, pair.passage)):
            if not _has_letters(text[:_MAX_READ], self.least):
                text = f"{text} {other}"
            by_probability = [
                item for item in rank(text[:_MAX_READ].encode("utf-8", "replace")) if item[0] not in _WORDLESS
            ]
            language, value = by_probability[0]
            best = next(value for code, value in by_probability if code in self.codes)
            if language not in self.codes and value >= self.odds * best:
                return side, language
        return None


def _has_letters(text: str, least: int) -> bool:
    """Return whether the letters of `text` take at least `least` UTF-8 bytes (Latin: 1 per letter, Chinese: 3)."""
    count = 0
    for letter in filter(str.isalpha, text):
        count += len(letter.encode("utf-8", "replace"))
        if count >= least:
            return True
    return False


@functools.cache
def _identifier() -> Callable[[bytes], list[tuple[str, float]]]:
    module = require("py3langid.langid", extra="eval", package="py3langid")
    identifier = module.LanguageIdentifier.from_model_file(module.MODEL_FILE, norm_probs=True)
    rank: Callable[[bytes], list[tuple[str, float]]] = identifier.rank
    return rank
