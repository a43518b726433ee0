"""Page images for the report: screenshots from the index, or else images rendered from the documents."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError, IndexStateError, InvalidInputError
from jina_rag.evaluation.datasets import PageKey
from jina_rag.evaluation.results import Evaluation
from jina_rag.explain.heatmap import load_image
from jina_rag.images import inline_jpeg
from jina_rag.parsing.office import as_pdf
from jina_rag.parsing.sources import source_file
from jina_rag.parsing.workers.pool import open_isolated

if TYPE_CHECKING:
    from PIL.Image import Image

_RENDERING = IngestSettings(dpi=100, ocr="never", regions=False)
_MAX_ASPECT_RATIO = 1.45
"""Maximum ratio of height to width of an image. The ratio of an A4 page is 1.41."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Size limits of an image.

    Attributes:
        width: Maximum width, in pixels.
        bytes: Maximum size of the JPEG, in bytes.
    """

    width: int
    bytes: int

    def scale(self, fraction: float) -> Bounds:
        """Return limits for a fraction (0 to 1) of the pixels and of the bytes. Each limit is at least 1."""
        return Bounds(max(1, round(self.width * math.sqrt(fraction))), max(1, round(self.bytes * fraction)))


@dataclass(frozen=True, slots=True)
class InlineImage:
    """A page image as a data URI, or the error message of a page that cannot be rendered.

    Attributes:
        uri: The image as a data URI; empty if the page cannot be rendered.
        width: Width in pixels.
        height: Height in pixels.
        reason: Error message if the page cannot be rendered; else empty.
    """

    uri: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""


def images(
    bounds: Mapping[PageKey, Bounds], evaluation: Evaluation, documents: Mapping[str, Path]
) -> dict[PageKey, InlineImage]:
    """Return the image of each page, or an error message for a page that cannot be rendered.

    Args:
        bounds: Page to show → size limits of the image.
        evaluation: The evaluation, whose results hold the paths of the screenshots in the index.
        documents: Document name → path, for pages without a screenshot. Each document is opened once, in a worker
            process.

    Returns:
        Page → image. `InlineImage.reason` is the error message of a page without an image.
    """
    screenshots = {
        page: path
        for setting in evaluation.settings
        for result in setting.per_query
        for page, path in zip(result.ranking, result.images, strict=False)
        if path is not None and page in bounds
    }
    inline: dict[PageKey, InlineImage] = {}
    for page, path in screenshots.items():
        # Ignore a missing or damaged screenshot: the last loop renders the page from the document.
        with contextlib.suppress(IndexStateError):
            inline[page] = _encode(load_image(path), bounds[page])
    missing: dict[str, list[int]] = {}
    for doc, number in bounds:
        if (doc, number) not in inline:
            missing.setdefault(doc, []).append(number)
    for doc, numbers in missing.items():
        for number, image in _render_pages(documents.get(doc), numbers):
            page = (doc, number)
            inline[page] = InlineImage(reason=image) if isinstance(image, str) else _encode(image, bounds[page])
    return inline


def _render_pages(path: Path | None, numbers: list[int]) -> Iterator[tuple[int, Image | str]]:
    """Yield the pages of a document, each as (number, image) or (number, error message)."""
    if path is None:
        yield from ((number, "docs.jsonl of the judged folder does not list the document.") for number in numbers)
        return
    remaining = list(numbers)
    try:
        with as_pdf(source_file(path), _RENDERING) as pdf, open_isolated(pdf, _RENDERING) as renderer:
            while remaining:
                try:
                    image: Image | str = renderer.render(remaining[0]).screenshot.image
                except DocumentError as error:
                    image = str(error)
                yield remaining.pop(0), image
    except (DocumentError, InvalidInputError) as error:
        yield from ((number, str(error)) for number in remaining)


def _encode(image: Image, bounds: Bounds) -> InlineImage:
    height = round(_MAX_ASPECT_RATIO * bounds.width)
    uri, size = inline_jpeg(image, width=bounds.width, height=height, max_bytes=bounds.bytes)
    return InlineImage(uri, *size)
