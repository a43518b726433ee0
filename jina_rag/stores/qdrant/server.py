"""Vector store on a Qdrant server or cluster, which several processes can open at the same time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any, Final, Self

from jina_rag._checks import check_whole_number
from jina_rag._extras import require
from jina_rag.config import Storage
from jina_rag.errors import IndexNotFoundError
from jina_rag.stores import schema
from jina_rag.stores.base import Stage, StagedQuery
from jina_rag.stores.filters import Condition, OneOf, with_filter_payload
from jina_rag.stores.qdrant.base import READ_BATCH, BaseQdrantStore
from jina_rag.stores.qdrant.client import MEMORY, QdrantConnection, Remote, checked_url, connect
from jina_rag.stores.qdrant.codec import QdrantObject
from jina_rag.stores.qdrant.collection import checked_name, index_payload, open_collection, read_facts
from jina_rag.stores.qdrant.errors import Address
from jina_rag.stores.qdrant.server_codec import encode, size_function
from jina_rag.types import Point, SparseVector, StoreHit

__all__ = ["QdrantConnection", "QdrantStore"]

_FETCH_BATCH: Final = 16
"""Points per read request with vectors; a page may take 2 MB of JSON."""
_REQUEST_OVERHEAD: Final = 4096
"""Bytes of a request that are reserved for everything except the points."""


class QdrantStore(BaseQdrantStore):
    """A `MultiVectorStore` on a Qdrant server, version 1.16 or newer; thread-safe.

    Several processes can open the same collection. The store is a context manager and is closed on exit. By default,
    multi-vectors are stored as float16 and dense vectors as float32. In a collection of several shards, each shard
    computes the IDF of lexical search over its own points.

    `upsert` returns after the server has applied all points. It splits the points into requests of at most
    `schema.BATCH_BYTES`; a larger point is sent alone. Each request is atomic. A call that fails or is killed may have
    written the points of its first requests; repeating the call is safe, because `upsert` is idempotent.

    If two processes change the payload of the same point at the same time, both calls succeed, but the tags and numbers
    of the point may lack one of the changes.
    """

    def __init__(self, remote: Remote, dims: tuple[int, int], indexed_paths: set[str]) -> None:
        super().__init__(remote.models, remote.models.Range, dims, indexed_paths)
        self._remote = remote

    @classmethod
    def open(
        cls,
        url: str,
        *,
        collection: str,
        dim: int,
        multi_dim: int,
        create: bool = True,
        connection: QdrantConnection | None = None,
        facts: Mapping[str, Any] | None = None,
        storage: Storage | None = None,
        client: QdrantObject = None,
    ) -> Self:
        """Open a collection; create it if it is missing.

        Args:
            url: URL of the server, for example ``"http://localhost:6333"``; the default port is 6333.
                ``":memory:"`` is the client's in-process Qdrant, for tests.
            collection: Name or alias of the collection.
            dim: Length of the dense vectors.
            multi_dim: Length of each row of the multi-vectors.
            create: Whether to create a missing collection.
            connection: Connection settings; None for the defaults.
            facts: JSON object to store in the metadata of a new collection; see `stored_facts`.
            storage: Vector storage of a new collection; None for ``"exact"``. The store applies the datatype and the
                quantization; the caller pools and truncates the rows.
            client: A `QdrantClient` to use instead of a new client; closing the store leaves this client open.

        Raises:
            InvalidInputError: If an argument is invalid.
            IndexNotFoundError: If the collection is missing and `create` is False.
            IndexMismatchError: If the collection was not created by jina-rag, or has vectors of other lengths.
            IndexCorruptError: If the collection lacks a vector.
            IndexStateError: If the server is unreachable, rejects a request, or is too old.
            MissingDependencyError: If the package qdrant-client is not installed.
        """
        check_whole_number("dim", dim, minimum=1)
        check_whole_number("multi_dim", multi_dim, minimum=1)
        clean_facts = schema.clean_payload(dict(facts or {}))
        dims, storage = (dim, multi_dim), storage or Storage()
        remote = _make_remote(url, collection, connection, client)
        try:
            indexed_paths = open_collection(remote, dims, create=create, facts=clean_facts, storage=storage)
        except BaseException:
            remote.close()
            raise
        return cls(remote, dims, indexed_paths)

    @classmethod
    def stored_facts(
        cls,
        url: str,
        *,
        collection: str,
        connection: QdrantConnection | None = None,
        client: QdrantObject = None,
    ) -> dict[str, Any] | None:
        """Return the JSON object that `open` stored as `facts`; None if the collection is missing.

        The store is not opened.

        Args:
            url: URL of the server; see `open`.
            collection: Name or alias of the collection.
            connection: Connection settings; None for the defaults.
            client: A `QdrantClient` to use instead of a new client.

        Raises:
            InvalidInputError: If an argument is invalid.
            IndexMismatchError: If the collection was not created by jina-rag.
            IndexStateError: If the server is unreachable or rejects a request.
        """
        remote = _make_remote(url, collection, connection, client)
        with closing(remote), suppress(IndexNotFoundError):
            return read_facts(remote)
        return None

    def flush(self) -> None:
        """Do nothing: every write returns after the server has logged and applied the write."""
        _ = self._remote.client

    def bytes_by_part(self) -> dict[str, int]:
        """Return an empty dict: a server does not report the bytes of its files."""
        return {}

    def close(self) -> None:
        """Close the client, unless the caller passed the client; idempotent.

        Every other call on a closed store raises IndexStateError.
        """
        self._remote.close()

    def _write(self, points: Sequence[Point]) -> None:
        points = [with_filter_payload(point) for point in points]
        for point in points:
            self._index_payload(point.payload)
        self._send((encode(self._types, point) for point in points), "upsert", "points")

    def _change(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        # The unfilterable keys take most of a payload and are not read, because tags and numbers do not depend on them.
        selector = self._types.PayloadSelectorExclude(exclude=sorted(schema.UNFILTERABLE))
        records = self._read(list(changes), READ_BATCH, with_payload=selector, with_vectors=False)
        operations = (
            self._types.SetPayloadOperation(set_payload=self._types.SetPayload(payload=payload, points=[point_id]))
            for point_id, payload in self._changed_payloads(records, changes)
        )
        self._send(operations, "batch_update_points", "update_operations")

    def _send(self, items: Iterator[QdrantObject], method: str, argument: str) -> None:
        size = size_function(self._types, grpc=self._remote.grpc)
        for batch in schema.batches_by_size(items, size, schema.BATCH_BYTES - _REQUEST_OVERHEAD):
            self._remote.call_collection("be written to", method, **{argument: batch}, wait=True)

    def _delete_ids(self, ids: list[str]) -> None:
        self._delete(self._types.PointIdsList(points=ids))

    def _delete_matching(self, conditions: Sequence[Condition]) -> None:
        self._delete(self._types.FilterSelector(filter=self._filter(conditions) or self._types.Filter()))

    def _delete(self, selector: QdrantObject) -> None:
        self._remote.call_collection("be written to", "delete", points_selector=selector, wait=True)

    def _query_batch(self, queries: Sequence[StagedQuery]) -> list[list[StoreHit]]:
        hits: list[list[StoreHit]] = []
        for batch in schema.batches_by_size(queries, _query_bytes, schema.BATCH_BYTES):
            requests = [self._query_request(query) for query in batch]
            responses = self._remote.call_collection("be searched", "query_batch_points", requests=requests)
            hits += [
                self._to_hits(response.points, query.keys) for response, query in zip(responses, batch, strict=True)
            ]
        return hits

    def _query_request(self, query: StagedQuery) -> QdrantObject:
        prefetch = [self._types.Prefetch(**self._stage_arguments(candidate)) for candidate in query.candidates]
        return self._types.QueryRequest(
            **self._stage_arguments(query.stage),
            prefetch=prefetch or None,
            with_payload=self._payload_selector(query.keys),
        )

    def _stage_arguments(self, stage: Stage) -> dict[str, QdrantObject]:
        return {
            "query": self._query_vector(stage),
            "using": stage.using,
            "limit": stage.limit,
            "filter": self._filter(stage.conditions, stage.ids),
        }

    def _id_condition(self, ids: Collection[str]) -> QdrantObject:
        return self._types.HasIdCondition(has_id=list(ids))

    def _payload_selector(self, keys: Sequence[str] | None = None) -> QdrantObject:
        """Return the selector of the payload keys in a response: `keys`, or all except tags and numbers."""
        if keys is None:
            return self._types.PayloadSelectorExclude(exclude=[schema.TAGS, schema.NUMBERS])
        return self._types.PayloadSelectorInclude(include=list(keys)) if keys else False

    def _retrieve(self, ids: list[str], *, vectors: bool) -> QdrantObject:
        batch = _FETCH_BATCH if vectors else READ_BATCH
        return self._read(ids, batch, with_payload=self._payload_selector(), with_vectors=vectors)

    def _read(self, ids: list[str], batch: int, **selection: QdrantObject) -> Iterator[QdrantObject]:
        for start in range(0, len(ids), batch):
            yield from self._remote.call_collection("be read", "retrieve", ids=ids[start : start + batch], **selection)

    def _scroll_batch(self, selection: QdrantObject, offset: QdrantObject) -> QdrantObject:
        return self._remote.call_collection(
            "be read",
            "scroll",
            scroll_filter=selection,
            limit=READ_BATCH,
            offset=offset,
            with_payload=self._payload_selector(),
            with_vectors=False,
        )

    def _count(self, conditions: Sequence[Condition]) -> int:
        selection = self._filter(conditions)
        return int(self._remote.call_collection("be read", "count", count_filter=selection, exact=True).count)

    def _index_numbers(self, path: str) -> None:
        index_payload(self._remote, "be written to", path, self._types.PayloadSchemaType.FLOAT)


def _query_bytes(query: StagedQuery) -> int:
    """Return the approximate bytes of a query in a REST request: JSON spells a float32 in about 20 characters."""
    stages = [query.stage, *query.candidates]
    numbers = sum(
        2 * len(stage.vector.indices) if isinstance(stage.vector, SparseVector) else stage.vector.size
        for stage in stages
    )
    texts = sum(40 * len(stage.ids or ()) for stage in stages) + sum(
        len(tag) + 8
        for stage in stages
        for condition in stage.conditions
        if isinstance(condition, OneOf)
        for tag in condition.tags
    )
    return 20 * numbers + texts + _REQUEST_OVERHEAD


def _make_remote(url: str, collection: str, connection: QdrantConnection | None, client: QdrantObject) -> Remote:
    """Return the collection and the client that sends the requests; no request is sent yet."""
    connection = connection or QdrantConnection()
    server_url = checked_url(url)
    secret = None if server_url == MEMORY else connection.key()
    address = Address(server_url, checked_name(collection), connection.seconds, secret)
    qdrant_client = require("qdrant_client", extra="qdrant", package="qdrant-client")
    own_client = connect(qdrant_client, server_url, connection) if client is None else None
    return Remote(qdrant_client.models, client or own_client, address, connection, own=client is None)
