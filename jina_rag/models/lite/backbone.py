"""What the embedded default needs of a model: pieces for words, and vectors for pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from jina_rag.types import Float32

Side = Literal["query", "passage"]


class Token(NamedTuple):
    """A piece of a word.

    Attributes:
        id: Its id in the model's vocabulary.
        start: Where it begins in the word, as a fraction of the word's characters.
        end: Where it ends.
        text: Its characters.
    """

    id: int
    start: float
    end: float
    text: str


class Backbone(Protocol):
    """A text encoder that gives a vector per token.

    Attributes:
        name: The name it is loaded by.
        fingerprint: Start of the hash of its weights.
        dim: Length of its vectors.
        typical: Where its similarities lie: the mean best cosine per question token that tells answers from
            other texts, and the width of the doubtful range around it.
        centre: What its unit token vectors have in common, shape (dim,) float32: their mean over the general
            questions of `jina_rag.reference_queries`. None for a model whose vectors are spread evenly enough.
    """

    name: str
    fingerprint: str
    dim: int
    typical: tuple[float, float]
    centre: Float32 | None

    def tokenize(self, words: Sequence[str]) -> list[tuple[Token, ...]]:
        """The tokens of each word; none for a word without any visible character."""
        ...

    def frame(self, side: Side) -> tuple[list[int], list[int]]:
        """The ids that go before and after the tokens of a text: special tokens and the prompt."""
        ...

    def encode(self, sequences: Sequence[npt.NDArray[np.int64]]) -> list[Float32]:
        """Last-layer vectors of whole sequences, not normalised: for each, shape (length, dim) float32.

        A sequence's vectors do not depend on what else is in the call.
        """
        ...


def batches_of_one_length(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices in groups of exactly equal length, of at most `tokens` tokens each (but at least one sequence).

    Nothing is padded, so no time is spent on padding, and no mask is needed.

    >>> batches_of_one_length([3, 5, 3, 3], tokens=6)
    [[0, 2], [3], [1]]
    """
    groups: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        groups.setdefault(length, []).append(index)
    batches: list[list[int]] = []
    for length, members in sorted(groups.items()):
        size = max(1, tokens // max(1, length))
        batches += [members[i : i + size] for i in range(0, len(members), size)]
    return batches
