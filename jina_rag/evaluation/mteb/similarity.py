"""Similarity matrices of queries and documents for mteb.

mteb's MaxSim pads documents of different lengths with zero rows. The similarity of a zero row is 0, which exceeds every
negative similarity: if two documents score -1 and -0.5 and only the first document is padded, the scores become 0 and
-0.5, and the order changes. The functions of this module do not pad.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from jina_rag.errors import InvalidInputError
from jina_rag.types import Float32

Many: TypeAlias = "npt.ArrayLike | Sequence[npt.ArrayLike]"
"""Vectors of several inputs: one array or tensor, or a list with one array or tensor per input."""

_BLOCK = 64 * 1024 * 1024
"""Maximum number of similarities in memory at the same time: 64 Mi float32 values, 256 MiB."""
EMPTY_DOCUMENT_SCORE = float(np.finfo(np.float32).min)
"""Score of a document without rows, in place of MaxSim's -inf, which JSON does not support."""


def dense_scores(queries: Many, documents: Many) -> Float32:
    """Return the dot products of normalized vectors, shape (queries, documents), float32.

    Args:
        queries: Shape (queries, dim), or (dim,) for one query.
        documents: Shape (documents, dim), or (dim,) for one document.
    """
    query_rows, document_rows = (np.atleast_2d(np.asarray(side, dtype=np.float32)) for side in (queries, documents))
    scores: Float32 = query_rows @ document_rows.T
    return scores


def maxsim_scores(queries: Many, documents: Many) -> Float32:
    """Return the MaxSim score of each query and document (see `jina_rag.scoring.maxsim`).

    Args:
        queries: A list of arrays of shape (tokens_i, dim), one array of shape (queries, tokens, dim), or one query of
            shape (tokens, dim). A query without rows scores 0 for every document.
        documents: Documents in the forms of `queries`. All rows of an array are scored, including zero rows, so pass a
            list if documents differ in length.

    Returns:
        Shape (queries, documents), float32; `EMPTY_DOCUMENT_SCORE` for documents without rows.

    Raises:
        InvalidInputError: If the rows of queries and documents differ in dimension.
    """
    query_rows, document_rows = ragged(queries), ragged(documents)
    scores = np.full((len(query_rows), len(document_rows)), EMPTY_DOCUMENT_SCORE, dtype=np.float32)
    nonempty = [i for i, rows in enumerate(query_rows) if len(rows)]
    scores[[i for i, rows in enumerate(query_rows) if not len(rows)]] = 0.0
    if not nonempty:
        return scores
    all_query_rows = np.concatenate([query_rows[i] for i in nonempty])
    starts = _starts([len(query_rows[i]) for i in nonempty])
    for block in _blocks([len(rows) for rows in document_rows], len(all_query_rows)):
        rows = np.concatenate([document_rows[i] for i in block])
        if rows.shape[1] != all_query_rows.shape[1]:
            raise InvalidInputError(
                f"Query rows have {all_query_rows.shape[1]} dimensions and document rows have {rows.shape[1]}. Encode "
                "queries and documents with the same model."
            )
        best = np.maximum.reduceat(rows @ all_query_rows.T, _starts([len(document_rows[i]) for i in block]), axis=0)
        scores[np.ix_(nonempty, block)] = np.add.reduceat(best, starts, axis=1).T
    return scores


def ragged(vectors: Many) -> list[Float32]:
    """Return the multi-vectors as a list of arrays of shape (tokens, dim), float32, one per input.

    Args:
        vectors: A list of arrays, one array of shape (n, tokens, dim), or one array of shape (tokens, dim).
    """
    if isinstance(vectors, list | tuple):
        return [np.asarray(rows, dtype=np.float32) for rows in vectors]
    array = np.asarray(vectors, dtype=np.float32)
    return list(array) if array.ndim == 3 else [array]


def _starts(lengths: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(lengths)[:-1])).astype(np.int64)


def _blocks(lengths: Sequence[int], width: int) -> Iterator[list[int]]:
    """Yield groups of indexes of non-empty documents, each with at most `_BLOCK` similarities or one document."""
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
