"""What OCR read, kept by what the pixels are: the same picture is never read twice.

The same scan in another file, or the same page of a changed document, costs a look into a file of SQLite. What
lies there are words of documents, so that it can also be told to forget them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from jina_rag.ocr import weights
from jina_rag.types import Float32, Word

log = logging.getLogger(__name__)

# To be raised with every change of this package that changes what is read.
RECIPE = 2

# Far more than a page holds; a damaged file must not fill the memory.
_MAX_BYTES = 1 << 26
# Seconds to wait for another process that writes.
_PATIENCE = 5.0
_TABLES = """
PRAGMA secure_delete = ON;
CREATE TABLE IF NOT EXISTS areas (key TEXT PRIMARY KEY, words BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uses (key TEXT, revision TEXT, PRIMARY KEY (key, revision)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_revision ON uses (revision);
"""


def area_key(pixels: npt.NDArray[np.uint8], known: Float32, *, max_side: int, min_score: float) -> str:
    """What the words read in an area depend on, as a sha256.

    Args:
        pixels: The area, shape (height, width, 3), RGB.
        known: Boxes in pixels of the area that are not to be read, shape (n, 4).
        max_side: As for `jina_rag.ocr.read_words`.
        min_score: Likewise.

    Raises:
        MissingDependencyError: If rapidocr is not installed.
        CheckpointError: If the weights in its wheel are not what they should be.
    """
    facts = [RECIPE, weights.digest(), max_side, min_score, "RGB", pixels.shape, known.shape]
    found = hashlib.sha256(json.dumps(facts).encode())
    found.update(np.ascontiguousarray(known, "<f4").data)
    found.update(np.ascontiguousarray(pixels).data)
    return found.hexdigest()


class OcrCache:
    """Words by `area_key`, in one file that only its owner can read. Safe to use from many threads.

    Nothing here ever fails: where the file is damaged or cannot be written, one warning is logged, and from then
    on nothing is found and nothing kept.

    Args:
        path: The file; made if it does not exist, in a folder that does.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        try:
            # Before SQLite makes it, which would let others read it; the files beside it get the same mode.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            path.chmod(0o600)
            self._database = sqlite3.connect(path, timeout=_PATIENCE, check_same_thread=False)
            self._database.executescript(_TABLES)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    @property
    def bytes(self) -> int:
        """Size of the file; 0 if there is none."""
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def get(self, key: str, revision: str | None = None) -> list[Word] | None:
        """The words kept under a key, boxes as they were put; None if there are none.

        Args:
            key: See `area_key`.
            revision: The document revision that they are wanted for; `forget` leaves them while it has need of
                them.
        """
        with self._lock:
            if self._database is None:
                return None
            try:
                row = self._database.execute("SELECT words FROM areas WHERE key = ?", (key,)).fetchone()
                found = None if row is None else _unpacked(row[0])
                if found is not None and revision is not None:
                    self._used(self._database, key, revision)
            except (sqlite3.Error, ValueError, TypeError, zlib.error) as error:
                self._give_up(error)
                return None
        return found

    def put(self, key: str, words: Sequence[Word], revision: str) -> None:
        """Keep the words of an area for a document revision."""
        value = zlib.compress(json.dumps([[word.text, *word.box] for word in words]).encode())
        with self._lock:
            if self._database is None:
                return
            try:
                with self._database:
                    self._database.execute(
                        "INSERT INTO areas VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET words = excluded.words",
                        (key, value),
                    )
                    self._database.execute("INSERT OR IGNORE INTO uses VALUES (?, ?)", (key, revision))
            except sqlite3.Error as error:
                self._give_up(error)

    def forget(self, revisions: Iterable[str]) -> None:
        """Drop, and overwrite, what was put or found for these document revisions and for no other."""
        with self._lock:
            if self._database is None:
                return
            try:
                with self._database:
                    self._database.executemany("DELETE FROM uses WHERE revision = ?", [(each,) for each in revisions])
                    self._database.execute("DELETE FROM areas WHERE key NOT IN (SELECT key FROM uses)")
            except sqlite3.Error as error:
                self._give_up(error)

    def close(self) -> None:
        """Close the file. Afterwards nothing is found and nothing kept."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def __enter__(self) -> OcrCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _used(self, database: sqlite3.Connection, key: str, revision: str) -> None:
        # Looked up first: most hits write nothing, and so wait for no disk.
        if database.execute("SELECT 1 FROM uses WHERE key = ? AND revision = ?", (key, revision)).fetchone() is None:
            with database:
                database.execute("INSERT OR IGNORE INTO uses VALUES (?, ?)", (key, revision))

    def _give_up(self, error: Exception) -> None:
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None
        log.warning(
            "What OCR reads is not kept, because %s cannot be used: %s. Pages are read all the same; "
            "if it stays so, delete that file.",
            self._path,
            error,
        )


def _unpacked(value: bytes) -> list[Word]:
    """Raises ValueError, TypeError or zlib.error if it is not what `put` wrote."""
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(value, _MAX_BYTES)
    if not unpacker.eof:
        raise ValueError("an entry is cut short")
    return [
        Word(str(text), (float(x0), float(y0), float(x1), float(y1)), ocr=True)
        for text, x0, y0, x1, y1 in json.loads(data)
    ]
