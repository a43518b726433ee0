"""Which documents need work: what the disk has, held against what the manifest knows."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from jina_rag.catalog.manifest import DocumentRecord, Manifest
from jina_rag.catalog.missing_files import is_missing
from jina_rag.errors import DocumentError
from jina_rag.indexing.sidecar import read_sidecar, sidecars_of
from jina_rag.parsing.sources import Skipped, SourceEvent, SourceFile, printable
from jina_rag.protocols import MultiVectorStore
from jina_rag.stores import schema
from jina_rag.types import Failure

Metadata: TypeAlias = "Mapping[str, Any] | Callable[[Path], Mapping[str, Any]]"
"""For all documents, or a function from a document's path to its metadata."""
_BLOCK = 1 << 20
"""Bytes that are hashed between two looks at whether to stop."""


@dataclass(frozen=True, slots=True)
class IndexTask:
    """A document whose content must be indexed: the file, and the record it will have.

    Attributes:
        source: The file.
        record: With the hash of what the file holds now; without metadata (see `Planner.with_metadata`).
        replaces: Id of the document whose file this one was, under another name.
        previous: Hash of the older content that the index has of it.
        force: Whether every page is made anew, although the index has the content.
    """

    source: SourceFile
    record: DocumentRecord
    replaces: str | None = None
    previous: str | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """A document whose content the index has already, or gets in this run, from this file or from another one.

    Attributes:
        path: The file, as the walk reached it.
        record: As it shall be, with the metadata that it had.
        how: ``"unchanged"``: the same file, perhaps with another time. ``"moved"``: its file was elsewhere before.
            ``"duplicate"``: another file has the same bytes.
        other: The document it was, or is a duplicate of.
        replaces: Id of the document it was, to be dropped.
    """

    path: Path
    record: DocumentRecord
    how: Literal["unchanged", "moved", "duplicate"]
    other: DocumentRecord
    replaces: str | None = None


Outcome: TypeAlias = "Placement | Failure | Skipped"
"""What becomes of a file that needs no work."""


