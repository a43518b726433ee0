"""What the index knows about its documents: a small SQLite file beside the vectors.

*Contents* are what was rendered and embedded, named by the SHA-256 of a file's bytes; *documents* are the places where
files of that content lie. So a file that is moved or copied is not embedded again, and one that changes keeps its old
content until the new one is complete.

The manifest is the promise; vectors and images are the goods. They are written in this order, so that a run killed at
any moment leaves nothing that the next run does not find and finish:

1. ``begin``: the content stands as pending, and the document as waiting for it;
2. batch by batch: images, ``add_points``, then the points;
3. the store is flushed, then ``finish`` marks the content done and lets the document point at it;
4. what no document points at any more (``orphans``) loses its points, its images, and then its entry
   (``remove_contents``).
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jina_rag.errors import IndexCorruptError, IndexMismatchError, IndexStateError
from jina_rag.types import Failure

SCHEMA_VERSION = 4
"""The third format names its columns and settings otherwise, and does not know what a model folder holds."""
ADDED = -1
"""Time of the last change of what is no file: no file has it."""
RATE = "rate"
"""Key of the settings that holds [pages, seconds] of the runs so far."""

_TABLES = (
    "CREATE TABLE IF NOT EXISTS settings (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS contents (
  sha256 TEXT PRIMARY KEY, is_complete INTEGER NOT NULL DEFAULT 0, pages INTEGER NOT NULL DEFAULT 0,
  regions INTEGER NOT NULL DEFAULT 0, failures TEXT NOT NULL DEFAULT '[]', warnings TEXT NOT NULL DEFAULT '[]',
  by_name INTEGER NOT NULL DEFAULT 0, ingested_at REAL NOT NULL DEFAULT 0, is_stale INTEGER NOT NULL DEFAULT 0)""",
    """CREATE TABLE IF NOT EXISTS documents (
  doc_id TEXT PRIMARY KEY, path BLOB NOT NULL, sha256 TEXT NOT NULL, next_sha256 TEXT, size INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL, metadata TEXT NOT NULL DEFAULT '{}', own_metadata TEXT NOT NULL DEFAULT '{}')""",
    # Ids and paths with wildcards of documents that are gone: such a name keeps its literal meaning (see `globs`).
    "CREATE TABLE IF NOT EXISTS former_names (name BLOB PRIMARY KEY)",
    """CREATE TABLE IF NOT EXISTS points (
  point_id TEXT PRIMARY KEY, sha256 TEXT NOT NULL, page INTEGER NOT NULL, kind TEXT NOT NULL, image TEXT)""",
    "CREATE INDEX IF NOT EXISTS points_by_content ON points (sha256)",
    "CREATE INDEX IF NOT EXISTS points_by_image ON points (image)",
    "CREATE INDEX IF NOT EXISTS documents_by_path ON documents (path)",
    "CREATE INDEX IF NOT EXISTS documents_by_content ON documents (sha256)",
    "CREATE INDEX IF NOT EXISTS documents_by_next ON documents (next_sha256)",
    # Points say in which files they lie. Whatever changes that marks the content, in the same transaction, until the
    # points say so too: a run that is killed between leaves the mark.
    """CREATE TRIGGER IF NOT EXISTS document_inserted AFTER INSERT ON documents BEGIN
  UPDATE contents SET is_stale = 1 WHERE sha256 IN (NEW.sha256, NEW.next_sha256); END""",
    """CREATE TRIGGER IF NOT EXISTS document_updated AFTER UPDATE ON documents
  WHEN (OLD.path, OLD.metadata, OLD.sha256) != (NEW.path, NEW.metadata, NEW.sha256)
  OR OLD.next_sha256 IS NOT NEW.next_sha256 BEGIN
  UPDATE contents SET is_stale = 1
  WHERE sha256 IN (OLD.sha256, NEW.sha256, OLD.next_sha256, NEW.next_sha256); END""",
    """CREATE TRIGGER IF NOT EXISTS document_deleted AFTER DELETE ON documents BEGIN
  UPDATE contents SET is_stale = 1 WHERE sha256 IN (OLD.sha256, OLD.next_sha256); END""",
    """CREATE TRIGGER IF NOT EXISTS name_dropped AFTER DELETE ON documents BEGIN
  INSERT OR IGNORE INTO former_names SELECT CAST(name AS BLOB)
  FROM (SELECT OLD.doc_id AS name UNION ALL SELECT OLD.path) WHERE CAST(name AS TEXT) GLOB '*[*?[]*'; END""",
    """CREATE TRIGGER IF NOT EXISTS path_changed AFTER UPDATE OF path ON documents
  WHEN OLD.path != NEW.path AND CAST(OLD.path AS TEXT) GLOB '*[*?[]*' BEGIN
  INSERT OR IGNORE INTO former_names VALUES (OLD.path); END""",
)

