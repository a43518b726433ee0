"""Base class of the Qdrant stores: translates queries, filters and payloads to Qdrant types."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from jina_rag.stores import schema
from jina_rag.stores.base import BaseStore, Stage
from jina_rag.stores.filters import MAX_INDEXED_KEYS, Condition, Within, filter_payload, without_filter_keys
from jina_rag.stores.qdrant.codec import QdrantObject, decode, encode_sparse
from jina_rag.types import Point, SparseVector, StoreHit

READ_BATCH: Final = 256
"""Points per read call without vectors."""


class BaseQdrantStore(BaseStore):
    """Base class of the stores on a Qdrant engine; a subclass implements the calls of one engine."""

    def __init__(
        self, types: QdrantObject, range_type: QdrantObject, dims: tuple[int, int], indexed_paths: set[str]
    ) -> None:
        """Create a store object on an open collection.

        Args:
            types: Module or object with the request types of the engine.
            range_type: Type of a number range in requests; the name of the type differs between the engines.
            dims: Lengths of the dense vectors and of the rows of the multi-vectors.
            indexed_paths: Payload paths with a payload index of numbers.
        """
        super().__init__(*dims)
        self._types = types
        self._range_type = range_type
        self._indexed_paths = indexed_paths

    @abstractmethod
    def _retrieve(self, ids: list[str], *, vectors: bool) -> QdrantObject:
        """Return the existing records of `ids`."""

    @abstractmethod
    def _id_condition(self, ids: Collection[str]) -> QdrantObject:
        """Return the engine's condition that a point has one of the ids."""

    @abstractmethod
    def _scroll_batch(self, selection: QdrantObject, offset: QdrantObject) -> QdrantObject:
        """Return a batch of matching records without vectors, and the offset of the next batch or None."""

    @abstractmethod
    def _index_numbers(self, path: str) -> None:
        """Create a payload index of the numbers at a payload path."""

    def _fetch(self, ids: list[str], *, vectors: bool) -> Iterable[Point]:
        return map(decode, self._retrieve(ids, vectors=vectors)) if ids else ()

    def _scroll(self, conditions: Sequence[Condition]) -> Iterator[StoreHit]:
        offset = None
        while True:
            records, offset = self._scroll_batch(self._filter(conditions), offset)
            for record in records:
                yield StoreHit(str(record.id), 0.0, without_filter_keys(record.payload))
            if offset is None:
                return

    def _to_hits(self, points: Iterable[QdrantObject], keys: Sequence[str] | None) -> list[StoreHit]:
        """Return points of the engine as hits; `keys` are the requested payload keys, None for all keys."""
        if keys is None:
            return [StoreHit(str(point.id), float(point.score), without_filter_keys(point.payload)) for point in points]
        return [StoreHit(str(point.id), float(point.score), point.payload or {}) for point in points]

    def _index_payload(self, payload: Mapping[str, Any]) -> None:
        """Create the missing payload indexes for the numbers in a payload.

        With a payload index, a range filter on 5,000 points takes 0.5 ms instead of 55 ms, because the engine reads no
        payloads.

        Args:
            payload: Payload with the keys of `filter_payload`.
        """
        for name in payload.get(schema.NUMBERS, {}):
            path = f"{schema.NUMBERS}.{name}"
            if path not in self._indexed_paths and len(self._indexed_paths) < MAX_INDEXED_KEYS:
                self._index_numbers(path)
                self._indexed_paths.add(path)

    def _changed_payloads(
        self, records: Iterable[QdrantObject], changes: Mapping[str, Mapping[str, Any]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the id of each record and the payload keys to set; None removes a key.

        The payload indexes for new numbers are created first.
        """
        for record in records:
            change = changes[str(record.id)]
            payload = {**change, **filter_payload(schema.changed_payload(record.payload or {}, change))}
            self._index_payload(payload)
            yield str(record.id), payload

    def _query_vector(self, stage: Stage) -> QdrantObject:
        vector = stage.vector
        return encode_sparse(self._types, vector) if isinstance(vector, SparseVector) else vector.tolist()

    def _filter(self, conditions: Sequence[Condition], ids: Collection[str] | None = None) -> QdrantObject:
        """Return the filter as an engine type; None without conditions and ids."""
        must = [self._condition(condition) for condition in conditions]
        if ids is not None:
            must.append(self._id_condition(ids))
        return self._types.Filter(must=must) if must else None

    def _condition(self, condition: Condition) -> QdrantObject:
        if isinstance(condition, Within):
            return self._types.FieldCondition(key=condition.path, range=self._range_type(**asdict(condition.interval)))
        return self._types.FieldCondition(key=schema.TAGS, match=self._types.MatchAny(any=list(condition.tags)))
