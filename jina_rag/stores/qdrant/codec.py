"""Conversion of points to and from Qdrant types, shared by the embedded engine and the server."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from jina_rag.stores import schema
from jina_rag.stores.filters import without_filter_keys
from jina_rag.types import Float32, Point, SparseVector

QdrantObject: TypeAlias = Any
"""A module or object of qdrant_edge or qdrant_client; untyped, because both packages are imported lazily."""


def named_vectors(
    types: QdrantObject, point: Point, multi_rows: Callable[[Float32], list[Any]]
) -> dict[str, QdrantObject]:
    """Return the vectors of a point by vector name, as engine types.

    Args:
        types: Module or object with the types of the engine.
        point: Point to write, as returned by `filters.with_filter_payload`.
        multi_rows: Function that converts a multi-vector, shape (tokens, dim), float32, to the row type of the engine.
    """
    vectors: dict[str, QdrantObject] = {}
    if point.dense is not None:
        vectors[schema.DENSE] = point.dense.tolist()
    if point.multi is not None:
        vectors[schema.MULTI] = multi_rows(point.multi)
    if point.lexical is not None:
        vectors[schema.LEXICAL] = encode_sparse(types, point.lexical)
    return vectors


def encode_sparse(types: QdrantObject, vector: SparseVector) -> QdrantObject:
    """Return a sparse vector as an engine type."""
    return types.SparseVector(indices=vector.indices.tolist(), values=vector.values.tolist())


def decode(record: QdrantObject) -> Point:
    """Return the point of a record that an engine has read."""
    vectors = record.vector or {}
    dense, multi, lexical = (vectors.get(name) for name in (schema.DENSE, schema.MULTI, schema.LEXICAL))
    return Point(
        id=str(record.id),
        dense=None if dense is None else np.asarray(dense, dtype=np.float32),
        multi=None if multi is None else _matrix(multi),
        lexical=None
        if lexical is None
        else SparseVector(np.asarray(lexical.indices, np.uint32), np.asarray(lexical.values, np.float32)),
        payload=without_filter_keys(record.payload),
    )


def _matrix(rows: Sequence[Sequence[float]]) -> Float32:
    """Return rows of Python numbers as an array, shape (tokens, dim). struct takes a third of the time of NumPy."""
    matrix = np.empty((len(rows), len(rows[0])), dtype=np.float32)
    row_format = struct.Struct(f"={matrix.shape[1]}f")
    for i, row in enumerate(rows):
        row_format.pack_into(matrix.data, i * row_format.size, *row)
    return matrix
