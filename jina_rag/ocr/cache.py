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
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from jina_rag.ocr import weights
from jina_rag.types import Float32, Word

_T = TypeVar("_T")

log = logging.getLogger(__name__)

# To be raised with every change of this package that changes what is read.
RECIPE = 1

# Far more than a page holds; a damaged file must not fill the memory.
_MAX_BYTES = 1 << 26
# Seconds to wait for another process that writes.
_PATIENCE = 5.0
_TABLES = """
PRAGMA secure_delete = ON;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS areas (key TEXT PRIMARY KEY, words BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uses (key TEXT, revision TEXT, PRIMARY KEY (key, revision)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_revision ON uses (revision);
"""


def area_key(pixels: npt.NDArray[np.uint8], skip_boxes: Float32, *, max_side: int, min_score: float) -> str:
    """What the words read in an area depend on, as a sha256.

    Args:
        pixels: The area, shape (height, width, 3), RGB.
        skip_boxes: Boxes in pixels of the area that are not to be read, shape (n, 4).
        max_side: As for `jina_rag.ocr.read_words`.
        min_score: Likewise.

    Raises:
        MissingDependencyError: If rapidocr is not installed.
        CheckpointError: If the weights in its wheel are not what they should be.
    """
    facts = [RECIPE, weights.digest(), max_side, min_score, "RGB", pixels.shape, skip_boxes.shape]
    digest = hashlib.sha256(json.dumps(facts).encode())
    digest.update(np.ascontiguousarray(skip_boxes, "<f4").data)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


class OcrCache:
    """Words by `area_key`, in one file that only its owner can read. Safe to use from many threads of one process.

    Nothing here ever fails: where the file is damaged or cannot be written, one warning is logged, and from then
    on nothing is found and nothing kept.

    Args:
        path: The file; made at the first use if it does not exist, in a folder that does.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._closed = False

    def get(self, key: str, revision: str | None = None) -> list[Word] | None:
        """The words kept under a key, boxes as they were put; None if there are none.

        Args:
            key: See `area_key`.
            revision: The document revision that they are wanted for; None if for none. `forget` leaves them as
                long as it has not been told that one, too.
        """

        def find(database: sqlite3.Connection) -> list[Word] | None:
            row = database.execute("SELECT words FROM areas WHERE key = ?", (key,)).fetchone()
            # What cannot be understood is as good as not there: it will be read again, and written over.
            words = None if row is None else _unpacked(row[0])
            # Looked up first: most hits write nothing, and so wait for no disk.
            query, use = "SELECT 1 FROM uses WHERE key = ? AND revision = ?", (key, revision)
            if words is not None and revision is not None and not database.execute(query, use).fetchone():
                database.execute("INSERT OR IGNORE INTO uses VALUES (?, ?)", use)
            return words

        return self._run(find)

    def put(self, key: str, words: Sequence[Word], revision: str = "") -> None:
        """Keep the words of an area for a document revision."""
        value = zlib.compress(json.dumps([[word.text, *word.box] for word in words]).encode())

        def write(database: sqlite3.Connection) -> None:
            database.execute("INSERT OR REPLACE INTO areas VALUES (?, ?)", (key, value))
            database.execute("INSERT OR IGNORE INTO uses VALUES (?, ?)", (key, revision))

        self._run(write)

    def forget(self, revisions: Iterable[str]) -> None:
        """Drop, and overwrite, what was put or found for these document revisions and for no other."""
        rows = [(revision,) for revision in revisions]

        def drop(database: sqlite3.Connection) -> None:
            database.executemany("DELETE FROM uses WHERE revision = ?", rows)
            database.execute("DELETE FROM areas WHERE key NOT IN (SELECT key FROM uses)")

        if rows:
            self._run(drop)

    def close(self) -> None:
        """Close the file. Afterwards nothing is found and nothing kept."""
        with self._lock:
            self._close()

    def __enter__(self) -> OcrCache:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T | None:
        """Run something on the database, all of it or nothing; None where that fails."""
        with self._lock:
            if self._closed:
                return None
            try:
                if self._database is None:
                    self._database = self._open()
                with self._database:
                    return work(self._database)
            except (OSError, sqlite3.Error) as error:
                self._close()
                log.warning(
                    "What OCR reads is not kept, because %s cannot be used: %s. Pages are read all the same; "
                    "if it stays so, delete that file.",
                    self.path,
                    error,
                )
                return None

    def _open(self) -> sqlite3.Connection:
        # Before SQLite makes it, which would let others read it; what it puts beside it gets the same mode.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        self.path.chmod(0o600)
        database = sqlite3.connect(self.path, timeout=_PATIENCE, check_same_thread=False)
        try:
            database.executescript(_TABLES)
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _close(self) -> None:
        self._closed = True
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None


def _unpacked(value: bytes) -> list[Word] | None:
    """What was put; None if it is damaged."""
    try:
        unpacker = zlib.decompressobj()
        entries = json.loads(unpacker.decompress(value, _MAX_BYTES))
        return [Word(str(text), (float(x0), float(y0), float(x1), float(y1)), True) for text, x0, y0, x1, y1 in entries]
    except (ValueError, TypeError, RecursionError, zlib.error):
        return None
