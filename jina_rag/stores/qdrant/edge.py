"""The embedded store: Qdrant's engine in this process, over a folder that one process has open at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from jina_rag._extras import require
from jina_rag.config import Storage
from jina_rag.errors import IndexStateError, InvalidInputError
from jina_rag.stores import schema
from jina_rag.stores.filters import (
    MOST_INDEXED,
    Condition,
    Within,
    conditions,
    for_filters,
    indexed_paths,
    number_paths,
    without_own,
)
from jina_rag.stores.qdrant.edge_codec import checked, decode, encode, prepared, sparse
from jina_rag.stores.qdrant.edge_folder import Engine, OpenFolder, bytes_by_part, load_shard, open_shard, translated
from jina_rag.types import Float32, Point, Prefetch, SparseVector, StoreHit, Where

_SCROLL: Final = 256
"""Points per call when all are read."""
_VACUUM: Final = 1000
"""Deleted points that are worth the time to give their space back."""
_RELIEF: Final = 96 * 1024 * 1024
"""Bytes of vectors after whose writing the shard is loaded anew: the pages it has mapped count as this process's
memory until then, and would grow with the index."""
_NO_POINT: Final = "00000000-0000-0000-0000-000000000000"


class EdgeStore:
    """A `MultiVectorStore` over a folder, in this process. Also a context manager.

    Methods may be called from several threads. How vectors are kept is told by `storage`.
    """

    def __init__(self, path: Path, engine: Engine, opened: OpenFolder, dims: tuple[int, int]) -> None:
        self._path = path
        self._engine = engine
        self._shard = opened.shard
        self._lock = opened.lock
        self.storage = opened.storage
        self.dim, self.multi_dim = dims
        self._writing = threading.RLock()
        # Held for each call of the engine, which holds the interpreter's lock anyway: nobody meets a shard that is
        # just being loaded anew.
        self._calling = threading.RLock()
        self._mapped = 0
        self._indexed: set[str] | None = None
        self._deleted = 0
        self._written = False

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        dim: int,
        multi_dim: int,
        create: bool = True,
        storage: Storage | None = None,
    ) -> Self:
        """Open the store in the folder `path`, or make it.

        Args:
            path: A folder of its own; made, readable by its owner only, where it does not exist.
            dim: Length of the dense vectors.
            multi_dim: Length of each row of the multi-vectors.
            create: Whether to make a store where there is none.
            storage: How vectors are kept; fixed when the store is made. None for ``"exact"``, or for what is there.
                Of its knobs, rows are pooled and cut before they come here.

        Raises:
            IndexNotFoundError: If there is none and `create` is False.
            IndexLockedError: If it is open already.
            IndexMismatchError: If it holds vectors of other lengths, or kept in another way than `storage`.
            IndexCorruptError: If the engine cannot read its files.
            IndexStateError: If the folder cannot be written to.
        """
        folder = Path(path)
        engine = require("qdrant_edge", package="qdrant-edge-py")
        opened = open_shard(engine, folder, dim, multi_dim, create=create, storage=storage)
        return cls(folder, engine, opened, (dim, multi_dim))

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points; one of the same id is replaced. All of one call or none is kept after a crash.

        A call is one record of the engine's log, so cut long lists with `schema.batches`. A multi-vector
        beyond the engine's limit is merged (`schema.fit`); one without rows is left out.

        Raises:
            InvalidInputError: If a vector has another length than the store's, or a payload is not JSON.
        """
        ready = [prepared(point, self.dim, self.multi_dim) for point in points]
        if ready:
            encoded = [encode(self._engine, point) for point in ready]
            with self._writing:
                self._index(path for point in ready for path in number_paths(point.payload))
                self._update(self._engine.UpdateOperation.upsert_points(encoded), "be written to")
            self._mapped += sum(map(schema.size_of, points))
            if self._mapped > _RELIEF:
                self._reload()

    def update_payload(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace some keys of points' payloads: id → key → value; a value of None takes the key out.

        The other keys and all vectors stay; unknown ids are ignored. Each point is changed whole or not at all; a
        crash may leave some of a call's points unchanged.

        Raises:
            InvalidInputError: If a value is not JSON; nothing is changed then.
        """
        ready = {schema.checked_id(key): schema.checked_payload(change) for key, change in changes.items()}
        ids = list(ready)
        for start in range(0, len(ids), _SCROLL):
            # What is read and what is written must not have another writer between them.
            with self._writing:
                with self._translated("be read"):
                    records = self._shard.retrieve(ids[start : start + _SCROLL], True, False)
                for record in records:
                    change = ready[str(record.id)]
                    seen = for_filters(schema.changed_payload(without_own(record.payload), change))
                    self._index(number_paths(seen))
                    # The engine takes a key out where the value is null.
                    written = {**change, **seen}
                    operation = self._engine.UpdateOperation.set_payload([str(record.id)], written)
                    self._update(operation, "be written to", settle=False)
                self._settle()

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points by id; unknown ids are ignored."""
        known = [schema.checked_id(value) for value in ids]
        if known:
            self._update(self._engine.UpdateOperation.delete_points(known), "be written to")
            self._deleted += len(known)

    def delete_where(self, where: Where) -> None:
        """Remove every point that the filter matches; an empty filter matches all of them."""
        wanted = conditions(where)
        self._deleted += self.count(where)
        chosen = self._filter(wanted) or self._engine.Filter()
        self._update(self._engine.UpdateOperation.delete_points_by_filter(chosen), "be written to")

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

        Candidates and MaxSim are one call of the engine.

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
            vectors[schema.LEXICAL] = sparse(self._engine, lexical)
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
        return self._query(sparse(self._engine, vector), schema.LEXICAL, limit, wanted, keys=keys)

    def fetch(self, ids: Sequence[str], *, vectors: bool = True) -> list[Point]:
        """Return the points that exist among `ids`, in their order; vectors as stored, in float32.

        Multi-vectors come out of the engine as Python numbers: some 12 ms for a page of 400 x 384.
        """
        order = [schema.checked_id(value) for value in ids]
        if not order:
            return []
        with self._translated("be read"):
            records = self._shard.retrieve(list(dict.fromkeys(order)), True, vectors)
        found = {str(record.id): decode(record) for record in records}
        return [found[value] for value in order if value in found]

    def scroll(self, where: Where | None = None) -> Iterator[StoreHit]:
        """Every matching point, without vectors, in no particular order; scores are 0."""
        wanted = conditions(where or {})
        offset = None
        while True:
            request = self._engine.ScrollRequest(
                offset=offset,
                limit=_SCROLL,
                filter=self._filter(wanted),
                with_payload=True,
                with_vector=False,
            )
            with self._translated("be read"):
                records, offset = self._shard.scroll(request)
            for record in records:
                yield StoreHit(str(record.id), 0.0, without_own(record.payload))
            if offset is None:
                return

    def count(self, where: Where | None = None) -> int:
        """Number of matching points."""
        wanted = conditions(where or {})
        with self._translated("be read"):
            return int(self._shard.count(self._engine.CountRequest(exact=True, filter=self._filter(wanted))))

    def flush(self) -> None:
        """Make everything written so far survive a power cut."""
        with self._writing, self._translated("be flushed"):
            self._shard.flush()

    def optimize(self) -> None:
        """Give back the space of deleted points; takes about a millisecond a page."""
        with self._writing, self._translated("be optimised"):
            self._shard.optimize()

    def bytes_by_part(self) -> dict[str, int]:
        """Bytes on disk by what they hold; see `edge_folder.bytes_by_part`."""
        return bytes_by_part(self._path)

    def close(self) -> None:
        """Flush and release; using the store afterwards raises IndexStateError. Closing twice is fine."""
        with self._writing:
            if self._shard is None:
                return
            try:
                vacuum = self._deleted >= _VACUUM and self._deleted > self.count() // 4
                # Coarser copies are made then, and only then.
                if vacuum or (self._written and self.storage.quantization is not None):
                    self.optimize()
                with self._translated("be closed"):
                    if self._written and not self.storage.log:
                        self._shard.flush()
                    elif self._written:
                        # The engine applies the last record of its log again at the next open. Let that be an
                        # empty one and not a batch of pages: it saves 100 ms of every search from a command line.
                        self._shard.update(self._engine.UpdateOperation.delete_points([_NO_POINT]))
                        self._shard.flush()
                    self._shard.close()
            finally:
                self._shard = None
                self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        with self._calling:
            if self._shard is None:
                raise IndexStateError(f"The index at {self._path} is closed: open it again to use it.")
            with translated(self._path, doing):
                yield

    def _reload(self) -> None:
        """Close the shard and load it again, which gives the memory of its mapped files back."""
        with self._writing, self._translated("be written to"):
            self._shard.flush()
            self._shard.close()
            self._shard = None
            self._shard = load_shard(self._engine, self._path)
            self._mapped = 0

    def _update(self, operation: Engine, doing: str, *, settle: bool = True) -> None:
        with self._writing, self._translated(doing):
            self._written = True
            self._shard.update(operation)
            if settle:
                self._settle()

    def _index(self, paths: Iterable[str]) -> None:
        """See that ranges under these paths are quick: 0.5 ms of 5,000 points, which are else read for 55 ms."""
        with self._writing:
            if self._indexed is None:
                with self._translated("be read"):
                    self._indexed = indexed_paths(self._shard.info().payload_schema)
            for path in dict.fromkeys(paths):
                if path not in self._indexed and len(self._indexed) < MOST_INDEXED:
                    kind = self._engine.PayloadSchemaType.Float
                    operation = self._engine.UpdateOperation.create_field_index(path, kind)
                    self._update(operation, "be written to", settle=False)
                    self._indexed.add(path)

    def _settle(self) -> None:
        """Without a log, what was written counts once it is flushed."""
        if not self.storage.log:
            self.flush()

    def _query(
        self,
        vector: Engine,
        using: str,
        limit: int,
        wanted: list[Condition],
        stages: Sequence[tuple[Engine, str, int, list[Condition]]] = (),
        *,
        keys: Sequence[str] | None = None,
    ) -> list[StoreHit]:
        if limit < 1:
            raise InvalidInputError(f"The limit of a search is {limit}: ask for at least 1 result.")
        chosen = self._filter(wanted)
        engine = self._engine
        with self._translated("be searched"):
            request = engine.QueryRequest(
                query=engine.Query.Nearest(vector, using=using),
                prefetches=[
                    # The engine passes the outer filter on; said twice, so that nothing hangs on that.
                    engine.Prefetch(query=engine.Query.Nearest(v, using=name), limit=n, filter=self._filter(also))
                    for v, name, n, also in stages
                ],
                filter=chosen,
                limit=limit,
                with_payload=True if keys is None else list(keys),
                params=self._rescoring(using),
            )
            points = self._shard.query(request)
        hits = [StoreHit(str(point.id), float(point.score), without_own(point.payload)) for point in points]
        return sorted(hits, key=lambda hit: (-hit.score, hit.id))

    def _rescoring(self, using: str) -> Engine:
        """Whatever coarser copy is searched first, what counts are the rows themselves."""
        if using != schema.MULTI or self.storage.quantization is None:
            return None
        again = self._engine.QuantizationSearchParams(rescore=True, oversampling=self.storage.oversampling)
        return self._engine.SearchParams(quantization=again)

    def _filter(self, wanted: list[Condition]) -> Engine:
        return self._engine.Filter(must=[self._condition(condition) for condition in wanted]) if wanted else None

    def _condition(self, condition: Condition) -> Engine:
        engine = self._engine
        if isinstance(condition, Within):
            limits = condition.range
            within = engine.RangeFloat(gte=limits.gte, gt=limits.gt, lte=limits.lte, lt=limits.lt)
            return engine.FieldCondition(key=condition.path, range=within)
        return engine.FieldCondition(key=schema.TAGS, match=engine.MatchAny(list(condition.tags)))
