"""Selection of the reader of the attachments of a file.

To support the attachments of another format, subclass `attachment_base.AttachmentReader`, and add the format to
`may_have_attachments` and `open_attachments`. `jina_rag.parsing.attachments` does the rest: it names and checks the
attachments, and turns them into documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jina_rag.config import IngestSettings
from jina_rag.parsing.attachment_base import AttachmentReader
from jina_rag.parsing.sources import SourceFile
from jina_rag.parsing.text_formats.formats import text_format

_BLOCK = 1 << 20
_OVERLAP = 32
"""Bytes of a block that are searched again with the next block, at least the length of the longest marker."""


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
