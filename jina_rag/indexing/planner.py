"""Which documents need work: what the disk has, held against what the manifest knows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

from jina_rag.catalog.manifest import DocumentRecord, Manifest
from jina_rag.catalog.missing_files import is_gone
from jina_rag.errors import DocumentError
from jina_rag.indexing.sidecar import read_beside, sidecars_of
from jina_rag.parsing.sources import Entry, Skipped, SourceFile, printable
from jina_rag.protocols import MultiVectorStore
from jina_rag.stores import schema
from jina_rag.types import Failure

Metadata: TypeAlias = "Mapping[str, Any] | Callable[[Path], Mapping[str, Any]]"
"""For all documents, or a function from a document's path to its metadata."""


@dataclass(frozen=True, slots=True)
class Work:
    """A document whose content must be indexed: the file, and the record it will have.

    Attributes:
        source: The file.
        record: With the hash of what the file holds now.
        replaces: Id of the document whose file this one was, under another name.
        changed: Whether the index has an older content of it.
        known: Whether the index has this very content of it, which is made again.
        force: Whether every page is made anew, although the index has the content.
    """

    source: SourceFile
    record: DocumentRecord
    replaces: str | None = None
    changed: bool = False
    known: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """A document whose content the index has already, from this file before or from another one.

    Attributes:
        record: As it shall be.
        how: ``"same"``: nothing but metadata or time changed. ``"moved"``: its file was elsewhere before.
            ``"duplicate"``: another file has the same bytes.
        other: The document it was, or is a duplicate of.
        replaces: Id of the document it was, to be dropped.
    """

    record: DocumentRecord
    how: Literal["same", "moved", "duplicate"]
    other: DocumentRecord | None = None
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class Unchanged:
    """A document that is indexed as it is."""

    record: DocumentRecord


Found: TypeAlias = "Work | Placed | Unchanged | Failure"


