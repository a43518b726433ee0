"""From pooled rows back to the places of a page; rows cut to fewer dimensions."""

from __future__ import annotations

import base64
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from jina_rag.errors import IndexCorruptError, InvalidInputError
from jina_rag.protocols import Embedder
from jina_rag.scoring import normalise
from jina_rag.types import Float32

_Array = TypeVar("_Array", bound=npt.NDArray[Any])
_BYTE = 256


def cut_rows(rows: Float32, dim: int) -> Float32:
    """The first `dim` dimensions of every row, L2-normalised again (Matryoshka; Kusupati et al., 2022).

    Only for models that were trained for it. Rows of a question and of pages must be cut alike.

    Raises:
        InvalidInputError: If the rows are shorter.
    """
    if not 1 <= dim <= rows.shape[-1]:
        raise InvalidInputError(f"Rows of {rows.shape[-1]} dimensions cannot be cut to {dim}.")
    return rows if dim == rows.shape[-1] else normalise(rows[..., :dim])


def kept_dim(embedder: Embedder, wanted: int | None) -> int:
    """Length of the rows that an index of this model keeps: `Storage.multi_dim`, where the model allows it.

    Args:
        embedder: A model that was trained for shorter rows names them in ``multi_matryoshka_dims``.
        wanted: None for the model's own.

    Raises:
        InvalidInputError: If the model was not trained for it; the message names what it allows.
    """
    full = embedder.multi_dim
    allowed = [dim for dim in embedder.multi_matryoshka_dims if dim < full]
    if wanted is not None and wanted not in (full, *allowed):
        ways = ", ".join(map(str, sorted({full, *allowed}, reverse=True)))
        raise InvalidInputError(f"multi_dim is {wanted}; the rows of {embedder.name} can have {ways} dimensions.")
    return wanted or full


def expand(values: _Array, assignment: npt.NDArray[np.int32]) -> _Array:
    """What belongs to pooled rows, given to every original row: the inverse of `pool_tokens`.

    Args:
        values: Shape (pooled rows, …): the rows themselves, or a weight for each.
        assignment: Shape (n,).

    Returns:
        Shape (n, …).

    Raises:
        IndexCorruptError: If the assignment names a row that is not there.
    """
    if len(assignment) and int(assignment.max()) >= len(values):
        raise IndexCorruptError("Stored rows and their places do not fit together: ingest the document again.")
    return values[assignment]  # type: ignore[return-value]


def encode_assignment(assignment: npt.NDArray[np.int32]) -> str:
    """An assignment as text: base64 of one byte a row, or of two where there are more than 256 pooled rows."""
    width = "1" if not len(assignment) or int(assignment.max()) < _BYTE else "2"
    return f"{width}:{base64.b64encode(assignment.astype(_TYPES[width]).tobytes()).decode('ascii')}"


def decode_assignment(text: str) -> npt.NDArray[np.int32]:
    """The inverse of `encode_assignment`.

    Raises:
        IndexCorruptError: If the text is not an encoded assignment.
    """
    width, _, body = text.partition(":")
    try:
        return np.frombuffer(base64.b64decode(body, validate=True), dtype=_TYPES[width]).astype(np.int32)
    except (KeyError, ValueError) as exc:
        raise IndexCorruptError("Stored places of pooled rows cannot be read: ingest the document again.") from exc


_TYPES = {"1": "u1", "2": "<u2"}
