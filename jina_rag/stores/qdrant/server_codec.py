"""Points on their way to a Qdrant server: numbers of few digits, and the bytes that they take in a request."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from jina_rag._extras import require
from jina_rag.stores.qdrant.codec import QdrantObject, named_vectors
from jina_rag.types import Float32, Point

_HALF_MAX: Final = 65_504.0


def encode(models: QdrantObject, point: Point) -> QdrantObject:
    """The client's form of a point that `filters.filterable` returned.

    Args:
        models: The client's types.
        point: To be written.
    """
    return models.PointStruct(id=point.id, vector=named_vectors(models, point, halves), payload=dict(point.payload))


def halves(rows: Float32) -> list[list[float]]:
    """Rows as numbers that have few digits and round to the float16 nearest to what was given.

    JSON spells every number out. The shortest decimal of a float16 has 3 to 5 digits, that of a float32 beyond
    8, and the float16 itself as many again: 0.8 MB for a page of 768 x 128 in the place of 2.0 and 1.7.
    """
    bits = np.clip(rows, -_HALF_MAX, _HALF_MAX).astype(np.float16).view(np.uint16)
    numbers: list[list[float]] = _decimals()[bits].tolist()
    return numbers


@cache
def _decimals() -> npt.NDArray[np.float64]:
    """The shortest decimal of each of the 65,536 float16."""
    return np.arange(65_536, dtype=np.uint16).view(np.float16).astype(np.str_).astype(np.float64)


def measure(models: QdrantObject, *, grpc: bool) -> Callable[[QdrantObject], int]:
    """What counts the bytes that a point or an operation takes in a request.

    Args:
        models: The client's types.
        grpc: Whether gRPC is spoken, and not REST.
    """
    if not grpc:
        # As the client writes them.
        return lambda item: len(item.model_dump_json(exclude_unset=True, exclude_none=True).encode()) + 1
    conversion = require("qdrant_client.conversions.conversion", extra="qdrant", package="qdrant-client").RestToGrpc

    def size(item: QdrantObject) -> int:
        is_point = isinstance(item, models.PointStruct)
        message = conversion.convert_point_struct(item) if is_point else conversion.convert_update_operation(item)
        # And its tag and length.
        return int(message.ByteSize()) + 8

    return size
