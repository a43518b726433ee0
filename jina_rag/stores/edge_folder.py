"""Qdrant's engine in a folder: locking it, making it whole or not at all, its exceptions turned into ours.

The folder holds ``lock`` and ``data/``; ``data/store.json`` names the dimensions, ``data/shard/`` is the
engine's. A store is made under another name and renamed when complete, so that a process killed half-way
leaves nothing that looks like an index.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from jina_rag.errors import (
    IndexCorruptError,
    IndexLockedError,
    IndexMismatchError,
    IndexNotFoundError,
    IndexStateError,
    JinaRagError,
)
from jina_rag.stores import schema

if TYPE_CHECKING:
    from filelock import BaseFileLock

Engine: TypeAlias = Any
"""The module qdrant_edge and its objects, whose types are not checked: it is imported at first use."""

_FORMAT: Final = 1


def open_shard(engine: Engine, folder: Path, dim: int, multi_dim: int, *, create: bool) -> tuple[Engine, BaseFileLock]:
    """Lock the folder and load its shard, after making it where there is none; see `EdgeStore.open`.

    Args:
        engine: The module qdrant_edge.
        folder: Where it lies.
        dim: Length of the dense vectors.
        multi_dim: Length of each row of the multi-vectors.
        create: Whether to make a shard where there is none.

    Returns:
        The shard and the lock, to be released after the shard is closed.
    """
    data = folder / "data"
    if not create and not data.is_dir():
        raise IndexNotFoundError(f"There is no index at {folder}: ingest documents into it first.")
    lock = _locked(folder)
    try:
        if not data.is_dir():
            _create(engine, folder / "data.new", data, dim, multi_dim)
        _check_dims(data / "store.json", folder, dim, multi_dim)
        with translated(folder, "be opened"):
            # The engine keeps its settings: passing them again would rewrite its file at each start.
            return engine.EdgeShard.load(str(data / "shard")), lock
    except BaseException:
        lock.release()
        raise


def _locked(folder: Path) -> BaseFileLock:
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The system drops this lock when the process ends, however it ends.
        lock = FileLock(folder / "lock", timeout=0, thread_local=False)
        lock.acquire()
    except Timeout as exc:
        raise IndexLockedError(
            f"The index at {folder} is already open, in another process or elsewhere in this one: "
            "close it there first, or open a copy of the folder."
        ) from exc
    except OSError as exc:
        raise IndexStateError(f"The index at {folder} cannot be locked ({exc}): is the folder writable?") from exc
    return lock


def _create(engine: Engine, temporary: Path, final: Path, dim: int, multi_dim: int) -> None:
    with translated(final.parent, "be created"):
        # What a process left that was killed here; nothing was ever written to it.
        if temporary.exists():
            shutil.rmtree(temporary)
        (temporary / "shard").mkdir(mode=0o700, parents=True)
        shard = engine.EdgeShard.create(str(temporary / "shard"), _config(engine, dim, multi_dim))
        keyword = engine.PayloadSchemaType.Keyword
        shard.update(engine.UpdateOperation.create_field_index(schema.TAGS, keyword))
        shard.flush()
        shard.close()
        facts = {"format": _FORMAT, "dim": dim, "multi_dim": multi_dim}
        (temporary / "store.json").write_text(json.dumps(facts), encoding="utf-8")
        temporary.rename(final)


def _check_dims(file: Path, folder: Path, dim: int, multi_dim: int) -> None:
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        kept = (int(facts["dim"]), int(facts["multi_dim"]))
        version = int(facts["format"])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise IndexCorruptError(
            f"The index at {folder} cannot be read ({file.name}: {exc}): restore it, or ingest into a new folder."
        ) from exc
    if version != _FORMAT:
        raise IndexMismatchError(f"The index at {folder} was written by another version of jina-rag: ingest it again.")
    if kept != (dim, multi_dim):
        raise IndexMismatchError(
            f"The index at {folder} keeps vectors of {kept[0]} and {kept[1]} dimensions, the model makes "
            f"{dim} and {multi_dim}: open it with the model it was built with, or ingest into a new folder."
        )


def _config(engine: Engine, dim: int, multi_dim: int) -> Engine:
    return engine.EdgeConfig(
        vectors={
            schema.DENSE: engine.EdgeVectorParams(dim, engine.Distance.Dot),
            schema.MULTI: engine.EdgeVectorParams(
                multi_dim,
                engine.Distance.Dot,
                multivector_config=engine.MultiVectorConfig(engine.MultiVectorComparator.MaxSim),
                datatype=engine.VectorStorageDatatype.Float16,
                # No graph: MaxSim ranks candidates or everything, and a graph over it would be inexact.
                hnsw_config=engine.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000),
                memory=engine.Memory.Cold,
            ),
        },
        sparse_vectors={schema.LEXICAL: engine.EdgeSparseVectorParams(modifier=engine.Modifier.Idf)},
    )


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
