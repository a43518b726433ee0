"""Selection of the renderer for a document."""

from __future__ import annotations

from importlib.util import find_spec

from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError
from jina_rag.parsing.renderer import Renderer
from jina_rag.parsing.sources import SourceFile


def open_document(source: SourceFile, settings: IngestSettings | None = None) -> Renderer:
    """Open a document for rendering in the current process.

    Args:
        source: A PDF or an image. Convert office files with `office.as_pdf` first.
        settings: Settings of the ingestion; None for the defaults.

    Returns:
        The renderer of the open document.

    Raises:
        DocumentError: If the document cannot be opened, or is an office file. The message does not contain the path.
            More specific causes raise the subclasses `PasswordRequiredError`, `LimitExceededError` and
            `UnsupportedDocumentError`.
        MissingDependencyError: If no PDF renderer is installed.
    """
    settings = settings or IngestSettings()
    if source.kind == "office":
        raise DocumentError("The file is an office file. Convert the file to PDF before rendering.")
    if source.kind == "image":
        from jina_rag.parsing.images import ImageRenderer

        return ImageRenderer(source, settings)
    if renderer_name(settings) == "pymupdf":
        from jina_rag.parsing.pdf.pymupdf_renderer import PyMuPdfRenderer

        return PyMuPdfRenderer(source, settings)
    from jina_rag.parsing.pdf.pdfium_renderer import PdfiumRenderer

    return PdfiumRenderer(source, settings)


def renderer_name(settings: IngestSettings) -> str:
    """Return the name of the configured PDF renderer. By default, the first installed PDF renderer is used.

    Args:
        settings: Settings of the ingestion, for `renderer`.
    """
    if settings.renderer != "auto":
        return settings.renderer
    return "pymupdf" if find_spec("pymupdf") or not find_spec("pypdfium2") else "pypdfium2"
