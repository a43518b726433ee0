"""Detection of XFA forms, whose contents are in XML: the pages of the PDF are a placeholder."""

from __future__ import annotations

from jina_rag.parsing.pdf.base import Handle
from jina_rag.parsing.pdf.pdfium_library import PdfiumFile

XFA = "The file is an XFA form, whose fields and data (XML) were not read. Print the form to a PDF and ingest the PDF."
_MAX_PAGES = 3
"""Number of pages that are searched for fields. The pages of a static XFA form show the fields, without a warning."""


def pymupdf_warnings(document: Handle) -> tuple[str, ...]:
    """Return a warning if the pages of a PDF opened with MuPDF do not show the contents of its XFA form.

    Args:
        document: The open document.
    """
    catalog = document.pdf_catalog()
    if document.xref_get_key(catalog, "AcroForm/XFA")[0] == "null":
        return ()
    if document.xref_get_key(catalog, "NeedsRendering")[1] == "true":
        return (XFA,)
    try:
        pages = (document.load_page(number) for number in range(min(document.page_count, _MAX_PAGES)))
        return () if any(page.first_widget for page in pages) else (XFA,)
    except Exception:  # a page that cannot be loaded shows no fields; rendering reports the error
        return (XFA,)


def pdfium_warnings(file: PdfiumFile) -> tuple[str, ...]:
    """Return a warning if the pages of a PDF opened with PDFium do not show the contents of its XFA form.

    Args:
        file: The open document.
    """
    raw = file.raw
    form_type = raw.FPDF_GetFormType(file.document)
    if form_type == raw.FORMTYPE_XFA_FULL:
        return (XFA,)
    if form_type != raw.FORMTYPE_XFA_FOREGROUND:
        return ()
    return () if any(_has_widget(file, number) for number in range(min(file.page_count, _MAX_PAGES))) else (XFA,)


def _has_widget(file: PdfiumFile, number: int) -> bool:
    raw = file.raw
    page = raw.FPDF_LoadPage(file.document, number)
    if not page:
        return False
    try:
        for index in range(raw.FPDFPage_GetAnnotCount(page)):
            annotation = raw.FPDFPage_GetAnnot(page, index)
            try:
                if annotation and raw.FPDFAnnot_GetSubtype(annotation) == raw.FPDF_ANNOT_WIDGET:
                    return True
            finally:
                raw.FPDFPage_CloseAnnot(annotation)
        return False
    finally:
        raw.FPDF_ClosePage(page)
