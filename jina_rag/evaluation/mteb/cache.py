"""Cache of vectors on disk, shared by resumed runs and by benchmarks with the same texts or images.

The cache is one SQLite file. The vectors of one model call are written in one transaction: if the process is
killed, the file holds either all vectors of the call or none.
"""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np

from jina_rag.errors import InvalidInputError, JinaRagError
from jina_rag.types import Float32

_Item = TypeVar("_Item")
DEFAULT_BYTES = 20_000_000_000
_HEADER = struct.Struct("<iii")
_KEYS_PER_QUERY = 500
_FILL_AFTER_EVICTION = 0.9
"""Fraction of `max_bytes` that an eviction keeps, so that the next writes do not evict again."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """The cached vectors of one input.

    Attributes:
        single: The dense vector, shape (dim,), float32; None if not cached.
        multi: The multi-vector, shape (tokens, dim), float32; None if not cached.
    """

    single: Float32 | None = None
    multi: Float32 | None = None

    def to_bytes(self) -> bytes:
        """Return the vectors as bytes: a header with the shapes, then little-endian float32 values."""
        single, multi = self.single, self.multi
        sizes = (-1 if single is None else len(single), *((-1, 0) if multi is None else multi.shape))
        parts = [np.ascontiguousarray(part, dtype="<f4").tobytes() for part in (single, multi) if part is not None]
        return _HEADER.pack(*sizes) + b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the vectors that `to_bytes` encoded in `data`."""
        dim, rows, width = _HEADER.unpack_from(data)
        values = np.frombuffer(data, dtype="<f4", offset=_HEADER.size).astype(np.float32)
        offset = max(dim, 0)
        return cls(
            single=None if dim < 0 else values[:offset],
            multi=None if rows < 0 else values[offset:].reshape(rows, width),
        )


