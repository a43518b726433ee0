"""Attachments of a PDF: the files in the name tree ``EmbeddedFiles``, and those of annotations (``FileAttachment``).

The name tree is also the table of contents of a PDF portfolio.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from jina_rag._extras import require
from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError, LimitExceededError, PasswordRequiredError
from jina_rag.parsing.attachment_base import AttachmentReader
from jina_rag.parsing.documents import renderer_names
from jina_rag.parsing.pdf.base import Handle
from jina_rag.parsing.pdf.document_warnings import BEYOND_REPAIR, encryption_message
from jina_rag.parsing.pdf.pdfium_library import LOCK, PdfiumFile
from jina_rag.parsing.pdf.pymupdf_renderer import PyMuPdfRenderer
from jina_rag.parsing.sources import SourceFile

DAMAGED = "The attachment is damaged. Replace or re-export the file that contains the attachment."
_MAX_FILES = 100_000
"""Maximum number of attachments that are listed. A hostile file may have a million."""
_MAX_PAGES = 2_000
"""Maximum number of pages whose annotations are searched."""
_EMPTY = "\xfe\xff"
"""Name that PDFium returns for an empty UTF-16 string. PDFium cannot read the content of such an attachment."""


def open_pdf_attachments(source: SourceFile, settings: IngestSettings) -> AttachmentReader:
    """Open a PDF with the configured library; by default, with the other one if the first cannot open the file.

    Args:
        source: The PDF.
        settings: Settings of the ingestion, for `renderer`, the passwords and the limits.

    Raises:
        DocumentError: If no library can open the PDF.
    """
    readers = {"pymupdf": PyMuPdfAttachments, "pypdfium2": PdfiumAttachments}
    first, other = renderer_names(settings)
    try:
        return readers[first](source, settings)
    except (PasswordRequiredError, LimitExceededError):
        raise
    except DocumentError:
        if settings.renderer != "auto" or other is None:
            raise
        return readers[other](source, settings)


class PyMuPdfAttachments(AttachmentReader):
    """Attachments of a PDF, read with MuPDF."""

    def __init__(self, source: SourceFile, settings: IngestSettings) -> None:
        super().__init__(source, settings)
        self._pymupdf = require("pymupdf")
        self._files: list[Handle] = []
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
                library = self._pymupdf.mupdf
                pdf = library.pdf_document_from_fz_document(self._document.this)
                tree = self._name_tree(library.pdf_dict_gets(library.pdf_trailer(pdf), "Root"))
                numbers = {library.pdf_to_num(file) for file in tree} - {0}
                annotated = (file for file in self._annotations(pdf) if library.pdf_to_num(file) not in numbers)
                self._files = [*tree, *itertools.islice(annotated, _MAX_FILES)]
                self._names = [self._name(file) for file in self._files]
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
            library = self._pymupdf.mupdf
            content = self._first(library.pdf_dict_gets(self._files[index], "EF"), ("UF", "F", "Unix", "Mac", "DOS"))
            if not library.pdf_is_stream(content):
                raise DocumentError(DAMAGED)
            return bytes(library.fz_buffer_extract_copy(library.pdf_load_stream(content)))

    def close(self) -> None:
        """Close the file. Calling `close` again has no effect."""
        with PyMuPdfRenderer._lock:
            self._files = []
            if not self._document.is_closed:
                self._document.close()

    def _name_tree(self, root: Handle) -> list[Handle]:
        """Return the file specifications of the name tree. The functions of PyMuPDF read only the root of the tree."""
        library = self._pymupdf.mupdf
        pending = [library.pdf_dict_gets(library.pdf_dict_gets(root, "Names"), "EmbeddedFiles")]
        visited: set[int] = set()
        files: list[Handle] = []
        while pending and len(files) < _MAX_FILES:
            node = pending.pop()
            number = library.pdf_to_num(node)
            if number in visited:
                continue
            visited.update({number} - {0})
            names = library.pdf_dict_gets(node, "Names")
            files += [library.pdf_array_get(names, at) for at in range(1, library.pdf_array_len(names), 2)]
            kids = library.pdf_dict_gets(node, "Kids")
            pending += [library.pdf_array_get(kids, at) for at in reversed(range(library.pdf_array_len(kids)))]
        return files

    def _annotations(self, pdf: Handle) -> Iterator[Handle]:
        """Yield the file specifications of the annotations."""
        library = self._pymupdf.mupdf
        for number in range(min(self._document.page_count, _MAX_PAGES)):
            try:
                annotations = library.pdf_dict_gets(library.pdf_lookup_page_obj(pdf, number), "Annots")
            except (RuntimeError, library.FzErrorBase):
                continue  # the renderer reports the damaged page
            for at in range(library.pdf_array_len(annotations)):
                annotation = library.pdf_array_get(annotations, at)
                if library.pdf_to_name(library.pdf_dict_gets(annotation, "Subtype")) == "FileAttachment":
                    yield library.pdf_dict_gets(annotation, "FS")

    def _name(self, file: Handle) -> str:
        # The key in the name tree is not used, because PDFium does not return it.
        library = self._pymupdf.mupdf
        text = file if library.pdf_is_string(file) else self._first(file, ("UF", "F", "Unix", "Mac", "DOS"))
        name = library.pdf_to_text_string(text)
        return str(name).encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def _first(self, entries: Handle, keys: Sequence[str]) -> Handle:
        """Return the value of the first of the keys that the dictionary `entries` has; else a null object."""
        values = [self._pymupdf.mupdf.pdf_dict_gets(entries, key) for key in keys]
        return next((value for value in values if value.m_internal), values[0])

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
            count = min(self._raw.FPDFDoc_GetAttachmentCount(self._file.document), _MAX_FILES)
            tree = [self._raw.FPDFDoc_GetAttachment(self._file.document, index) for index in range(count)]
            addresses = set(map(_address, tree))
            annotated = (file for file in self._annotations() if _address(file) not in addresses)
            self._files = [*tree, *itertools.islice(annotated, _MAX_FILES)]
            self._names = [self._name(file) for file in self._files]

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
            attachment = self._files[index]
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
            self._files = []
            self._file.close()

    def _annotations(self) -> Iterator[Handle]:
        """Yield the attachments of the annotations. The document owns them."""
        raw = self._raw
        for number in range(min(self._file.page_count, _MAX_PAGES)):
            page = raw.FPDF_LoadPage(self._file.document, number)
            if not page:
                continue
            try:
                for at in range(raw.FPDFPage_GetAnnotCount(page)):
                    annotation = raw.FPDFPage_GetAnnot(page, at)
                    try:
                        if annotation and raw.FPDFAnnot_GetSubtype(annotation) == raw.FPDF_ANNOT_FILEATTACHMENT:
                            yield raw.FPDFAnnot_GetFileAttachment(annotation)
                    finally:
                        raw.FPDFPage_CloseAnnot(annotation)
            finally:
                raw.FPDF_ClosePage(page)

    def _name(self, attachment: Handle) -> str:
        length = self._raw.FPDFAttachment_GetName(attachment, None, 0) if attachment else 0
        if length < 2:
            return ""
        text = ctypes.create_string_buffer(length)
        self._raw.FPDFAttachment_GetName(attachment, ctypes.cast(text, ctypes.POINTER(self._raw.FPDF_WCHAR)), length)
        name = text.raw[: length - 2].decode("utf-16-le", "replace")
        return "" if name == _EMPTY else name


def _address(handle: Handle) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value if handle else None
