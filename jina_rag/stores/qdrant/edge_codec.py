"""Points on their way into the embedded engine: it speaks lists of Python numbers, not arrays."""

from __future__ import annotations

from array import array

import numpy as np

from jina_rag.stores.qdrant.codec import QdrantObject, named_vectors
from jina_rag.types import Float32, Point


def encode(engine: QdrantObject, point: Point) -> QdrantObject:
    """The engine's form of a point that `filters.filterable` returned.

    Args:
        engine: The module qdrant_edge.
        point: To be written.
    """
    return engine.Point(point.id, named_vectors(engine, point, _rows), dict(point.payload))


def _rows(multi: Float32) -> list[array[float]]:
    # An array per row, not nested lists: a third less time, as no number becomes a Python object that
    # outlives its conversion.
    return [array("f", row.tobytes()) for row in np.ascontiguousarray(multi, dtype=np.float32)]
