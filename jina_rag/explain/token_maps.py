"""How much each place of a page speaks to each token of a question, computed when it is asked for.

Hundreds of tokens on tens of thousands of places would be gigabytes: kept are the two sets of vectors, and what is
computed at once is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from jina_rag.errors import InvalidInputError
from jina_rag.scoring import similarity
from jina_rag.types import Float32

_CELLS = 64
"""Each way, of the raster on which the tokens' matches are spread: one plane for each token."""
_AT_ONCE = 4_000_000
"""Numbers in one block of (tokens, places) or (tokens, cells): 16 MB."""
_SHAPE = 1.5
"""As for the whole question: what speaks a little stays pale, else half of the page is yellow."""


class TokenMaps:
    """The similarities of a question's tokens with the places of a page."""

    def __init__(
        self, query: Float32, rows: Float32, row_of: npt.NDArray[np.integer], texts: Sequence[str] = ()
    ) -> None:
        """Take the vectors.

        Args:
            query: Shape (tokens, dim).
            rows: Shape (rows, dim), as stored.
            row_of: Shape (places,): the row that speaks for each place.
            texts: What each token stands for; the empty ones do not set the scale. Empty if it is not known.
        """
        self._query, self._rows, self._row_of = query, rows, row_of
        token_numbers = [i for i, text in enumerate(texts) if text.strip()]
        self._scaling = np.array(token_numbers or range(len(query)), dtype=np.int64)

    def __len__(self) -> int:
        return len(self._query)

    @property
    def places(self) -> int:
        """How many places the page has."""
        return len(self._row_of)

    def lifts(self) -> Iterator[Float32]:
        """By how much each similarity lies above its token's median on the page, else 0: blocks of (tokens, places)."""
        for start in range(0, len(self), self._step):
            yield self._lift(self._query[start : start + self._step])

    def one(self, token: int) -> Float32:
        """The map of one token, shape (places,) in [0, 1].

        Its lift, as a share of the greatest of any token, to the power of 1.5.

        Raises:
            InvalidInputError: If there is no such token.
        """
        if not 0 <= token < len(self):
            raise InvalidInputError(f"The question has {len(self)} tokens, counted from 0; there is no token {token}.")
        [weights] = self._shaped(self._lift(self._query[token : token + 1]))
        return np.asarray(weights)

    def all(self) -> Float32:
        """The maps of all tokens, shape (tokens, places): 4 bytes for each token on each place."""
        maps = np.empty((len(self), self.places), dtype=np.float32)
        at = 0
        for block in self.lifts():
            maps[at : at + len(block)] = self._shaped(block)
            at += len(block)
        return maps

    def answered(self, boxes: Float32, spread: tuple[float, float]) -> Float32:
        """How much of the question is answered around each place: MaxSim of its neighbourhood.

        The mean over the tokens of the best lift around, which counts less the further away it is. By lifts, because
        a token that resembles everything would count everywhere.

        Args:
            boxes: Shape (places, 4), fractions of the page.
            spread: How far a match counts across and down: standard deviations, fractions of the page.

        Returns:
            Shape (places,) float32.
        """
        at = (((boxes[:, :2] + boxes[:, 2:]) / 2).clip(0, 1) * (_CELLS - 1)).round().astype(np.int64)
        cell = at[:, 1] * _CELLS + at[:, 0]
        order = np.argsort(cell, kind="stable")
        cells, starts = np.unique(cell[order], return_index=True)
        total = np.zeros(_CELLS * _CELLS, dtype=np.float32)
        for lifts in self.lifts():
            planes = np.zeros((len(lifts), _CELLS * _CELLS), dtype=np.float32)
            planes[:, cells] = np.maximum.reduceat(lifts[:, order], starts, axis=1)
            around = planes.reshape(-1, _CELLS, _CELLS)
            for axis, length in ((2, spread[0]), (1, spread[1])):
                around = _greatest_around(around, axis, length * (_CELLS - 1))
            total += around.sum(axis=0).reshape(-1)
        mean: Float32 = total[cell] / np.float32(len(self))
        return mean

    @cached_property
    def _top(self) -> np.float32:
        """The greatest lift of the tokens that set the scale."""
        if not self.places:
            return np.float32(1)
        blocks = [self._scaling[i : i + self._step] for i in range(0, len(self._scaling), self._step)]
        top = max((float(self._lift(self._query[indices]).max()) for indices in blocks), default=0.0)
        return np.float32(top or 1)

    @property
    def _step(self) -> int:
        """Tokens that are computed at once."""
        return max(1, _AT_ONCE // max(self.places, _CELLS * _CELLS))

    def _shaped(self, lifts: Float32) -> Float32:
        # Tokens that do not set the scale may lie above it.
        shaped: Float32 = (lifts / self._top).clip(0, 1) ** np.float32(_SHAPE)
        return shaped

    def _lift(self, query: Float32) -> Float32:
        values = similarity(self._rows, query).T[:, self._row_of]
        if values.size:
            values -= np.median(values, axis=1, keepdims=True)
        lifted: Float32 = np.maximum(values, 0, out=values)
        return lifted


def _greatest_around(planes: npt.NDArray[np.float32], axis: int, spread: float) -> npt.NDArray[np.float32]:
    """The greatest value around each cell along one axis, values further away counting less.

    Args:
        planes: Shape (tokens, rows, columns), at least 0.
        axis: 1 or 2.
        spread: Standard deviation in cells.
    """
    along = np.moveaxis(planes, axis, 0)
    greatest = along.copy()
    for step in range(1, min(len(along) - 1, int(3 * spread)) + 1):
        share = np.float32(np.exp(-0.5 * (step / spread) ** 2))
        np.maximum(greatest[step:], along[:-step] * share, out=greatest[step:])
        np.maximum(greatest[:-step], along[step:] * share, out=greatest[:-step])
    return np.moveaxis(greatest, 0, axis)
