"""Points on their way into the embedded engine and back: it speaks lists of Python numbers, not arrays."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jina_rag.errors import InvalidInputError
from jina_rag.stores import schema
from jina_rag.stores.filters import for_filters, without_own
from jina_rag.stores.qdrant.edge_folder import Engine
from jina_rag.types import Float32, Point, SparseVector


def prepared(point: Point, dim: int, multi_dim: int) -> Point:
    """Return the point as an engine keeps it: checked, with what filters look at.

    A multi-vector beyond the engine's limit is merged.

    Args:
        point: To be written.
        dim: Length of the store's dense vectors.
        multi_dim: Length of each row of its multi-vectors.

    Raises:
        InvalidInputError: If a vector has another length, or the payload is not JSON.
    """
    if point.dense is not None:
        checked(point.dense, 1, dim, "dense vector")
    multi = None
    if point.multi is not None and len(point.multi):
        multi = checked(point.multi, 2, multi_dim, "multi-vector")
    payload = schema.checked_payload(point.payload)
    point = schema.fit(replace(point, id=schema.checked_id(point.id), multi=multi, payload=payload))
    return replace(point, payload={**point.payload, **for_filters(point.payload)})


def encode(engine: Engine, point: Point) -> Engine:
    """The engine's form of a point that `prepared` returned.

    Args:
        engine: The module qdrant_edge.
        point: To be written.
    """
    vectors: dict[str, Any] = {}
    if point.dense is not None:
        vectors[schema.DENSE] = point.dense.tolist()
    if point.multi is not None:
        # An array per row, not nested lists: a third less time, as no number becomes a Python object that
        # outlives its conversion.
        rows = np.ascontiguousarray(point.multi, dtype=np.float32)
        vectors[schema.MULTI] = [array("f", row.tobytes()) for row in rows]
    if point.lexical is not None and len(point.lexical.indices):
        vectors[schema.LEXICAL] = sparse(engine, point.lexical)
    return engine.Point(point.id, vectors, dict(point.payload))


def decode(record: Engine) -> Point:
    """Our point, of a record that the engine read."""
    vectors = record.vector or {}
    dense, multi, lexical = (vectors.get(name) for name in (schema.DENSE, schema.MULTI, schema.LEXICAL))
    return Point(
        id=str(record.id),
        dense=None if dense is None else np.asarray(dense, dtype=np.float32),
        multi=None if multi is None else _matrix(multi),
        lexical=None
        if lexical is None
        else SparseVector(np.asarray(lexical.indices, np.uint32), np.asarray(lexical.values, np.float32)),
        payload=without_own(record.payload),
    )


def sparse(engine: Engine, vector: SparseVector) -> Engine:
    """The engine's sparse vector."""
    return engine.SparseVector(vector.indices.tolist(), vector.values.tolist())


def checked(vector: Float32, axes: int, dim: int, what: str) -> Float32:
    """Return the vector if the store takes it.

    Args:
        vector: Shape (dim,) or (tokens, dim).
        axes: How many it must have.
        dim: Length of its last axis.
        what: Its name in messages.

    Raises:
        InvalidInputError: If it has another shape, or a number that is not finite.
    """
    if vector.ndim != axes or vector.shape[-1] != dim:
        shape = f"({dim},)" if axes == 1 else f"(tokens, {dim})"
        raise InvalidInputError(
            f"The {what} has shape {vector.shape}, the index keeps {shape}: was it made by the index's model?"
        )
    if not np.isfinite(vector).all():
        raise InvalidInputError(f"The {what} holds NaN or infinity: the model's output cannot be used.")
    return vector


def _matrix(rows: Sequence[Sequence[float]]) -> Float32:
    """Rows of Python numbers as an array; struct does it in a third of the time of NumPy."""
    matrix = np.empty((len(rows), len(rows[0])), dtype=np.float32)
    packed = struct.Struct(f"={matrix.shape[1]}f")
    for i, row in enumerate(rows):
        packed.pack_into(matrix.data, i * packed.size, *row)
    return matrix
