"""Late-interaction scores: the one truth that every store and every test is held against.

A score is a sum of dot products and may be negative. Documents of different lengths are therefore never
padded with zeros (a zero row would beat every negative similarity); padding, where it is needed, is masked
with -inf.
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
    """MaxSim: the sum over query tokens of the best dot product with any document token.

    Args:
        query: Shape (query tokens, dim).
        document: Shape (document tokens, dim).

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
    """MaxSim of one query with many documents of any lengths.

    Args:
        query: Shape (query tokens, dim).
        documents: n arrays of shape (tokens_i, dim).

    Returns:
        Shape (n,) float32; -inf where a document has no tokens.
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
    """The best MaxSim of any `window` consecutive document tokens.

    A page that holds all words of a question close together answers it more often than one that holds
    them scattered. Windows start at every half window.

    Args:
        query: Shape (query tokens, dim).
        document: Shape (document tokens, dim), in reading order.
        window: Tokens per window.

    Returns:
        The score; -inf for a document without tokens. Never above `maxsim`.
    """
    _check(query, [document])
    if len(document) == 0:
        return -np.inf
    similarities = similarity(document, query)
    step = max(1, window // 2)
    starts = range(0, max(1, len(document) - window + step), step)
    return max(float(similarities[s : s + window].max(axis=0).sum()) for s in starts)


def token_similarity(query: Float32, document: Float32) -> Float32:
    """How much each document token speaks to the whole question: its mean dot product with the query tokens.

    The mean, not the best: a token that matches one word of the question by chance must not outshine a place
    where all of them are spoken of.

    Args:
        query: Shape (query tokens, dim).
        document: Shape (document tokens, dim).

    Returns:
        Shape (document tokens,) float32.
    """
    _check(query, [document])
    mean: Float32 = similarity(document, query).mean(axis=1)
    return mean


def similarity(document: Float32, query: Float32) -> Float32:
    """All dot products, shape (document tokens, query tokens), computed on one thread.

    One page against one question is too little work to share: the other threads of BLAS would only spin, at
    some 15 ms of processor time each call.
    """
    with _blas().limit(limits=1, user_api="blas"):
        return document @ query.T


@functools.cache
def _blas() -> ThreadpoolController:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def normalise(rows: npt.ArrayLike) -> Float32:
    """L2-normalise the last axis; zero rows stay zero. Float32."""
    array = np.asarray(rows, dtype=np.float32)
    norms = np.linalg.norm(array, axis=-1, keepdims=True)
    result: Float32 = (array / np.where(norms == 0, 1, norms)).astype(np.float32)
    return result


def _check(query: Float32, documents: Sequence[Float32]) -> None:
    if query.ndim != 2 or len(query) == 0:
        raise InvalidInputError(f"A query needs shape (tokens, dim) with at least one token, got {query.shape}.")
    for document in documents:
        if document.ndim != 2 or document.shape[1] != query.shape[1]:
            raise InvalidInputError(
                f"Query vectors have {query.shape[1]} dimensions, a document has shape {document.shape}: "
                "were they made by the same model?"
            )
