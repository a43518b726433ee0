"""Access to PDFium: opens documents and pages, and converts PDFium errors to `DocumentError`."""

from __future__ import annotations

import atexit
import ctypes
import os
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType

from jina_rag._extras import require
from jina_rag.errors import DocumentError, PasswordRequiredError
from jina_rag.parsing.pdf.base import Handle
from jina_rag.parsing.pdf.document_warnings import BEYOND_REPAIR, NOT_RENDERED, encryption_message
from jina_rag.parsing.pdf.pdfium_page_tree import (
    copy_without_counts,
    count_loadable_pages,
    count_page_objects,
    loads_page,
    save_copy,
)
from jina_rag.parsing.pdf.pdfium_structure import repair_page
from jina_rag.parsing.renderer import NO_PAGES, unreadable_file

# PDFium has global state that all documents share, so only one thread at a time may call PDFium.
LOCK = threading.RLock()
# Maximum seconds that the exit of the process waits for a thread that is inside PDFium.
_EXIT_SECONDS = 5.0
_SMALL_FILE = 1024**2


@cache
def library() -> ModuleType:
    """Return the module ``pypdfium2.raw`` with PDFium initialized.

    Raises:
        MissingDependencyError: If pypdfium2 is not installed.
    """
    require("pypdfium2")
    # pypdfium2 shuts PDFium down at exit. Waiting for the lock prevents a shutdown while a thread is inside PDFium.
    atexit.register(LOCK.acquire, timeout=_EXIT_SECONDS)
    return require("pypdfium2.raw", package="pypdfium2")