def key_of(*parts: bytes | str) -> bytes:
    """Return a SHA-256 hash of `parts` and of the length of each part."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()


class VectorCache:
    """Context manager for a vector cache on disk, with a size limit in bytes and least-recently-used eviction.

    Several processes may open the same file. A `VectorCache` object must be used by one thread only.

    Attributes:
        path: Path of the SQLite file.
    """

    def __init__(self, path: Path, *, max_bytes: int = DEFAULT_BYTES) -> None:
        """Open the cache, and create the file and its folder if they do not exist.

        Args:
            path: Path of the SQLite file.
            max_bytes: Limit for all vectors, in bytes; the file is slightly larger.

        Raises:
            InvalidInputError: If `max_bytes` is below 1.
            JinaRagError: If the file cannot be opened, or is not a SQLite file.
        """
        if max_bytes < 1:
            raise InvalidInputError(f"max_bytes is {max_bytes}; expected a positive number of bytes.")
        self.path = path
        self._max_bytes = max_bytes
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._explain_sqlite_errors():
            self._file = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = NORMAL")
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS vectors "
                "(key BLOB PRIMARY KEY, run INTEGER NOT NULL, size INTEGER NOT NULL, value BLOB NOT NULL)"
            )
            self._file.execute("CREATE TABLE IF NOT EXISTS precisions (model TEXT PRIMARY KEY, dtype TEXT NOT NULL)")
            # The index lets an eviction find old rows without reading the vectors.
            self._file.execute("CREATE INDEX IF NOT EXISTS age ON vectors (run, size)")
            [(run, size)] = self._file.execute("SELECT max(run), total(size) FROM vectors")
        self._run = (run or 0) + 1
        self._size = int(size)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        """Return the cached vectors of `keys`; keys that are not cached are omitted."""
        vectors: dict[bytes, Vectors] = {}
        with self._explain_sqlite_errors():
            for batch in _unique_batches(keys):
                marks = ", ".join("?" * len(batch))
                rows = self._file.execute(f"SELECT key, value FROM vectors WHERE key IN ({marks})", batch)  # noqa: S608
                vectors |= {key: Vectors.from_bytes(value) for key, value in rows}
                self._file.execute(
                    f"UPDATE vectors SET run = ? WHERE run < ? AND key IN ({marks})",  # noqa: S608
                    (self._run, self._run, *batch),
                )
        return vectors

    def put(self, vectors: Mapping[bytes, Vectors]) -> None:
        """Store vectors by key, in one transaction."""
        values = {key: value.to_bytes() for key, value in vectors.items()}
        with self._explain_sqlite_errors():
            self._file.execute("BEGIN IMMEDIATE")
            try:
                self._file.executemany(
                    "INSERT OR REPLACE INTO vectors (key, run, size, value) VALUES (?, ?, ?, ?)",
                    [(key, self._run, len(value), value) for key, value in values.items()],
                )
                self._size += sum(map(len, values.values()))
                if self._size > self._max_bytes:
                    self._evict()
                self._file.execute("COMMIT")
            except BaseException:
                self._file.execute("ROLLBACK")
                raise

    def get_or_make(
        self, keys: Sequence[bytes], items: Sequence[_Item], make: Callable[[list[_Item]], Sequence[Vectors]]
    ) -> list[Vectors]:
        """Return the vectors of `items` in order, and compute and store the missing vectors.

        Args:
            keys: One key per item.
            items: The inputs.
            make: Function that computes vectors. Called at most once, with the distinct items that are not cached.
        """
        vectors = self.get(keys)
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in vectors}
        if missing:
            new_vectors = dict(zip(missing, make(list(missing.values())), strict=True))
            self.put(new_vectors)
            vectors |= new_vectors
        return [vectors[key] for key in keys]

    def precision(self, model: str) -> str | None:
        """Return the dtype that was first stored for `model`, or None.

        On a CPU, ``dtype="auto"`` chooses the dtype by a speed measurement, which may differ between processes. The
        stored dtype keeps all vectors of a cache in one precision.
        """
        with self._explain_sqlite_errors():
            row = self._file.execute("SELECT dtype FROM precisions WHERE model = ?", (model,)).fetchone()
        return None if row is None else str(row[0])

    def keep_precision(self, model: str, dtype: str) -> None:
        """Store the dtype of `model`, unless a dtype is already stored."""
        with self._explain_sqlite_errors():
            self._file.execute("INSERT OR IGNORE INTO precisions (model, dtype) VALUES (?, ?)", (model, dtype))

    def __len__(self) -> int:
        with self._explain_sqlite_errors():
            [(count,)] = self._file.execute("SELECT count(*) FROM vectors")
        return int(count)

    def _evict(self) -> None:
        [(size,)] = self._file.execute("SELECT total(size) FROM vectors")  # includes writes of other processes
        excess = size - self._max_bytes * _FILL_AFTER_EVICTION
        rowids: list[tuple[int]] = []
        for row, row_bytes in self._file.execute("SELECT rowid, size FROM vectors ORDER BY run, rowid"):
            if excess <= 0:
                break
            rowids.append((row,))
            excess -= row_bytes
            size -= row_bytes
        self._file.executemany("DELETE FROM vectors WHERE rowid = ?", rowids)
        self._size = int(size)

    @contextmanager
    def _explain_sqlite_errors(self) -> Iterator[None]:
        """Convert SQLite errors to JinaRagError."""
        try:
            yield
        except sqlite3.Error as exc:
            raise JinaRagError(
                f"The vector cache {self.path} cannot be used ({exc}). Delete the file, or free disk space."
            ) from exc

    def close(self) -> None:
        """Close the file. Repeated calls have no effect."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _unique_batches(keys: Sequence[bytes]) -> Iterator[list[bytes]]:
    unique = list(dict.fromkeys(keys))
    for start in range(0, len(unique), _KEYS_PER_QUERY):
        yield unique[start : start + _KEYS_PER_QUERY]
