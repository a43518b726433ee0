"""Cache of OCR words in an SQLite file, with keys computed from the pixels.

The words of the same scan in another file, or of an unchanged page in a changed document, come from the cache.
The cache contains words of documents, so `OcrCache.forget` erases the words of deleted documents.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from jina_rag._display import displayed
from jina_rag._forks import OwnedFiles
from jina_rag.ocr import weights
from jina_rag.types import Float32, Word

_T = TypeVar("_T")

log = logging.getLogger(__name__)

# Version of the OCR pipeline. Increment this number with each change of `jina_rag.ocr` that alters recognized words.
RECIPE = 2

# Limit of decompressed bytes per area, so that a damaged file cannot exhaust the memory. The words of a page are far
# smaller.
_MAX_BYTES = 1 << 26
# Seconds to wait while another process writes to the file.
_LOCK_TIMEOUT = 5.0
_TABLES = """
PRAGMA secure_delete = ON;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS areas (key TEXT PRIMARY KEY, words BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uses (key TEXT, revision TEXT, PRIMARY KEY (key, revision)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_revision ON uses (revision);
"""


def area_key(pixels: npt.NDArray[np.uint8], skip_boxes: Float32, *, max_side: int, min_score: float) -> str:
    """Return the cache key of an area: the sha256 of all inputs that determine the words of the area.

    Args:
        pixels: Pixels of the area, shape (height, width, 3), uint8, RGB.
        skip_boxes: Boxes of words that the caller already has, in pixels of the area, shape (n, 4), float32.
        max_side: Longest side in pixels for line detection, as in `jina_rag.ocr.read_words`.
        min_score: Minimum confidence of a line, 0 to 1, as in `jina_rag.ocr.read_words`.

    Raises:
        MissingDependencyError: If rapidocr is not installed.
        CheckpointError: If the weights in the wheel of rapidocr are damaged.
    """
    facts = [RECIPE, weights.digest(), max_side, min_score, "RGB", pixels.shape, skip_boxes.shape]
    digest = hashlib.sha256(json.dumps(facts).encode())
    digest.update(np.ascontiguousarray(skip_boxes, "<f4").data)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


class OcrCache:
    """A cache of words by `area_key`, in an SQLite file with owner-only permissions. Thread-safe.

    If the file is damaged or cannot be written, the methods raise no error: the cache logs one warning, and from then
    on, `get` returns None and `put` stores nothing.

    Attributes:
        path: Path of the cache file.

    Args:
        path: Path of the file, in an existing folder. The file is created at the first use.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._files = OwnedFiles(self.path.parent, self.path, quiet=True)
        self._files.set_user(self, "_database")
        self._lock = self._files.lock
        self._database: sqlite3.Connection | None = None
        self._closed = False

    def get(self, key: str, revision: str | None = None) -> list[Word] | None:
        """Return the cached words of an area.

        Args:
            key: Key of the area, from `area_key`.
            revision: Document revision that uses the words; `forget` keeps the words until that revision is also
                forgotten. None: no revision is recorded.

        Returns:
            The words with the boxes passed to `put`, or None if the area is not cached.
        """

        def find(database: sqlite3.Connection) -> list[Word] | None:
            row = database.execute("SELECT words FROM areas WHERE key = ?", (key,)).fetchone()
            # A damaged entry counts as missing: the caller reads the area and overwrites the entry.
            words = None if row is None else _decode(row[0])
            # Most cached entries are already recorded as used; checking first avoids a disk write.
            query, use = "SELECT 1 FROM uses WHERE key = ? AND revision = ?", (key, revision)
            if words is not None and revision is not None and not database.execute(query, use).fetchone():
                database.execute("INSERT OR IGNORE INTO uses VALUES (?, ?)", use)
            return words

        return self._run(find)

    def put(self, key: str, words: Sequence[Word], revision: str = "") -> None:
        """Store the words of an area for a document revision, replacing earlier words.

        Args:
            key: Key of the area, from `area_key`.
            words: Words with boxes; text and box are stored.
            revision: Document revision that uses the words.
        """
        value = zlib.compress(json.dumps([[word.text, *word.box] for word in words]).encode())

        def write(database: sqlite3.Connection) -> None:
            database.execute("INSERT OR REPLACE INTO areas VALUES (?, ?)", (key, value))
            database.execute("INSERT OR IGNORE INTO uses VALUES (?, ?)", (key, revision))

        self._run(write)

    def forget(self, revisions: Iterable[str]) -> None:
        """Erase the words that only `revisions` use, and overwrite the bytes on disk.

        Args:
            revisions: Document revisions. Unknown revisions are ignored.
        """
        rows = [(revision,) for revision in revisions]

        def drop(database: sqlite3.Connection) -> None:
            database.executemany("DELETE FROM uses WHERE revision = ?", rows)
            database.execute("DELETE FROM areas WHERE key NOT IN (SELECT key FROM uses)")

        if rows:
            self._run(drop)

    def close(self) -> None:
        """Close the file; after that, `get` returns None and `put` stores nothing. Idempotent."""
        with self._lock:
            self._close()

    def __enter__(self) -> OcrCache:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T | None:
        """Return the result of `work`, run in a transaction; None if the cache is closed or unreadable."""
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
                    "The OCR cache %s cannot be used: %s. Pages are read without the cache. If the error persists, "
                    "delete the file.",
                    displayed(self.path),
                    displayed(error),
                )
                return None

    def _open(self) -> sqlite3.Connection:
        # Create the file before SQLite opens the path, because SQLite would make the file readable by other users. The
        # journal files of SQLite get the mode of this file.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        self.path.chmod(0o600)
        database = sqlite3.connect(self.path, timeout=_LOCK_TIMEOUT, check_same_thread=False)
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


def _decode(value: bytes) -> list[Word] | None:
    """Return the words of a stored value, or None if the value is damaged."""
    try:
        unpacker = zlib.decompressobj()
        entries = json.loads(unpacker.decompress(value, _MAX_BYTES))
        return [Word(str(text), (float(x0), float(y0), float(x1), float(y1)), True) for text, x0, y0, x1, y1 in entries]
    except (ValueError, TypeError, RecursionError, zlib.error):
        return None
