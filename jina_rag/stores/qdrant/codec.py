"""Points on their way to a Qdrant server and back, cut into requests by their bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from jina_rag._extras import require
from jina_rag.stores import schema
from jina_rag.stores.filters import Condition, Within, for_filters
from jina_rag.stores.qdrant.client import Client
from jina_rag.types import Float32, Point, SparseVector

T = TypeVar("T")

_ENVELOPE: Final = 4096
"""Bytes of a request beside its points."""
_HALF_MAX: Final = 65_504.0


def encode(models: Client, point: Point, *, half: bool) -> Client:
    """The client's form of a point that `prepared` returned.

    Args:
        models: The client's types.
        point: To be written.
        half: Whether multi-vectors are kept as float16.
    """
    vectors: dict[str, Any] = {}
    if point.dense is not None:
        vectors[schema.DENSE] = point.dense.tolist()
    if point.multi is not None:
        vectors[schema.MULTI] = halves(point.multi) if half else point.multi.tolist()
    if point.lexical is not None and len(point.lexical.indices):
        vectors[schema.LEXICAL] = sparse(models, point.lexical)
    return models.PointStruct(id=point.id, vector=vectors, payload=dict(point.payload))


def sparse(models: Client, vector: SparseVector) -> Client:
    """The client's sparse vector."""
    return models.SparseVector(indices=vector.indices.tolist(), values=vector.values.tolist())


def change(models: Client, record: Client, changes: Mapping[str, Any]) -> Client:
    """The operation that changes a point's payload.

    Args:
        models: The client's types.
        record: The point as it was read, with at least what can be filtered by.
        changes: To its payload, cleaned.
    """
    # The server takes a key out where the value is null.
    written = {**changes, **for_filters(schema.changed_payload(record.payload or {}, changes))}
    return models.SetPayloadOperation(set_payload=models.SetPayload(payload=written, points=[str(record.id)]))


def shown(models: Client, keys: Sequence[str] | None = None) -> Client:
    """Which parts of the payload an answer carries: the named ones, or all but the store's own."""
    if keys is None:
        return models.PayloadSelectorExclude(exclude=[schema.TAGS, schema.NUMBERS])
    return models.PayloadSelectorInclude(include=list(keys)) if keys else False


def chosen_by(models: Client, wanted: Sequence[Condition]) -> Client:
    """The filter for conditions; None for none."""
    return models.Filter(must=[_condition(models, condition) for condition in wanted]) if wanted else None


def _condition(models: Client, condition: Condition) -> Client:
    if isinstance(condition, Within):
        limits = condition.range
        within = models.Range(gte=limits.gte, gt=limits.gt, lte=limits.lte, lt=limits.lt)
        return models.FieldCondition(key=condition.path, range=within)
    return models.FieldCondition(key=schema.TAGS, match=models.MatchAny(any=list(condition.tags)))


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


def measure(models: Client, *, grpc: bool) -> Callable[[Client], int]:
    """What counts the bytes that a point or an operation takes in a request.

    Args:
        models: The client's types.
        grpc: Whether gRPC is spoken, and not REST.
    """
    if not grpc:
        # As the client writes them.
        return lambda item: len(item.model_dump_json(exclude_unset=True, exclude_none=True).encode()) + 1
    conversion = require("qdrant_client.conversions.conversion", extra="qdrant", package="qdrant-client").RestToGrpc

    def size(item: Client) -> int:
        a_point = isinstance(item, models.PointStruct)
        sent = conversion.convert_point_struct(item) if a_point else conversion.convert_update_operation(item)
        # And its tag and length.
        return int(sent.ByteSize()) + 8

    return size


def by_bytes(items: Iterable[T], size: Callable[[T], int], limit: int = schema.BATCH_BYTES) -> Iterator[list[T]]:
    """Cut what is to be sent into requests of at most `limit` bytes; an item that is larger by itself goes alone.

    Args:
        items: In order.
        size: Counts the bytes of one.
        limit: Bytes of a request.
    """
    batch: list[T] = []
    filled = _ENVELOPE
    for item in items:
        bytes_of_item = size(item)
        if batch and filled + bytes_of_item > limit:
            yield batch
            batch, filled = [], _ENVELOPE
        batch.append(item)
        filled += bytes_of_item
    if batch:
        yield batch
