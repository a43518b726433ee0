"""Matryoshka truncation of multi-vector rows.

Source: Kusupati et al., Matryoshka Representation Learning (NeurIPS 2022).
"""

from __future__ import annotations

from jina_rag.errors import InvalidInputError
from jina_rag.protocols import Embedder
from jina_rag.scoring import normalise
from jina_rag.types import Float32


def cut_rows(rows: Float32, dim: int) -> Float32:
    """Return the first `dim` dimensions of each row, renormalized.

    Truncation is valid only for models with Matryoshka training. The rows of queries and pages must be truncated to the
    same length.

    Args:
        rows: Rows, shape (tokens, length), float32.
        dim: Dimensions to keep, from 1 to the length of the rows.

    Returns:
        L2-normalized rows, shape (tokens, dim), float32; `rows` itself if `dim` is the length of the rows.

    Raises:
        InvalidInputError: If `dim` is below 1 or above the length of the rows.
    """
    if not 1 <= dim <= rows.shape[-1]:
        raise InvalidInputError(f"dim is {dim}; expected an integer from 1 to {rows.shape[-1]}.")
    return rows if dim == rows.shape[-1] else normalise(rows[..., :dim])


def row_dim(embedder: Embedder, requested_dim: int | None) -> int:
    """Return the length of the rows that an index stores.

    Args:
        embedder: Model with the supported row lengths in `multi_matryoshka_dims`.
        requested_dim: Value of `Storage.multi_dim`. None: the full length of the model's rows.

    Raises:
        InvalidInputError: If the model does not support `requested_dim`; the message lists the supported lengths.
    """
    full = embedder.multi_dim
    allowed = [dim for dim in embedder.multi_matryoshka_dims if dim < full]
    if requested_dim is not None and requested_dim not in (full, *allowed):
        dims = ", ".join(map(str, sorted({full, *allowed}, reverse=True)))
        raise InvalidInputError(
            f"multi_dim is {requested_dim}; expected one of {dims}, the row lengths of {embedder.name}."
        )
    return requested_dim or full
