"""The store on a Qdrant server or cluster: many processes may have it open at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any, Final, Self

from jina_rag._checks import check_whole_number
from jina_rag._extras import require
from jina_rag.config import Storage
from jina_rag.errors import IndexNotFoundError
from jina_rag.stores import schema
from jina_rag.stores.base import Stage
from jina_rag.stores.filters import Condition, filterable
from jina_rag.stores.qdrant.base import READ_BATCH, BaseQdrantStore
from jina_rag.stores.qdrant.client import MEMORY, QdrantConnection, Remote, checked_url, connect
from jina_rag.stores.qdrant.codec import QdrantObject
from jina_rag.stores.qdrant.collection import checked_name, index_payload, open_collection, read_facts
from jina_rag.stores.qdrant.errors import Place
from jina_rag.stores.qdrant.server_codec import encode, measure
from jina_rag.types import Point, StoreHit

__all__ = ["QdrantConnection", "QdrantStore"]

_FETCH_BATCH: Final = 16
"""Points per request with vectors: a page may take 2 MB of JSON."""
_ENVELOPE: Final = 4096
"""Bytes of a request beside its points."""


class QdrantStore(BaseQdrantStore):
    """A `MultiVectorStore` on a Qdrant server, version 1.16 or newer. Also a context manager.

    Methods may be called from several threads, and several processes may have the same collection open.
    Multi-vectors are kept as float16, dense ones as float32. In a collection of several shards, how rare a term is
    (which weighs in lexical search) is counted in each shard by itself.

    When `upsert` returns, the server has applied all of it. The points go in as many requests as they need, none above
    `schema.BATCH_BYTES` unless a single point is. Each request is applied whole; a call that fails, or is killed, may
    have written the points of its first requests. Ids make it repeatable: the same call again ends in the same state.
    Two processes that change the payload of the same point at the same time both succeed, but what filters see may
    then lack one of the changes.
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
        """Open the collection, or make it.

        Args:
            url: Of the server, for example ``"http://localhost:6333"``; port 6333 where it names none. ``":memory:"``
                is the client's stand-in in this process, for tests.
            collection: Its name, or an alias.
            dim: Length of the dense vectors.
            multi_dim: Length of each row of the multi-vectors.
            create: Whether to make it where there is none.
            connection: How to reach the server; None for the defaults.
            facts: A JSON object, kept with a collection that is made; see `stored_facts`.
            storage: How vectors of a collection that is made are kept; None for ``"exact"``. Of its knobs, rows are
                pooled and cut before they come here.
            client: A `QdrantClient` to use in the place of one of its own; it stays open when the store is closed.

        Raises:
            InvalidInputError: If an argument makes no sense.
            IndexNotFoundError: If there is none and `create` is False.
            IndexMismatchError: If it was not made by jina-rag, or holds vectors of other lengths.
            IndexStateError: If the server cannot be reached, refuses, or is too old.
            MissingDependencyError: If the client is not installed.
        """
        check_whole_number("dim", dim, minimum=1)
        check_whole_number("multi_dim", multi_dim, minimum=1)
        clean_facts = schema.clean_payload(dict(facts or {}))
        dims, storage = (dim, multi_dim), storage or Storage()
        remote = _remote_of(url, collection, connection, client)
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
        """The facts of a collection, before it is opened; None where there is none. The arguments are those of `open`.

        Raises:
            InvalidInputError: As `open`.
            IndexMismatchError: If the collection was not made by jina-rag.
            IndexStateError: As `open`.
        """
        remote = _remote_of(url, collection, connection, client)
        with closing(remote), suppress(IndexNotFoundError):
            return read_facts(remote)
        return None

    def flush(self) -> None:
        """Nothing is left to do: every write waited until the server had it in its log and had applied it."""
        _ = self._remote.client

    def bytes_by_part(self) -> dict[str, int]:
        """Empty: a server does not tell what its files take."""
        return {}

    def close(self) -> None:
        """Release the connections; using the store afterwards raises IndexStateError. Closing twice is fine."""
        self._remote.close()

    def _write(self, points: Sequence[Point]) -> None:
        points = [filterable(point) for point in points]
        for point in points:
            self._index(point.payload)
        self._send((encode(self._types, point) for point in points), "upsert", "points")

    def _change(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        # What cannot be filtered by is most of a payload, and not needed for the tags.
        selector = self._types.PayloadSelectorExclude(exclude=sorted(schema.UNFILTERABLE))
        records = self._read(list(changes), READ_BATCH, with_payload=selector, with_vectors=False)
        operations = (
            self._types.SetPayloadOperation(set_payload=self._types.SetPayload(payload=payload, points=[point_id]))
            for point_id, payload in self._changed_payloads(records, changes)
        )
        self._send(operations, "batch_update_points", "update_operations")

    def _send(self, items: Iterator[QdrantObject], method: str, argument: str) -> None:
        size = measure(self._types, grpc=self._remote.grpc)
        for batch in schema.batches_by_size(items, size, schema.BATCH_BYTES - _ENVELOPE):
            self._remote.on_collection("be written to", method, **{argument: batch}, wait=True)

    def _delete_ids(self, ids: list[str]) -> None:
        self._delete(self._types.PointIdsList(points=ids))

    def _delete_matching(self, conditions: Sequence[Condition]) -> None:
        self._delete(self._types.FilterSelector(filter=self._filter(conditions) or self._types.Filter()))

    def _delete(self, selector: QdrantObject) -> None:
        self._remote.on_collection("be written to", "delete", points_selector=selector, wait=True)

    def _query(self, stage: Stage, candidates: Sequence[Stage], keys: Sequence[str] | None) -> list[StoreHit]:
        prefetch = [
            self._types.Prefetch(
                query=self._vector(one), using=one.using, limit=one.limit, filter=self._filter(one.conditions)
            )
            for one in candidates
        ]
        response = self._remote.on_collection(
            "be searched",
            "query_points",
            query=self._vector(stage),
            using=stage.using,
            prefetch=prefetch or None,
            query_filter=self._filter(stage.conditions),
            limit=stage.limit,
            with_payload=self._payload_selector(keys),
        )
        return self._hits(response.points)

    def _payload_selector(self, keys: Sequence[str] | None = None) -> QdrantObject:
        """Which parts of the payload an answer carries: the named ones, or all but the store's own."""
        if keys is None:
            return self._types.PayloadSelectorExclude(exclude=[schema.TAGS, schema.NUMBERS])
        return self._types.PayloadSelectorInclude(include=list(keys)) if keys else False

    def _retrieve(self, ids: list[str], *, vectors: bool) -> QdrantObject:
        batch = _FETCH_BATCH if vectors else READ_BATCH
        return self._read(ids, batch, with_payload=self._payload_selector(), with_vectors=vectors)

    def _read(self, ids: list[str], batch: int, **selection: QdrantObject) -> Iterator[QdrantObject]:
        for start in range(0, len(ids), batch):
            yield from self._remote.on_collection("be read", "retrieve", ids=ids[start : start + batch], **selection)

    def _scroll_batch(self, selection: QdrantObject, offset: QdrantObject) -> QdrantObject:
        return self._remote.on_collection(
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
        return int(self._remote.on_collection("be read", "count", count_filter=selection, exact=True).count)

    def _index_numbers(self, path: str) -> None:
        index_payload(self._remote, "be written to", path, self._types.PayloadSchemaType.FLOAT)


def _remote_of(url: str, collection: str, connection: QdrantConnection | None, client: QdrantObject) -> Remote:
    """The collection's place behind a client; nothing is sent yet."""
    connection = connection or QdrantConnection()
    where = checked_url(url)
    secret = None if where == MEMORY else connection.key()
    place = Place(where, checked_name(collection), connection.seconds, secret)
    qdrant_client = require("qdrant_client", extra="qdrant", package="qdrant-client")
    own_client = connect(qdrant_client, where, connection) if client is None else None
    return Remote(qdrant_client.models, client or own_client, place, connection, own=client is None)
