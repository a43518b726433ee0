"""Documents inside a file: the attachments of a PDF (portfolio), of a mail, and of other formats with a reader.

An attachment is a document of its own. Its path is the path of the file, ``#`` and a name, for example
``report.pdf#attachment.pdf``; its id is the id of the file, ``#`` and the name. Attachments of
attachments are not read.

- `read_attachments` returns the attachments of a file as `SourceFile` objects, with the hash of the content. The
  content is written to a temporary file to determine its kind and hash, and deleted.
- `extracted` writes the content of such a `SourceFile` to a temporary file, which is then opened like any other file.

Both read the file in a worker process. A format needs a reader only: see `jina_rag.parsing.attachment_readers`.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError, LimitExceededError
from jina_rag.parsing.attachment_base import AttachmentReader
from jina_rag.parsing.attachment_names import (
    SEPARATOR,
    attachment_names,
    attachment_path,
    enumerate_names,
    temporary_name,
)
from jina_rag.parsing.attachment_readers import may_have_attachments
from jina_rag.parsing.sources import Attachment, Skipped, SourceFile, classify
from jina_rag.parsing.workers.attachments import IsolatedAttachments, open_attachments_isolated
from jina_rag.parsing.workers.cancellation import Stop
from jina_rag.types import Failure

_HASH_BLOCK = 1 << 20
_LISTED_NAMES = 3
"""Maximum number of names of attachments in a warning."""
_NOT_READ = "The attachments cannot be read"
_CHANGED = "The file changed while it was read. Ingest the file again."


@dataclass(frozen=True, slots=True)
class Attachments:
    """The attachments of a file.

    Attributes:
        documents: The attachments that are documents, each with ``attachment`` and ``revision`` set.
        failures: Attachments that cannot be read, and attachments beyond a limit.
        warnings: Warnings about the file: names of the attachments that are not documents, or why none was read.
        is_complete: Whether all attachments were read, so that the file need not be read again until it changes.
    """

    documents: tuple[SourceFile, ...] = ()
    failures: tuple[Failure, ...] = ()
    warnings: tuple[str, ...] = ()
    is_complete: bool = True


def read_attachments(source: SourceFile, settings: IngestSettings, stop: Stop | None = None) -> Attachments:
    """Read the attachments of a file.

    Args:
        source: The file. An attachment has no attachments of its own: they are named in a warning.
        settings: Settings of the ingestion, for the passwords and the limits.
        stop: Stop signal that kills the worker process.

    Returns:
        The attachments. If the file cannot be opened, the result has no attachments, a warning and
        ``is_complete=False``.

    Raises:
        MissingDependencyError: If the package that reads the format is not installed.
    """
    if source.attachment is not None or not may_have_attachments(source):
        return Attachments()
    stop = stop or Stop()
    try:
        reader = open_attachments_isolated(source, settings, stop)
    except DocumentError as error:
        return Attachments(warnings=(f"{_NOT_READ}: {error}",), is_complete=False)
    try:
        if not reader.names:
            return Attachments()
        with _temporary_folder() as folder:
            return _Reading(source, settings, stop, reader, folder).run()
    except DocumentError as error:
        return Attachments(failures=(Failure(source.path, f"{_NOT_READ}: {error}"),), is_complete=False)
    finally:
        reader.close()


@contextmanager
def extracted(
    source: SourceFile, settings: IngestSettings, stop: Stop | None = None
) -> Iterator[tuple[SourceFile, IngestSettings]]:
    """Write the content of an attachment to a temporary file, which is deleted when the context exits.

    Args:
        source: The document.
        settings: Settings of the ingestion.
        stop: Stop signal that kills the worker process.

    Yields:
        The document at the temporary path, and the settings with the passwords of the attachment; `source` and
        `settings` if the document is not an attachment.

    Raises:
        DocumentError: If the content cannot be read, or is not the content that `read_attachments` found.
        LimitExceededError: If the content or the worker process exceeds a limit.
    """
    attachment = source.attachment
    if attachment is None:
        yield source, settings
        return
    stop = stop or Stop()
    container = SourceFile(attachment.container, source.root, source.doc_id, attachment.kind)
    with _temporary_folder() as folder:
        path = folder / temporary_name(source.path.name)
        reader = open_attachments_isolated(container, settings, stop)
        try:
            if attachment.index >= len(reader.names):
                raise DocumentError(_CHANGED)
            reader.save(attachment.index, path)
        finally:
            reader.close()
        if _hash(path, stop) != attachment.sha256:
            raise DocumentError(_CHANGED)
        passwords = dict.fromkeys(settings.passwords_for(source.path) + settings.passwords_for(attachment.container))
        yield replace(source, path=path), replace(settings, passwords=tuple(passwords))


class _Reading:
    """One call of `read_attachments` for a file with attachments."""

    def __init__(
        self,
        source: SourceFile,
        settings: IngestSettings,
        stop: Stop,
        reader: AttachmentReader | IsolatedAttachments,
        folder: Path,
    ) -> None:
        self._source = source
        self._settings = settings
        self._stop = stop
        self._reader = reader
        self._folder = folder
        self._size = 0
        self._documents: list[SourceFile] = []
        self._failures: list[Failure] = []
        self._other_names: list[str] = []

    def run(self) -> Attachments:
        limit = self._settings.limits.max_attachments
        stored_names = self._reader.names
        for index, name in enumerate(attachment_names(stored_names[:limit], self._source.path)):
            path = attachment_path(self._source.path, name)
            try:
                self._read(index, name, path)
            except DocumentError as error:
                self._failures.append(Failure(path, str(error)))
        is_complete = len(stored_names) <= limit
        if not is_complete:
            reason = (
                f"The file has {len(stored_names):,} attachments; only the first {limit:,} were read. "
                "Raise Limits.max_attachments (--limit max_attachments=N)."
            )
            self._failures.append(Failure(self._source.path, reason))
        warnings: tuple[str, ...] = ()
        if self._other_names:
            names = enumerate_names(self._other_names, _LISTED_NAMES)
            warnings = (f"Attachments in unsupported formats were not read: {names}.",)
        return Attachments(tuple(self._documents), tuple(self._failures), warnings, is_complete)

    def _read(self, index: int, name: str, path: Path) -> None:
        """Add the attachment at `path` to the documents, failures or names of other files."""
        limit = self._settings.limits.max_bytes
        if self._size > limit:
            raise LimitExceededError(
                f"The attachments of the file have more than {limit:,} bytes together. "
                "Raise Limits.max_bytes (--limit max_bytes=N)."
            )
        file = self._folder / temporary_name(name)
        try:
            self._reader.save(index, file)
            size = file.stat().st_size
            self._size += size
            event = classify(file)
            if isinstance(event, Failure):
                raise DocumentError(event.reason)
            if isinstance(event, Skipped):
                self._other_names.append(name)
                return
            sha256 = _hash(file, self._stop)
            self._documents.append(
                replace(
                    self._source,
                    path=path,
                    doc_id=f"{self._source.doc_id}{SEPARATOR}{name}",
                    kind=event.kind,
                    skip_pages=frozenset(),
                    revision=sha256,
                    attachment=Attachment(self._source.path, self._source.kind, index, sha256, size),
                    warnings=self._nested_warnings(event),
                )
            )
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise DocumentError(f"The attachment cannot be read from {self._folder}: {reason}.") from error
        finally:
            file.unlink(missing_ok=True)

    def _nested_warnings(self, file: SourceFile) -> tuple[str, ...]:
        """Return a warning that names the attachments of an attachment, which are not read."""
        if not may_have_attachments(file):
            return ()
        try:
            reader = open_attachments_isolated(file, self._settings, self._stop)
        except DocumentError:  # reported when the attachment is rendered
            return ()
        names = attachment_names(reader.names, file.path)
        reader.close()
        if not names:
            return ()
        listed_names = enumerate_names(names, _LISTED_NAMES)
        return (f"Attachments of an attachment were not read: {listed_names}. Save and ingest the attachment.",)


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    try:
        folder = tempfile.TemporaryDirectory(prefix="jina-rag-attachments-", ignore_cleanup_errors=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DocumentError(
            f"No temporary folder can be created for attachments ({reason}). Set TMPDIR to a writable folder."
        ) from error
    with folder as path:
        yield Path(path)


def _hash(path: Path, stop: Stop) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_HASH_BLOCK):
            if stop.is_set:
                raise DocumentError("The attachment was not read because the run was stopped. Run the ingestion again.")
            digest.update(block)
    return digest.hexdigest()
