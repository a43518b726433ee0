"""Which documents need work: what the disk has, held against what the manifest knows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from jina_rag.errors import DocumentError
from jina_rag.ingestion.sources import SourceFile, printable
from jina_rag.protocols import MultiVectorStore
from jina_rag.retrieval.manifest import DocumentRecord, Manifest
from jina_rag.stores import schema
from jina_rag.types import Failure

Metadata: TypeAlias = "Mapping[str, Any] | Callable[[Path], Mapping[str, Any]]"
"""For all documents, or a function from a document's path to its metadata."""


@dataclass(frozen=True, slots=True)
class Work:
    """A document to be indexed: the file, and the record it will have."""

    source: SourceFile
    record: DocumentRecord


class Planner:
    """Looks at documents one by one; remembers the names it has given in this run."""

    def __init__(self, manifest: Manifest, store: MultiVectorStore, metadata: Metadata | None) -> None:
        self._manifest = manifest
        self._store = store
        self._metadata = metadata
        self._taken: set[str] = set()

    def look(self, source: SourceFile) -> Work | DocumentRecord | Failure:
        """Decide what becomes of a document.

        A file whose size and time are as recorded is not opened; one with another time is hashed.

        Returns:
            `Work` if it must be indexed, its record if the index has it as it is, or why it cannot be read.
        """
        path = Path(os.path.abspath(source.path))
        try:
            status = path.stat()
            known = self._manifest.document_at(path)
            doc_id = known.doc_id if known else self._free_id(source, path)
            known = known or self._manifest.document(doc_id)
            self._taken.add(doc_id)
            metadata = self._metadata_of(source.path, known)
            same = known is not None and known.done and dict(known.metadata) == metadata
            now = (path, status.st_size, status.st_mtime_ns)
            if known and same and (known.path, known.size, known.mtime_ns) == now:
                return known
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as exc:
            return Failure(source.path, f"The file cannot be read: {exc.strerror or exc}.")
        if known and same and known.sha256 == sha256:
            self._manifest.touch(doc_id, *now)
            return known
        return Work(source, DocumentRecord(doc_id, path, sha256, status.st_size, status.st_mtime_ns, metadata=metadata))

    def stored_pages(self, record: DocumentRecord) -> frozenset[int]:
        """Pages of this very revision that an interrupted run has stored already."""
        before = self._manifest.document(record.doc_id)
        if before is None or before.done or before.sha256 != record.sha256:
            return frozenset()
        if dict(before.metadata) != dict(record.metadata):
            return frozenset()
        parts = [part for part in self._manifest.parts(record.doc_id, record.sha256) if part.kind == "page"]
        found = {point.id for point in self._store.fetch([part.part_id for part in parts], vectors=False)}
        return frozenset(part.page for part in parts if part.part_id in found)

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
        if self._metadata is None:
            return dict(known.metadata) if known else {}
        given = self._metadata(path) if callable(self._metadata) else self._metadata
        cleaned: dict[str, Any] = schema.clean_payload(dict(given))
        return cleaned
