"""Pairs in languages that are not wanted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from jina_rag._extras import require
from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.cleaning.pairs import Dropped, OnDrop, Pair

_READ = 500
"""Characters of a text that are looked at: more change no verdict and cost time."""
_SILENT = frozenset({"zxx"})
"""What the identifier calls a text without words, such as numbers."""


@dataclass(frozen=True, slots=True)
class Languages:
    """Drop pairs with a side in another language than those wanted.

    Each side is identified on its own, and is foreign if some language is `odds` times as probable as the most
    probable of those wanted: a text that could be either stays. A side of less than `least` bytes of letters is
    read together with the other one, since a few words are often words of several languages.

    The paper uses fastText's model; here it is py3langid (extra ``eval``; a naive Bayes classifier over byte
    n-grams, Lui and Baldwin, 2012; BSD licence, weights inside the package, 140 languages), which needs NumPy alone.

    Attributes:
        codes: Those wanted, such as ``"en"``, as py3langid names them.
        odds: How much more probable another language must be.
        least: UTF-8 bytes of letters from which on a side is judged alone.

    Source: Günther et al., arXiv 2307.11224, language filtering.
    """

    name: ClassVar[str] = "languages"
    codes: tuple[str, ...] = ("en",)
    odds: float = 20.0
    least: int = 20

    def __post_init__(self) -> None:
        if isinstance(self.codes, str) or not self.codes:
            raise InvalidInputError('Name the languages that are wanted as a list, such as ["en", "de"].')
        if not self.odds >= 1:
            raise InvalidInputError(f"The odds of another language are at least 1, not {self.odds}.")

    @property
    def settings(self) -> Mapping[str, Any]:
        """Languages, odds, what is a short side, and the identifier."""
        version = require("py3langid", extra="eval").__version__
        return {
            "wanted": list(self.codes),
            "odds": self.odds,
            "least": self.least,
            "identifier": f"py3langid {version}",
        }

    def run(self, pairs: Iterable[Pair], drop: OnDrop, scratch: Path) -> Iterator[Pair]:
        """Give the pairs whose sides are in a language that is wanted, or could be.

        Raises:
            MissingDependencyError: If py3langid is not installed.
            InvalidInputError: If it does not know a language.
        """
        rank = _identifier()
        supported_codes = {code for code, _ in rank(b"language")}
        if unknown := [code for code in self.codes if code not in supported_codes]:
            raise InvalidInputError(
                f"The language {unknown[0]!r} is not one that py3langid knows: name it by its code of ISO 639-1, "
                'such as "en" or "zh".'
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
            if not _has_letters(text[:_READ], self.least):
                text = f"{text} {other}"
            # Best first.
            by_probability = [one for one in rank(text[:_READ].encode("utf-8", "replace")) if one[0] not in _SILENT]
            language, value = by_probability[0]
            best = next(value for code, value in by_probability if code in self.codes)
            if language not in self.codes and value >= self.odds * best:
                return side, language
        return None


def _has_letters(text: str, least: int) -> bool:
    """Whether the letters of a text take `least` bytes, which weighs a Chinese one as three Latin ones."""
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
