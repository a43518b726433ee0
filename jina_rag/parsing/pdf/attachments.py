"""Attachments of a PDF: the files in the name tree ``EmbeddedFiles``, which is also the table of a PDF portfolio."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec

from jina_rag._extras import require
from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError, LimitExceededError, PasswordRequiredError
from jina_rag.parsing.attachment_readers import AttachmentReader
from jina_rag.parsing.documents import renderer_name
from jina_rag.parsing.pdf.document_warnings import BEYOND_REPAIR, encryption_message
from jina_rag.parsing.pdf.pdfium_library import LOCK, PdfiumFile
from jina_rag.parsing.pdf.pymupdf_renderer import PyMuPdfRenderer
from jina_rag.parsing.sources import SourceFile

DAMAGED = "The attachment is damaged. Replace or re-export the file that contains the attachment."


def open_pdf_attachments(source: SourceFile, settings: IngestSettings) -> AttachmentReader:
    """Open a PDF with the configured library; by default, with the other one if the first cannot open the file.

    Args:
        source: The PDF.
        settings: Settings of the ingestion, for `renderer`, the passwords and the limits.

    Raises:
        DocumentError: If no library can open the PDF.
    """
    readers = {"pymupdf": PyMuPdfAttachments, "pypdfium2": PdfiumAttachments}
    first = renderer_name(settings)
    try:
        return readers[first](source, settings)
    except (PasswordRequiredError, LimitExceededError):
        raise
    except DocumentError:
        other = "pypdfium2" if first == "pymupdf" else "pymupdf"
        if settings.renderer != "auto" or not find_spec(other):
            raise
        return readers[other](source, settings)


class PyMuPdfAttachments(AttachmentReader):
    """Attachments of a PDF, read with MuPDF."""

    def __init__(self, source: SourceFile, settings: IngestSettings) -> None:
        super().__init__(source, settings)
        self._pymupdf = require("pymupdf")
        with self._convert_errors(f"{BEYOND_REPAIR}. Replace or re-export the file."):
            try:
                str(source.path).encode("utf-8")
                self._document = self._pymupdf.open(filename=str(source.path), filetype="pdf")
            except UnicodeEncodeError:  # MuPDF accepts only UTF-8 file names
                self._document = self._pymupdf.open(stream=source.path.read_bytes(), filetype="pdf")
        try:
            if self._document.needs_pass:
                passwords = settings.passwords_for(source.path)
                if not any(self._document.authenticate(password) for password in passwords):
                    raise PasswordRequiredError(encryption_message(bool(passwords)))
            with self._convert_errors("The attachments of the file cannot be listed. Re-export the file."):
                self._names = [self._name(index) for index in range(self._document.embfile_count())]
        except BaseException:
            self.close()
            raise

    @property
    def names(self) -> Sequence[str]:
        """Names of the attachments, as stored in the file."""
        return self._names

    def read(self, index: int) -> bytes:
        """Return the content of an attachment.

        Args:
            index: Position in `names`, from 0.

        Raises:
            DocumentError: If the content cannot be decoded.
        """
        with PyMuPdfRenderer._lock, self._convert_errors(DAMAGED):
            return bytes(self._document.embfile_get(index))

    def close(self) -> None:
        """Close the file. Calling `close` again has no effect."""
        with PyMuPdfRenderer._lock:
            if not self._document.is_closed:
                self._document.close()

    def _name(self, index: int) -> str:
        info = self._document.embfile_info(index)
        return str(info.get("ufilename") or info.get("filename") or info.get("name") or "")

    @contextmanager
    def _convert_errors(self, message: str) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, TypeError, OSError, self._pymupdf.mupdf.FzErrorBase) as error:
            raise DocumentError(message) from error


class PdfiumAttachments(AttachmentReader):
    """Attachments of a PDF, read with PDFium."""

    def __init__(self, source: SourceFile, settings: IngestSettings) -> None:
        super().__init__(source, settings)
        with LOCK:
            self._file = PdfiumFile(source.path, settings.passwords_for(source.path))
            self._raw = self._file.raw
            count = self._raw.FPDFDoc_GetAttachmentCount(self._file.document)
            self._names = [self._name(index) for index in range(count)]

    @property
    def names(self) -> Sequence[str]:
        """Names of the attachments, as stored in the file."""
        return self._names

    def read(self, index: int) -> bytes:
        """Return the content of an attachment.

        Args:
            index: Position in `names`, from 0.

        Raises:
            DocumentError: If the content cannot be decoded.
        """
        size = ctypes.c_ulong()
        with LOCK:
            attachment = self._raw.FPDFDoc_GetAttachment(self._file.document, index)
            if not attachment or not self._raw.FPDFAttachment_GetFile(attachment, None, 0, ctypes.byref(size)):
                raise DocumentError(DAMAGED)
            self.check_size(size.value)
            content = ctypes.create_string_buffer(size.value)
            if not self._raw.FPDFAttachment_GetFile(attachment, content, size.value, ctypes.byref(size)):
                raise DocumentError(DAMAGED)
        return content.raw

    def close(self) -> None:
        """Close the file. Calling `close` again has no effect."""
        with LOCK:
            self._file.close()

    def _name(self, index: int) -> str:
        attachment = self._raw.FPDFDoc_GetAttachment(self._file.document, index)
        length = self._raw.FPDFAttachment_GetName(attachment, None, 0) if attachment else 0
        if length < 2:
            return ""
        text = ctypes.create_string_buffer(length)
        self._raw.FPDFAttachment_GetName(attachment, ctypes.cast(text, ctypes.POINTER(self._raw.FPDF_WCHAR)), length)
        return text.raw[: length - 2].decode("utf-16-le", "replace")