class Planner:
    """Looks at files one by one; remembers the names and contents it has met in this run."""

    def __init__(
        self,
        manifest: Manifest,
        store: MultiVectorStore,
        *,
        metadata: Metadata | None = None,
        sidecars: bool = True,
        force: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Make a planner.

        Args:
            manifest: What the index knows.
            store: Its vectors, to tell which pages an interrupted run has stored.
            metadata: What the caller gives for the documents.
            sidecars: Whether JSON files beside documents are metadata.
            force: Whether contents that are complete are indexed again.
            check: Called for every block of bytes that is hashed; what it raises ends the planning.
        """
        self._manifest = manifest
        self._store = store
        self._metadata = metadata
        self._sidecars = sidecars
        self._force = force
        self._check = check
        self._used_ids: set[str] = set()
        self._first_by_hash: dict[str, DocumentRecord] = {}
        self._new_hashes: dict[str, str] = {}
        self.moved_ids: set[str] = set()
        """Ids of documents whose files have become others."""
        self.warnings: list[Failure] = []
        """What was wrong with sidecars."""

    def plan(self, events: Iterable[SourceEvent]) -> Iterator[IndexTask | Outcome]:
        """Decide what becomes of everything that a walk meets, as it goes; a sidecar is no file of its own.

        Whether a file was moved or copied comes at the end, when all have been looked at: of two files that were
        swapped, neither is a copy.
        """
        placements: list[Placement] = []
        skipped_json: dict[Path, Skipped] = {}  # until it is known whether they are sidecars
        folder, sidecars = Path(), set[Path]()
        for event in events:
            self._check()
            if event.path.parent != folder:
                folder, sidecars = event.path.parent, set()
            if isinstance(event, SourceFile):
                if self._sidecars:
                    sidecars.update(sidecars_of(event.path))
                    for path in sidecars_of(event.path):
                        skipped_json.pop(path, None)
                item = self._look(event)
                is_unchanged = isinstance(item, Placement) and item.how == "unchanged"
                if isinstance(item, IndexTask | Placement) and not is_unchanged:
                    self._new_hashes[item.record.doc_id] = item.record.sha256
                if isinstance(item, Placement) and not is_unchanged:
                    placements.append(item)
                else:
                    yield item
            elif not isinstance(event, Skipped) or event.path.suffix != ".json":
                yield event
            elif event.path not in sidecars:
                skipped_json[event.path] = event
        yield from skipped_json.values()
        copies = Counter(self._new_hashes.values())
        for placement in placements:
            is_copy = placement.how == "duplicate" and (
                copies[placement.record.sha256] > 1 or self._stays_elsewhere(placement.record)
            )
            yield replace(placement, how="moved") if placement.how == "duplicate" and not is_copy else placement

    def _stays_elsewhere(self, record: DocumentRecord) -> bool:
        """Whether some other document that the index has keeps the same content in the end."""
        sha256 = record.sha256
        others = [other.doc_id for other in self._manifest.documents_of(sha256) if other.doc_id != record.doc_id]
        return any(self._new_hashes.get(doc_id, sha256) == sha256 for doc_id in others)

    def _look(self, source: SourceFile) -> IndexTask | Placement | Failure:
        """Decide what becomes of one file.

        A file whose size and time are as recorded is not opened; one with another time is hashed.
        """
        path = Path(os.path.abspath(source.path))
        try:
            status = path.stat()
            indexed = self._manifest.document_at(path)
            doc_id = indexed.doc_id if indexed else self._free_id(source, path)
            indexed = indexed or self._manifest.document(doc_id)
            if (
                indexed is not None
                and indexed.is_complete
                and not self._force
                and (indexed.path, indexed.size, indexed.mtime_ns) == (path, status.st_size, status.st_mtime_ns)
            ):
                self._used_ids.add(doc_id)
                return Placement(source.path, indexed, "unchanged", indexed)
            sha256 = self._hash(path)
        except OSError as exc:
            return Failure(source.path, f"The file cannot be read: {exc.strerror or exc}.")
        except DocumentError as exc:
            return Failure(source.path, str(exc))
        moved = self._moved(sha256) if indexed is None else None
        if moved is not None and moved.doc_id == source.doc_id and source.doc_id not in self._used_ids:
            doc_id = source.doc_id  # a folder that was moved as a whole keeps its documents' names
        self._used_ids.add(doc_id)
        before = indexed or moved
        own = before.own_metadata if before else {}
        record = DocumentRecord(doc_id, path, sha256, status.st_size, status.st_mtime_ns, own_metadata=own)
        return self._by_content(source, record, indexed, moved)

    def _hash(self, path: Path) -> str:
        digest = hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            while block := file.read(_BLOCK):
                self._check()
                digest.update(block)
        return digest.hexdigest()

    def stored_pages(self, task: IndexTask) -> frozenset[int]:
        """Pages of this very content that an interrupted run has stored already."""
        if task.force or self._manifest.is_complete(task.record.sha256) is not False:
            return frozenset()
        pages = {
            point.point_id: point.page for point in self._manifest.points(task.record.sha256) if point.kind == "page"
        }
        return frozenset(pages[point.id] for point in self._store.fetch(list(pages), vectors=False))

    def _moved(self, sha256: str) -> DocumentRecord | None:
        """A document of that content whose file is not there any more, and has not become another in this run."""
        for record in self._manifest.documents_of(sha256, waiting=True):
            if record.doc_id not in self.moved_ids and is_missing(record.path):
                return record
        return None

    def _by_content(
        self, source: SourceFile, record: DocumentRecord, indexed: DocumentRecord | None, moved: DocumentRecord | None
    ) -> IndexTask | Placement:
        """A file that was read: new content, content at another place, or only another time."""
        first = self._first_by_hash.get(record.sha256)
        if first is not None:
            return Placement(source.path, record, "duplicate", first)
        previous = indexed.sha256 if indexed is not None and indexed.sha256 != record.sha256 else None
        is_complete = bool(self._manifest.is_complete(record.sha256))
        replaces = None
        if moved is not None:
            self.moved_ids.add(moved.doc_id)
            replaces = moved.doc_id if moved.doc_id != record.doc_id else None
        # Pages without words are found by the file's name: under another name they are made again.
        renamed = moved is not None and moved.by_name and moved.path.stem != record.path.stem
        if is_complete and not self._force and not renamed:
            if indexed is not None and previous is None:
                return Placement(
                    source.path, replace(indexed, mtime_ns=record.mtime_ns, path=record.path), "unchanged", indexed
                )
            if moved is not None:
                return Placement(source.path, record, "moved", moved, replaces)
            others = self._manifest.documents_of(record.sha256)
            if others:
                return Placement(source.path, record, "duplicate", others[0])
        self._first_by_hash[record.sha256] = record
        return IndexTask(source, record, replaces, previous, force=is_complete and (self._force or renamed))

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
            if doc_id in self._used_ids:
                continue
            if other is None or (not other.added and _is_free(other.path, path, root)):
                return doc_id
        raise DocumentError(f"{source.doc_id!r} cannot be given a name of its own in this index.")

    def with_metadata(self, path: Path, record: DocumentRecord) -> DocumentRecord:
        """A record with the metadata that it shall have: what is given now or was before, and that of its sidecar.

        A sidecar is the document's own, and beats what is given for all of them.

        Args:
            path: The file, as the walk reached it: the caller's function is called with it, in this thread.
            record: With the metadata that were given before.
        """
        own: Mapping[str, Any] = record.own_metadata
        if callable(self._metadata):
            own = self._metadata(path)
        elif self._metadata is not None:
            own = self._metadata
        own = schema.clean_payload(dict(own))
        sidecar = read_sidecar(path, self.warnings) if self._sidecars else {}
        return replace(record, metadata={**own, **sidecar}, own_metadata=own)


def _is_free(other: Path, path: Path, root: Path) -> bool:
    """Whether a document's file is this one, or is gone from the given folder."""
    return other == path or (root in other.parents and is_missing(other))
