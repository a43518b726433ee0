"""Interface of the text encoders that the lite models use to split words into tokens and to encode tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from jina_rag.types import Float32

Side = Literal["query", "passage"]


class Token(NamedTuple):
    """A token of a word.

    Attributes:
        id: Token id in the model's vocabulary.
        start: Start of the token in the word, as a fraction (0 to 1) of the word's characters.
        end: End of the token in the word, as a fraction (0 to 1) of the word's characters.
        text: The token's characters.
    """

    id: int
    start: float
    end: float
    text: str


class Backbone(Protocol):
    """A text encoder that returns one vector per token.

    Attributes:
        name: Model name, for example ``"lite"``.
        fingerprint: First 12 hexadecimal digits of the sha256 of the weights.
        dim: Length of a token vector.
        typical: Threshold and width. The threshold is the mean best cosine per query token that separates relevant from
            irrelevant texts. The width is the size of the range around the threshold in which both relevant and
            irrelevant texts occur.
        centre: Mean of the unit token vectors of `jina_rag.reference_queries`, shape (dim,), float32. None for a model
            whose vectors need no centering.
    """

    name: str
    fingerprint: str
    dim: int
    typical: tuple[float, float]
    centre: Float32 | None

    def tokenize(self, words: Sequence[str]) -> list[tuple[Token, ...]]:
        """Return the tokens of each word; an empty tuple for a word without visible characters.

        Args:
            words: Words, without white space.
        """
        ...

    def frame(self, side: Side) -> tuple[list[int], list[int]]:
        """Return the token ids before and after a text: special tokens and prompt.

        Args:
            side: ``"query"`` or ``"passage"``.
        """
        ...

    def encode(self, sequences: Sequence[npt.NDArray[np.int64]]) -> list[Float32]:
        """Return the last-layer vectors of each sequence.

        The vectors of a sequence do not depend on the other sequences of the call.

        Args:
            sequences: Token ids, prompt and special tokens included, each of shape (length,), int64.

        Returns:
            One array per sequence, shape (length, dim), float32, not normalized.
        """
        ...


def batches_of_one_length(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Group sequences of equal length into batches, so that no batch needs padding or a mask.

    Args:
        lengths: Length of each sequence in tokens.
        tokens: Limit of tokens per batch. A longer sequence forms a batch by itself.

    Returns:
        The indices into `lengths` of each batch, shortest sequences first.

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
