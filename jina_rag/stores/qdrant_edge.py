"""The embedded store: Qdrant's engine in this process, over a folder that one process has open at a time."""

from __future__ import annotations

import os
import struct
import threading
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from jina_rag._extras import require
from jina_rag.errors import IndexStateError, InvalidInputError
from jina_rag.stores import schema
from jina_rag.stores.edge_folder import Engine, open_shard, translated
from jina_rag.types import Float32, Point, Prefetch, SparseVector, StoreHit, Where

if TYPE_CHECKING:
    from filelock import BaseFileLock

_SCROLL: Final = 256
"""Points per call when all are read."""
_VACUUM: Final = 1000
"""Deleted points that are worth the time to give their space back."""
_NO_LIMIT: Final = 2**31


class EdgeStore:
    """A `MultiVectorStore` over a folder, in this process. Also a context manager.

    Methods may be called from several threads. Multi-vectors are kept as float16, dense ones as float32.
    """

    def __init__(
        self, path: Path, engine: Engine, shard: Engine, lock: BaseFileLock, dims: tuple[int, int]
    ) -> None:
        self._path = path
        self._engine = engine
        self._shard = shard
        self._lock = lock
        self.dim, self.multi_dim = dims
        self._writing = threading.RLock()
        self._deleted = 0

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
        ready = [self._encode(point) for point in points]
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
        if all(wanted):
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
    ) -> list[StoreHit]:
        """Rank points by exact MaxSim with `multi`, shape (query tokens, multi_dim); see `MultiVectorStore`.

        Candidates and MaxSim are one call of the engine.

        Raises:
            InvalidInputError: If a vector has another length than the store's, if `limit` is below 1, or if
                there is a `prefetch` but neither `dense` nor `lexical`.
        """
        rows = _checked(multi, 2, self.multi_dim, "question's multi-vector")
        if len(rows) == 0:
            raise InvalidInputError("The question has no vectors: pass a multi-vector with at least one row.")
        wanted = schema.wanted_tags(where or {})
        if prefetch is None:
            return self._query(rows.tolist(), schema.MULTI, limit, wanted)
        if dense is None and lexical is None:
            raise InvalidInputError("A prefetch needs a dense or a lexical vector to find candidates with.")
        stages = []
        if dense is not None and prefetch.dense > 0:
            vector = _checked(dense, 1, self.dim, "question's dense vector").tolist()
            stages.append((vector, schema.DENSE, prefetch.dense))
        if lexical is not None and len(lexical.indices) and prefetch.lexical > 0:
            stages.append((self._sparse(lexical), schema.LEXICAL, prefetch.lexical))
        return self._query(rows.tolist(), schema.MULTI, limit, wanted, stages) if stages else []

    def nearest(
        self, vector: Float32 | SparseVector, *, limit: int, where: Where | None = None
    ) -> list[StoreHit]:
        """Rank by one cheap vector: dense, shape (dim,), or lexical.

        A lexical one finds only points that share a term with it.

        Raises:
            InvalidInputError: If the vector has another length than the store's, or `limit` is below 1.
        """
        wanted = schema.wanted_tags(where or {})
        if isinstance(vector, SparseVector):
            return (
                self._query(self._sparse(vector), schema.LEXICAL, limit, wanted)
                if len(vector.indices)
                else []
            )
        return self._query(
            _checked(vector, 1, self.dim, "dense vector").tolist(), schema.DENSE, limit, wanted
        )

    def fetch(self, ids: Sequence[str], *, vectors: bool = True) -> list[Point]:
        """Return the points that exist among `ids`, in their order; vectors as stored, in float32.

        Multi-vectors come out of the engine as Python numbers: some 12 ms for a page of 400 x 384.
        """
        order = [schema.checked_id(value) for value in ids]
        if not order:
            return []
        with self._translated("be read"):
            records = self._shard.retrieve(list(dict.fromkeys(order)), True, vectors)
        found = {str(record.id): _decoded(record) for record in records}
        return [found[value] for value in order if value in found]

    def scroll(self, where: Where | None = None) -> Iterator[StoreHit]:
        """Every matching point, without vectors, in no particular order; scores are 0."""
        wanted = schema.wanted_tags(where or {})
        offset = None
        while all(wanted):
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
                yield StoreHit(str(record.id), 0.0, _payload(record))
            if offset is None:
                return

    def count(self, where: Where | None = None) -> int:
        """Number of matching points."""
        wanted = schema.wanted_tags(where or {})
        if not all(wanted):
            return 0
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
                # Flushed, the next open has next to no write-ahead log to replay.
                with self._translated("be closed"):
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
            self._shard.update(operation)

    def _query(
        self,
        vector: Engine,
        using: str,
        limit: int,
        wanted: list[list[str]],
        stages: Sequence[tuple[Engine, str, int]] = (),
    ) -> list[StoreHit]:
        if limit < 1:
            raise InvalidInputError(f"The limit of a search is {limit}: ask for at least 1 result.")
        if not all(wanted):
            return []
        chosen = self._filter(wanted)
        engine = self._engine
        with self._translated("be searched"):
            request = engine.QueryRequest(
                query=engine.Query.Nearest(vector, using=using),
                prefetches=[
                    # The filter stands here too: candidates that it drops later would be missing ones.
                    engine.Prefetch(query=engine.Query.Nearest(v, using=name), limit=n, filter=chosen)
                    for v, name, n in stages
                ],
                filter=chosen,
                limit=min(limit, _NO_LIMIT),
                with_payload=True,
            )
            points = self._shard.query(request)
        hits = [StoreHit(str(point.id), float(point.score), _payload(point)) for point in points]
        return sorted(hits, key=lambda hit: (-hit.score, hit.id))

    def _filter(self, wanted: list[list[str]]) -> Engine:
        engine = self._engine
        if not wanted:
            return None
        return engine.Filter(
            must=[engine.FieldCondition(key=schema.TAGS, match=engine.MatchAny(tags)) for tags in wanted]
        )

    def _sparse(self, vector: SparseVector) -> Engine:
        return self._engine.SparseVector(vector.indices.tolist(), vector.values.tolist())

    def _encode(self, point: Point) -> Engine:
        if schema.TAGS in point.payload:
            raise InvalidInputError(f"The payload key {schema.TAGS!r} is the store's own: use another name.")
        vectors: dict[str, Any] = {}
        if point.dense is not None:
            vectors[schema.DENSE] = _checked(point.dense, 1, self.dim, "dense vector").tolist()
        if point.multi is not None and len(point.multi):
            _checked(point.multi, 2, self.multi_dim, "multi-vector")
            point = schema.fit(point)
            # An array per row, not nested lists: a third less time, as no number becomes a Python object that
            # outlives its conversion.
            rows = np.ascontiguousarray(point.multi, dtype=np.float32)
            vectors[schema.MULTI] = [array("f", row.tobytes()) for row in rows]
        if point.lexical is not None and len(point.lexical.indices):
            vectors[schema.LEXICAL] = self._sparse(point.lexical)
        payload = schema.clean_payload(dict(point.payload))
        payload[schema.TAGS] = schema.tags(payload)
        with self._translated("take a point"):
            return self._engine.Point(schema.checked_id(point.id), vectors, payload)


