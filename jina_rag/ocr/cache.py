"""What OCR has read before, by the pixels it was read from: a page that comes again is not read again.

Keyed by content and not by file, so that a changed document pays for its changed pages only, and the same logo or stamp
for one of its copies. A cache is a convenience: whatever is wrong with it costs time and one line in the log, never a
page.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jina_rag.types import Box, Word

if TYPE_CHECKING:
    from PIL.Image import Image

_log = logging.getLogger("jina_rag")

_TABLES = (
    "CREATE TABLE IF NOT EXISTS areas (key BLOB PRIMARY KEY, words BLOB NOT NULL, revision TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS areas_by_revision ON areas (revision)",
)


class OcrCache:
    """An SQLite file of words by hashes of pixels. Safe to use from several threads of one process."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._broken = False

    def get(self, key: bytes, revision: str = "") -> list[Word] | None:
        """The words kept under a key; None if there are none.

        Args:
            key: As `key_of` makes it.
            revision: The document's, which the entry is kept for from now on.
        """
        rows = self._run("SELECT words, revision FROM areas WHERE key = ?", key)
        if not rows:
            return None
        try:
            words = _unpack(rows[0][0])
        except (ValueError, TypeError, zlib.error):
            return None  # read again, and written anew
        if rows[0][1] != revision:
            self._run("UPDATE areas SET revision = ? WHERE key = ?", revision, key)
        return words

    def put(self, key: bytes, words: Sequence[Word], revision: str = "") -> None:
        """Keep what was read; `revision` is the document's."""
        self._run("INSERT OR REPLACE INTO areas (key, words, revision) VALUES (?, ?, ?)", key, _pack(words), revision)

    def forget(self, revisions: Iterable[str]) -> None:
        """Drop what is kept for these documents and for no other."""
        for revision in revisions:
            self._run("DELETE FROM areas WHERE revision = ?", revision)

    def close(self) -> None:
        """Release the file; closing twice is fine, and a closed cache keeps and finds nothing."""
        with self._lock:
            self._broken = True
            if self._db is not None:
                self._db.close()
                self._db = None

    def _run(self, sql: str, *args: Any) -> list[Any]:  # noqa: ANN401  # what SQLite takes
        with self._lock:
            if self._broken:
                return []
            try:
                if self._db is None:
                    self._db = self._opened()
                return self._db.execute(sql, args).fetchall()
            except (sqlite3.Error, OSError) as error:
                self._broken = True
                _log.warning(
                    "What OCR reads is not kept in %s (%s): it will be read again next time.", self.path, error
                )
                return []

    def _opened(self) -> sqlite3.Connection:
        # Made before SQLite makes it, with a mode that only its owner can read.
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        db = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
        for statement in _TABLES:
            db.execute(statement)
        return db


def key_of(image: Image, known: Sequence[Box], recipe: str) -> bytes:
    """A hash of all that decides what is read.

    Args:
        image: The part of the page.
        known: Boxes of words that are not read again, as fractions of that part.
        recipe: Changes whenever the words would: the models' hash, our own version, the parameters.
    """
    digest = hashlib.sha256(f"{recipe}\0{image.mode}\0{image.size}\0".encode())
    digest.update(np.round(np.asarray(known, dtype=np.float64), 5).tobytes())
    digest.update(image.tobytes())
    return digest.digest()


def _pack(words: Sequence[Word]) -> bytes:
    return zlib.compress(json.dumps([[word.text, *word.box] for word in words]).encode("ascii"))


def _unpack(packed: bytes) -> list[Word]:
    return [Word(str(text), (x0, y0, x1, y1), ocr=True) for text, x0, y0, x1, y1 in json.loads(zlib.decompress(packed))]
