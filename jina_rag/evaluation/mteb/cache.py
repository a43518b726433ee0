"""Vectors on disk, so that a run that was killed embeds nothing twice, and neither does the next benchmark.

One SQLite file: what a call of the model gave is there whole, or not at all, whenever the process ends.
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
_TOGETHER = 500
_AFTER = 0.9
"""What is left of the allowed bytes when old vectors make room, so that it does not happen at every call."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """What is kept of one input: its dense vector, shape (dim,), its rows, shape (tokens, dim), or both. Float32."""

    single: Float32 | None = None
    multi: Float32 | None = None

    def to_bytes(self) -> bytes:
        """Exact: float32, little-endian."""
        single, multi = self.single, self.multi
        sizes = (-1 if single is None else len(single), *((-1, 0) if multi is None else multi.shape))
        parts = [np.ascontiguousarray(part, dtype="<f4").tobytes() for part in (single, multi) if part is not None]
        return _HEADER.pack(*sizes) + b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` gave."""
        dim, rows, width = _HEADER.unpack_from(data)
        numbers = np.frombuffer(data, dtype="<f4", offset=_HEADER.size).astype(np.float32)
        at = max(dim, 0)
        return cls(
            single=None if dim < 0 else numbers[:at],
            multi=None if rows < 0 else numbers[at:].reshape(rows, width),
        )


def key_of(*parts: bytes | str) -> bytes:
    """A key made of parts, none of which can run into the next."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()


class VectorCache:
    """Vectors by key, bounded in bytes: the ones that were not used for the longest time make room for new ones.

    A context manager. Several processes may share a file; each object belongs to one thread.
    """

    def __init__(self, path: Path, *, max_bytes: int = DEFAULT_BYTES) -> None:
        """Open the file, or make it and its folder.

        Args:
            path: The file.
            max_bytes: Of all vectors; the file is a little larger.

        Raises:
            InvalidInputError: If `max_bytes` is not positive.
            JinaRagError: If the file cannot be opened, or is something else.
        """
        if max_bytes < 1:
            raise InvalidInputError(f"max_bytes is {max_bytes}; vectors need room: give a positive number.")
        self.path = path
        self._max = max_bytes
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._errors_explained():
            self._file = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = NORMAL")
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS vectors "
                "(key BLOB PRIMARY KEY, run INTEGER NOT NULL, size INTEGER NOT NULL, value BLOB NOT NULL)"
            )
            self._file.execute("CREATE TABLE IF NOT EXISTS precisions (model TEXT PRIMARY KEY, dtype TEXT NOT NULL)")
            # The columns that bounding looks at, without reading through the vectors.
            self._file.execute("CREATE INDEX IF NOT EXISTS age ON vectors (run, size)")
            [(run, size)] = self._file.execute("SELECT max(run), total(size) FROM vectors")
        self._run = (run or 0) + 1
        self._size = int(size)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        """What is there of `keys`."""
        vectors: dict[bytes, Vectors] = {}
        with self._errors_explained():
            for some in _parts(keys):
                marks = ", ".join("?" * len(some))
                rows = self._file.execute(f"SELECT key, value FROM vectors WHERE key IN ({marks})", some)  # noqa: S608
                vectors |= {key: Vectors.from_bytes(value) for key, value in rows}
                self._file.execute(
                    f"UPDATE vectors SET run = ? WHERE run < ? AND key IN ({marks})",  # noqa: S608
                    (self._run, self._run, *some),
                )
        return vectors

    def put(self, vectors: Mapping[bytes, Vectors]) -> None:
        """Keep all of these, or none if the process ends here."""
        values = {key: value.to_bytes() for key, value in vectors.items()}
        with self._errors_explained():
            self._file.execute("BEGIN IMMEDIATE")
            try:
                self._file.executemany(
                    "INSERT OR REPLACE INTO vectors (key, run, size, value) VALUES (?, ?, ?, ?)",
                    [(key, self._run, len(value), value) for key, value in values.items()],
                )
                self._size += sum(map(len, values.values()))
                if self._size > self._max:
                    self._make_room()
                self._file.execute("COMMIT")
            except BaseException:
                self._file.execute("ROLLBACK")
                raise

    def get_or_make(
        self, keys: Sequence[bytes], items: Sequence[_Item], make: Callable[[list[_Item]], Sequence[Vectors]]
    ) -> list[Vectors]:
        """Vectors of items: what is here is not made again, and what occurs twice is made once."""
        vectors = self.get(keys)
        missing = {key: item for key, item in zip(keys, items, strict=True) if key not in vectors}
        if missing:
            new_vectors = dict(zip(missing, make(list(missing.values())), strict=True))
            self.put(new_vectors)
            vectors |= new_vectors
        return [vectors[key] for key in keys]

    def precision(self, model: str) -> str | None:
        """The dtype that a model was first used in here, of those that were left to it; None if it was not yet.

        On a CPU that choice is made by a measurement, and may be another in the next process: vectors of one run would
        be of two kinds.
        """
        with self._errors_explained():
            row = self._file.execute("SELECT dtype FROM precisions WHERE model = ?", (model,)).fetchone()
        return None if row is None else str(row[0])

    def keep_precision(self, model: str, dtype: str) -> None:
        """Keep it for `precision`; the first one stays."""
        with self._errors_explained():
            self._file.execute("INSERT OR IGNORE INTO precisions (model, dtype) VALUES (?, ?)", (model, dtype))

    def __len__(self) -> int:
        with self._errors_explained():
            [(count,)] = self._file.execute("SELECT count(*) FROM vectors")
        return int(count)

    def _make_room(self) -> None:
        [(size,)] = self._file.execute("SELECT total(size) FROM vectors")  # another process may have written, too
        over = size - self._max * _AFTER
        rowids: list[tuple[int]] = []
        for row, weight in self._file.execute("SELECT rowid, size FROM vectors ORDER BY run, rowid"):
            if over <= 0:
                break
            rowids.append((row,))
            over -= weight
            size -= weight
        self._file.executemany("DELETE FROM vectors WHERE rowid = ?", rowids)
        self._size = int(size)

    @contextmanager
    def _errors_explained(self) -> Iterator[None]:
        """Errors of the file as one sentence."""
        try:
            yield
        except sqlite3.Error as exc:
            raise JinaRagError(
                f"The vectors in {self.path} cannot be used ({exc}): delete the file, or give it room."
            ) from exc

    def close(self) -> None:
        """Release the file. Closing twice is fine."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _parts(keys: Sequence[bytes]) -> Iterator[list[bytes]]:
    unique = list(dict.fromkeys(keys))
    for start in range(0, len(unique), _TOGETHER):
        yield unique[start : start + _TOGETHER]
