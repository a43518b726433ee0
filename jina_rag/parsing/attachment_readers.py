"""Readers of the attachments of a file, one class per format, and the choice of the reader.

A reader runs in a worker process, because the files are hostile. To support the attachments of another format, subclass
`AttachmentReader`, and add the format to `may_have_attachments` and `open_attachments`. `jina_rag.parsing.attachments`
does the rest: it names and checks the attachments, and turns them into documents.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError, LimitExceededError
from jina_rag.parsing.renderer import check_size
from jina_rag.parsing.sources import SourceFile
from jina_rag.parsing.text_formats.formats import text_format

_BLOCK = 1 << 20
_OVERLAP = 32
"""Bytes of a block that are searched again with the next block, at least the length of the longest marker."""


class AttachmentReader(ABC):
    """The attachments of an open file. As a context manager, a reader closes the file.

    Args:
        source: The file.
        settings: Settings of the ingestion, for the passwords and the limits.

    Raises:
        DocumentError: If the file cannot be opened.
        LimitExceededError: If the file is larger than `Limits.max_bytes`.
    """

    def __init__(self, source: SourceFile, settings: IngestSettings) -> None:
        self._source = source
        self._settings = settings
        check_size(source.path, settings.limits)

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """Names of the attachments, as stored in the file: possibly empty, repeated, or with any characters."""

    @abstractmethod
    def read(self, index: int) -> bytes:
        """Return the content of an attachment.

        Args:
            index: Position in `names`, from 0.

        Raises:
            DocumentError: If the content cannot be decoded.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the file. Calling `close` again has no effect."""

    def save(self, index: int, path: Path) -> None:
        """Write the content of an attachment to a file.

        Args:
            index: Position in `names`, from 0.
            path: Path of the file to write.

        Raises:
            DocumentError: If the content cannot be decoded or written.
            LimitExceededError: If the content is larger than `Limits.max_bytes`.
        """
        content = self.read(index)
        self.check_size(len(content))
        try:
            path.write_bytes(content)
        except OSError as error:
            raise DocumentError(
                f"The attachment cannot be written to {path.parent}: {error.strerror or type(error).__name__}. "
                "Set TMPDIR to a writable folder with free space."
            ) from error

    def check_size(self, size: int) -> None:
        """Raise an error for an attachment that is larger than the limit.

        Args:
            size: Number of bytes of the decoded content.

        Raises:
            LimitExceededError: If the size exceeds `Limits.max_bytes`.
        """
        limit = self._settings.limits.max_bytes
        if size > limit:
            raise LimitExceededError(
                f"The attachment has {size:,} bytes (limit {limit:,}). Raise Limits.max_bytes (--limit max_bytes=N)."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def may_have_attachments(source: SourceFile) -> bool:
    """Return whether a file may have attachments. False is certain, except for a PDF that disguises its keys.

    Args:
        source: The file.
    """
    if source.kind == "text":
        return text_format(source.path) == "mail"
    if source.kind != "pdf":
        return False
    # The keys may be inside a compressed object stream. Without the keys and object streams, the PDF is not opened.
    try:
        return _contains(source.path, (b"/EmbeddedFile", b"/FileAttachment", b"/ObjStm"))
    except OSError:
        return False  # the renderer reports the error


def open_attachments(source: SourceFile, settings: IngestSettings) -> AttachmentReader:
    """Open a file in the current process, to read its attachments.

    Args:
        source: The file, for which `may_have_attachments` is True.
        settings: Settings of the ingestion.

    Raises:
        DocumentError: If the file cannot be opened.
        MissingDependencyError: If the package that reads the format is not installed.
    """
    if source.kind == "text":
        from jina_rag.parsing.text_formats.mail import MailAttachments

        return MailAttachments(source, settings)
    from jina_rag.parsing.pdf.attachments import open_pdf_attachments

    return open_pdf_attachments(source, settings)


def _contains(path: Path, markers: Sequence[bytes]) -> bool:
    with path.open("rb", buffering=0) as file:
        tail = b""
        while block := file.read(_BLOCK):
            text = tail + block
            if any(marker in text for marker in markers):
                return True
            tail = text[-_OVERLAP:]
    return False
