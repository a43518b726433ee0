"""What the index knows about its documents: a small SQLite file beside the vectors.

The manifest is the promise; vectors and images are the goods. A document is written in this order, so that
a run killed at any moment leaves nothing that the next run does not find and finish:

1. ``begin``: the document stands as pending, with the hash of the file it is made from;
2. batch by batch: images, ``add_parts``, then the points;
3. the store is flushed, then ``finish`` marks the document done and names what the older revision left behind.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jina_rag.errors import IndexCorruptError, IndexStateError
from jina_rag.types import Failure

SCHEMA_VERSION = 1

_TABLES = """
CREATE TABLE IF NOT EXISTS settings (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS documents (
  doc_id TEXT PRIMARY KEY, path BLOB NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('pending', 'done')), pages INTEGER NOT NULL DEFAULT 0,
  regions INTEGER NOT NULL DEFAULT 0, failures TEXT NOT NULL DEFAULT '[]', warnings TEXT NOT NULL DEFAULT '[]',
  metadata TEXT NOT NULL DEFAULT '{}', ingested REAL NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS parts (
  part_id TEXT PRIMARY KEY, doc_id TEXT NOT NULL, revision TEXT NOT NULL, page INTEGER NOT NULL,
  kind TEXT NOT NULL, image TEXT);
CREATE INDEX IF NOT EXISTS parts_by_document ON parts (doc_id, revision);
CREATE INDEX IF NOT EXISTS parts_by_image ON parts (image);
CREATE INDEX IF NOT EXISTS documents_by_path ON documents (path);
"""

_COLUMNS = "doc_id, path, sha256, size, mtime_ns, state, pages, regions, failures, warnings, metadata"


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """One document as the manifest has it.

    Attributes:
        doc_id: Its name in the index.
        path: The file, absolute.
        sha256: Of the file's bytes; also the revision of its points.
        size: Bytes.
        mtime_ns: Time of the file's last change.
        done: False while it is being indexed (or when that was interrupted).
        pages: Pages indexed.
        regions: Regions indexed.
        failures: Pages that could not be indexed.
        warnings: Indexed all the same, but worth a look.
        metadata: What was given for it.
    """

    doc_id: str
    path: Path
    sha256: str
    size: int
    mtime_ns: int
    done: bool = False
    pages: int = 0
    regions: int = 0
    failures: tuple[Failure, ...] = ()
    warnings: tuple[Failure, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """One point of the store and the image file that belongs to it."""

    part_id: str
    page: int
    kind: str
    image: str | None


class Manifest:
    """The SQLite file. Safe to use from several threads; one process at a time (the store's lock sees to it)."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            with self._write() as db:
                for statement in filter(str.strip, _TABLES.split(";")):
                    db.execute(statement)
        except IndexStateError:
            self._db.close()
            raise
        except sqlite3.DatabaseError as exc:
            self._db.close()
            raise IndexCorruptError(
                f"{path} is not a readable manifest ({exc}): delete the index folder and ingest again."
            ) from exc

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException as exc:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if isinstance(exc, sqlite3.OperationalError):
                    raise IndexStateError(
                        f"The manifest of the index cannot be written ({exc}): free space, check permissions, "
                        "or end the other process that uses the index."
                    ) from exc
                raise

    def _rows(self, sql: str, *args: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(sql, args).fetchall()

    def close(self) -> None:
        """Release the file; closing twice is fine."""
        with self._lock:
            self._db.close()

    # -- settings ------------------------------------------------------------------------------------------

    def settings(self) -> dict[str, Any]:
        """What the index was built with; empty for a new index."""
        return {key: json.loads(value) for key, value in self._rows("SELECT key, value FROM settings")}

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Replace the given keys."""
        with self._write() as db:
            db.executemany(
                "INSERT OR REPLACE INTO settings VALUES (?, ?)",
                [(key, json.dumps(value)) for key, value in settings.items()],
            )

    # -- reading -------------------------------------------------------------------------------------------

    def document(self, doc_id: str) -> DocumentRecord | None:
        """The document of that id, or None."""
        return next(iter(self._documents("WHERE doc_id = ?", doc_id)), None)

    def document_at(self, path: Path) -> DocumentRecord | None:
        """The document made from that file, or None."""
        return next(iter(self._documents("WHERE path = ?", _pack(path))), None)

    def documents(self) -> list[DocumentRecord]:
        """All documents, pending ones included, by id."""
        return self._documents("ORDER BY doc_id")

    def pending(self) -> list[DocumentRecord]:
        """Documents whose indexing was begun and not finished."""
        return self._documents("WHERE state = 'pending' ORDER BY doc_id")

    def _documents(self, clause: str, *args: object) -> list[DocumentRecord]:
        rows = self._rows(
            # The clauses are constants of this module.
            f"SELECT {_COLUMNS} FROM documents {clause}",  # noqa: S608
            *args,
        )
        return [
            DocumentRecord(
                doc_id=row[0],
                path=_unpack(row[1]),
                sha256=row[2],
                size=row[3],
                mtime_ns=row[4],
                done=row[5] == "done",
                pages=row[6],
                regions=row[7],
                failures=_failures(row[8], _unpack(row[1])),
                warnings=_failures(row[9], _unpack(row[1])),
                metadata=json.loads(row[10]),
            )
            for row in rows
        ]

    def parts(self, doc_id: str, revision: str | None = None) -> list[Part]:
        """The points of a document, of one revision or of all."""
        rows = self._rows(
            "SELECT part_id, page, kind, image FROM parts WHERE doc_id = ? AND revision = COALESCE(?, revision)",
            doc_id,
            revision,
        )
        return [Part(*row) for row in rows]

    def images(self) -> set[str]:
        """Every image file that some point refers to."""
        return {row[0] for row in self._rows("SELECT DISTINCT image FROM parts WHERE image IS NOT NULL")}

    def unreferenced(self, images: Iterable[str]) -> set[str]:
        """Those of `images` that no point refers to any more."""
        return {image for image in set(images) if not self._rows("SELECT 1 FROM parts WHERE image = ? LIMIT 1", image)}

    def totals(self) -> dict[str, int]:
        """Documents, pages and regions that are completely indexed."""
        row = self._rows(
            "SELECT COUNT(*), COALESCE(SUM(pages), 0), COALESCE(SUM(regions), 0) FROM documents WHERE state = 'done'"
        )[0]
        return {"documents": row[0], "pages": row[1], "regions": row[2]}

    # -- writing -------------------------------------------------------------------------------------------

    def begin(self, record: DocumentRecord) -> None:
        """State that the document is being indexed; an older revision's parts stay until `finish`."""
        with self._write() as db:
            db.execute(
                "INSERT INTO documents (doc_id, path, sha256, size, mtime_ns, state, metadata)"
                " VALUES (?, ?, ?, ?, ?, 'pending', ?)"
                " ON CONFLICT (doc_id) DO UPDATE SET path = excluded.path, sha256 = excluded.sha256,"
                " size = excluded.size, mtime_ns = excluded.mtime_ns, state = 'pending', metadata = excluded.metadata",
                (
                    record.doc_id,
                    _pack(record.path),
                    record.sha256,
                    record.size,
                    record.mtime_ns,
                    json.dumps(dict(record.metadata)),
                ),
            )

    def add_parts(self, doc_id: str, revision: str, parts: Sequence[Part]) -> None:
        """Note the parts of some pages, before they are written: what is in the store is always in the manifest."""
        pages = sorted({part.page for part in parts})
        with self._write() as db:
            # A page that is indexed again may have fewer regions than before.
            db.executemany(
                "DELETE FROM parts WHERE doc_id = ? AND revision = ? AND page = ?",
                [(doc_id, revision, page) for page in pages],
            )
            db.executemany(
                "INSERT OR REPLACE INTO parts (part_id, doc_id, revision, page, kind, image) VALUES (?,?,?,?,?,?)",
                [(part.part_id, doc_id, revision, part.page, part.kind, part.image) for part in parts],
            )

    def finish(self, doc_id: str, *, failures: Sequence[Failure] = (), warnings: Sequence[Failure] = ()) -> list[Part]:
        """Mark a document done; returns the parts of older revisions, which are forgotten here."""
        with self._write() as db:
            old = [
                Part(*row)
                for row in db.execute(
                    "SELECT p.part_id, p.page, p.kind, p.image FROM parts p JOIN documents d USING (doc_id)"
                    " WHERE d.doc_id = ? AND p.revision != d.sha256",
                    (doc_id,),
                )
            ]
            db.executemany("DELETE FROM parts WHERE part_id = ?", [(part.part_id,) for part in old])
            db.execute(
                "UPDATE documents SET state = 'done', failures = ?, warnings = ?, ingested = ?,"
                " pages = (SELECT COUNT(*) FROM parts WHERE parts.doc_id = documents.doc_id AND kind = 'page'),"
                " regions = (SELECT COUNT(*) FROM parts WHERE parts.doc_id = documents.doc_id AND kind != 'page')"
                " WHERE doc_id = ?",
                (_dump(failures), _dump(warnings), time.time(), doc_id),
            )
        return old

    def touch(self, doc_id: str, path: Path, size: int, mtime_ns: int) -> None:
        """The same content at another place or time."""
        with self._write() as db:
            db.execute(
                "UPDATE documents SET path = ?, size = ?, mtime_ns = ? WHERE doc_id = ?",
                (_pack(path), size, mtime_ns, doc_id),
            )

    def forget(self, doc_id: str) -> list[Part]:
        """Drop a document; returns the parts it had."""
        with self._write() as db:
            rows = db.execute("SELECT part_id, page, kind, image FROM parts WHERE doc_id = ?", (doc_id,)).fetchall()
            db.execute("DELETE FROM parts WHERE doc_id = ?", (doc_id,))
            db.execute("DELETE FROM documents WHERE doc_id = ?", (doc_id,))
        return [Part(*row) for row in rows]


def _dump(failures: Sequence[Failure]) -> str:
    return json.dumps([[failure.page, failure.reason] for failure in failures])


def _failures(text: str, path: Path) -> tuple[Failure, ...]:
    return tuple(Failure(path=path, page=page, reason=reason) for page, reason in json.loads(text))


def _pack(path: Path) -> bytes:
    """File names are bytes on some systems and need not be valid text."""
    return str(path).encode("utf-8", "surrogateescape")


def _unpack(raw: bytes) -> Path:
    return Path(raw.decode("utf-8", "surrogateescape"))


def peek_settings(path: Path) -> dict[str, Any]:
    """The settings of a manifest that another thread or process may have open; empty if there is none."""
    if not path.is_file():
        return {}
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        return {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM settings")}
