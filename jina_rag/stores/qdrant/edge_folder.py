"""Folder of the embedded Qdrant engine: locking, atomic creation, opening, and error translation.

The folder contains ``lock``, ``process.json`` (the process that holds the lock) and ``data/``. ``data/store.json``
records the dimensions and the vector storage; ``data/shard/`` contains the files of the engine. A new store is created
under a temporary name and renamed when complete, so that a killed process never leaves an incomplete store.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jina_rag._file_users import describe_users, has_live_user, record_user
from jina_rag._files import acquire_lock, size_on_disk
from jina_rag._forks import OwnedFiles
from jina_rag.config import Storage
from jina_rag.errors import (
    IndexCorruptError,
    IndexLockedError,
    IndexMismatchError,
    IndexNotFoundError,
    IndexStateError,
    JinaRagError,
)
from jina_rag.stores import schema
from jina_rag.stores.filters import indexed_paths
from jina_rag.stores.qdrant.codec import QdrantObject

if TYPE_CHECKING:
    from filelock import BaseFileLock

GROWING_LIMIT: Final = 192 * 1024 * 1024
"""Maximum bytes on disk of the growing segment, to which the engine appends new points. Its lexical index and its
filter index are in memory: about 6 KB for a page of 300 words. `EdgeStore` lets the engine rewrite a larger growing
segment as a sealed segment, whose indexes are memory-mapped files. The limit also bounds the time of this rewrite, in
which no other call runs: 1 to 2 s."""
_MIB: Final = 1024  # the engine's settings are in KiB
_OPTIMIZERS: Final = {
    # The growing segment is sealed alone instead of being merged with sealed segments. With more segments, the engine
    # merges the smallest ones, up to the maximum size.
    "default_segment_number": 16,
    "max_segment_size": GROWING_LIMIT // 1024,
    # Minimum size of the vectors in a segment that `optimize` seals.
    "indexing_threshold": 10 * _MIB,
    # Share of deleted points above which a segment is rewritten. At 1, no segment is: many segments may need to be
    # rewritten at the same time, which would block the store for longer than sealing. See `load_shard`.
    "deleted_threshold": 1.0,
}
_VACUUM_THRESHOLD: Final = 0.2
"""Share of deleted points in a segment above which reclaiming space rewrites the segment."""
_LOG_LOCK_SECONDS: Final = 2.0
"""Maximum wait for the lock of the log, in seconds. A process that this process starts may hold the lock for some
milliseconds, until it replaces its program or closes the file."""
_FOLDER_LOCK_SECONDS: Final = 0.2
"""Maximum wait for the lock of the folder, in seconds, for the same reason."""
_KILLED_SECONDS: Final = 10.0
"""Maximum wait for a lock of a killed process, in seconds, while the operating system ends the process."""
_POLL_SECONDS: Final = 0.02
_FORMAT: Final = 3
"""Format version of the store. Points of earlier formats lack the numbers for range filters."""
_DATATYPES: Final = {"float16": "Float16", "int8": "Turbo8", "int4": "Turbo4"}
"""Names of the datatypes in the engine. Turbo8 stands for int8, because Uint8 accepts only integers from 0 to 255."""
_PARTS: Final = ("dense", "multi", "lexical", "payload", "log", "other")
_READ_AHEAD_LIMIT: Final = 64 * 1024 * 1024
"""Maximum bytes of multi-vectors to read ahead: about 2,000 indexed pages with the storage "compact"."""


@dataclass(frozen=True, slots=True)
class OpenFolder:
    """An open store folder.

    Attributes:
        shard: Shard of the engine.
        lock: Lock of the folder, to release after closing the shard.
        files: The open files, which a forked child cannot use.
        storage: Vector storage of the store.
        indexed_paths: Payload paths with a payload index of numbers.
    """

    shard: QdrantObject
    lock: BaseFileLock
    files: OwnedFiles
    storage: Storage
    indexed_paths: set[str]


def open_shard(
    engine: QdrantObject, folder: Path, dim: int, multi_dim: int, *, create: bool, storage: Storage | None = None
) -> OpenFolder:
    """Lock a store folder and load its shard; create the store if it is missing. See `EdgeStore.open`.

    Args:
        engine: The module qdrant_edge.
        folder: Folder of the store.
        dim: Length of the dense vectors.
        multi_dim: Length of each row of the multi-vectors.
        create: Whether to create a missing store.
        storage: Vector storage; None for the storage of an existing store, or ``"exact"`` for a new store.

    Raises:
        IndexNotFoundError: If the store has no vectors and `create` is False.
    """
    data = folder / "data"
    if not create and not any(data.glob("shard/segments/*/segment.json")):
        raise IndexNotFoundError(
            f"The index at {folder} has no vectors. "
            "Restore the index folder from a backup, or ingest into a new folder."
        )
    files = OwnedFiles(folder, folder)
    with ExitStack() as on_failure:
        lock = _lock_folder(folder)
        on_failure.callback(lock.release)
        if not data.is_dir():
            _create(engine, folder / "data.new", data, dim, multi_dim, storage or Storage())
        storage = _check_facts(data / "store.json", folder, dim, multi_dim, storage)
        shard = load_shard(engine, folder, dim, multi_dim, storage)
        # Without this close, a traceback that the caller stores would keep the shard open.
        on_failure.callback(shard.close)
        with engine_errors(folder, "be opened"):
            paths = indexed_paths(shard.info().payload_schema)
        if storage.datatype != "float16":
            _read_ahead(data)
        on_failure.pop_all()
    return OpenFolder(shard, lock, files, storage, paths)


def load_shard(
    engine: QdrantObject, folder: Path, dim: int, multi_dim: int, storage: Storage, *, vacuum: bool = False
) -> QdrantObject:
    """Return the loaded shard of a locked, complete store folder.

    Args:
        engine: The module qdrant_edge.
        folder: Folder of the store.
        dim: Length of the dense vectors.
        multi_dim: Length of each row of the multi-vectors.
        storage: Vector storage of the store.
        vacuum: Whether an optimization of the loaded shard reclaims the space of deleted points.
    """
    optimizers = _OPTIMIZERS | ({"deleted_threshold": _VACUUM_THRESHOLD} if vacuum else {})
    config = _config(engine, dim, multi_dim, storage, optimizers)
    may_wait = _waiting(_LOG_LOCK_SECONDS, lambda: has_live_user(shard_folder(folder) / "wal"))
    while True:
        try:
            with engine_errors(folder, "be opened"):
                # The engine writes the settings at each open. Passing them updates a folder of an earlier version.
                return engine.EdgeShard.load(str(shard_folder(folder)), config)
        except IndexCorruptError as exc:
            if not _is_log_locked(exc.__cause__):
                raise
            if not may_wait():
                raise _log_locked_error(folder) from exc.__cause__
        time.sleep(_POLL_SECONDS)


def _waiting(seconds: float, has_live_user: Callable[[], bool]) -> Callable[[], bool]:
    """Return a function that returns whether to go on with the wait for a lock.

    Args:
        seconds: Maximum wait in seconds if a process that goes on holds the lock.
        has_live_user: Function that returns whether such a process may hold the lock.
    """
    start = time.monotonic()

    def may_wait() -> bool:
        elapsed = time.monotonic() - start
        return elapsed < seconds or (elapsed < _KILLED_SECONDS and not has_live_user())

    return may_wait


def _is_log_locked(exc: BaseException | None) -> bool:
    """Return whether the engine could not open a shard because another process has locked the write-ahead log."""
    return exc is not None and "WAL" in str(exc) and "WouldBlock" in str(exc)


def _log_locked_error(folder: Path) -> IndexLockedError:
    """Return the error for a store whose lock is free and whose log is locked.

    A child that was forked while the store was open has a copy of the file descriptor of the log. `OwnedFiles` closes
    the copy, except in a child that was forked without the hooks of Python.
    """
    user = describe_users(shard_folder(folder) / "wal") or "a process that was forked while the index was open"
    return IndexLockedError(f"The index at {folder} is still in use: its log is open in {user}. End that process.")


def shard_folder(folder: Path) -> Path:
    """Return the folder of the files of the engine in a store folder."""
    return folder / "data" / "shard"


def growing_bytes(folder: Path) -> int:
    """Return the bytes on disk of the growing segment of a store; 0 if no segment has points.

    Unflushed writes may not have blocks on the disk yet.

    Args:
        folder: Folder of the store.
    """
    # Only a growing segment has a list of its ids to which the engine appends.
    segments = {file.parent for file in folder.glob("data/shard/segments/*/mutable_id_tracker.mappings")}
    return max((_folder_bytes(segment) for segment in segments), default=0)


def _folder_bytes(folder: Path) -> int:
    return sum(size_on_disk(file) for file in folder.rglob("*") if file.is_file())


def sync_log(folder: Path) -> bool:
    """Sync the write-ahead log of a store to the disk; the engine replays it when the store is opened.

    The engine can only flush the log together with all segments, which takes 10 to 30 ms for one point: 20 calls of
    fsync and msync. The log alone takes 1 ms.

    Args:
        folder: Folder of the store.

    Returns:
        Whether the log is on the disk; False on a system whose fsync does not write memory-mapped changes.
    """
    if sys.platform != "linux":
        return False
    log = folder / "data" / "shard" / "wal"
    for path in (*log.iterdir(), log):
        with suppress(FileNotFoundError):  # the engine replaces and deletes full files of the log
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    return True


def _lock_folder(folder: Path) -> BaseFileLock:
    record = folder / "process.json"

    def message() -> str:
        user = describe_users(folder / "lock", record) or "another process"
        return f"The index at {folder} is locked by {user}. Close the index there, or open a copy of the folder."

    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        may_wait = _waiting(_FOLDER_LOCK_SECONDS, lambda: has_live_user(folder / "lock", record))
        while True:
            try:
                lock = acquire_lock(folder / "lock", message)
                break
            except IndexLockedError:
                if not may_wait():
                    raise
            time.sleep(_POLL_SECONDS)
        try:
            record_user(record)
        except BaseException:
            lock.release()
            raise
        return lock
    except OSError as exc:
        raise IndexStateError(f"The index at {folder} cannot be locked ({exc}). Make the folder writable.") from exc


def bytes_by_part(folder: Path) -> dict[str, int]:
    """Return the bytes on disk of each part of a store, as allocated blocks.

    The engine creates sparse files of 32 MB, so the file lengths exceed the used space. Unflushed writes may not have
    blocks yet.

    Args:
        folder: Folder of the store.

    Returns:
        Bytes of the parts dense, multi (including quantized copies), lexical, payload (texts, boxes, filter keys), log
        and other.
    """
    sizes = dict.fromkeys(_PARTS, 0)
    for file in folder.rglob("*"):
        if file.is_file():
            sizes[_file_part(file.relative_to(folder).parts)] += size_on_disk(file)
    return sizes


def _file_part(names: Sequence[str]) -> str:
    """Return the part of the store that a file belongs to, by folder names, for example ``vector_storage-dense``."""
    if "wal" in names:
        return "log"
    kinds = [name.removeprefix("vector_storage-").removeprefix("vector_index-").split("_")[0] for name in names]
    return next((kind for kind in kinds if kind in _PARTS), "other")


def _read_ahead(data: Path) -> None:
    """Read the multi-vector files once into the operating system's cache, unless the files exceed 64 MiB in total.

    When the engine loads int8 and int4 files, the engine drops the files from this cache and later reads blocks of
    4 KB. The first search then takes 0.5 ms per indexed page. Reading the files in sequence takes 0.025 ms per indexed
    page.
    """
    with suppress(OSError):  # reading ahead is only an optimization
        files = [(file, size_on_disk(file)) for file in data.glob("shard/segments/*/vector_storage-multi/*/chunk_*")]
        if sum(size for _, size in files) > _READ_AHEAD_LIMIT:
            return
        for file, size in files:
            with file.open("rb", buffering=0) as stream:
                while size > 0 and (count := len(stream.read(min(size, 1 << 20)))):
                    size -= count


def _create(engine: QdrantObject, temporary: Path, final: Path, dim: int, multi_dim: int, storage: Storage) -> None:
    with engine_errors(final.parent, "be created"):
        # A process killed during creation leaves this folder. The folder never contains points and can be deleted.
        if temporary.exists():
            shutil.rmtree(temporary)
        (temporary / "shard").mkdir(mode=0o700, parents=True)
        config = _config(engine, dim, multi_dim, storage, _OPTIMIZERS)
        # Sealed segments map the filter index into memory instead of loading it.
        tags = engine.KeywordIndexParams(memory=engine.Memory.Cached)
        with closing(engine.EdgeShard.create(str(temporary / "shard"), config)) as shard:
            shard.update(engine.UpdateOperation.create_field_index(schema.TAGS, tags))
            shard.flush()
        facts = {"format": _FORMAT, "dim": dim, "multi_dim": multi_dim, "storage": storage.to_json()}
        (temporary / "store.json").write_text(json.dumps(facts), encoding="utf-8")
        temporary.rename(final)


def _check_facts(file: Path, folder: Path, dim: int, multi_dim: int, storage: Storage | None) -> Storage:
    """Return the recorded vector storage of a store, after comparing ``store.json`` with the arguments."""
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        dims = (int(facts["dim"]), int(facts["multi_dim"]))
        version = int(facts["format"])
        recorded = dict(facts["storage"]) if version == _FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise IndexCorruptError(
            f"The index at {folder} is unreadable ({file.name}: {exc}). "
            "Restore the index folder from a backup, or ingest into a new folder."
        ) from exc
    if version != _FORMAT:
        raise IndexMismatchError(f"The index at {folder} is from another jina-rag version. Ingest into a new folder.")
    schema.check_dims(dims, (dim, multi_dim), folder)
    actual = Storage.from_json(recorded)
    if storage is not None and storage != actual:
        raise IndexMismatchError(
            f"The index at {folder} was built with storage {actual}, not {storage}. Omit storage (--storage), "
            "or ingest into a new folder."
        )
    return actual


def _config(
    engine: QdrantObject, dim: int, multi_dim: int, storage: Storage, optimizers: Mapping[str, float]
) -> QdrantObject:
    datatypes = engine.VectorStorageDatatype
    # float16 is sufficient for dense vectors, because they only select candidates. The storage "exact" uses float32.
    dense_datatype = None if storage.datatype == "float16" else datatypes.Float16
    # No HNSW graphs: MaxSim scores the candidates or all points exactly, and a scan of the dense vectors of 100,000
    # pages takes 5 to 10 ms. Building a graph takes 4 times as long as the rest of sealing a segment.
    no_graph = engine.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000)
    dense = engine.EdgeVectorParams(dim, engine.Distance.Dot, datatype=dense_datatype, hnsw_config=no_graph)
    multi = engine.EdgeVectorParams(
        multi_dim,
        engine.Distance.Dot,
        multivector_config=engine.MultiVectorConfig(engine.MultiVectorComparator.MaxSim),
        datatype=getattr(datatypes, _DATATYPES[storage.datatype]),
        quantization_config=_quantization(engine, storage),
        hnsw_config=no_graph,
        memory=engine.Memory.Cold,
    )
    # Sealed segments map the lexical index and the ids into memory instead of loading them.
    lexical = engine.EdgeSparseVectorParams(modifier=engine.Modifier.Idf, memory=engine.Memory.Cached)
    return engine.EdgeConfig(
        vectors={schema.DENSE: dense, schema.MULTI: multi},
        sparse_vectors={schema.LEXICAL: lexical},
        optimizers=engine.EdgeOptimizersConfig(**optimizers),
        payload_memory=engine.Memory.Cold,
        id_tracker_memory=engine.Memory.Cached,
        wal_enabled=storage.log,
    )


def _quantization(engine: QdrantObject, storage: Storage) -> QdrantObject:
    if storage.quantization == "int8":
        return engine.ScalarQuantizationConfig(engine.ScalarType.Int8, memory=engine.Memory.Cold)
    if storage.quantization == "binary":
        return engine.BinaryQuantizationConfig(memory=engine.Memory.Cold)
    return None


@contextmanager
def engine_errors(folder: Path, action: str) -> Iterator[None]:
    """Translate exceptions and panics of the engine to index errors.

    Args:
        folder: Folder of the store, for error messages.
        action: The action in the passive voice, for error messages, for example ``"be searched"``.

    Raises:
        IndexCorruptError: If the store cannot be opened, or the engine panics.
        IndexStateError: If any other engine call fails.
    """
    try:
        yield
    except JinaRagError:
        raise
    except Exception as exc:
        reason = " ".join(str(exc).split())
        if action == "be opened":
            raise IndexCorruptError(
                f"The index at {folder} could not be opened ({reason}). "
                "Restore the index folder from a backup, or ingest into a new folder."
            ) from exc
        raise IndexStateError(
            f"The index at {folder} could not {action} ({reason}). "
            "Check the free disk space and the permissions of the folder."
        ) from exc
    except BaseException as exc:
        # The class of engine panics derives from BaseException and cannot be imported, so the class name is compared.
        if type(exc).__name__ != "PanicException":
            raise
        raise IndexCorruptError(
            f"The index at {folder} could not {action}: the engine failed ({exc}). "
            "Reopen the index. If this happens again, restore the index folder from a backup, "
            "or ingest into a new folder."
        ) from exc
