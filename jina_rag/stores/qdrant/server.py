"""The store on a Qdrant server or cluster: many processes may have it open at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

from jina_rag._extras import require
from jina_rag.config import Storage
from jina_rag.errors import IndexNotFoundError, InvalidInputError
from jina_rag.stores import schema
from jina_rag.stores.filters import (
    MOST_INDEXED,
    Condition,
    can_match,
    conditions,
    number_paths,
    without_own,
)
from jina_rag.stores.qdrant.client import MEMORY, Client, QdrantConnection, checked_url, connect
from jina_rag.stores.qdrant.codec import by_bytes, change, chosen_by, encode, measure, shown, sparse
from jina_rag.stores.qdrant.collection import checked_name, index_numbers, open_collection, read_facts, write_facts
from jina_rag.stores.qdrant.edge_codec import checked, decode, prepared
from jina_rag.stores.qdrant.errors import Place
from jina_rag.stores.qdrant.retry import Remote
from jina_rag.types import Float32, Point, Prefetch, SparseVector, StoreHit, Where

__all__ = ["QdrantConnection", "QdrantStore"]

_SCROLL: Final = 256
"""Points per request when they are read without vectors."""
_FETCH: Final = 16
"""Points per request with vectors: a page may take 2 MB of JSON."""
_DELETE: Final = 10_000
"""Ids per request."""


class QdrantStore:
    """A `MultiVectorStore` on a Qdrant server, version 1.16 or newer. Also a context manager.

    Methods may be called from several threads, and several processes may have the same collection open.
    Multi-vectors are kept as float16, dense ones as float32. In a collection of several shards, how rare a term is
    (which weighs in lexical search) is counted in each shard by itself.
    """

    def __init__(self, remote: Remote, dims: tuple[int, int], indexed: set[str]) -> None:
        self._remote = remote
        self._indexed = indexed
        self.dim, self.multi_dim = dims

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
        client: Client = None,
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
            facts: A JSON object, kept with a collection that is made; see `facts`.
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
        connection = connection or QdrantConnection()
        for name, value in (("dim", dim), ("multi_dim", multi_dim)):
            if value < 1:
                raise InvalidInputError(f"{name} is {value}; it must be at least 1.")
        remote = _reached(url, collection, connection, client)
        try:
            kept = schema.clean_payload(dict(facts or {}))
            indexed = open_collection(
                remote, (dim, multi_dim), create=create, facts=kept, connection=connection, storage=storage or Storage()
            )
        except BaseException:
            remote.close()
            raise
        return cls(remote, (dim, multi_dim), indexed)

    @classmethod
    def recorded(
        cls,
        url: str,
        *,
        collection: str,
        connection: QdrantConnection | None = None,
        client: Client = None,
    ) -> dict[str, Any] | None:
        """The facts of a collection, before it is opened; None where there is none. The arguments are those of `open`.

        Raises:
            InvalidInputError: As `open`.
            IndexMismatchError: If the collection was not made by jina-rag.
            IndexStateError: As `open`.
        """
        remote = _reached(url, collection, connection or QdrantConnection(), client)
        try:
            return read_facts(remote)
        except IndexNotFoundError:
            return None
        finally:
            remote.close()

    def facts(self) -> dict[str, Any]:
        """What the collection says it was built with, as it was given to `open` or to `set_facts`."""
        return read_facts(self._remote)

    def set_facts(self, facts: Mapping[str, Any]) -> None:
        """Keep other facts in the place of those that are kept.

        Raises:
            InvalidInputError: If they are not JSON.
        """
        write_facts(self._remote, facts)

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points; one of the same id is replaced. When this returns, the server has applied all of them.

        The points go in as many requests as they need, none above `schema.BATCH_BYTES` unless a single point is.
        Each request is applied whole; a call that fails, or is killed, may have written the points of its first
        requests. Ids make it repeatable: the same call again ends in the same state. A multi-vector beyond the
        server's limit is merged (`schema.fit`); one without rows is left out.

        Raises:
            InvalidInputError: If a vector has another length than the store's, or a payload is not JSON; nothing is
                written then.
        """
        ready = [prepared(point, self.dim, self.multi_dim) for point in points]
        last = {point.id: point for point in ready}
        self._index(path for point in last.values() for path in number_paths(point.payload))
        encoded = (encode(self._remote.models, point, half=True) for point in last.values())
        self._send(encoded, "upsert", "points")

    def update_payload(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace some keys of points' payloads: id → key → value; a value of None takes the key out.

        The other keys and all vectors stay; unknown ids are ignored. Each point is changed whole or not at all; a
        call that fails may have changed some points, and can be repeated. Two processes that change the same point
        at the same time both succeed, but what filters see may then lack one of the changes.

        Raises:
            InvalidInputError: If a value is not JSON; nothing is changed then.
        """
        ready = {schema.checked_id(key): schema.checked_payload(given) for key, given in changes.items()}
        # What cannot be filtered by is most of a payload, and not needed for the tags.
        models = self._remote.models
        needed = models.PayloadSelectorExclude(exclude=sorted(schema.UNFILTERABLE))
        records = self._retrieve(list(ready), _SCROLL, with_payload=needed, with_vectors=False)
        operations = (change(models, record, ready[str(record.id)]) for record in records)
        self._send(self._with_indexes(operations), "batch_update_points", "update_operations")

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points by id; unknown ids are ignored."""
        known = [schema.checked_id(value) for value in ids]
        for start in range(0, len(known), _DELETE):
            chosen = self._remote.models.PointIdsList(points=known[start : start + _DELETE])
            self._remote.on_collection("be written to", "delete", points_selector=chosen, wait=True)

    def delete_where(self, where: Where) -> None:
        """Remove every point that the filter matches; an empty filter matches all of them."""
        wanted = conditions(where)
        if can_match(wanted):
            models = self._remote.models
            chosen = models.FilterSelector(filter=chosen_by(models, wanted) or models.Filter())
            self._remote.on_collection("be written to", "delete", points_selector=chosen, wait=True)

    def search(
        self,
        multi: Float32,
        *,
        limit: int,
        dense: Float32 | None = None,
        lexical: SparseVector | None = None,
        prefetch: Prefetch | None = None,
        where: Where | None = None,
        keys: Sequence[str] | None = None,
    ) -> list[StoreHit]:
        """Rank points by exact MaxSim with `multi`, shape (query tokens, multi_dim); see `MultiVectorStore`.

        Candidates and MaxSim are one request.

        Raises:
            InvalidInputError: If a vector has another length than the store's, if `limit` is below 1, or if
                there is a `prefetch` but neither `dense` nor `lexical`.
        """
        rows = checked(multi, 2, self.multi_dim, "question's multi-vector")
        if len(rows) == 0:
            raise InvalidInputError("The question has no vectors: pass a multi-vector with at least one row.")
        wanted = conditions(where or {})
        if prefetch is None:
            return self._query(rows.tolist(), schema.MULTI, limit, wanted, keys=keys)
        if dense is None and lexical is None:
            raise InvalidInputError("A prefetch needs a dense or a lexical vector to find candidates with.")
        vectors: dict[str, Any] = {}
        if dense is not None:
            vectors[schema.DENSE] = checked(dense, 1, self.dim, "question's dense vector").tolist()
        if lexical is not None and len(lexical.indices):
            vectors[schema.LEXICAL] = sparse(self._remote.models, lexical)
        stages = [
            (vectors[name], name, count, wanted + conditions(also))
            for name, count, also in schema.candidate_stages(prefetch)
            if name in vectors
        ]
        return self._query(rows.tolist(), schema.MULTI, limit, wanted, stages, keys=keys) if stages else []

    def nearest(
        self,
        vector: Float32 | SparseVector,
        *,
        limit: int,
        where: Where | None = None,
        keys: Sequence[str] | None = None,
    ) -> list[StoreHit]:
        """Rank by one cheap vector: dense, shape (dim,), or lexical; `keys` as in `search`.

        A lexical one finds only points that share a term with it.

        Raises:
            InvalidInputError: If the vector has another length than the store's, or `limit` is below 1.
        """
        wanted = conditions(where or {})
        if not isinstance(vector, SparseVector):
            asked = checked(vector, 1, self.dim, "dense vector").tolist()
            return self._query(asked, schema.DENSE, limit, wanted, keys=keys)
        if not len(vector.indices):
            return []
        return self._query(sparse(self._remote.models, vector), schema.LEXICAL, limit, wanted, keys=keys)

    def fetch(self, ids: Sequence[str], *, vectors: bool = True) -> list[Point]:
        """Return the points that exist among `ids`, in their order; vectors as stored, in float32."""
        order = [schema.checked_id(value) for value in ids]
        records = self._retrieve(
            list(dict.fromkeys(order)),
            _FETCH if vectors else _SCROLL,
            with_payload=shown(self._remote.models),
            with_vectors=vectors,
        )
        found = {str(record.id): decode(record) for record in records}
        return [found[value] for value in order if value in found]

    def scroll(self, where: Where | None = None) -> Iterator[StoreHit]:
        """Every matching point, without vectors, in no particular order; scores are 0."""
        wanted = conditions(where or {})
        offset = None
        while can_match(wanted):
            records, offset = self._remote.on_collection(
                "be read",
                "scroll",
                scroll_filter=chosen_by(self._remote.models, wanted),
                limit=_SCROLL,
                offset=offset,
                with_payload=shown(self._remote.models),
                with_vectors=False,
            )
            for record in records:
                yield StoreHit(str(record.id), 0.0, without_own(record.payload))
            if offset is None:
                return

    def count(self, where: Where | None = None) -> int:
        """Number of matching points."""
        wanted = conditions(where or {})
        if not can_match(wanted):
            return 0
        return int(
            self._remote.on_collection(
                "be read", "count", count_filter=chosen_by(self._remote.models, wanted), exact=True
            ).count
        )

    def flush(self) -> None:
        """Nothing is left to do: every write waited until the server had it in its log and had applied it."""
        _ = self._remote.client

    def bytes_by_part(self) -> dict[str, int]:
        """Empty: a server does not tell what its files take."""
        return {}

    def close(self) -> None:
        """Release the connections; using the store afterwards raises IndexStateError. Closing twice is fine."""
        self._remote.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _index(self, paths: Iterable[str]) -> None:
        """See that the server need not read every payload for a range under these paths."""
        for path in dict.fromkeys(paths):
            if path not in self._indexed and len(self._indexed) < MOST_INDEXED:
                index_numbers(self._remote, path)
                self._indexed.add(path)

    def _with_indexes(self, operations: Iterator[Client]) -> Iterator[Client]:
        for operation in operations:
            self._index(number_paths(operation.set_payload.payload))
            yield operation

    def _send(self, items: Iterator[Client], method: str, argument: str) -> None:
        size = measure(self._remote.models, grpc=self._remote.grpc)
        for batch in by_bytes(items, size):
            self._remote.on_collection("be written to", method, **{argument: batch}, wait=True)

    def _retrieve(self, ids: Sequence[str], step: int, **wanted: Client) -> Iterator[Client]:
        for start in range(0, len(ids), step):
            yield from self._remote.on_collection("be read", "retrieve", ids=ids[start : start + step], **wanted)

    def _query(
        self,
        vector: Client,
        using: str,
        limit: int,
        wanted: list[Condition],
        stages: Sequence[tuple[Client, str, int, list[Condition]]] = (),
        *,
        keys: Sequence[str] | None = None,
    ) -> list[StoreHit]:
        if limit < 1:
            raise InvalidInputError(f"The limit of a search is {limit}: ask for at least 1 result.")
        if not can_match(wanted):
            return []
        models = self._remote.models
        chosen = chosen_by(models, wanted)
        points = self._remote.on_collection(
            "be searched",
            "query_points",
            query=vector,
            using=using,
            # The server passes the outer filter on; said twice, so that nothing hangs on that.
            prefetch=[
                models.Prefetch(query=vector, using=name, limit=count, filter=chosen_by(models, also))
                for vector, name, count, also in stages
            ]
            or None,
            query_filter=chosen,
            limit=limit,
            with_payload=shown(models, keys),
        ).points
        hits = [StoreHit(str(point.id), float(point.score), without_own(point.payload)) for point in points]
        return sorted(hits, key=lambda hit: (-hit.score, hit.id))


def _reached(url: str, collection: str, connection: QdrantConnection, client: Client) -> Remote:
    """The collection's place behind a client; nothing is sent yet."""
    where = checked_url(url)
    secret = None if where == MEMORY else connection.key()
    place = Place(where, checked_name(collection), connection.seconds, secret)
    qdrant_client = require("qdrant_client", extra="qdrant", package="qdrant-client")
    owned = client is None
    made = connect(qdrant_client, where, connection) if owned else client
    return Remote(qdrant_client, made, place, connection, owned=owned)
