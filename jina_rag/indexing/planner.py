"""Planning of an ingestion: compares files with the manifest and decides which documents are indexed."""

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
from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError, InvalidInputError
from jina_rag.indexing.metadata import clean_metadata
from jina_rag.indexing.sidecar import SUFFIXES, read_sidecar, sidecars_of
from jina_rag.parsing.attachment_names import SEPARATOR, attachment_path
from jina_rag.parsing.attachment_readers import may_have_attachments
from jina_rag.parsing.attachments import Attachments, read_attachments
from jina_rag.parsing.renderer import check_size
from jina_rag.parsing.sources import Skipped, SourceEvent, SourceFile, printable
from jina_rag.parsing.workers.cancellation import Stop, call_in_thread, stopping
from jina_rag.protocols import MultiVectorStore
from jina_rag.types import Failure

Metadata: TypeAlias = "Mapping[str, Any] | Callable[[Path], Mapping[str, Any]]"
"""Metadata of all documents, or a function that returns the metadata of the document at a path."""
_HASH_BLOCK = 1 << 20
"""Number of bytes that are hashed between two calls of `check`."""


@dataclass(frozen=True, slots=True)
class IndexTask:
    """A document whose content must be indexed.

    Attributes:
        source: The file.
        record: The new record of the document, with the hash of the current content but without metadata (see
            `Planner.with_metadata`).
        replaces: Previous id of the document if the file was renamed or moved; otherwise None.
        previous: Hash of the previous content of the document; None if the index has no previous content.
        force: Whether to re-index all pages, although the index has the content.
    """

    source: SourceFile
    record: DocumentRecord
    replaces: str | None = None
    previous: str | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """A document whose content is already in the index, or will be indexed in this run from another file.

    Attributes:
        path: The file, as found on disk.
        record: The new record of the document, with the metadata of the previous run.
        how: ``"unchanged"`` for the same file, possibly with a new modification time; ``"moved"`` for a renamed or
            moved file; ``"duplicate"`` for a file with the same bytes as another file.
        other: The previous record of the document; for a duplicate, the record of the document with the same bytes.
        replaces: Previous id of a moved document; the record of this id is deleted. None for other documents.
    """

    path: Path
    record: DocumentRecord
    how: Literal["unchanged", "moved", "duplicate"]
    other: DocumentRecord
    replaces: str | None = None


Outcome: TypeAlias = "Placement | Failure | Skipped"
"""Result of planning for a file that the run does not read: a placement, a failure or a skipped file."""


