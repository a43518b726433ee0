"""Selection of the renderer for a document."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

from jina_rag.config import IngestSettings, RendererName
from jina_rag.errors import DocumentError
from jina_rag.parsing.fallback import FallbackRenderer
from jina_rag.parsing.renderer import Renderer
from jina_rag.parsing.sources import SourceFile

_PDF_RENDERERS: Final[tuple[RendererName, ...]] = ("pymupdf", "pypdfium2")


def open_document(source: SourceFile, settings: IngestSettings | None = None) -> Renderer:
    """Open a document for rendering in the current process.

    With ``renderer="auto"``, the other installed PDF renderer is tried for what the first one cannot open or render.

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
    if source.kind != "pdf":
        return open_alone(source, settings)
    return FallbackRenderer(source, settings, renderer_names(settings), lambda named, _: open_alone(source, named))


def open_alone(source: SourceFile, settings: IngestSettings) -> Renderer:
    """Open a document as `open_document` does, but with one renderer only.

    Args:
        source: A PDF or an image.
        settings: Settings of the ingestion, for `renderer`.

    Raises:
        DocumentError: If the document cannot be opened, or is an office file.
        MissingDependencyError: If the PDF renderer is not installed.
    """
    if source.kind == "office":
        raise DocumentError("The file is an office file. Convert the file to PDF before rendering.")
    if source.kind == "text":
        from jina_rag.parsing.text_formats.renderer import TextRenderer

        return TextRenderer(source, settings)
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
    return renderer_names(settings)[0]


def renderer_names(settings: IngestSettings) -> tuple[RendererName, RendererName | None]:
    """Return the name of the configured PDF renderer, and the name of the other one; None if it is not installed.

    Args:
        settings: Settings of the ingestion, for `renderer`.
    """
    installed = [name for name in _PDF_RENDERERS if find_spec(name)]
    first = settings.renderer if settings.renderer != "auto" else (installed or _PDF_RENDERERS)[0]
    return first, next((name for name in installed if name != first), None)
