"""Late-interaction scores: the reference implementation for stores and tests.

A score is a sum of dot products and can be negative. Documents of different lengths are therefore never padded with
zeros, because the similarity of a zero row is 0 and exceeds negative similarities. Padding is masked with -inf.

Source: Khattab and Zaharia, ColBERT (SIGIR 2020).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from jina_rag.errors import InvalidInputError
from jina_rag.types import Float32

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


def maxsim(query: Float32, document: Float32) -> float:
    """Return the MaxSim score of a document: the sum of each query token's best dot product with a document token.

    Args:
        query: Shape (query tokens, dim), float32.
        document: Shape (document tokens, dim), float32.

    Returns:
        The score; -inf for a document without tokens.

    Raises:
        InvalidInputError: If the dimensions differ or the query has no tokens.

    Source: Khattab and Zaharia, ColBERT (SIGIR 2020), equation 3.

    >>> import numpy as np
    >>> q = np.array([[1, 0], [0, 1]], dtype=np.float32)
    >>> maxsim(q, np.array([[0.5, -1.0]], dtype=np.float32))
    -0.5
    """
    return float(maxsim_many(query, [document])[0])


def maxsim_many(query: Float32, documents: Sequence[Float32]) -> Float32:
    """Return the MaxSim score of each document.

    Args:
        query: Shape (query tokens, dim), float32.
        documents: n arrays of any lengths, each of shape (document tokens, dim), float32.

    Returns:
        Shape (n,), float32; -inf for a document without tokens.

    Raises:
        InvalidInputError: If the dimensions differ or the query has no tokens.
    """
    _check(query, documents)
    scores = np.full(len(documents), -np.inf, dtype=np.float32)
    filled = [i for i, document in enumerate(documents) if len(document)]
    if filled:
        lengths = np.array([len(documents[i]) for i in filled])
        starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
        similarities = similarity(np.concatenate([documents[i] for i in filled]), query)
        scores[filled] = np.maximum.reduceat(similarities, starts, axis=0).sum(axis=1)
    return scores


def best_window(query: Float32, document: Float32, *, window: int = 96) -> float:
    """Return the highest MaxSim score of any window of consecutive document tokens.

    A page with all words of a query close together is relevant more often than a page with the words far apart.
    Adjacent windows overlap by half a window.

    Args:
        query: Shape (query tokens, dim), float32.
        document: Rows in reading order, shape (document tokens, dim), float32.
        window: Tokens per window.

    Returns:
        The score, at most the score from `maxsim`; -inf for a document without tokens.

    Raises:
        InvalidInputError: If the dimensions differ or the query has no tokens.
    """
    _check(query, [document])
    if len(document) == 0:
        return -np.inf
    similarities = similarity(document, query)
    step = max(1, window // 2)
    starts = range(0, max(1, len(document) - window + step), step)
    return max(float(similarities[s : s + window].max(axis=0).sum()) for s in starts)


def token_similarity(query: Float32, document: Float32) -> Float32:
    """Return the mean dot product of each document token with the query tokens.

    The mean is used instead of the maximum, so that a token that matches one query word by chance does not outrank a
    token that matches the whole query.

    Args:
        query: Shape (query tokens, dim), float32.
        document: Shape (document tokens, dim), float32.

    Returns:
        Shape (document tokens,), float32.

    Raises:
        InvalidInputError: If the dimensions differ or the query has no tokens.
    """
    _check(query, [document])
    mean: Float32 = similarity(document, query).mean(axis=1)
    return mean


def similarity(document: Float32, query: Float32) -> Float32:
    """Return all dot products of document and query tokens, computed on one thread.

    The matrix product of one page and one query is too small for several BLAS threads: the additional threads would
    only spin and use about 15 ms of CPU time per call.

    Args:
        document: Shape (document tokens, dim), float32.
        query: Shape (query tokens, dim), float32.

    Returns:
        Shape (document tokens, query tokens), float32.
    """
    with _blas().limit(limits=1, user_api="blas"):
        return document @ query.T


@functools.cache
def _blas() -> ThreadpoolController:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def normalise(rows: npt.ArrayLike) -> Float32:
    """Return L2-normalized rows; zero rows stay zero.

    Args:
        rows: Rows along the last axis, shape (…, dim), any numeric dtype.

    Returns:
        Shape (…, dim), float32.
    """
    array = np.asarray(rows, dtype=np.float32)
    norms = np.linalg.norm(array, axis=-1, keepdims=True)
    result: Float32 = (array / np.where(norms == 0, 1, norms)).astype(np.float32)
    return result


def _check(query: Float32, documents: Sequence[Float32]) -> None:
    if query.ndim != 2 or len(query) == 0:
        raise InvalidInputError(f"query has shape {query.shape}; expected (tokens, dim) with at least one token.")
    for document in documents:
        if document.ndim != 2 or document.shape[1] != query.shape[1]:
            raise InvalidInputError(
                f"A document has shape {document.shape}; expected (tokens, {query.shape[1]}) as for the query. Encode "
                "queries and documents with the same model."
            )