class Planner:
    """Decides for each file whether the document is indexed. A planner is used for one run only."""

    def __init__(
        self,
        manifest: Manifest,
        store: MultiVectorStore,
        *,
        metadata: Metadata | None = None,
        settings: IngestSettings | None = None,
        force: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Create a planner.

        Args:
            manifest: Manifest of the index.
            store: Vector store of the index, used to find the pages that an interrupted run has stored.
            metadata: Metadata of the documents, as passed by the caller.
            settings: Settings of the ingestion, for reading attachments, and for `sidecars`: whether to read the
                metadata of a document from a sidecar. None for the defaults.
            force: Whether to re-index documents whose content is completely indexed.
            check: Called before each file and after each hashed block of 1 MiB. An exception ends the planning.

        Raises:
            InvalidInputError: If `metadata` is neither a mapping nor a function.
        """
        if metadata is not None and not callable(metadata) and not isinstance(metadata, Mapping):
            raise InvalidInputError(f"metadata is {metadata!r}; expected a mapping, or a function of the path.")
        self._manifest = manifest
        self._store = store
        self._metadata = metadata
        self._shared_metadata: dict[str, Any] | None = None
        self._container_metadata: dict[Path, tuple[dict[str, Any], dict[str, Any]]] = {}  # own metadata, sidecar
        self._settings = settings or IngestSettings()
        self._sidecars = self._settings.sidecars
        self._force = force
        self._check = check
        self._used_ids: set[str] = set()
        self._first_by_hash: dict[str, DocumentRecord] = {}
        self._new_hashes: dict[str, str] = {}
        self._removed_attachments: set[str] = set()  # ids of attachments that their file no longer contains
        self.moved_ids: set[str] = set()
        """Ids of documents whose file was renamed or moved."""
        self.warnings: list[Failure] = []
        """Warnings about invalid sidecars, and about metadata that cannot be stored."""

    def plan(self, events: Iterable[SourceEvent]) -> Iterator[IndexTask | Outcome]:
        """Yield one task or outcome for every file except sidecars, in the order of `events`.

        Moved files, duplicates and skipped JSON, YAML and TOML files come last, because these outcomes depend on all
        files. For example, two files that were swapped are not duplicates, and a JSON file may be the sidecar of a
        later file.

        Args:
            events: Files, skipped files and failures, as yielded by `find_sources`.
        """
        placements: list[Placement] = []
        skipped_json: dict[Path, Skipped] = {}  # a later document may make the JSON file a sidecar
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
                for item in self._decide_with_attachments(event):
                    is_unchanged = isinstance(item, Placement) and item.how == "unchanged"
                    if isinstance(item, IndexTask | Placement) and not is_unchanged:
                        self._new_hashes[item.record.doc_id] = item.record.sha256
                    if isinstance(item, Placement) and not is_unchanged:
                        placements.append(item)
                    else:
                        yield item
            elif not isinstance(event, Skipped) or event.path.suffix not in SUFFIXES:
                yield event
            elif event.path not in sidecars:
                skipped_json[event.path] = event
        yield from skipped_json.values()
        copies = Counter(self._new_hashes.values())
        for placement in placements:
            is_copy = placement.how == "duplicate" and (
                copies[placement.record.sha256] > 1 or self._remains_elsewhere(placement.record)
            )
            yield replace(placement, how="moved") if placement.how == "duplicate" and not is_copy else placement

    def _remains_elsewhere(self, record: DocumentRecord) -> bool:
        """Return whether another indexed document will have the same content at the end of the run."""
        sha256 = record.sha256
        other_ids = {other.doc_id for other in self._manifest.documents_of(sha256)}
        other_ids -= {record.doc_id, *self._removed_attachments}
        return any(self._new_hashes.get(doc_id, sha256) == sha256 for doc_id in other_ids)

    def _decide_with_attachments(self, source: SourceFile) -> Iterator[IndexTask | Placement | Failure]:
        """Yield the task or outcome of one file, then those of its attachments."""
        item = self._decide(source)
        if isinstance(item, Failure):
            yield item
            return
        placements = self._unchanged_attachments(item)
        if placements is not None:
            yield item
            yield from placements
            return
        attachments = self._read_attachments(source)
        names = [document.path for document in attachments.documents] + [f.path for f in attachments.failures]
        start = len(source.path.name) + len(SEPARATOR)
        record = item.record
        if attachments.is_complete:
            record = replace(record, attachments=tuple(path.name[start:] for path in names))
            paths = {attachment_path(record.path, name) for name in record.attachments or ()}
            old = self._manifest.attachments_of(record.path)
            self._removed_attachments.update(other.doc_id for other in old if other.path not in paths)
        item = replace(item, record=record)
        if isinstance(item, IndexTask):
            item = replace(item, source=replace(source, warnings=attachments.warnings))
        yield item
        yield from attachments.failures
        for document in attachments.documents:
            self._check()
            yield self._decide_attachment(document, record)

    def _unchanged_attachments(self, item: IndexTask | Placement) -> list[Placement] | None:
        """Return the attachments of a file if they are known without reading the file; otherwise None.

        The attachments of an unchanged file are known if all are completely indexed.
        """
        if isinstance(item, IndexTask):
            return None
        record = item.record
        is_unchanged = item.how == "unchanged"
        names = record.attachments if is_unchanged else self._manifest.attachment_names(record.sha256)
        if not names:
            return None if names is None else []
        if not is_unchanged:
            return None
        indexed = {other.path: other for other in self._manifest.attachments_of(record.path) if other.is_complete}
        records = [indexed.get(attachment_path(record.path, name)) for name in names]
        self._used_ids.update(other.doc_id for other in records if other is not None)
        placements = [
            Placement(attachment_path(item.path, name), other, "unchanged", other)
            for name, other in zip(names, records, strict=True)
            if other is not None
        ]
        return placements if len(placements) == len(names) else None

    def _read_attachments(self, source: SourceFile) -> Attachments:
        if not may_have_attachments(source):
            return Attachments()
        stop = Stop()
        with stopping(stop):
            return call_in_thread(lambda: read_attachments(source, self._settings, stop), self._check)

    def _decide_attachment(self, source: SourceFile, container: DocumentRecord) -> IndexTask | Placement | Failure:
        """Return the task or outcome of one attachment.

        Args:
            source: The attachment.
            container: The record of the file that contains the attachment.
        """
        attachment = source.attachment
        assert attachment is not None
        name = source.path.name[len(attachment.container.name) + len(SEPARATOR) :]
        path = attachment_path(container.path, name)
        source = replace(source, doc_id=f"{container.doc_id}{SEPARATOR}{name}")
        try:
            indexed = self._manifest.document_at(path, is_attachment=True)
            doc_id = indexed.doc_id if indexed else self._unused_id(source, path)
        except DocumentError as exc:
            return Failure(source.path, str(exc))
        new = DocumentRecord(
            doc_id, path, source.revision, attachment.size, container.mtime_ns,
            own_metadata=container.own_metadata, container=container.path,
        )  # fmt: skip
        return self._decide_hashed(source, new, indexed or self._manifest.document(doc_id))

    def _decide(self, source: SourceFile) -> IndexTask | Placement | Failure:
        """Return the task or outcome of one file.

        A file whose size and modification time equal the recorded values is unchanged and not opened. Any other file is
        hashed.
        """
        path = Path(os.path.abspath(source.path))
        try:
            status = path.stat()
            indexed = self._manifest.document_at(path)
            doc_id = indexed.doc_id if indexed else self._unused_id(source, path)
            indexed = indexed or self._manifest.document(doc_id)
            if (
                indexed is not None
                and indexed.is_complete
                and not self._force
                and (indexed.path, indexed.size, indexed.mtime_ns) == (path, status.st_size, status.st_mtime_ns)
            ):
                self._used_ids.add(doc_id)
                return Placement(source.path, indexed, "unchanged", indexed)
            check_size(path, self._settings.limits)  # before the whole file is read
            sha256 = self._hash(path)
        except OSError as exc:
            reason = f"The file cannot be read: {exc.strerror or exc}. Check the path and the permissions."
            return Failure(source.path, reason)
        except DocumentError as exc:
            return Failure(source.path, str(exc))
        record = DocumentRecord(doc_id, path, sha256, status.st_size, status.st_mtime_ns)
        return self._decide_hashed(source, record, indexed)

    def _decide_hashed(
        self, source: SourceFile, record: DocumentRecord, indexed: DocumentRecord | None
    ) -> IndexTask | Placement:
        """Return the task or outcome of a hashed file or attachment.

        Args:
            source: The file or attachment.
            record: The new record. ``record.own_metadata`` is used for a document without a previous record.
            indexed: The previous record of the same document; None for a new or moved document.
        """
        moved = self._find_moved(record.sha256) if indexed is None else None
        if moved is not None and moved.doc_id == source.doc_id and source.doc_id not in self._used_ids:
            record = replace(record, doc_id=source.doc_id)  # documents of a moved folder keep their ids
        self._used_ids.add(record.doc_id)
        previous_record = indexed or moved
        if previous_record is not None:
            record = replace(record, own_metadata=previous_record.own_metadata)
        return self._decide_by_content(source, record, indexed, moved)

    def _hash(self, path: Path) -> str:
        digest = hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            while block := file.read(_HASH_BLOCK):
                self._check()
                digest.update(block)
        return digest.hexdigest()

    def stored_pages(self, task: IndexTask) -> frozenset[int]:
        """Return the 1-based numbers of the pages that an interrupted run has already stored for a task."""
        if task.force or self._manifest.is_complete(task.record.sha256) is not False:
            return frozenset()
        pages = {
            point.point_id: point.page for point in self._manifest.points(task.record.sha256) if point.kind == "page"
        }
        return frozenset(pages[point.id] for point in self._store.fetch(list(pages), vectors=False))

    def _find_moved(self, sha256: str) -> DocumentRecord | None:
        """Return a document with this content whose file is missing and was not found at another path in this run."""
        for record in self._manifest.documents_of(sha256, include_pending=True):
            if record.doc_id not in self.moved_ids and is_missing(record.file):
                return record
        return None

    def _decide_by_content(
        self, source: SourceFile, record: DocumentRecord, indexed: DocumentRecord | None, moved: DocumentRecord | None
    ) -> IndexTask | Placement:
        """Return the task or outcome of a hashed file, by comparing the hash with the index and with earlier files."""
        first = self._first_by_hash.get(record.sha256)
        if first is not None:
            return Placement(source.path, record, "duplicate", first)
        previous = indexed.sha256 if indexed is not None and indexed.sha256 != record.sha256 else None
        is_complete = bool(self._manifest.is_complete(record.sha256))
        replaces = None
        if moved is not None:
            self.moved_ids.add(moved.doc_id)
            replaces = moved.doc_id if moved.doc_id != record.doc_id else None
        # The embedding of a page without words depends on the file name, so a renamed file is re-indexed.
        is_renamed = moved is not None and moved.by_name and moved.path.stem != record.path.stem
        if is_complete and not self._force and not is_renamed:
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
        return IndexTask(source, record, replaces, previous, force=is_complete and (self._force or is_renamed))

    def _unused_id(self, source: SourceFile, path: Path) -> str:
        """Return `source.doc_id`, with the name of the folder as prefix if another document has this id.

        The id of a document whose file is missing can be reused only if the file was under the ingested folder. A file
        that is missing elsewhere may be on an unmounted disk.
        """
        root = Path(os.path.abspath(source.root))
        folder = printable(path.parent.name) or "root"
        digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:8]
        for doc_id in (source.doc_id, f"{folder}/{source.doc_id}", f"{folder}-{digest}/{source.doc_id}"):
            holder = self._manifest.document(doc_id)
            if doc_id in self._used_ids:
                continue
            if holder is None or (not holder.added and _is_free(holder, path, root)):
                return doc_id
        raise DocumentError(f"The index has no free document id for {source.doc_id!r}. Rename the file.")

    def with_metadata(self, path: Path, record: DocumentRecord) -> DocumentRecord:
        """Return the record with the caller's or the previous metadata. Metadata in the sidecar take precedence.

        Args:
            path: The file, as found on disk. If the caller passed a metadata function, the function is called with this
                path in the current thread. An attachment has the metadata of the file that contains it.
            record: The record of the document. ``record.own_metadata`` is used if the caller passed no metadata.
        """
        file = path if record.container is None else path.with_name(record.container.name)
        own_metadata, sidecar = self._container_metadata.get(file, (None, {}))
        if own_metadata is None or record.container is None:
            own_metadata = self._own_metadata(file, record)
            sidecar = read_sidecar(file, self.warnings) if self._sidecars else {}
            if record.attachments or record.container is not None:
                self._container_metadata[file] = own_metadata, sidecar
        return replace(record, metadata={**own_metadata, **sidecar}, own_metadata=own_metadata)

    def _own_metadata(self, path: Path, record: DocumentRecord) -> dict[str, Any]:
        """Return the metadata that the caller passed for a file, with a warning for each key that cannot be stored."""

        def report(reason: str) -> None:
            self.warnings.append(Failure(path, reason))

        if self._metadata is None:
            return clean_metadata(record.own_metadata, report)
        if not callable(self._metadata):  # the same for all files: cleaned once, with one warning for each key
            if self._shared_metadata is None:
                self._shared_metadata = clean_metadata(self._metadata, report)
            return self._shared_metadata
        try:
            metadata = self._metadata(path)
        except Exception as error:
            error.add_note(f"The error was raised by the metadata function, for the file {path}.")
            raise
        if isinstance(metadata, Mapping):
            return clean_metadata(metadata, report)
        report(f"The metadata function returned {type(metadata).__name__}; expected a mapping. Return {{}} for none.")
        return {}


def _is_free(other: DocumentRecord, path: Path, root: Path) -> bool:
    """Return whether the file of `other` is the file `path`, or is a missing file under the folder `root`."""
    return other.path == path or (root in other.file.parents and is_missing(other.file))
