"""Conversion of points for a Qdrant server: float16 numbers as short decimals, and the size of a point in a request."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from jina_rag._extras import require
from jina_rag.stores.qdrant.codec import QdrantObject, named_vectors
from jina_rag.types import Float32, Point

_FLOAT16_MAX: Final = 65_504.0


def encode(models: QdrantObject, point: Point) -> QdrantObject:
    """Return a point as a client type.

    Args:
        models: Module with the types of the client.
        point: Point to write, as returned by `filters.with_filter_payload`.
    """
    return models.PointStruct(id=point.id, vector=named_vectors(models, point, fp16_rows), payload=dict(point.payload))


def fp16_rows(rows: Float32) -> list[list[float]]:
    """Return rows as the shortest decimals that round to the nearest float16 numbers.

    JSON spells out every digit. The shortest decimal of a float16 has 3 to 5 digits; a float32, or a float16 converted
    to Python, has more than 8. A page of 768 x 128 numbers takes 0.8 MB instead of 2.0 MB as float32 or 1.7 MB as
    converted float16.

    Args:
        rows: Multi-vector, shape (tokens, dim), float32.
    """
    bits = np.clip(rows, -_FLOAT16_MAX, _FLOAT16_MAX).astype(np.float16).view(np.uint16)
    numbers: list[list[float]] = _float16_decimals()[bits].tolist()
    return numbers


@cache
def _float16_decimals() -> npt.NDArray[np.float64]:
    """Return the shortest decimal of each float16 number, indexed by the 16 bits, shape (65536,), float64."""
    return np.arange(65_536, dtype=np.uint16).view(np.float16).astype(np.str_).astype(np.float64)


def size_function(models: QdrantObject, *, grpc: bool) -> Callable[[QdrantObject], int]:
    """Return a function that counts the bytes of a point or an operation in a request.

    Args:
        models: Module with the types of the client.
        grpc: Whether requests use gRPC; False for REST.
    """
    if not grpc:
        # The REST client calls model_dump_json with the same arguments, so the sizes agree.
        return lambda item: len(item.model_dump_json(exclude_unset=True, exclude_none=True).encode()) + 1
    conversion = require("qdrant_client.conversions.conversion", extra="qdrant", package="qdrant-client").RestToGrpc

    def size(item: QdrantObject) -> int:
        is_point = isinstance(item, models.PointStruct)
        message = conversion.convert_point_struct(item) if is_point else conversion.convert_update_operation(item)
        # 8 bytes for the tag and the length of the message.
        return int(message.ByteSize()) + 8

    return size