class Planner:
    """Looks at documents one by one; remembers the names and contents it has met in this run."""

    def __init__(
        self,
        manifest: Manifest,
        store: MultiVectorStore | None = None,
        *,
        metadata: Metadata | None = None,
        sidecars: bool = True,
        force: bool = False,
    ) -> None:
        """Make a planner.

        Args:
            manifest: What the index knows.
            store: Its vectors, to tell which pages an interrupted run has stored.
            metadata: What the caller gives for the documents.
            sidecars: Whether JSON files beside documents are metadata.
            force: Whether contents that are complete are indexed again.
        """
        self._manifest = manifest
        self._store = store
        self._metadata = metadata
        self._sidecars = sidecars
        self._again = force
        self._taken: set[str] = set()
        self._left: set[str] = set()
        self._begun: dict[str, DocumentRecord] = {}
        self.warnings: list[Failure] = []
        """What was wrong with sidecars."""

    @property
    def left(self) -> frozenset[str]:
        """Ids of documents whose files have become others."""
        return frozenset(self._left)

    def look_at_all(self, entries: Iterable[Entry]) -> Iterator[Found | Skipped]:
        """Decide what becomes of everything that a walk has met, in its order; metadata beside a document is no entry.

        Whether a file was moved or copied is told when all have been looked at: of two files that were swapped, neither
        is a copy.
        """
        found: list[Found | Skipped] = []
        beside: set[Path] = set()
        for entry in entries:
            if isinstance(entry, SourceFile):
                beside.update(sidecars_of(entry.path) if self._sidecars else ())
                found.append(self.look(entry))
            else:
                found.append(entry)
        shown = {
            item.record.doc_id: item.record.sha256 for item in found if isinstance(item, Work | Placed | Unchanged)
        }
        for item in found:
            if isinstance(item, Placed) and item.how == "duplicate":
                yield self._as_it_ends(item, shown)
            elif not (isinstance(item, Skipped) and item.path in beside):
                yield item

    def _as_it_ends(self, placed: Placed, shown: Mapping[str, str]) -> Placed:
        """A duplicate whose other places will show something else was moved here."""
        sha256 = placed.record.sha256
        others = {record.doc_id for record in self._manifest.documents_of(sha256)} | set(shown)
        stays = any(shown.get(doc_id, sha256) == sha256 for doc_id in others if doc_id != placed.record.doc_id)
        return placed if stays else replace(placed, how="moved")

    def look(self, source: SourceFile) -> Found:
        """Decide what becomes of one document.

        A file whose size and time are as recorded is not opened; one with another time is hashed.
        """
        path = Path(os.path.abspath(source.path))
        try:
            status = path.stat()
            known = self._manifest.document_at(path)
            doc_id = known.doc_id if known else self._free_id(source, path)
            known = known or self._manifest.document(doc_id)
            as_known = known is not None and known.done and not self._again
            if known and as_known and (known.path, known.size, known.mtime_ns) == (
                path, status.st_size, status.st_mtime_ns,
            ):  # fmt: skip
                self._taken.add(doc_id)
                return self._same(source.path, known)
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as exc:
            return Failure(source.path, f"The file cannot be read: {exc.strerror or exc}.")
        except DocumentError as exc:
            return Failure(source.path, str(exc))
        moved = self._moved(sha256) if known is None else None
        if moved is not None and moved.doc_id == source.doc_id and source.doc_id not in self._taken:
            doc_id = source.doc_id  # a folder that was moved as a whole keeps its documents' names
        self._taken.add(doc_id)
        metadata, given = self._metadata_of(source.path, known or moved)
        record = DocumentRecord(
            doc_id, path, sha256, status.st_size, status.st_mtime_ns, metadata=metadata, given=given
        )
        return self._by_content(source, record, known, moved)

    def stored_pages(self, work: Work) -> frozenset[int]:
        """Pages of this very content that an interrupted run has stored already."""
        if work.force or self._store is None or self._manifest.is_done(work.record.sha256) is not False:
            return frozenset()
        parts = [part for part in self._manifest.parts(work.record.sha256) if part.kind == "page"]
        found = {point.id for point in self._store.fetch([part.part_id for part in parts], vectors=False)}
        return frozenset(part.page for part in parts if part.part_id in found)

    def _same(self, path: Path, known: DocumentRecord) -> Found:
        metadata, given = self._metadata_of(path, known)
        if dict(known.metadata) == metadata and dict(known.given) == given:
            return Unchanged(known)
        return Placed(replace(known, metadata=metadata, given=given), "same", known)

    def _moved(self, sha256: str) -> DocumentRecord | None:
        """A document of that content whose file is not there any more, and has not become another in this run."""
        for record in self._manifest.documents_of(sha256, waiting=True):
            if record.doc_id not in self._left and is_gone(record.path):
                return record
        return None

    def _by_content(
        self, source: SourceFile, record: DocumentRecord, known: DocumentRecord | None, moved: DocumentRecord | None
    ) -> Found:
        """A file that was read: new content, content at another place, or only another time."""
        first = self._begun.get(record.sha256)
        if first is not None:
            return Placed(record, "duplicate", first)
        changed = known is not None and known.sha256 != record.sha256
        done = self._manifest.is_done(record.sha256)
        replaces = None
        if moved is not None:
            self._left.add(moved.doc_id)
            replaces = moved.doc_id if moved.doc_id != record.doc_id else None
        if done and not self._again:
            if known is not None and not changed:
                return Placed(record, "same", known)
            if moved is not None and moved.by_name and not _same_name(moved.path, record.path):
                # Its pages have no words: they are found by the name, which is another now.
                self._begun[record.sha256] = record
                return Work(source, record, replaces=replaces, force=True)
            if moved is not None:
                return Placed(record, "moved", moved, replaces)
            others = self._manifest.documents_of(record.sha256)
            if others:
                return Placed(record, "duplicate", others[0])
        self._begun[record.sha256] = record
        force = self._again and bool(done)
        return Work(source, record, replaces=replaces, changed=changed, known=force and not changed, force=force)

    def _free_id(self, source: SourceFile, path: Path) -> str:
        """`source.doc_id`, unless another document has it; then with its folder's name in front.

        That of a file that is gone is free, but not if it lay under another folder than the one given: a disk may be
        away.
        """
        root = Path(os.path.abspath(source.root))
        folder = printable(path.parent.name) or "root"
        digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:8]
        for doc_id in (source.doc_id, f"{folder}/{source.doc_id}", f"{folder}-{digest}/{source.doc_id}"):
            other = self._manifest.document(doc_id)
            if doc_id in self._taken:
                continue
            if other is None or (not other.added and _is_free(other.path, path, root)):
                return doc_id
        raise DocumentError(f"{source.doc_id!r} cannot be given a name of its own in this index.")

    def _metadata_of(self, path: Path, known: DocumentRecord | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The metadata of a document, and the part of it that was given now or before.

        What stands beside a document is its own and beats what is given for all of them.
        """
        given: Mapping[str, Any] = known.given if known else {}
        if callable(self._metadata):
            given = self._metadata(path)
        elif self._metadata is not None:
            given = self._metadata
        kept: dict[str, Any] = schema.clean_payload(dict(given))
        return {**kept, **(read_beside(path, self.warnings) if self._sidecars else {})}, kept


def _is_free(other: Path, path: Path, root: Path) -> bool:
    """Whether a document's file is this one, or is gone from the given folder."""
    return other == path or (root in other.parents and is_gone(other))


def _same_name(a: Path, b: Path) -> bool:
    return PurePosixPath(a.name).stem == PurePosixPath(b.name).stem