_DOCUMENTS = (
    "SELECT d.doc_id, d.path, d.sha256, d.size, d.mtime_ns, c.is_complete AND d.next_sha256 IS NULL, c.pages,"
    " c.regions, c.failures, c.warnings, d.metadata, d.own_metadata, c.by_name"
    " FROM documents d JOIN contents c USING (sha256) "
)


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """One document as the manifest has it.

    Attributes:
        doc_id: Its name in the index.
        path: The file, absolute.
        sha256: Of the bytes that are searched, which names the content; those of the file, once it is
            `is_complete`.
        size: Bytes.
        mtime_ns: Time of the file's last change; `ADDED` where there is no file.
        is_complete: False while it is being indexed (or when that was interrupted).
        pages: Pages indexed.
        regions: Regions indexed.
        failures: Pages that could not be indexed.
        warnings: Indexed all the same, but worth a look.
        metadata: What was given for it, and what stands beside it.
        own_metadata: The part of it that was given.
        by_name: Whether it has pages without a word, which are found by the file's name.
    """

    doc_id: str
    path: Path
    sha256: str
    size: int
    mtime_ns: int
    is_complete: bool = False
    pages: int = 0
    regions: int = 0
    failures: tuple[Failure, ...] = ()
    warnings: tuple[Failure, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    own_metadata: Mapping[str, Any] = field(default_factory=dict)
    by_name: bool = False

    @property
    def added(self) -> bool:
        """Whether it was given to `DocumentIndex.add` rather than read from a file."""
        return self.mtime_ns == ADDED


@dataclass(frozen=True, slots=True)
class PointRecord:
    """One point of the store and the image file that belongs to it."""

    point_id: str
    page: int
    kind: str
    image: str | None


class Manifest:
    """The SQLite file. Safe to use from several threads; one process at a time (the store's lock sees to it)."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._is_closed = False
        try:
            # Before anything is written: the tables of another format must not be taken for ours.
            if self._rows("SELECT 1 FROM sqlite_master WHERE name = 'settings'"):
                check_schema(self.settings(), str(path.parent))
            with self.transaction() as db:
                for statement in _TABLES:
                    db.execute(statement)
        except BaseException as exc:
            self.close()
            if not isinstance(exc, sqlite3.DatabaseError | ValueError):
                raise
            raise IndexCorruptError(
                f"{path} is not a readable manifest ({exc}): delete the index folder and ingest again."
            ) from exc

    @property
    def _db(self) -> sqlite3.Connection:
        if self._is_closed:  # maybe by another thread, between two calls of this one
            raise IndexStateError("This index was closed: open it again with DocumentIndex.open.")
        return self._connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Several changes as one: all of them or none, with one wait for the disk; a part of an enclosing one."""
        with self._lock:
            if self._db.in_transaction:  # of this thread, which has the lock
                yield self._db
                return
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

    def _write(self, sql: str, *rows: Sequence[object]) -> None:
        with self.transaction() as db:
            db.executemany(sql, rows)

    def _rows(self, sql: str, *args: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(sql, args).fetchall()

    def close(self) -> None:
        """Release the file; closing twice is fine."""
        with self._lock:
            self._is_closed = True
            self._connection.close()

    # -- settings ------------------------------------------------------------------------------------------

    def settings(self) -> dict[str, Any]:
        """What the index was built with; empty for a new index."""
        return {key: json.loads(value) for key, value in self._rows("SELECT key, value FROM settings")}

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Replace the given keys."""
        rows = [(key, json.dumps(value)) for key, value in settings.items()]
        self._write("INSERT OR REPLACE INTO settings VALUES (?, ?)", *rows)

    # -- documents -----------------------------------------------------------------------------------------

    def document(self, doc_id: str) -> DocumentRecord | None:
        """The document of that id, or None."""
        return next(iter(self._documents("WHERE d.doc_id = ?", doc_id)), None)

    def document_at(self, path: Path) -> DocumentRecord | None:
        """The document made from that file, or None."""
        return next(iter(self._documents("WHERE d.path = ? AND d.mtime_ns != ?", os.fsencode(path), ADDED)), None)

    def documents(self) -> list[DocumentRecord]:
        """All documents, pending ones included, by id."""
        return self._documents("ORDER BY d.doc_id")

    def documents_by_id(self, doc_ids: Iterable[str]) -> list[DocumentRecord]:
        """Those of these ids that there are."""
        return [record for doc_id in dict.fromkeys(doc_ids) if (record := self.document(doc_id)) is not None]

    def documents_with_text(self, texts: Sequence[str]) -> list[DocumentRecord]:
        """Those with at least one of these texts somewhere among the values of their metadata, and perhaps others."""
        any_of = " OR ".join("instr(d.metadata, ?)" for _ in texts)
        return self._documents(f"WHERE {any_of} ORDER BY d.doc_id", *(json.dumps(text) for text in texts))

    def documents_of(self, sha256: str, *, include_pending: bool = False) -> list[DocumentRecord]:
        """The documents whose pages are those of a content, by id; with `include_pending`, also those that will be."""
        return self._documents(
            "WHERE d.sha256 = ? OR (? AND d.next_sha256 = ?) ORDER BY d.doc_id", sha256, include_pending, sha256
        )

    def pending(self) -> list[DocumentRecord]:
        """Documents whose indexing was begun and not finished."""
        return self._documents("WHERE NOT c.is_complete OR d.next_sha256 IS NOT NULL ORDER BY d.doc_id")

    def _documents(self, clause: str, *args: object) -> list[DocumentRecord]:
        # The clauses are this module's own; values stand in `args`.
        return [
            DocumentRecord(
                doc_id, path := Path(os.fsdecode(raw_path)), sha256, size, mtime_ns, bool(is_complete), pages, regions,
                _load_failures(failures, path), _load_failures(warnings, path),
                json.loads(metadata), json.loads(own_metadata), bool(by_name),
            )
            for doc_id, raw_path, sha256, size, mtime_ns, is_complete, pages, regions, failures, warnings, metadata,
            own_metadata, by_name in self._rows(_DOCUMENTS + clause, *args)
        ]  # fmt: skip

    def names(self) -> list[str]:
        """The ids and paths of all documents, and those of earlier ones that hold wildcards."""
        rows = self._rows("SELECT doc_id, path FROM documents UNION ALL SELECT name, name FROM former_names")
        return [os.fsdecode(name) for row in rows for name in row]

    def has_key(self, keys: Sequence[str]) -> bool:
        """Whether some document may have a key of metadata; `keys` are its own and those of the objects around it."""
        sql = f"SELECT 1 FROM documents WHERE {' AND '.join('instr(metadata, ?)' for _ in keys)} LIMIT 1"  # noqa: S608  # no value stands in it
        return bool(self._rows(sql, *(f"{json.dumps(key)}: " for key in keys)))

    def put_document(self, record: DocumentRecord, *, replacing: str | None = None) -> None:
        """Let a document point at a content that is complete.

        Args:
            record: Its `sha256` names the content.
            replacing: Id of a document whose file has become this one, to be dropped in the same step.
        """
        with self.transaction() as db:
            if replacing is not None:
                self.remove_documents([replacing])
            _upsert_document(db, record)

    def remove_documents(self, doc_ids: Iterable[str]) -> None:
        """Drop documents in one transaction; their contents stay until they are dropped as orphans."""
        self._write("DELETE FROM documents WHERE doc_id = ?", *((doc_id,) for doc_id in doc_ids))

    def totals(self) -> dict[str, int]:
        """Documents that are completely indexed, and the pages and regions of their contents."""
        documents, pages, regions = self._rows(
            "SELECT (SELECT COUNT(*) FROM documents JOIN contents USING (sha256)"
            " WHERE is_complete AND next_sha256 IS NULL), COALESCE(SUM(pages), 0), COALESCE(SUM(regions), 0)"
            " FROM contents WHERE is_complete AND sha256 IN (SELECT sha256 FROM documents)"
        )[0]
        return {"documents": documents, "pages": pages, "regions": regions}

    # -- contents ------------------------------------------------------------------------------------------

    def is_complete(self, sha256: str) -> bool | None:
        """Whether a content is complete; None if there is none of that hash."""
        rows = self._rows("SELECT is_complete FROM contents WHERE sha256 = ?", sha256)
        return bool(rows[0][0]) if rows else None

    def contents(self) -> list[tuple[str, bool]]:
        """The hash of every content, and whether it is complete."""
        return [(row[0], bool(row[1])) for row in self._rows("SELECT sha256, is_complete FROM contents")]

    def begin(self, record: DocumentRecord) -> None:
        """State that a content is being indexed for a document; what the document shows now stays until `finish`."""
        with self.transaction() as db:
            is_new = self.is_complete(record.sha256) is None
            db.execute(
                "INSERT INTO contents (sha256) VALUES (?) ON CONFLICT (sha256) DO UPDATE SET is_complete = 0",
                (record.sha256,),
            )
            has_searchable_content = self._rows(
                "SELECT 1 FROM documents d JOIN contents c USING (sha256)"
                " WHERE doc_id = ? AND sha256 != ? AND (c.is_complete OR c.ingested_at > 0)",
                record.doc_id,
                record.sha256,
            )
            if has_searchable_content:
                db.execute("UPDATE documents SET next_sha256 = ? WHERE doc_id = ?", (record.sha256, record.doc_id))
            else:
                _upsert_document(db, record)
            if is_new:  # its points are still to be written, with the document in them
                self.mark_fresh([record.sha256])

    def finish(
        self,
        record: DocumentRecord,
        *,
        failures: Sequence[Failure] = (),
        warnings: Sequence[Failure] = (),
        by_name: bool = False,
        replacing: str | None = None,
        ingested_at: float | None = None,
    ) -> None:
        """Mark a content done and let the document point at it.

        Args:
            record: The document.
            failures: Pages that could not be indexed.
            warnings: Worth a look.
            by_name: Whether pages without words are found by the file's name.
            replacing: Id of a document whose file has become this one, to be dropped in the same step.
            ingested_at: When it was made, in seconds since 1970; now if None.
        """
        with self.transaction() as db:
            self.put_document(record, replacing=replacing)
            db.execute(
                "UPDATE contents SET is_complete = 1, failures = ?, warnings = ?, ingested_at = ?, by_name = ?,"
                " pages = (SELECT COUNT(*) FROM points p WHERE p.sha256 = contents.sha256 AND kind = 'page'),"
                " regions = (SELECT COUNT(*) FROM points p WHERE p.sha256 = contents.sha256 AND kind != 'page')"
                " WHERE sha256 = ?",
                (
                    _dump_failures(failures),
                    _dump_failures(warnings),
                    ingested_at or time.time(),
                    by_name,
                    record.sha256,
                ),
            )

    def abandon(self, record: DocumentRecord) -> None:
        """Take back `begin`: the document shows what it showed before, or is not there."""
        content = (record.doc_id, record.sha256)
        with self.transaction() as db:
            db.execute("DELETE FROM documents WHERE doc_id = ? AND sha256 = ? AND next_sha256 IS NULL", content)
            db.execute("UPDATE documents SET next_sha256 = NULL WHERE doc_id = ?", (record.doc_id,))

    def ingested_at(self, sha256: str) -> float:
        """When a content was made, in seconds since 1970; 0 if it never was."""
        rows = self._rows("SELECT ingested_at FROM contents WHERE sha256 = ? AND is_complete", sha256)
        return float(rows[0][0]) if rows else 0.0

    def stale(self) -> list[str]:
        """Contents whose points do not say yet where their files lie."""
        return [row[0] for row in self._rows("SELECT sha256 FROM contents WHERE is_stale")]

    def mark_fresh(self, hashes: Iterable[str]) -> None:
        """Take the mark from contents whose points have been brought up to date."""
        self._write("UPDATE contents SET is_stale = 0 WHERE sha256 = ?", *((sha256,) for sha256 in hashes))

    def orphans(self) -> list[str]:
        """Contents that no document points at or waits for."""
        rows = self._rows(
            "SELECT sha256 FROM contents WHERE sha256 NOT IN (SELECT sha256 FROM documents)"
            " AND sha256 NOT IN (SELECT next_sha256 FROM documents WHERE next_sha256 IS NOT NULL)"
        )
        return [row[0] for row in rows]

    def remove_contents(self, hashes: Collection[str]) -> None:
        """Drop contents and their points in one transaction, after the store and the images have lost them."""
        with self.transaction():
            for table in ("points", "contents"):
                self._write(f"DELETE FROM {table} WHERE sha256 = ?", *((sha256,) for sha256 in hashes))  # noqa: S608

    # -- points --------------------------------------------------------------------------------------------

    def points(self, sha256: str) -> list[PointRecord]:
        """The points of a content, by page."""
        rows = self._rows("SELECT point_id, page, kind, image FROM points WHERE sha256 = ? ORDER BY page, kind", sha256)
        return [PointRecord(*row) for row in rows]

    def add_points(self, sha256: str, points: Sequence[PointRecord]) -> list[PointRecord]:
        """Note the points of some pages, before they are written: what is in the store is always in the manifest.

        Returns:
            Points that these pages had before and have no more: a page that is indexed again may have fewer regions.
        """
        pages = json.dumps(sorted({point.page for point in points}))
        on_pages = "FROM points WHERE sha256 = ? AND page IN (SELECT value FROM json_each(?))"
        with self.transaction():
            previous_rows = self._rows(f"SELECT point_id, page, kind, image {on_pages}", sha256, pages)
            self._write(f"DELETE {on_pages}", (sha256, pages))
            self._write(
                "INSERT OR REPLACE INTO points (point_id, sha256, page, kind, image) VALUES (?,?,?,?,?)",
                *((point.point_id, sha256, point.page, point.kind, point.image) for point in points),
            )
        ids = {point.point_id for point in points}
        return [PointRecord(*row) for row in previous_rows if row[0] not in ids]

    def images(self) -> set[str]:
        """Every image file that some point refers to."""
        return {row[0] for row in self._rows("SELECT DISTINCT image FROM points WHERE image IS NOT NULL")}

    def unreferenced(self, images: Iterable[str], *, except_contents: Collection[str] = ()) -> set[str]:
        """Those of `images` that no point refers to any more, apart from points of the contents `except_contents`."""
        users = "SELECT DISTINCT sha256 FROM points WHERE image = ?"
        return {image for image in set(images) if {row[0] for row in self._rows(users, image)} <= set(except_contents)}


def check_schema(settings: Mapping[str, Any], location: str) -> None:
    """Refuse an index whose format this version does not read; settings that are empty are of a new one.

    Raises:
        IndexMismatchError: With the way out.
    """
    if settings and settings.get("schema") != SCHEMA_VERSION:
        raise IndexMismatchError(
            f"The index at {location} has the format {settings.get('schema')!r} (jina-rag {settings.get('version')}); "
            f"this version reads {SCHEMA_VERSION}. Ingest the documents again, into a new place: "
            "`jina-rag ingest FOLDER --index NEW_PLACE`."
        )


def _upsert_document(db: sqlite3.Connection, record: DocumentRecord) -> None:
    metadata, own_metadata = json.dumps(dict(record.metadata)), json.dumps(dict(record.own_metadata))
    # Not INSERT OR REPLACE, which would not tell the triggers what was there before.
    db.execute(
        "INSERT INTO documents (doc_id, path, sha256, next_sha256, size, mtime_ns, metadata, own_metadata)"
        " VALUES (?, ?, ?, NULL, ?, ?, ?, ?) ON CONFLICT (doc_id) DO UPDATE SET path = excluded.path,"
        " sha256 = excluded.sha256, next_sha256 = NULL, size = excluded.size, mtime_ns = excluded.mtime_ns,"
        " metadata = excluded.metadata, own_metadata = excluded.own_metadata",
        (record.doc_id, os.fsencode(record.path), record.sha256, record.size, record.mtime_ns, metadata, own_metadata),
    )


def _dump_failures(failures: Sequence[Failure]) -> str:
    return json.dumps([[failure.page, failure.reason] for failure in failures])


def _load_failures(text: str, path: Path) -> tuple[Failure, ...]:
    return tuple(Failure(path=path, page=page, reason=reason) for page, reason in json.loads(text))


def peek_settings(path: Path) -> dict[str, Any]:
    """The settings of a manifest that another thread or process may have open; empty if there is none."""
    if path.is_file():
        with (
            suppress(sqlite3.DatabaseError),
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db,
        ):
            return {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM settings")}
    return {}
