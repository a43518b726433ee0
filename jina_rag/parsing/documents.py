"""Opening one document, by what its content is."""

from __future__ import annotations

from importlib.util import find_spec

from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError
from jina_rag.parsing.renderer import Renderer
from jina_rag.parsing.sources import SourceFile


def open_document(source: SourceFile, settings: IngestSettings | None = None) -> Renderer:
    """Open one document for rendering, in this process.

    Args:
        source: A PDF or an image; an office file is converted first (see `office`).
        settings: `renderer`, `limits`, `passwords` and what rendering needs.

    Raises:
        DocumentError: If it cannot be opened; `PasswordRequiredError`, `LimitExceededError` and
            `UnsupportedDocumentError` are special cases. The message is the reason, without the path.
        MissingDependencyError: If no PDF renderer is installed.
    """
    settings = settings or IngestSettings()
    if source.kind == "office":
        raise DocumentError("It is an office file, which must be converted to PDF before it is rendered.")
    if source.kind == "image":
        from jina_rag.parsing.images import ImageRenderer

        return ImageRenderer(source, settings)
    if renderer_name(settings) == "pymupdf":
        from jina_rag.parsing.pdf.pymupdf_renderer import PyMuPdfRenderer

        return PyMuPdfRenderer(source, settings)
    from jina_rag.parsing.pdf.pdfium_renderer import PdfiumRenderer

    return PdfiumRenderer(source, settings)


def renderer_name(settings: IngestSettings) -> str:
    """``"pymupdf"`` or ``"pypdfium2"``: the one asked for, or the first that is installed."""
    if settings.renderer != "auto":
        return settings.renderer
    return "pymupdf" if find_spec("pymupdf") or not find_spec("pypdfium2") else "pypdfium2"
