"""Base class of the readers of the attachments of a file.

A reader runs in a worker process, because the files are hostile. `jina_rag.parsing.attachment_readers` selects the
reader of a file.
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
