"""Manifest of an index: a SQLite file that records documents, contents, points and settings.

A *content* is the set of rendered and embedded pages of a file, identified by the SHA-256 of the file. A *document*
is a file with this content at one location. A moved or copied file is therefore not embedded again, and a changed file
keeps its previous content until the new content is complete.

An ingestion writes in the following order, so that the next run finds and completes the work of a killed run:

1. ``begin`` records the content as incomplete and assigns it to the document as the next content.
2. For each batch, the images are written, ``add_points`` records the points, and the store writes the points.
3. The store is flushed, and ``finish`` marks the content as complete and makes it the content of the document.
4. For contents without a document (``orphans``), the points, the images and then the rows in the manifest are deleted
   (``remove_contents``).
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jina_rag._forks import OwnedFiles
from jina_rag.errors import IndexCorruptError, IndexMismatchError, IndexStateError
from jina_rag.normalization import name_form
from jina_rag.parsing.attachment_names import attachment_path
from jina_rag.types import Failure

SCHEMA_VERSION = 5
"""Format version of the manifest and of the points. Format 4 has terms and filter values without normalization of the
text (see `jina_rag.normalization`), compares dates as text, and does not record attachments."""
ADDED = -1
"""Modification time of a document without a file; no file has this value."""
RATE = "rate"
"""Settings key of the total pages and seconds of all ingestions: [pages, seconds]."""

_TABLES = (
    "CREATE TABLE IF NOT EXISTS settings (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS contents (
  sha256 TEXT PRIMARY KEY, is_complete INTEGER NOT NULL DEFAULT 0, pages INTEGER NOT NULL DEFAULT 0,
  regions INTEGER NOT NULL DEFAULT 0, failures TEXT NOT NULL DEFAULT '[]', warnings TEXT NOT NULL DEFAULT '[]',
  by_name INTEGER NOT NULL DEFAULT 0, ingested_at REAL NOT NULL DEFAULT 0, is_stale INTEGER NOT NULL DEFAULT 0,
  attachments TEXT)""",
    """CREATE TABLE IF NOT EXISTS documents (
  doc_id TEXT PRIMARY KEY, path BLOB NOT NULL, sha256 TEXT NOT NULL, next_sha256 TEXT, size INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL, metadata TEXT NOT NULL DEFAULT '{}', own_metadata TEXT NOT NULL DEFAULT '{}',
  container BLOB)""",
    # Ids and paths of removed documents, if they contain wildcards: a pattern equal to such a name stays literal (see
    # `globs`).
    "CREATE TABLE IF NOT EXISTS former_names (name BLOB PRIMARY KEY)",
    """CREATE TABLE IF NOT EXISTS points (
  point_id TEXT PRIMARY KEY, sha256 TEXT NOT NULL, page INTEGER NOT NULL, kind TEXT NOT NULL, image TEXT)""",
    "CREATE INDEX IF NOT EXISTS contents_incomplete ON contents (sha256) WHERE NOT is_complete",
    "CREATE INDEX IF NOT EXISTS contents_stale ON contents (sha256) WHERE is_stale",
    "CREATE INDEX IF NOT EXISTS points_by_content ON points (sha256)",
    "CREATE INDEX IF NOT EXISTS points_by_image ON points (image)",
    "CREATE INDEX IF NOT EXISTS documents_by_path ON documents (path)",
    "CREATE INDEX IF NOT EXISTS documents_by_container ON documents (container) WHERE container IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS documents_by_content ON documents (sha256)",
    "CREATE INDEX IF NOT EXISTS documents_by_next ON documents (next_sha256)",
    # The payloads of points contain file locations. A trigger marks a content as stale in the transaction that changes
    # its locations; the mark persists until the payloads are updated, also after a killed run.
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
    " c.regions, c.failures, c.warnings, d.metadata, d.own_metadata, c.by_name, d.container, c.attachments"
    " FROM documents d JOIN contents c USING (sha256) "
)


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """One document in the manifest.

    Attributes:
        doc_id: Id of the document in the index.
        path: Absolute path of the file. For an attachment, the path of the file that contains it, ``#`` and a name.
        sha256: SHA-256 of the searchable content; equal to the hash of the file if `is_complete`.
        size: Size of the file in bytes.
        mtime_ns: Modification time of the file in nanoseconds since 1970; `ADDED` for a document without a file.
        is_complete: Whether the indexing of the document has finished.
        pages: Number of indexed pages.
        regions: Number of indexed regions.
        failures: Failed pages.
        warnings: Warnings about indexed pages.
        metadata: Metadata of the document: passed by the caller, and read from sidecars.
        own_metadata: The metadata passed by the caller.
        by_name: Whether the document has pages without words, which are searchable by the file name.
        container: Absolute path of the file that contains the document, if it is an attachment; otherwise None.
        attachments: Names of the attachments of the file that are documents, also of those that could not be read;
            None if the attachments were not or not all read.
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
    container: Path | None = None
    attachments: tuple[str, ...] | None = None

    @property
    def file(self) -> Path:
        """Absolute path of the file on disk: `container` for an attachment, otherwise `path`."""
        return self.path if self.container is None else self.container

    @property
    def added(self) -> bool:
        """Whether the document was passed to `DocumentIndex.add` instead of read from a file."""
        return self.mtime_ns == ADDED


@dataclass(frozen=True, slots=True)
class PointRecord:
    """One point of the store.

    Attributes:
        point_id: Id of the point.
        page: Page number, from 1.
        kind: ``"page"``, or the kind of a region.
        image: Name of the image file; None without an image.
    """

    point_id: str
    page: int
    kind: str
    image: str | None


class Manifest:
    """The manifest of an open index; thread-safe. The lock of the store keeps other processes out."""

    def __init__(self, path: Path) -> None:
        """Open a manifest; create it if it is missing.

        Args:
            path: Path of the SQLite file.

        Raises:
            IndexCorruptError: If the file is not a readable SQLite database.
            IndexMismatchError: If the manifest has another format version.
        """
        self._folder = path.parent
        self._files = OwnedFiles(path.parent, path, quiet=True)
        self._lock = self._files.lock
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._files.set_user(self, "_connection")
        self._is_closed = False
        try:
            # Checked before the first write: the tables of another format version have the same names.
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
                f"{path} is not a readable manifest ({exc}). Delete the index folder and ingest again."
            ) from exc

    @property
    def _db(self) -> sqlite3.Connection:
        if self._is_closed:  # another thread may close the manifest between two calls
            raise IndexStateError(f"The index at {self._folder} is closed. Reopen it with DocumentIndex.open.")
        return self._connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run several changes as one atomic transaction with one disk sync; a nested transaction joins the outer one.

        Yields:
            The connection.

        Raises:
            IndexStateError: If the manifest is closed, or SQLite cannot write.
        """
        with self._lock:
            if self._db.in_transaction:  # this thread holds the lock, so this thread began the transaction
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
                        f"The manifest of the index at {self._folder} cannot be written ({exc}). Check the free disk "
                        "space and the permissions of the folder, or close the process that uses the index."
                    ) from exc
                raise

    def _write(self, sql: str, *rows: Sequence[object]) -> None:
        with self.transaction() as db:
            db.executemany(sql, rows)

    def _rows(self, sql: str, *args: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(sql, args).fetchall()

    def close(self) -> None:
        """Close the file; idempotent. Other calls on a closed manifest raise IndexStateError."""
        with self._lock:
            self._is_closed = True
            self._connection.close()

    def settings(self) -> dict[str, Any]:
        """Return the settings of the index; empty for a new index."""
        return {key: json.loads(value) for key, value in self._rows("SELECT key, value FROM settings")}

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Set settings; keys that are not in `settings` stay unchanged."""
        rows = [(key, json.dumps(value)) for key, value in settings.items()]
        self._write("INSERT OR REPLACE INTO settings VALUES (?, ?)", *rows)

    def document(self, doc_id: str) -> DocumentRecord | None:
        """Return the document with the id, or None."""
        return next(iter(self._documents("WHERE d.doc_id = ?", doc_id)), None)

    def document_at(self, path: Path, *, is_attachment: bool = False) -> DocumentRecord | None:
        """Return the document at `path`, or None.

        Args:
            path: Absolute path of a file or attachment.
            is_attachment: Whether to look for an attachment. A file may have the path of an attachment.
        """
        clause = "WHERE d.path = ? AND d.mtime_ns != ? AND (d.container IS NOT NULL) = ?"
        return next(iter(self._documents(clause, os.fsencode(path), ADDED, is_attachment)), None)

    def attachment_names(self, sha256: str) -> tuple[str, ...] | None:
        """Return the names of the attachments of a content, as in `DocumentRecord.attachments`; None if unknown."""
        rows = self._rows("SELECT attachments FROM contents WHERE sha256 = ?", sha256)
        return tuple(json.loads(rows[0][0])) if rows and rows[0][0] is not None else None

    def attachments_of(self, container: Path) -> list[DocumentRecord]:
        """Return the attachments of a file, sorted by id.

        Args:
            container: Absolute path of the file.
        """
        return self._documents("WHERE d.container = ? ORDER BY d.doc_id", os.fsencode(container))

    def documents(self) -> list[DocumentRecord]:
        """Return all documents, including documents whose indexing has not finished, sorted by id."""
        return self._documents("ORDER BY d.doc_id")

    def documents_by_id(self, doc_ids: Iterable[str]) -> list[DocumentRecord]:
        """Return the existing documents with the ids, in the order of `doc_ids`."""
        return [record for doc_id in dict.fromkeys(doc_ids) if (record := self.document(doc_id)) is not None]

    def documents_with_text(self, texts: Sequence[str]) -> list[DocumentRecord]:
        """Return all documents whose metadata has one of the strings as a value, and possibly further documents.

        A string with other characters than ASCII may be a spelling of one of the strings (see
        `jina_rag.normalization.name_form`). JSON writes such characters with a backslash.
        """
        spellings = list({spelling for text in texts for spelling in (text, name_form(text))})
        any_of = " OR ".join("instr(d.metadata, ?)" for _ in spellings)
        return self._documents(
            f"WHERE {any_of} OR instr(d.metadata, ?) ORDER BY d.doc_id", *map(json.dumps, spellings), "\\u"
        )

    def documents_of(self, sha256: str, *, include_pending: bool = False) -> list[DocumentRecord]:
        """Return the documents with a content, sorted by id.

        Args:
            sha256: SHA-256 of the content.
            include_pending: Whether to include documents that receive the content when the indexing of the content
                finishes.
        """
        return self._documents(
            "WHERE d.sha256 = ? OR (? AND d.next_sha256 = ?) ORDER BY d.doc_id", sha256, include_pending, sha256
        )

    def pending(self) -> list[DocumentRecord]:
        """Return the documents whose indexing has not finished, sorted by id."""
        return self._documents("WHERE NOT c.is_complete OR d.next_sha256 IS NOT NULL ORDER BY d.doc_id")

    def _documents(self, clause: str, *args: object) -> list[DocumentRecord]:
        # The clauses are literals of this module; all values are bound parameters.
        return [
            DocumentRecord(
                doc_id, path := Path(os.fsdecode(raw_path)), sha256, size, mtime_ns, bool(is_complete), pages, regions,
                _load_failures(failures, path), _load_failures(warnings, path),
                json.loads(metadata), json.loads(own_metadata), bool(by_name),
                None if container is None else Path(os.fsdecode(container)),
                None if attachments is None else tuple(json.loads(attachments)),
            )
            for doc_id, raw_path, sha256, size, mtime_ns, is_complete, pages, regions, failures, warnings, metadata,
            own_metadata, by_name, container, attachments in self._rows(_DOCUMENTS + clause, *args)
        ]  # fmt: skip

    def names(self) -> list[str]:
        """Return the ids and paths of all documents; of removed documents, only names that contain wildcards."""
        rows = self._rows("SELECT doc_id, path FROM documents UNION ALL SELECT name, name FROM former_names")
        return [os.fsdecode(name) for row in rows for name in row]

    def ids(self) -> list[str]:
        """Return the ids of all documents, sorted."""
        return [row[0] for row in self._rows("SELECT doc_id FROM documents ORDER BY doc_id")]

    def has_key(self, keys: Sequence[str]) -> bool:
        """Return whether any document may have a metadata key.

        False is certain. True may be wrong, because the search also finds the key names elsewhere in the metadata.

        Args:
            keys: Path of the key: the keys of the enclosing objects, then the key itself.
        """
        # JSON writes characters beyond ASCII with a backslash: such a key may be another spelling of the key.
        has_keys = " AND ".join(r"(instr(metadata, ?) OR instr(metadata, '\u'))" for _ in keys)
        sql = f"SELECT 1 FROM documents WHERE {has_keys} LIMIT 1"  # noqa: S608  # the SQL contains no values
        return bool(self._rows(sql, *(f"{json.dumps(key)}: " for key in keys)))

    def put_document(self, record: DocumentRecord, *, replacing: str | None = None) -> None:
        """Insert or update a document whose content is complete.

        Attachments that the file no longer contains are removed in the same transaction.

        Args:
            record: The document; `sha256` is its content.
            replacing: Id of the document to remove in the same transaction, because its file was moved to this path.
        """
        with self.transaction() as db:
            if replacing is not None:
                self.remove_documents([replacing])
            _upsert_document(db, record)
            if record.attachments is not None:
                db.execute(
                    "UPDATE contents SET attachments = ? WHERE sha256 = ?",
                    (json.dumps(record.attachments), record.sha256),
                )
                paths = {attachment_path(record.path, name) for name in record.attachments}
                self.remove_documents(d.doc_id for d in self.attachments_of(record.path) if d.path not in paths)

    def remove_documents(self, doc_ids: Iterable[str]) -> None:
        """Remove documents in one transaction; the contents stay until `remove_contents` removes the orphans."""
        self._write("DELETE FROM documents WHERE doc_id = ?", *((doc_id,) for doc_id in doc_ids))

    def totals(self) -> dict[str, int]:
        """Return the number of complete documents, pages and regions; the pages of identical files count once."""
        documents, pages, regions = self._rows(
            "SELECT (SELECT COUNT(*) FROM documents JOIN contents USING (sha256)"
            " WHERE is_complete AND next_sha256 IS NULL), COALESCE(SUM(pages), 0), COALESCE(SUM(regions), 0)"
            " FROM contents WHERE is_complete AND sha256 IN (SELECT sha256 FROM documents)"
        )[0]
        return {"documents": documents, "pages": pages, "regions": regions}

    def is_complete(self, sha256: str) -> bool | None:
        """Return whether a content is complete; None for an unknown content."""
        rows = self._rows("SELECT is_complete FROM contents WHERE sha256 = ?", sha256)
        return bool(rows[0][0]) if rows else None

    def contents(self) -> list[tuple[str, bool]]:
        """Return the hash of each content, and whether the content is complete."""
        return [(row[0], bool(row[1])) for row in self._rows("SELECT sha256, is_complete FROM contents")]

    def has_incomplete(self) -> bool:
        """Return whether the indexing of a content has begun and not finished."""
        return bool(self._rows("SELECT 1 FROM contents WHERE NOT is_complete LIMIT 1"))

    def begin(self, record: DocumentRecord) -> None:
        """Record that the indexing of a content starts; the document keeps its current content until `finish`.

        Args:
            record: The document; `sha256` is the content to index.
        """
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
            if is_new:  # not stale: the points of a new content will be written with this location
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
        """Mark a content as complete and assign it to the document.

        Args:
            record: The document; `sha256` is the content.
            failures: Failed pages.
            warnings: Warnings about indexed pages.
            by_name: Whether the content has pages without words, which are searchable by the file name.
            replacing: Id of the document to remove in the same transaction, because its file was moved to this path.
            ingested_at: Time of the indexing in seconds since 1970; None for the current time.
        """
        with self.transaction() as db:
            self.put_document(record, replacing=replacing)
            db.execute(
                "UPDATE contents SET is_complete = 1, failures = ?, warnings = ?, ingested_at = ?, by_name = ?,"
                " pages = (SELECT COUNT(*) FROM points p WHERE p.sha256 = contents.sha256 AND kind = 'page'),"
                " regions = (SELECT COUNT(*) FROM points p WHERE p.sha256 = contents.sha256 AND kind != 'page')"
                " WHERE sha256 = ?",
                (_to_json(failures), _to_json(warnings), ingested_at or time.time(), by_name, record.sha256),
            )

    def abandon(self, record: DocumentRecord) -> None:
        """Undo `begin`: restore the previous state of the document, or remove a new document."""
        content = (record.doc_id, record.sha256)
        with self.transaction() as db:
            db.execute("DELETE FROM documents WHERE doc_id = ? AND sha256 = ? AND next_sha256 IS NULL", content)
            db.execute("UPDATE documents SET next_sha256 = NULL WHERE doc_id = ?", (record.doc_id,))

    def ingested_at(self, sha256: str) -> float:
        """Return the indexing time of a content in seconds since 1970; 0 for an incomplete or unknown content."""
        rows = self._rows("SELECT ingested_at FROM contents WHERE sha256 = ? AND is_complete", sha256)
        return float(rows[0][0]) if rows else 0.0

    def stale(self) -> list[str]:
        """Return the contents whose points have outdated file locations in their payload."""
        return [row[0] for row in self._rows("SELECT sha256 FROM contents WHERE is_stale")]

    def mark_fresh(self, hashes: Iterable[str]) -> None:
        """Clear the stale mark of contents whose payloads are up to date."""
        self._write("UPDATE contents SET is_stale = 0 WHERE sha256 = ?", *((sha256,) for sha256 in hashes))

    def orphans(self) -> list[str]:
        """Return the SHA-256 hashes of the contents that no document uses, neither as current nor as next content."""
        rows = self._rows(
            "SELECT sha256 FROM contents WHERE sha256 NOT IN (SELECT sha256 FROM documents)"
            " AND sha256 NOT IN (SELECT next_sha256 FROM documents WHERE next_sha256 IS NOT NULL)"
        )
        return [row[0] for row in rows]

    def remove_contents(self, hashes: Collection[str]) -> None:
        """Remove contents and their points from the manifest, in one transaction.

        The caller has already deleted the points from the store, and the image files.
        """
        with self.transaction():
            for table in ("points", "contents"):
                self._write(f"DELETE FROM {table} WHERE sha256 = ?", *((sha256,) for sha256 in hashes))  # noqa: S608

    def points(self, sha256: str) -> list[PointRecord]:
        """Return the points of the content with this SHA-256 hash, sorted by page and kind."""
        rows = self._rows("SELECT point_id, page, kind, image FROM points WHERE sha256 = ? ORDER BY page, kind", sha256)
        return [PointRecord(*row) for row in rows]

    def point(self, point_id: str) -> tuple[str, int] | None:
        """Return the SHA-256 of the content of a point, and the page number; None for an unknown point."""
        return next(iter(self._rows("SELECT sha256, page FROM points WHERE point_id = ?", point_id)), None)

    def page_with_image(self, image: str) -> str | None:
        """Return the point id of a page whose image file has this name; None if there is no such page."""
        rows = self._rows("SELECT point_id FROM points WHERE image = ? AND kind = 'page' LIMIT 1", image)
        return str(rows[0][0]) if rows else None

    def count_points(self, limit: int, kind: str | None = None) -> int:
        """Return the number of points, including the points of unfinished documents.

        Args:
            limit: Largest number of interest; the count stops there, which keeps the query fast.
            kind: Kind of the points, for example ``"page"``; None for all points.
        """
        sql = "SELECT COUNT(*) FROM (SELECT 1 FROM points WHERE ? IS NULL OR kind = ? LIMIT ?)"
        return int(self._rows(sql, kind, kind, limit)[0][0])

    def add_points(self, sha256: str, points: Sequence[PointRecord]) -> list[PointRecord]:
        """Record all points of some pages.

        An ingestion records points before the store writes them. `jina_rag.indexing.add` records them in the
        transaction that marks the content as complete: until then, recovery deletes all points of the content.

        Args:
            sha256: SHA-256 of the content.
            points: All points of these pages.

        Returns:
            Previous points of these pages that are not in `points`: a re-indexed page may have fewer regions.
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
        """Return the names of all image files that points refer to."""
        return {row[0] for row in self._rows("SELECT DISTINCT image FROM points WHERE image IS NOT NULL")}

    def unreferenced_images(self, images: Iterable[str], *, except_contents: Collection[str] = ()) -> set[str]:
        """Return the names in `images` that no point refers to, ignoring points of the contents `except_contents`."""
        users = "SELECT DISTINCT sha256 FROM points WHERE image = ?"
        return {image for image in set(images) if {row[0] for row in self._rows(users, image)} <= set(except_contents)}


def check_schema(settings: Mapping[str, Any], location: str) -> None:
    """Check that this version of jina-rag supports the format of an index. Empty settings pass the check.

    Args:
        settings: Settings of the index; empty for a new index.
        location: Path or URL of the index, for the error message.

    Raises:
        IndexMismatchError: If the index has another format version.
    """
    if settings and settings.get("schema") != SCHEMA_VERSION:
        raise IndexMismatchError(
            f"The index at {location} has the format {settings.get('schema')!r} (jina-rag {settings.get('version')}); "
            f"this version reads {SCHEMA_VERSION}. Ingest the documents again, into a new index: "
            "`jina-rag ingest PATH --index NEW_INDEX`."
        )


def _upsert_document(db: sqlite3.Connection, record: DocumentRecord) -> None:
    metadata, own_metadata = json.dumps(dict(record.metadata)), json.dumps(dict(record.own_metadata))
    # An upsert, because INSERT OR REPLACE would delete the old row first and hide the old values from the triggers.
    db.execute(
        "INSERT INTO documents (doc_id, path, sha256, next_sha256, size, mtime_ns, metadata, own_metadata, container)"
        " VALUES (?, ?, ?, NULL, ?, ?, ?, ?, ?) ON CONFLICT (doc_id) DO UPDATE SET path = excluded.path,"
        " sha256 = excluded.sha256, next_sha256 = NULL, size = excluded.size, mtime_ns = excluded.mtime_ns,"
        " metadata = excluded.metadata, own_metadata = excluded.own_metadata, container = excluded.container",
        (
            record.doc_id,
            os.fsencode(record.path),
            record.sha256,
            record.size,
            record.mtime_ns,
            metadata,
            own_metadata,
            None if record.container is None else os.fsencode(record.container),
        ),
    )


def _to_json(failures: Sequence[Failure]) -> str:
    return json.dumps([[failure.page, failure.reason] for failure in failures])


def _load_failures(text: str, path: Path) -> tuple[Failure, ...]:
    return tuple(Failure(path=path, page=page, reason=reason) for page, reason in json.loads(text))


def peek_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a manifest that another thread or process may have open.

    Returns:
        The settings; empty if the file is missing or damaged.
    """
    if path.is_file():
        with (
            suppress(sqlite3.DatabaseError),
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db,
        ):
            return {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM settings")}
    return {}
