"""Qdrant's engine in a folder: locking it, making it whole or not at all, its exceptions turned into ours.

The folder holds ``lock`` and ``data/``; ``data/store.json`` names the dimensions and how vectors are kept,
``data/shard/`` is the engine's. A store is made under another name and renamed when complete, so that a process
killed half-way leaves nothing that looks like an index.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jina_rag._files import acquire_lock, size_on_disk
from jina_rag.config import Storage
from jina_rag.errors import (
    IndexCorruptError,
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

_FORMAT: Final = 3
"""Points of the formats before do not carry their numbers for filters."""
_DATATYPES: Final = {"float16": "Float16", "int8": "Turbo8", "int4": "Turbo4"}
"""What the engine calls them. Its own 8-bit integers, Uint8, take whole numbers from 0 to 255 only."""
_PARTS: Final = ("dense", "multi", "lexical", "payload", "log", "other")
_WARM: Final = 64 * 1024 * 1024
"""Bytes of multi-vectors that are read at once when a store is opened; some 2,000 pages of "compact"."""


@dataclass(frozen=True, slots=True)
class OpenFolder:
    """A store's folder while it is open.

    Attributes:
        shard: The engine's.
        lock: To be released after the shard is closed.
        storage: How its vectors are kept.
        indexed_paths: The paths under which numbers are indexed.
    """

    shard: QdrantObject
    lock: BaseFileLock
    storage: Storage
    indexed_paths: set[str]


def open_shard(
    engine: QdrantObject, folder: Path, dim: int, multi_dim: int, *, create: bool, storage: Storage | None = None
) -> OpenFolder:
    """Lock the folder and load its shard, after making it where there is none; see `EdgeStore.open`.

    Args:
        engine: The module qdrant_edge.
        folder: Where it lies.
        dim: Length of the dense vectors.
        multi_dim: Length of each row of the multi-vectors.
        create: Whether to make a shard where there is none.
        storage: How vectors are kept; None for what is there already, or ``"exact"``.
    """
    data = folder / "data"
    if not create and not any(data.glob("shard/segments/*/segment.json")):
        raise IndexNotFoundError(f"There are no vectors at {folder}: restore them, or ingest into a new folder.")
    with ExitStack() as on_failure:
        lock = _lock(folder)
        on_failure.callback(lock.release)
        if not data.is_dir():
            _create(engine, folder / "data.new", data, dim, multi_dim, storage or Storage())
        storage = _check_facts(data / "store.json", folder, dim, multi_dim, storage)
        shard = load_shard(engine, folder)
        # Left to the garbage collector, the shard would stay open as long as somebody holds the exception.
        on_failure.callback(shard.close)
        with translated(folder, "be opened"):
            paths = indexed_paths(shard.info().payload_schema)
        if storage.datatype != "float16":
            _warm(data)
        on_failure.pop_all()
    return OpenFolder(shard, lock, storage, paths)


def load_shard(engine: QdrantObject, folder: Path) -> QdrantObject:
    """Load the shard of a folder that is locked and complete."""
    with translated(folder, "be opened"):
        # The engine keeps its settings: passing them again would rewrite its file at each start.
        return engine.EdgeShard.load(str(folder / "data" / "shard"))


def _lock(folder: Path) -> BaseFileLock:
    message = (
        f"The index at {folder} is already open, in another process or elsewhere in this one: "
        "close it there first, or open a copy of the folder."
    )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return acquire_lock(folder / "lock", message)
    except OSError as exc:
        raise IndexStateError(f"The index at {folder} cannot be locked ({exc}): is the folder writable?") from exc


def bytes_by_part(folder: Path) -> dict[str, int]:
    """Bytes on disk of the store in a folder, by what they hold: the blocks that its files take.

    The engine's files are sparse and made 32 MB long at once; their lengths would tell too much. What it has not
    flushed yet may not take blocks yet.

    Returns:
        dense, multi (with second copies for a quicker search), lexical, payload (texts, places, filters), log, other.
    """
    sizes = dict.fromkeys(_PARTS, 0)
    for file in folder.rglob("*"):
        if file.is_file():
            sizes[_part(file.relative_to(folder).parts)] += size_on_disk(file)
    return sizes


def _part(names: Sequence[str]) -> str:
    """What a file of the engine holds, by the names of its folders: such as ``vector_storage-dense``."""
    if "wal" in names:
        return "log"
    kinds = [name.removeprefix("vector_storage-").removeprefix("vector_index-").split("_")[0] for name in names]
    return next((kind for kind in kinds if kind in _PARTS), "other")


def _warm(data: Path) -> None:
    """Read the multi-vectors once, where they are few.

    When the engine loads such files it drops what the system has cached of them, and then reads them by 4 KB: the
    first search takes 0.5 ms a page. Reading them from end to end takes a twentieth of that.
    """
    with suppress(OSError):  # it is for speed only
        files = [(file, size_on_disk(file)) for file in data.glob("shard/segments/*/vector_storage-multi/*/chunk_*")]
        if sum(size for _, size in files) > _WARM:
            return
        for file, size in files:
            with file.open("rb", buffering=0) as stream:
                while size > 0 and (count := len(stream.read(min(size, 1 << 20)))):
                    size -= count


def _create(engine: QdrantObject, temporary: Path, final: Path, dim: int, multi_dim: int, storage: Storage) -> None:
    with translated(final.parent, "be created"):
        # What a process left that was killed here; nothing was ever written to it.
        if temporary.exists():
            shutil.rmtree(temporary)
        (temporary / "shard").mkdir(mode=0o700, parents=True)
        config, keyword = _config(engine, dim, multi_dim, storage), engine.PayloadSchemaType.Keyword
        with closing(engine.EdgeShard.create(str(temporary / "shard"), config)) as shard:
            shard.update(engine.UpdateOperation.create_field_index(schema.TAGS, keyword))
            shard.flush()
        facts = {"format": _FORMAT, "dim": dim, "multi_dim": multi_dim, "storage": storage.to_json()}
        (temporary / "store.json").write_text(json.dumps(facts), encoding="utf-8")
        temporary.rename(final)


def _check_facts(file: Path, folder: Path, dim: int, multi_dim: int, storage: Storage | None) -> Storage:
    """Compare what the folder says of itself with what is asked for; how its vectors are kept."""
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        dims = (int(facts["dim"]), int(facts["multi_dim"]))
        version = int(facts["format"])
        recorded = dict(facts["storage"]) if version == _FORMAT else {}
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise IndexCorruptError(
            f"The index at {folder} cannot be read ({file.name}: {exc}): restore it, or ingest into a new folder."
        ) from exc
    if version != _FORMAT:
        raise IndexMismatchError(f"The index at {folder} was written by another version of jina-rag: ingest it again.")
    schema.check_dims(dims, (dim, multi_dim), folder)
    actual = Storage.from_json(recorded)
    if storage is not None and storage != actual:
        raise IndexMismatchError(
            f"The index at {folder} keeps its vectors as {actual}, not as {storage}: open it without naming a storage, "
            "or ingest into a new folder."
        )
    return actual


def _config(engine: QdrantObject, dim: int, multi_dim: int, storage: Storage) -> QdrantObject:
    datatypes = engine.VectorStorageDatatype
    # Dense vectors only pick candidates; half the bytes lose nothing there. "exact" stays as it always was.
    dense_datatype = None if storage.datatype == "float16" else datatypes.Float16
    dense = engine.EdgeVectorParams(dim, engine.Distance.Dot, datatype=dense_datatype)
    multi = engine.EdgeVectorParams(
        multi_dim,
        engine.Distance.Dot,
        multivector_config=engine.MultiVectorConfig(engine.MultiVectorComparator.MaxSim),
        datatype=getattr(datatypes, _DATATYPES[storage.datatype]),
        quantization_config=_quantization(engine, storage),
        # No graph: MaxSim ranks candidates or everything, and a graph over it would be inexact.
        hnsw_config=engine.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000),
        memory=engine.Memory.Cold,
    )
    lexical = engine.EdgeSparseVectorParams(modifier=engine.Modifier.Idf)
    vectors, sparse_vectors = {schema.DENSE: dense, schema.MULTI: multi}, {schema.LEXICAL: lexical}
    return engine.EdgeConfig(vectors=vectors, sparse_vectors=sparse_vectors, wal_enabled=storage.log)


def _quantization(engine: QdrantObject, storage: Storage) -> QdrantObject:
    if storage.quantization == "int8":
        return engine.ScalarQuantizationConfig(engine.ScalarType.Int8, memory=engine.Memory.Cold)
    if storage.quantization == "binary":
        return engine.BinaryQuantizationConfig(memory=engine.Memory.Cold)
    return None


@contextmanager
def translated(folder: Path, doing: str) -> Iterator[None]:
    """The one place where the engine's exceptions become ours."""
    try:
        yield
    except JinaRagError:
        raise
    except Exception as exc:
        reason = " ".join(str(exc).split())
        if doing == "be opened":
            raise IndexCorruptError(
                f"The index at {folder} could not be opened ({reason}): restore it, or ingest into a new folder."
            ) from exc
        raise IndexStateError(
            f"The index at {folder} could not {doing} ({reason}): is the disk full or the folder read-only?"
        ) from exc
    except BaseException as exc:
        # A panic of the engine derives from BaseException, under a class that cannot be imported.
        if type(exc).__name__ != "PanicException":
            raise
        raise IndexCorruptError(
            f"The index at {folder} could not {doing}, the engine failed inside ({exc}): "
            "open it again; if that fails too, restore it or ingest into a new folder."
        ) from exc