def _decoded(record: Engine) -> Point:
    vectors = record.vector or {}
    dense, multi, lexical = (vectors.get(name) for name in (schema.DENSE, schema.MULTI, schema.LEXICAL))
    return Point(
        id=str(record.id),
        dense=None if dense is None else np.asarray(dense, dtype=np.float32),
        multi=None if multi is None else _matrix(multi),
        lexical=None
        if lexical is None
        else SparseVector(np.asarray(lexical.indices, np.uint32), np.asarray(lexical.values, np.float32)),
        payload=_payload(record),
    )


def _payload(record: Engine) -> dict[str, Any]:
    return {key: value for key, value in (record.payload or {}).items() if key != schema.TAGS}


def _matrix(rows: Sequence[Sequence[float]]) -> Float32:
    """Rows of Python numbers as an array; struct does it in a third of the time of NumPy."""
    matrix = np.empty((len(rows), len(rows[0])), dtype=np.float32)
    packed = struct.Struct(f"={matrix.shape[1]}f")
    for i, row in enumerate(rows):
        packed.pack_into(matrix.data, i * packed.size, *row)
    return matrix


def _checked(vector: Float32, axes: int, dim: int, what: str) -> Float32:
    if vector.ndim != axes or vector.shape[-1] != dim:
        shape = f"({dim},)" if axes == 1 else f"(tokens, {dim})"
        raise InvalidInputError(
            f"The {what} has shape {vector.shape}, the index keeps {shape}: was it made by the index's model?"
        )
    if not np.isfinite(vector).all():
        raise InvalidInputError(f"The {what} holds NaN or infinity: the model's output cannot be used.")
    return vector
