"""PDFium as a library: documents and pages as handles that are always given back, and its errors as ours."""

from __future__ import annotations

import atexit
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
from jina_rag.parsing.pdf.document_warnings import BEYOND_REPAIR, NOT_RENDERED, needs_password
from jina_rag.parsing.renderer import NO_PAGES, unreadable

# PDFium keeps state that all documents share: one thread at a time, whatever document it works on.
LOCK = threading.RLock()
# Seconds that the end of the process waits for a thread that is still in PDFium.
_EXIT_PATIENCE = 5.0
_SMALL_FILE = 1024**2


@cache
def library() -> ModuleType:
    """``pypdfium2.raw``, with PDFium set up.

    Raises:
        MissingDependencyError: If pypdfium2 is not installed.
    """
    require("pypdfium2")
    # pypdfium2 takes PDFium down at exit: not under the feet of a thread that is still at work in it.
    atexit.register(LOCK.acquire, timeout=_EXIT_PATIENCE)
    return require("pypdfium2.raw", package="pypdfium2")


class PdfiumFile:
    """An open document. Every call needs `LOCK`.

    Args:
        path: The file.
        passwords: Tried in turn if it is encrypted.

    Raises:
        PasswordRequiredError: If none of the passwords opens it.
        DocumentError: If it is no PDF or damaged beyond repair.
    """

    def __init__(self, path: Path, passwords: Sequence[str]) -> None:
        self.raw = library()
        self._content: bytes | None = None
        self.document = self._load(path, passwords)
        # Form fields are drawn by this part only; it runs no scripts, none are compiled in.
        self._form_info = self.raw.FPDF_FORMFILLINFO(version=1)
        self.form: Handle = None
        if self.raw.FPDF_GetFormType(self.document) != self.raw.FORMTYPE_NONE:
            self.form = self.raw.FPDFDOC_InitFormFillEnvironment(self.document, self._form_info)

    @property
    def page_count(self) -> int:
        """Number of pages."""
        return int(self.raw.FPDF_GetPageCount(self.document))

    @property
    def is_repaired(self) -> bool:
        """Whether the table of its objects was wrong and had to be made anew."""
        return not self.raw.FPDF_DocumentHasValidCrossReferenceTable(self.document)

    @contextmanager
    def page(self, index: int) -> Iterator[Handle]:
        """An ``FPDF_PAGE``, counted from 0.

        Raises:
            DocumentError: If PDFium cannot load it.
        """
        raw = self.raw
        page = raw.FPDF_LoadPage(self.document, index)
        if not page:
            raise DocumentError(f"{NOT_RENDERED}: {_reason(raw)}.")
        try:
            if self.form:
                raw.FORM_OnAfterLoadPage(page, self.form)
            yield page
        finally:
            if self.form:
                raw.FORM_OnBeforeClosePage(page, self.form)
            raw.FPDF_ClosePage(page)

    @contextmanager
    def annotations(self, index: int, objects: int) -> Iterator[Handle]:
        """A page, counted from 0, of which only its annotations are left. For a `PdfiumFile` that is not rendered from.

        Args:
            index: Of the page.
            objects: How many objects it has without them.
        """
        raw = self.raw
        # They become objects of the page, after its own. PDFium may spoil the fonts of those, so they cannot be used.
        with self.page(index) as page:
            raw.FPDFPage_Flatten(page, raw.FLAT_NORMALDISPLAY)
        with self.page(index) as page:
            for at in reversed(range(min(objects, raw.FPDFPage_CountObjects(page)))):
                item = raw.FPDFPage_GetObject(page, at)
                if raw.FPDFPage_RemoveObject(page, item):
                    raw.FPDFPageObj_Destroy(item)
            yield page

    def close(self) -> None:
        """Release the file. Closing twice is fine."""
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
            raise PasswordRequiredError(needs_password(bool(passwords)))
        if error == raw.FPDF_ERR_FORMAT and _says_no_pages(path):
            raise DocumentError(NO_PAGES)
        if error in (raw.FPDF_ERR_FORMAT, raw.FPDF_ERR_SUCCESS):
            raise DocumentError(f"{BEYOND_REPAIR}.")
        raise DocumentError(f"{BEYOND_REPAIR}: {_reason(raw)}.")

    def _open(self, path: Path, password: str | None) -> Handle:
        secret = None if password is None else password.encode("utf-8", "surrogatepass")
        name = _file_name(path)
        if name is not None:
            return self.raw.FPDF_LoadDocument(name, secret)
        if self._content is None:  # PDFium reads from it for as long as the document is open
            try:
                self._content = path.read_bytes()
            except OSError as error:
                raise unreadable(error) from error
        return self.raw.FPDF_LoadMemDocument64(self._content, len(self._content), secret)


def _says_no_pages(path: Path) -> bool:
    """Whether a small file that PDFium refuses is sound but for its empty tree of pages."""
    try:
        with path.open("rb") as file:
            content = file.read(_SMALL_FILE + 1)
    except OSError:
        return False
    return len(content) <= _SMALL_FILE and bool(re.search(rb"/Kids\s*\[\s*\]", content)) and b"startxref" in content


def _file_name(path: Path) -> bytes | None:
    """The name as PDFium takes it: bytes of the file system, on Windows UTF-8; None if it cannot be written so."""
    if sys.platform != "win32":
        return os.fsencode(path)
    try:
        return str(path).encode("utf-8")
    except UnicodeEncodeError:
        return None


def _reason(raw: ModuleType) -> str:
    return {
        raw.FPDF_ERR_FILE: "it cannot be read",
        raw.FPDF_ERR_FORMAT: "it is not in the format of PDF",
        raw.FPDF_ERR_SECURITY: "it is encrypted in a way that is not known",
        raw.FPDF_ERR_PAGE: "its content is not where it should be",
    }.get(raw.FPDF_GetLastError(), "PDFium does not say why")
