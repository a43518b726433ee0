"""Which documents need work: what the disk has, held against what the manifest knows."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias

from jina_rag.errors import DocumentError, InvalidInputError
from jina_rag.ingestion.sources import SourceFile, printable
from jina_rag.protocols import MultiVectorStore
from jina_rag.retrieval.manifest import DocumentRecord, Manifest
from jina_rag.stores import schema
from jina_rag.types import Failure

Metadata: TypeAlias = "Mapping[str, Any] | Callable[[Path], Mapping[str, Any]]"
"""For all documents, or a function from a document's path to its metadata."""

_SIDECAR_BYTES = 64 * 1024
"""A larger JSON file beside a document is data of its own."""


@dataclass(frozen=True, slots=True)
class Work:
    """A document whose content must be indexed: the file, and the record it will have.

    Attributes:
        source: The file.
        record: With the hash of what the file holds now.
        replaces: Id of the document whose file this one was, under another name.
        changed: Whether the index has an older content of it.
        again: Whether every page is made anew, although the index has the content.
    """

    source: SourceFile
    record: DocumentRecord
    replaces: str | None = None
    changed: bool = False
    again: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """A document whose content the index has already, from this file before or from another one.

    Attributes:
        record: As it shall be.
        how: ``"same"``: nothing but metadata or time changed. ``"moved"``: its file was elsewhere before.
            ``"duplicate"``: another file has the same bytes.
        other: The document it was, or is a duplicate of.
    """

    record: DocumentRecord
    how: Literal["same", "moved", "duplicate"]
    other: DocumentRecord | None = None


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
        again: bool = False,
    ) -> None:
        """Make a planner.

        Args:
            manifest: What the index knows.
            store: Its vectors, to tell which pages an interrupted run has stored.
            metadata: What the caller gives for the documents.
            sidecars: Whether JSON files beside documents are metadata.
            again: Whether contents that are complete are indexed again.
        """
        self._manifest = manifest
        self._store = store
        self._metadata = metadata
        self._sidecars = sidecars
        self._again = again
        self._taken: set[str] = set()
        self._begun: dict[str, DocumentRecord] = {}
        self.warnings: list[Failure] = []
        """What was wrong with sidecars."""

    def look(self, source: SourceFile) -> Found:
        """Decide what becomes of a document.

        A file whose size and time are as recorded is not opened; one with another time is hashed.
        """
        path = Path(os.path.abspath(source.path))
        try:
            status = path.stat()
            known = self._manifest.document_at(path)
            doc_id = known.doc_id if known else self._free_id(source, path)
            known = known or self._manifest.document(doc_id)
            self._taken.add(doc_id)
            metadata = self._metadata_of(source.path, known)
            as_known = known is not None and known.done and not self._again
            if known and as_known and (known.path, known.size, known.mtime_ns) == (
                path, status.st_size, status.st_mtime_ns,
            ):  # fmt: skip
                return self._same(known, metadata)
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as exc:
            return Failure(source.path, f"The file cannot be read: {exc.strerror or exc}.")
        except DocumentError as exc:
            return Failure(source.path, str(exc))
        record = DocumentRecord(doc_id, path, sha256, status.st_size, status.st_mtime_ns, metadata=metadata)
        return self._by_content(source, record, known)

    def stored_pages(self, work: Work) -> frozenset[int]:
        """Pages of this very content that an interrupted run has stored already."""
        if work.again or self._store is None or self._manifest.is_done(work.record.sha256) is not False:
            return frozenset()
        parts = [part for part in self._manifest.parts(work.record.sha256) if part.kind == "page"]
        found = {point.id for point in self._store.fetch([part.part_id for part in parts], vectors=False)}
        return frozenset(part.page for part in parts if part.part_id in found)

    def _same(self, known: DocumentRecord, metadata: dict[str, Any]) -> Found:
        if dict(known.metadata) == metadata:
            return Unchanged(known)
        return Placed(replace(known, metadata=metadata), "same", known)

    def _by_content(self, source: SourceFile, record: DocumentRecord, known: DocumentRecord | None) -> Found:
        """A file that was read: new content, content at another place, or only another time."""
        first = self._begun.get(record.sha256)
        if first is not None:
            return Placed(record, "duplicate", first)
        changed = known is not None and known.sha256 != record.sha256
        if self._manifest.is_done(record.sha256):
            if known is not None and not changed:
                if not self._again:
                    return Placed(record, "same", known)
            else:
                others = self._manifest.documents_of(record.sha256)
                moved = next((other for other in others if not os.path.lexists(other.path)), None)
                if moved is not None and moved.by_name and not _same_name(moved.path, record.path):
                    # Its pages have no words: they are found by the name, which is another now.
                    self._begun[record.sha256] = record
                    return Work(source, record, replaces=moved.doc_id, again=True)
                if others and not self._again:
                    return Placed(record, "moved" if moved else "duplicate", moved or others[0])
        self._begun[record.sha256] = record
        return Work(source, record, changed=changed, again=self._again)

    def _free_id(self, source: SourceFile, path: Path) -> str:
        """`source.doc_id`, unless another file that still exists has it: then with its folder's name in front."""
        folder = printable(path.parent.name) or "root"
        digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:8]
        for doc_id in (source.doc_id, f"{folder}/{source.doc_id}", f"{folder}-{digest}/{source.doc_id}"):
            other = self._manifest.document(doc_id)
            if doc_id not in self._taken and (other is None or other.path == path or not os.path.lexists(other.path)):
                return doc_id
        raise DocumentError(f"{source.doc_id!r} cannot be given a name of its own in this index.")

    def _metadata_of(self, path: Path, known: DocumentRecord | None) -> dict[str, Any]:
        """What the caller gives for it and what stands beside it, else what is known.

        What is a document's own beats what is given for all of them.
        """
        given: Mapping[str, Any] | None = None
        if callable(self._metadata):
            given = self._metadata(path)
        else:
            beside = self._beside(path) if self._sidecars else None
            if self._metadata is not None or beside is not None:
                given = {**(self._metadata or {}), **(beside or {})}
        if given is None:
            return dict(known.metadata) if known else {}
        cleaned: dict[str, Any] = schema.clean_payload(dict(given))
        return cleaned

    def _beside(self, path: Path) -> dict[str, Any] | None:
        """The JSON object in ``report.pdf.json`` or ``report.json``."""
        for sidecar in sidecars_of(path):
            try:
                if sidecar.stat().st_size > _SIDECAR_BYTES:
                    continue
                found = json.loads(sidecar.read_text(encoding="utf-8-sig"))
                if not isinstance(found, dict):
                    raise InvalidInputError("it is not a JSON object")
                cleaned: dict[str, Any] = schema.clean_payload(found)
                return cleaned
            except FileNotFoundError:
                continue
            except (OSError, ValueError, RecursionError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                self.warnings.append(Failure(sidecar, f"It is not taken as metadata of {path.name}: {reason}."))
        return None


def sidecars_of(path: Path) -> tuple[Path, Path]:
    """Where the metadata of a document may stand: ``report.pdf.json``, then ``report.json``."""
    return path.with_name(f"{path.name}.json"), path.with_suffix(".json")


def gone(manifest: Manifest, roots: Sequence[Path]) -> Iterator[DocumentRecord]:
    """Documents under the given files and folders whose file does not exist any more."""
    absolute = [Path(os.path.abspath(root)) for root in roots]
    for record in manifest.documents():
        if any(root == record.path or root in record.path.parents for root in absolute):
            if not os.path.lexists(record.path):
                yield record


def _same_name(a: Path, b: Path) -> bool:
    return PurePosixPath(a.name).stem == PurePosixPath(b.name).stem
