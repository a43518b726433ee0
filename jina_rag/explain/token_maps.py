"""Token maps: relevance of each box of a page to each query token, computed on demand.

The maps of hundreds of query tokens over tens of thousands of boxes take hundreds of megabytes. Therefore, only the
vectors are stored, and the maps are computed on demand in blocks of limited size.
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
"""Number of rows and of columns of the raster on which the lifts of a token are spread to neighboring cells."""
_BLOCK_SIZE = 4_000_000
"""Maximum number of float32 values in one block of shape (tokens, boxes) or (tokens, cells), which then takes 16 MB."""
_GAMMA = 1.5
"""Exponent that lowers small weights, as in `explain`. Without the exponent, half of the page would be yellow."""


class TokenMaps:
    """Similarities between the tokens of a query and the boxes of a page."""

    def __init__(
        self, query: Float32, rows: Float32, row_of: npt.NDArray[np.integer], texts: Sequence[str] = ()
    ) -> None:
        """Create the maps of one query on one page.

        Args:
            query: Query vectors, shape (tokens, dim), float32.
            rows: Page vectors as stored, shape (rows, dim), float32.
            row_of: Index of the row in `rows` that represents each box, shape (boxes,), integer.
            texts: Text of each query token; empty if unknown. Tokens with empty text are ignored when the maximum that
                scales the maps to [0, 1] is computed.
        """
        self._query, self._rows, self._row_of = query, rows, row_of
        token_numbers = [i for i, text in enumerate(texts) if text.strip()]
        self._scale_tokens = np.array(token_numbers or range(len(query)), dtype=np.int64)

    def __len__(self) -> int:
        return len(self._query)

    @property
    def num_boxes(self) -> int:
        """Number of boxes on the page."""
        return len(self._row_of)

    def lifts(self) -> Iterator[Float32]:
        """Yield the lifts of all tokens in blocks.

        A lift is the similarity of a box to a token minus the median over the boxes of the page, at least 0.

        Yields:
            Blocks of shape (tokens, boxes), float32, in the order of the tokens.
        """
        for start in range(0, len(self), self._stride):
            yield self._lift(self._query[start : start + self._stride])

    def token_map(self, token: int) -> Float32:
        """Return the map of one token, shape (boxes,), float32, from 0 to 1.

        The weight of a box is the lift of the box divided by the greatest lift of any token with text, to the power of
        1.5.

        Args:
            token: Index of the query token, from 0.

        Raises:
            InvalidInputError: If `token` is out of range.
        """
        if not 0 <= token < len(self):
            raise InvalidInputError(f"token is {token}; expected an index from 0 to {len(self) - 1}.")
        [weights] = self._to_weights(self._lift(self._query[token : token + 1]))
        return np.asarray(weights)

    def all_maps(self) -> Float32:
        """Return the maps of all tokens, shape (tokens, boxes), float32, from 0 to 1."""
        maps = np.empty((len(self), self.num_boxes), dtype=np.float32)
        at = 0
        for block in self.lifts():
            maps[at : at + len(block)] = self._to_weights(block)
            at += len(block)
        return maps

    def coverage(self, boxes: Float32, spread: tuple[float, float]) -> Float32:
        """Return the query coverage of each box: MaxSim over the boxes nearby, shape (boxes,), float32.

        For each token, the greatest lift near the box is taken, where lifts decay with distance by a Gaussian. The
        coverage is the mean of these values over the tokens. Lifts replace similarities, because some tokens are
        similar to every box.

        Args:
            boxes: Shape (boxes, 4), float32, as fractions of the page.
            spread: Horizontal and vertical standard deviation of the decay, as fractions of the page.
        """
        at = (((boxes[:, :2] + boxes[:, 2:]) / 2).clip(0, 1) * (_CELLS - 1)).round().astype(np.int64)
        cell = at[:, 1] * _CELLS + at[:, 0]
        order = np.argsort(cell, kind="stable")
        cells, starts = np.unique(cell[order], return_index=True)
        total = np.zeros(_CELLS * _CELLS, dtype=np.float32)
        for lifts in self.lifts():
            planes = np.zeros((len(lifts), _CELLS * _CELLS), dtype=np.float32)
            planes[:, cells] = np.maximum.reduceat(lifts[:, order], starts, axis=1)
            spread_planes = planes.reshape(-1, _CELLS, _CELLS)
            for axis, length in ((2, spread[0]), (1, spread[1])):
                spread_planes = _decayed_maximum(spread_planes, axis, length * (_CELLS - 1))
            total += spread_planes.sum(axis=0).reshape(-1)
        mean: Float32 = total[cell] / np.float32(len(self))
        return mean

    @cached_property
    def _max_lift(self) -> np.float32:
        """Greatest lift of the tokens with text, which scales the maps; 1 if no lift is above 0."""
        if not self.num_boxes:
            return np.float32(1)
        blocks = [self._scale_tokens[i : i + self._stride] for i in range(0, len(self._scale_tokens), self._stride)]
        max_lift = max((float(self._lift(self._query[indices]).max()) for indices in blocks), default=0.0)
        return np.float32(max_lift or 1)

    @property
    def _stride(self) -> int:
        """Number of tokens in one block."""
        return max(1, _BLOCK_SIZE // max(self.num_boxes, _CELLS * _CELLS))

    def _to_weights(self, lifts: Float32) -> Float32:
        # Clip: lifts of tokens without text can exceed the maximum.
        weights: Float32 = (lifts / self._max_lift).clip(0, 1) ** np.float32(_GAMMA)
        return weights

    def _lift(self, query: Float32) -> Float32:
        values = similarity(self._rows, query).T[:, self._row_of]
        if values.size:
            values -= np.median(values, axis=1, keepdims=True)
        lifts: Float32 = np.maximum(values, 0, out=values)
        return lifts


def _decayed_maximum(planes: npt.NDArray[np.float32], axis: int, spread: float) -> npt.NDArray[np.float32]:
    """Return the maximum of the values near each cell along one axis, where values decay with distance by a Gaussian.

    Args:
        planes: Shape (tokens, rows, columns), float32, values of at least 0.
        axis: 1 for rows, 2 for columns.
        spread: Standard deviation of the decay in cells.

    Returns:
        Shape (tokens, rows, columns), float32.
    """
    axis_first = np.moveaxis(planes, axis, 0)
    maximum = axis_first.copy()
    for step in range(1, min(len(axis_first) - 1, int(3 * spread)) + 1):
        decay = np.float32(np.exp(-0.5 * (step / spread) ** 2))
        np.maximum(maximum[step:], axis_first[:-step] * decay, out=maximum[step:])
        np.maximum(maximum[:-step], axis_first[step:] * decay, out=maximum[:-step])
    return np.moveaxis(maximum, 0, axis)
