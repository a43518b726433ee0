"""Similarities as mteb asks for them: every query against every document.

mteb's own MaxSim pads documents of different lengths with zero rows, and a zero row beats every negative similarity:
true scores of -1 and -0.5 come back as 0 and -0.5. Here nothing is padded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from jina_rag.errors import InvalidInputError
from jina_rag.types import Float32

Many: TypeAlias = "npt.ArrayLike | Sequence[npt.ArrayLike]"
"""Vectors of several inputs, as arrays or tensors: one array, or a list with an array for each."""

_BLOCK = 64 * 1024 * 1024
"""Similarities that are held at once: 256 MB."""
NOTHING = float(np.finfo(np.float32).min)
"""The score of a document without rows. MaxSim has -inf there, which JSON does not know."""


def dense_scores(queries: Many, documents: Many) -> Float32:
    """Dot products of normalised vectors, shape (queries, documents) float32.

    Args:
        queries: Shape (n, dim), or (dim,) for one.
        documents: Likewise.
    """
    a, b = (np.atleast_2d(np.asarray(side, dtype=np.float32)) for side in (queries, documents))
    scores: Float32 = a @ b.T
    return scores


def maxsim_scores(queries: Many, documents: Many) -> Float32:
    """MaxSim of every query with every document, shape (queries, documents) float32; see `jina_rag.scoring.maxsim`.

    Args:
        queries: A list of arrays of shape (tokens_i, dim), one array of shape (n, tokens, dim), or one query of shape
            (tokens, dim). A query without rows scores 0 with every document.
        documents: Likewise. All rows of an array count: whoever has padded should give a list instead.

    Returns:
        `NOTHING` where a document has no rows.

    Raises:
        InvalidInputError: If the rows are of different lengths.
    """
    query_rows, document_rows = ragged(queries), ragged(documents)
    scores = np.full((len(query_rows), len(document_rows)), NOTHING, dtype=np.float32)
    nonempty = [i for i, rows in enumerate(query_rows) if len(rows)]
    scores[[i for i, rows in enumerate(query_rows) if not len(rows)]] = 0.0
    if not nonempty:
        return scores
    every = np.concatenate([query_rows[i] for i in nonempty])
    starts = _starts([len(query_rows[i]) for i in nonempty])
    for block in _blocks([len(rows) for rows in document_rows], len(every)):
        rows = np.concatenate([document_rows[i] for i in block])
        if rows.shape[1] != every.shape[1]:
            raise InvalidInputError(
                f"Query rows have {every.shape[1]} dimensions and document rows {rows.shape[1]}: were they made by the "
                "same model?"
            )
        best = np.maximum.reduceat(rows @ every.T, _starts([len(document_rows[i]) for i in block]), axis=0)
        scores[np.ix_(nonempty, block)] = np.add.reduceat(best, starts, axis=1).T
    return scores


def ragged(vectors: Many) -> list[Float32]:
    """A list with an array of shape (tokens, dim) for each input."""
    if isinstance(vectors, list | tuple):
        return [np.asarray(rows, dtype=np.float32) for rows in vectors]
    array = np.asarray(vectors, dtype=np.float32)
    return list(array) if array.ndim == 3 else [array]


def _starts(lengths: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(lengths)[:-1])).astype(np.int64)


def _blocks(lengths: Sequence[int], width: int) -> Iterator[list[int]]:
    """Documents that have rows, in groups whose similarities fit into memory."""
    block: list[int] = []
    rows = 0
    for index, length in enumerate(lengths):
        if block and (rows + length) * width > _BLOCK:
            yield block
            block, rows = [], 0
        if length:
            block.append(index)
            rows += length
    if block:
        yield block
