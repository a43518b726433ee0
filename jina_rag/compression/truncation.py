"""Rows cut to fewer dimensions (Matryoshka)."""

from __future__ import annotations

from jina_rag.errors import InvalidInputError
from jina_rag.protocols import Embedder
from jina_rag.scoring import normalise
from jina_rag.types import Float32


def cut_rows(rows: Float32, dim: int) -> Float32:
    """The first `dim` dimensions of every row, L2-normalised again (Matryoshka; Kusupati et al., 2022).

    Only for models that were trained for it. Rows of a question and of pages must be cut alike.

    Raises:
        InvalidInputError: If the rows are shorter.
    """
    if not 1 <= dim <= rows.shape[-1]:
        raise InvalidInputError(f"Rows of {rows.shape[-1]} dimensions cannot be cut to {dim}.")
    return rows if dim == rows.shape[-1] else normalise(rows[..., :dim])


def row_dim(embedder: Embedder, requested_dim: int | None) -> int:
    """Length of the rows that an index of this model keeps: `Storage.multi_dim`, where the model allows it.

    Args:
        embedder: A model that was trained for shorter rows names them in ``multi_matryoshka_dims``.
        requested_dim: None for the model's own.

    Raises:
        InvalidInputError: If the model was not trained for it; the message names what it allows.
    """
    full = embedder.multi_dim
    allowed = [dim for dim in embedder.multi_matryoshka_dims if dim < full]
    if requested_dim is not None and requested_dim not in (full, *allowed):
        dims = ", ".join(map(str, sorted({full, *allowed}, reverse=True)))
        raise InvalidInputError(
            f"multi_dim is {requested_dim}; the rows of {embedder.name} can have {dims} dimensions."
        )
    return requested_dim or full
