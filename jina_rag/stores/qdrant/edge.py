"""Embedded vector store: the Qdrant engine over a folder that one process opens at a time."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

from jina_rag._extras import require
from jina_rag._forks import OwnedFiles, OwnedLock
from jina_rag.config import Storage
from jina_rag.errors import IndexStateError
from jina_rag.stores import schema
from jina_rag.stores.base import Stage, StagedQuery
from jina_rag.stores.disk_space import has_space
from jina_rag.stores.filters import Condition, with_filter_payload
from jina_rag.stores.qdrant.base import READ_BATCH, BaseQdrantStore
from jina_rag.stores.qdrant.codec import QdrantObject
from jina_rag.stores.qdrant.edge_codec import encode
from jina_rag.stores.qdrant.edge_folder import (
    GROWING_LIMIT,
    OpenFolder,
    bytes_by_part,
    engine_errors,
    growing_bytes,
    load_shard,
    open_shard,
    shard_folder,
    sync_log,
)
from jina_rag.stores.qdrant.edge_optimization import optimize_closed_shard
from jina_rag.types import Point, StoreHit

_MIN_VACUUM_POINTS: Final = 1000
"""Closing the store reclaims the space of deleted points if at least this many points were deleted."""
_RELOAD_BYTES: Final = 96 * 1024 * 1024
"""Bytes of written vectors after which the store seals a large growing segment and reloads the shard. The reload unmaps
the files of the shard, because memory-mapped files count as memory of this process and grow with the index."""
_REPLAY_BYTES: Final = 16 * 1024 * 1024
"""Bytes of written points after which a flush includes the segments. After a crash, opening the store replays at most
this much of the log, and one call more."""
_CHANGE_BYTES: Final = 4096
"""Assumed bytes of the log record of a deletion or a payload change."""
_ABSENT_POINT_ID: Final = "00000000-0000-0000-0000-000000000000"


class EdgeStore(BaseQdrantStore):
    """A `MultiVectorStore` over a folder, in this process; thread-safe.

    The store is a context manager and is closed on exit. Each `upsert` call is one record in the log of the engine
    and is therefore atomic, even in a crash. Split long lists of points with `schema.batches`.

    Attributes:
        storage: Vector storage of the store, read from the folder.
    """

    def __init__(self, path: Path, engine: QdrantObject, folder: OpenFolder, dims: tuple[int, int]) -> None:
        super().__init__(engine, engine.RangeFloat, dims, folder.indexed_paths)
        self._path = path
        # The shard is None after a close and after a failed reload.
        self._shard = folder.shard
        # Ctrl-C can interrupt a reload between any two steps, for example after the shard is closed. The next engine
        # call then repeats the reload.
        self._is_reloading = False
        self._folder_lock = folder.lock
        self._files: OwnedFiles = folder.files
        self._files.set_user(self, "_shard", "_folder_lock")
        self.storage = folder.storage
        self._write_lock = OwnedLock(self._files.check)
        # The lock is held for each engine call, so that no thread calls the shard during a reload. The lock costs no
        # concurrency, because the engine holds the interpreter lock during a call.
        self._engine_lock = self._files.lock
        self._mapped_bytes = 0
        self._unflushed_bytes = 0
        self._deleted_count = 0
        self._has_changes = False

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
        """Open the store in a folder; create it if it is missing.

        Args:
            path: Folder that contains only the store. A new folder is readable only by its owner.
            dim: Length of the dense vectors.
            multi_dim: Length of each row of the multi-vectors.
            create: Whether to create a missing store.
            storage: Vector storage, fixed at creation. None for the storage of an existing store, or ``"exact"`` for a
                new store. The store applies the datatype, the quantization and the log; the caller pools and truncates
                the rows.

        Raises:
            IndexNotFoundError: If the store is missing and `create` is False.
            IndexLockedError: If the store is already open, or another process has files of the store open.
            IndexMismatchError: If the store has vectors of other lengths, or another storage.
            IndexCorruptError: If the files of the store are damaged.
            IndexStateError: If the folder is not writable.
            MissingDependencyError: If the package qdrant-edge-py is not installed.
        """
        folder = Path(path)
        engine = require("qdrant_edge", package="qdrant-edge-py")
        open_folder = open_shard(engine, folder, dim, multi_dim, create=create, storage=storage)
        return cls(folder, engine, open_folder, (dim, multi_dim))

    def flush(self) -> None:
        """Write all changes to disk, so that the changes survive a power failure.

        On Linux, a store with a log syncs the log only, unless the log has more than 16 MB of changes: the engine
        replays the log when the store is opened. Otherwise, all segments are flushed, which takes 10 to 30 ms more.
        """
        with self._write_lock, self._engine_call("be flushed"):
            if not (self.storage.log and self._unflushed_bytes <= _REPLAY_BYTES and sync_log(self._path)):
                self._shard.flush()
                self._unflushed_bytes = 0

    def optimize(self) -> None:
        """Reclaim the space of deleted points, in about 1 ms per page."""
        with self._write_lock, self._engine_call("be optimized"):
            self._flush_segments()
            self._reload_shard(vacuum=True)
            # After an interruption, the next engine call reloads the shard with the usual settings.
            self._is_reloading = True
            self._optimize(sum(bytes_by_part(self._path).values()))
            self._reload_shard()

    def bytes_by_part(self) -> dict[str, int]:
        """Return the bytes on disk of each part of the store; see `edge_folder.bytes_by_part`."""
        return bytes_by_part(self._path)

    def close(self) -> None:
        """Flush and close the store and release the lock of the folder, even if the flush fails; idempotent.

        Every other call on a closed store raises IndexStateError.
        """
        with self._write_lock:
            try:
                if self._shard is not None:
                    with self._engine_call("be closed"):
                        self._finish_and_close()
            finally:
                self._shard = None
                self._folder_lock.release()

    def _finish_and_close(self) -> None:
        try:
            if self._has_changes:
                self._finish_writes()
        finally:
            if self._shard is not None:
                self._shard.close()

    def _finish_writes(self) -> None:
        self._flush_segments()
        if self._deleted_count >= _MIN_VACUUM_POINTS and self._deleted_count > self.count() // 4:
            self.optimize()
        elif self._must_seal():
            self._optimize(growing_bytes(self._path))
        # The engine builds the quantized copies of new points only when it seals a segment.
        elif self.storage.quantization is not None:
            self._optimize(0)

    def _must_seal(self) -> bool:
        """Return whether the growing segment is large, and the disk has enough space for its sealed copy.

        On a disk without this space, the growing segment grows on; the engine would crash while writing the copy.
        """
        size = growing_bytes(self._path)
        return size > GROWING_LIMIT and has_space(self._path, size)

    def _optimize(self, size: int) -> None:
        """Optimize and flush the shard, in another process if more than `GROWING_LIMIT` bytes may be rewritten.

        After an optimization in another process, the shard is closed; the next engine call reloads the shard.
        """
        if size > GROWING_LIMIT:
            self._is_reloading = True
            self._shard.close()
            optimize_closed_shard(shard_folder(self._path))
        else:
            self._shard.optimize()
            self._shard.flush()

    def _flush_segments(self) -> None:
        """Flush all segments and mark the log as replayed."""
        if self.storage.log:
            # The next open replays the last log record. Replaying this empty record instead of a batch of pages saves
            # 100 ms per command-line search.
            self._shard.update(self._types.UpdateOperation.delete_points([_ABSENT_POINT_ID]))
        self._shard.flush()
        self._unflushed_bytes = 0

    @contextmanager
    def _engine_call(self, action: str) -> Iterator[None]:
        with self._engine_lock:
            if self._shard is None:
                raise IndexStateError(f"The index at {self._path} is closed. Reopen it with DocumentIndex.open.")
            with engine_errors(self._path, action):
                if self._is_reloading:
                    self._reload_shard()
                yield

    def _reload(self) -> None:
        """Seal a large growing segment, then close and reload the shard to release the memory of the mapped files."""
        with self._write_lock, self._engine_call("be written to"):
            self._flush_segments()
            if self._must_seal():
                self._optimize(growing_bytes(self._path))
            self._reload_shard()

    def _reload_shard(self, *, vacuum: bool = False) -> None:
        """Close and load the shard.

        Args:
            vacuum: Whether the next optimization reclaims the space of deleted points.
        """
        self._is_reloading = True
        self._shard.close()  # has no effect on a closed shard
        try:
            # A local variable would keep the loaded shard open in the traceback of an interruption, and an open shard
            # prevents the next load.
            self._shard = load_shard(self._types, self._path, self.dim, self.multi_dim, self.storage, vacuum=vacuum)
        except Exception:
            self._shard = None
            raise
        self._mapped_bytes = 0
        self._is_reloading = False

    def _update(self, operation: QdrantObject, *, size: int = _CHANGE_BYTES, flush: bool = True) -> None:
        with self._write_lock, self._engine_call("be written to"):
            self._has_changes = True
            self._unflushed_bytes += size
            self._shard.update(operation)
            if flush:
                self._flush_without_log()

    def _flush_without_log(self) -> None:
        """Flush the store if it has no log: without a log, a write is durable only after a flush."""
        if not self.storage.log:
            self.flush()

    def _write(self, points: Sequence[Point]) -> None:
        if not points:
            return
        points = [with_filter_payload(point) for point in points]
        engine_points = [encode(self._types, point) for point in points]
        with self._write_lock:
            for point in points:
                self._index_payload(point.payload)
            size = sum(map(schema.point_bytes, points))
            self._update(self._types.UpdateOperation.upsert_points(engine_points), size=size)
            self._mapped_bytes += size
            if self._mapped_bytes > _RELOAD_BYTES:
                self._reload()

    def _change(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        ids = list(changes)
        for start in range(0, len(ids), READ_BATCH):
            # Holding the lock prevents another write between the read and the update.
            with self._write_lock:
                records = self._retrieve(ids[start : start + READ_BATCH], vectors=False)
                for point_id, payload in self._changed_payloads(records, changes):
                    self._update(self._types.UpdateOperation.set_payload([point_id], payload), flush=False)
                self._flush_without_log()

    def _delete_ids(self, ids: list[str]) -> None:
        self._update(self._types.UpdateOperation.delete_points(ids))
        self._deleted_count += len(ids)

    def _delete_matching(self, conditions: Sequence[Condition]) -> None:
        self._deleted_count += self._count(conditions)
        selection = self._filter(conditions) or self._types.Filter()
        self._update(self._types.UpdateOperation.delete_points_by_filter(selection))

    def _query_batch(self, queries: Sequence[StagedQuery]) -> list[list[StoreHit]]:
        requests = [
            self._types.QueryRequest(
                **self._stage_arguments(query.stage),
                prefetches=[self._types.Prefetch(**self._stage_arguments(candidate)) for candidate in query.candidates],
                with_payload=True if query.keys is None else list(query.keys) or False,
                params=self._rescore_params(query.stage.using),
            )
            for query in queries
        ]
        with self._engine_call("be searched"):
            # The engine plans the queries together: searches that differ only in the vector share one pass.
            results = self._shard.query_batch(self._types.QueryBatchRequest(requests))
        return [self._to_hits(points, query.keys) for points, query in zip(results, queries, strict=True)]

    def _stage_arguments(self, stage: Stage) -> dict[str, QdrantObject]:
        query = self._types.Query.Nearest(self._query_vector(stage), using=stage.using)
        return {"query": query, "limit": stage.limit, "filter": self._filter(stage.conditions, stage.ids)}

    def _id_condition(self, ids: Collection[str]) -> QdrantObject:
        return self._types.HasIdCondition(set(ids))

    def _rescore_params(self, using: str) -> QdrantObject:
        """Return search parameters that rescore the hits of a quantized copy with the full rows."""
        if using != schema.MULTI or self.storage.quantization is None:
            return None
        rescore = self._types.QuantizationSearchParams(rescore=True, oversampling=self.storage.oversampling)
        return self._types.SearchParams(quantization=rescore)

    def _retrieve(self, ids: list[str], *, vectors: bool) -> QdrantObject:
        with self._engine_call("be read"):
            return self._shard.retrieve(ids, True, vectors)

    def _scroll_batch(self, selection: QdrantObject, offset: QdrantObject) -> QdrantObject:
        request = self._types.ScrollRequest(
            offset=offset, limit=READ_BATCH, filter=selection, with_payload=True, with_vector=False
        )
        with self._engine_call("be read"):
            return self._shard.scroll(request)

    def _count(self, conditions: Sequence[Condition]) -> int:
        request = self._types.CountRequest(exact=True, filter=self._filter(conditions))
        with self._engine_call("be read"):
            return int(self._shard.count(request))

    def _index_numbers(self, path: str) -> None:
        kind = self._types.FloatIndexParams(memory=self._types.Memory.Cached)
        self._update(self._types.UpdateOperation.create_field_index(path, kind), flush=False)
