"""The embedded store: Qdrant's engine in this process, over a folder that one process has open at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from jina_rag._extras import require
from jina_rag.errors import IndexStateError, InvalidInputError
from jina_rag.stores import schema
from jina_rag.stores.edge_folder import Engine, open_shard, translated
from jina_rag.stores.edge_points import checked, decode, encode, payload_of, sparse
from jina_rag.types import Float32, Point, Prefetch, SparseVector, StoreHit, Where

if TYPE_CHECKING:
    from filelock import BaseFileLock

_SCROLL: Final = 256
"""Points per call when all are read."""
_VACUUM: Final = 1000
"""Deleted points that are worth the time to give their space back."""
_NO_POINT: Final = "00000000-0000-0000-0000-000000000000"


class EdgeStore:
    """A `MultiVectorStore` over a folder, in this process. Also a context manager.

    Methods may be called from several threads. Multi-vectors are kept as float16, dense ones as float32.
    """

    def __init__(self, path: Path, engine: Engine, shard: Engine, lock: BaseFileLock, dims: tuple[int, int]) -> None:
        self._path = path
        self._engine = engine
        self._shard = shard
        self._lock = lock
        self.dim, self.multi_dim = dims
        self._writing = threading.RLock()
        self._deleted = 0
        self._written = False

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, dim: int, multi_dim: int, create: bool = True) -> Self:
        """Open the store in the folder `path`, or make it.

        Args:
            path: A folder of its own; made, readable by its owner only, where it does not exist.
            dim: Length of the dense vectors.
            multi_dim: Length of each row of the multi-vectors.
            create: Whether to make a store where there is none.

        Raises:
            IndexNotFoundError: If there is none and `create` is False.
            IndexLockedError: If it is open already.
            IndexMismatchError: If it holds vectors of other lengths.
            IndexCorruptError: If the engine cannot read its files.
            IndexStateError: If the folder cannot be written to.
        """
        folder = Path(path)
        engine = require("qdrant_edge", package="qdrant-edge-py")
        shard, lock = open_shard(engine, folder, dim, multi_dim, create=create)
        return cls(folder, engine, shard, lock, (dim, multi_dim))

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points; one of the same id is replaced. All of one call or none is kept after a crash.

        A call is one record of the engine's log, so cut long lists with `schema.batches`. A multi-vector
        beyond the engine's limit is merged (`schema.fit`); one without rows is left out.

        Raises:
            InvalidInputError: If a vector has another length than the store's, or a payload is not JSON.
        """
        ready = [encode(self._engine, point, self.dim, self.multi_dim) for point in points]
        if ready:
            self._update(self._engine.UpdateOperation.upsert_points(ready), "be written to")

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points by id; unknown ids are ignored."""
        known = [schema.checked_id(value) for value in ids]
        if known:
            self._update(self._engine.UpdateOperation.delete_points(known), "be written to")
            self._deleted += len(known)

    def delete_where(self, where: Where) -> None:
        """Remove every point that the filter matches; an empty filter matches all of them."""
        wanted = schema.wanted_tags(where)
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
        wanted = schema.wanted_tags(where or {})
        if prefetch is None:
            return self._query(rows.tolist(), schema.MULTI, limit, wanted, keys=keys)
        if dense is None and lexical is None:
            raise InvalidInputError("A prefetch needs a dense or a lexical vector to find candidates with.")
        stages = []
        if dense is not None and prefetch.dense > 0:
            vector = checked(dense, 1, self.dim, "question's dense vector").tolist()
            stages.append((vector, schema.DENSE, prefetch.dense))
        if lexical is not None and len(lexical.indices) and prefetch.lexical > 0:
            stages.append((sparse(self._engine, lexical), schema.LEXICAL, prefetch.lexical))
        return self._query(rows.tolist(), schema.MULTI, limit, wanted, stages, keys=keys) if stages else []

    def nearest(self, vector: Float32 | SparseVector, *, limit: int, where: Where | None = None) -> list[StoreHit]:
        """Rank by one cheap vector: dense, shape (dim,), or lexical.

        A lexical one finds only points that share a term with it.

        Raises:
            InvalidInputError: If the vector has another length than the store's, or `limit` is below 1.
        """
        wanted = schema.wanted_tags(where or {})
        if isinstance(vector, SparseVector):
            return (
                self._query(sparse(self._engine, vector), schema.LEXICAL, limit, wanted) if len(vector.indices) else []
            )
        return self._query(checked(vector, 1, self.dim, "dense vector").tolist(), schema.DENSE, limit, wanted)

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
        wanted = schema.wanted_tags(where or {})
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
                yield StoreHit(str(record.id), 0.0, payload_of(record))
            if offset is None:
                return

    def count(self, where: Where | None = None) -> int:
        """Number of matching points."""
        wanted = schema.wanted_tags(where or {})
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

    def close(self) -> None:
        """Flush and release; using the store afterwards raises IndexStateError. Closing twice is fine."""
        with self._writing:
            if self._shard is None:
                return
            try:
                if self._deleted >= _VACUUM and self._deleted > self.count() // 4:
                    self.optimize()
                with self._translated("be closed"):
                    if self._written:
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
        if self._shard is None:
            raise IndexStateError(f"The index at {self._path} is closed: open it again to use it.")
        with translated(self._path, doing):
            yield

    def _update(self, operation: Engine, doing: str) -> None:
        with self._writing, self._translated(doing):
            self._written = True
            self._shard.update(operation)

    def _query(
        self,
        vector: Engine,
        using: str,
        limit: int,
        wanted: list[list[str]],
        stages: Sequence[tuple[Engine, str, int]] = (),
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
                    engine.Prefetch(query=engine.Query.Nearest(v, using=name), limit=n, filter=chosen)
                    for v, name, n in stages
                ],
                filter=chosen,
                limit=limit,
                with_payload=True if keys is None else list(keys),
            )
            points = self._shard.query(request)
        hits = [StoreHit(str(point.id), float(point.score), payload_of(point)) for point in points]
        return sorted(hits, key=lambda hit: (-hit.score, hit.id))

    def _filter(self, wanted: list[list[str]]) -> Engine:
        engine = self._engine
        if not wanted:
            return None
        return engine.Filter(
            must=[engine.FieldCondition(key=schema.TAGS, match=engine.MatchAny(tags)) for tags in wanted]
        )