class PdfiumFile:
    """A PDF document opened with PDFium. The caller must hold `LOCK` during every call.

    Args:
        path: Path of the file.
        passwords: Passwords that are tried in order if the document is encrypted.

    Attributes:
        page_count: Number of pages in the document.
        has_wrong_tree: Whether the page tree announces another number of pages.

    Raises:
        PasswordRequiredError: If the document is encrypted and none of the passwords is valid.
        DocumentError: If the file is not a PDF, or is too damaged to open.
    """

    def __init__(self, path: Path, passwords: Sequence[str]) -> None:
        self.raw = library()
        self._content: bytes | None = None
        self.document = self._load(path, passwords)
        self.page_count = int(self.raw.FPDF_GetPageCount(self.document))
        self.has_wrong_tree = self._repair_tree(path)
        # PDFium draws form fields only if the document has a form environment. The
        # environment is safe, because this PDFium build cannot run scripts.
        self._form_info = self.raw.FPDF_FORMFILLINFO(version=1)
        self.form: Handle = None
        if self.raw.FPDF_GetFormType(self.document) != self.raw.FORMTYPE_NONE:
            self.form = self.raw.FPDFDOC_InitFormFillEnvironment(self.document, self._form_info)

    def _repair_tree(self, path: Path) -> bool:
        """Count the pages, and return whether the page tree announces another number."""
        raw, announced = self.raw, self.page_count
        if not loads_page(raw, self.document, announced - 1):
            self.page_count = count_loadable_pages(raw, self.document, announced, path) or announced
        if count_page_objects(path) > self.page_count:
            self._load_copy_without_counts()
        return self.page_count != announced

    def _load_copy_without_counts(self) -> None:
        """Replace the document by a copy whose pages PDFium counts, if the copy has more pages."""
        raw = self.raw
        content = copy_without_counts(raw, self.document)
        document = raw.FPDF_LoadMemDocument64(content, len(content), None) if content else None
        if not document:
            return
        count = int(raw.FPDF_GetPageCount(document))
        if count <= self.page_count:
            raw.FPDF_CloseDocument(document)
            return
        raw.FPDF_CloseDocument(self.document)
        self.document, self._content, self.page_count = document, content, count

    @property
    def is_repaired(self) -> bool:
        """Whether the cross-reference table of the PDF was invalid, so that PDFium rebuilt the table."""
        return not self.raw.FPDF_DocumentHasValidCrossReferenceTable(self.document)

    @contextmanager
    def page(self, index: int) -> Iterator[Handle]:
        """Open a page with valid page boxes. The page is closed when the context exits.

        Args:
            index: Index of the page, 0-based.

        Yields:
            The ``FPDF_PAGE`` handle.

        Raises:
            DocumentError: If PDFium cannot load the page.
        """
        raw = self.raw
        page = raw.FPDF_LoadPage(self.document, index)
        if not page:
            raise DocumentError(f"{NOT_RENDERED}: {_reason(raw)}. Replace or re-export the file.")
        try:
            if self.form:
                raw.FORM_OnAfterLoadPage(page, self.form)
            repair_page(raw, page)
            yield page
        finally:
            if self.form:
                raw.FORM_OnBeforeClosePage(page, self.form)
            raw.FPDF_ClosePage(page)

    @contextmanager
    def annotations(self, index: int, objects: int) -> Iterator[Handle]:
        """Open a page and remove everything except the annotations. The page is closed when the context exits.

        The call modifies the document, so the method must not be called on the `PdfiumFile` that is rendered.

        Args:
            index: Index of the page, 0-based.
            objects: Number of page objects that are not annotations. These objects are removed.

        Yields:
            The ``FPDF_PAGE`` handle.
        """
        raw = self.raw
        # Flattening converts the annotations to page objects at the end of the page. The earlier page objects are then
        # removed, because flattening may damage their fonts.
        with self.page(index) as page:
            self._add_appearances(page)
            raw.FPDFPage_Flatten(page, raw.FLAT_NORMALDISPLAY)
        with self.page(index) as page:
            for at in reversed(range(min(objects, raw.FPDFPage_CountObjects(page)))):
                item = raw.FPDFPage_GetObject(page, at)
                if raw.FPDFPage_RemoveObject(page, item):
                    raw.FPDFPageObj_Destroy(item)
            yield page

    def copy_page(self, index: int, max_bytes: int) -> bytes:
        """Return a PDF with one page of the document, in which only streams are compressed.

        PDFium has no function that reads the dictionary or the streams of a page, so callers search the copy.

        Args:
            index: Index of the page, 0-based.
            max_bytes: Maximum size of the copy in bytes.

        Returns:
            The PDF; the first part of the PDF if it exceeds `max_bytes`; empty if the page cannot be copied.
        """
        raw = self.raw
        copy = raw.FPDF_CreateNewDocument()
        try:
            if not raw.FPDF_ImportPagesByIndex(copy, self.document, (ctypes.c_int * 1)(index), 1, 0):
                return b""
            return save_copy(raw, copy, raw.FPDF_NO_INCREMENTAL, max_bytes)[0]
        finally:
            raw.FPDF_CloseDocument(copy)

    def _add_appearances(self, page: Handle) -> None:
        """Render a page once, so that PDFium adds an appearance to the annotations that have none."""
        raw = self.raw
        bitmap = raw.FPDFBitmap_Create(1, 1, 0)
        try:
            raw.FPDF_RenderPageBitmap(bitmap, page, 0, 0, 1, 1, 0, raw.FPDF_ANNOT)
        finally:
            raw.FPDFBitmap_Destroy(bitmap)

    def close(self) -> None:
        """Close the document. Calling `close` again has no effect."""
        if not self.document:
            return
        if self.form:
            self.raw.FPDFDOC_ExitFormFillEnvironment(self.form)
            self.form = None
        self.raw.FPDF_CloseDocument(self.document)
        self.document = None
        self._content = None

    def _load(self, path: Path, passwords: Sequence[str]) -> Handle:
        raw = self.raw
        for password in (None, *passwords):
            document = self._open(path, password)
            if document:
                return document
            error = raw.FPDF_GetLastError()
            if error != raw.FPDF_ERR_PASSWORD:
                break
        else:
            raise PasswordRequiredError(encryption_message(bool(passwords)))
        if error == raw.FPDF_ERR_FORMAT and _has_empty_page_tree(path):
            raise DocumentError(NO_PAGES)
        if error in (raw.FPDF_ERR_FORMAT, raw.FPDF_ERR_SUCCESS):
            raise DocumentError(f"{BEYOND_REPAIR}. Replace or re-export the file.")
        raise DocumentError(f"{BEYOND_REPAIR}: {_reason(raw)}. Replace or re-export the file.")

    def _open(self, path: Path, password: str | None) -> Handle:
        secret = None if password is None else password.encode("utf-8", "surrogatepass")
        name = _encode_path(path)
        if name is not None:
            return self.raw.FPDF_LoadDocument(name, secret)
        if self._content is None:  # PDFium reads from this buffer until the document is closed
            try:
                self._content = path.read_bytes()
            except OSError as error:
                raise unreadable_file(error) from error
        return self.raw.FPDF_LoadMemDocument64(self._content, len(self._content), secret)


def _has_empty_page_tree(path: Path) -> bool:
    """Return whether a file that PDFium rejects is a small PDF without pages. Such a file gets the error `NO_PAGES`."""
    try:
        with path.open("rb") as file:
            content = file.read(_SMALL_FILE + 1)
    except OSError:
        return False
    return len(content) <= _SMALL_FILE and bool(re.search(rb"/Kids\s*\[\s*\]", content)) and b"startxref" in content


def _encode_path(path: Path) -> bytes | None:
    """Return the path as UTF-8 on Windows, or as file system bytes elsewhere; None if encoding the path fails."""
    if sys.platform != "win32":
        return os.fsencode(path)
    try:
        return str(path).encode("utf-8")
    except UnicodeEncodeError:
        return None


def _reason(raw: ModuleType) -> str:
    return {
        raw.FPDF_ERR_FILE: "the file cannot be read",
        raw.FPDF_ERR_FORMAT: "the file is not a valid PDF",
        raw.FPDF_ERR_SECURITY: "the encryption method is not supported",
        raw.FPDF_ERR_PAGE: "the page is missing or has invalid content",
    }.get(raw.FPDF_GetLastError(), "PDFium reports no cause")
