"""The embedded store: Qdrant's engine in this process, over a folder that one process has open at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, Self

from jina_rag._extras import require
from jina_rag.config import Storage
from jina_rag.errors import IndexStateError
from jina_rag.stores import schema
from jina_rag.stores.base import Stage
from jina_rag.stores.filters import Condition, filterable
from jina_rag.stores.qdrant.base import READ_BATCH, BaseQdrantStore
from jina_rag.stores.qdrant.codec import QdrantObject
from jina_rag.stores.qdrant.edge_codec import encode
from jina_rag.stores.qdrant.edge_folder import OpenFolder, bytes_by_part, load_shard, open_shard, translated
from jina_rag.types import Point, StoreHit

_VACUUM: Final = 1000
"""Deleted points that are worth the time to give their space back."""
_RELIEF: Final = 96 * 1024 * 1024
"""Bytes of vectors after whose writing the shard is loaded anew: the pages it has mapped count as this process's
memory until then, and would grow with the index."""
_NO_POINT: Final = "00000000-0000-0000-0000-000000000000"


class EdgeStore(BaseQdrantStore):
    """A `MultiVectorStore` over a folder, in this process. Also a context manager.

    Methods may be called from several threads. How vectors are kept is told by `storage`. All points of one `upsert`
    or none are kept after a crash: a call is one record of the engine's log, so cut long lists with `schema.batches`.
    """

    def __init__(self, path: Path, engine: QdrantObject, folder: OpenFolder, dims: tuple[int, int]) -> None:
        super().__init__(engine, engine.RangeFloat, dims, folder.indexed_paths)
        self._path = path
        self._shard = folder.shard
        self._lock = folder.lock
        self.storage = folder.storage
        self._writing = threading.RLock()
        # Held for each call of the engine, which holds the interpreter's lock anyway: nobody meets a shard that is
        # just being loaded anew.
        self._calling = threading.RLock()
        self._mapped_bytes = 0
        self._deleted_count = 0
        self._changed = False

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
        open_folder = open_shard(engine, folder, dim, multi_dim, create=create, storage=storage)
        return cls(folder, engine, open_folder, (dim, multi_dim))

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
        """Flush and release; using the store afterwards raises IndexStateError. Closing twice is fine.

        The shard is closed and the folder's lock is released whatever fails.
        """
        with self._writing:
            try:
                # None after a close, and after a reload that failed.
                if self._shard is not None:
                    with self._translated("be closed"), closing(self._shard):
                        self._finish_changes()
            finally:
                self._shard = None
                self._lock.release()

    def _finish_changes(self) -> None:
        vacuum = self._deleted_count >= _VACUUM and self._deleted_count > self.count() // 4
        # Coarser copies are made then, and only then.
        if vacuum or (self._changed and self.storage.quantization is not None):
            self.optimize()
        if self._changed and self.storage.log:
            # The engine applies the last record of its log again at the next open. Let that be an
            # empty one and not a batch of pages: it saves 100 ms of every search from a command line.
            self._shard.update(self._types.UpdateOperation.delete_points([_NO_POINT]))
        if self._changed:
            self._shard.flush()

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
            self._shard = load_shard(self._types, self._path)
            self._mapped_bytes = 0

    def _update(self, operation: QdrantObject, *, settle: bool = True) -> None:
        with self._writing, self._translated("be written to"):
            self._changed = True
            self._shard.update(operation)
            if settle:
                self._settle()

    def _settle(self) -> None:
        """Without a log, what was written counts once it is flushed."""
        if not self.storage.log:
            self.flush()

    def _write(self, points: Sequence[Point]) -> None:
        if not points:
            return
        points = [filterable(point) for point in points]
        engine_points = [encode(self._types, point) for point in points]
        with self._writing:
            for point in points:
                self._index(point.payload)
            self._update(self._types.UpdateOperation.upsert_points(engine_points))
            self._mapped_bytes += sum(map(schema.point_bytes, points))
            if self._mapped_bytes > _RELIEF:
                self._reload()

    def _change(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        ids = list(changes)
        for start in range(0, len(ids), READ_BATCH):
            # What is read and what is written must not have another writer between them.
            with self._writing:
                records = self._retrieve(ids[start : start + READ_BATCH], vectors=False)
                for point_id, payload in self._changed_payloads(records, changes):
                    self._update(self._types.UpdateOperation.set_payload([point_id], payload), settle=False)
                self._settle()

    def _delete_ids(self, ids: list[str]) -> None:
        self._update(self._types.UpdateOperation.delete_points(ids))
        self._deleted_count += len(ids)

    def _delete_matching(self, conditions: Sequence[Condition]) -> None:
        self._deleted_count += self._count(conditions)
        selection = self._filter(conditions) or self._types.Filter()
        self._update(self._types.UpdateOperation.delete_points_by_filter(selection))

    def _query(self, stage: Stage, candidates: Sequence[Stage], keys: Sequence[str] | None) -> list[StoreHit]:
        request = self._types.QueryRequest(
            **self._stage_arguments(stage),
            prefetches=[self._types.Prefetch(**self._stage_arguments(one)) for one in candidates],
            with_payload=True if keys is None else list(keys),
            params=self._rescoring(stage.using),
        )
        with self._translated("be searched"):
            return self._hits(self._shard.query(request))

    def _stage_arguments(self, stage: Stage) -> dict[str, QdrantObject]:
        query = self._types.Query.Nearest(self._vector(stage), using=stage.using)
        return {"query": query, "limit": stage.limit, "filter": self._filter(stage.conditions)}

    def _rescoring(self, using: str) -> QdrantObject:
        """Whatever coarser copy is searched first, what counts are the rows themselves."""
        if using != schema.MULTI or self.storage.quantization is None:
            return None
        rescore = self._types.QuantizationSearchParams(rescore=True, oversampling=self.storage.oversampling)
        return self._types.SearchParams(quantization=rescore)

    def _retrieve(self, ids: list[str], *, vectors: bool) -> QdrantObject:
        with self._translated("be read"):
            return self._shard.retrieve(ids, True, vectors)

    def _scroll_batch(self, selection: QdrantObject, offset: QdrantObject) -> QdrantObject:
        request = self._types.ScrollRequest(
            offset=offset, limit=READ_BATCH, filter=selection, with_payload=True, with_vector=False
        )
        with self._translated("be read"):
            return self._shard.scroll(request)

    def _count(self, conditions: Sequence[Condition]) -> int:
        request = self._types.CountRequest(exact=True, filter=self._filter(conditions))
        with self._translated("be read"):
            return int(self._shard.count(request))

    def _index_numbers(self, path: str) -> None:
        kind = self._types.PayloadSchemaType.Float
        self._update(self._types.UpdateOperation.create_field_index(path, kind), settle=False)
