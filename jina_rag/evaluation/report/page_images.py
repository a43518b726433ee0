"""Pictures of pages for the report: taken from the index where it has them, rendered from the files where not."""

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
_TALL = 1.45
"""Height of a picture over its width, at most; a page of A4 has 1.41."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large a picture may be: its width in pixels, and the bytes of its JPEG."""

    width: int
    bytes: int

    def part(self, share: float) -> Bounds:
        """Bounds for a picture of that share of the bytes, and of the pixels."""
        return Bounds(max(1, round(self.width * math.sqrt(share))), max(1, round(self.bytes * share)))


@dataclass(frozen=True, slots=True)
class InlineImage:
    """A page as a data URI with its size in pixels, or the reason why there is none."""

    uri: str = ""
    width: int = 0
    height: int = 0
    reason: str = ""


def images(
    bounds: Mapping[PageKey, Bounds], evaluation: Evaluation, documents: Mapping[str, Path]
) -> dict[PageKey, InlineImage]:
    """A picture of each page.

    Args:
        bounds: Page → how large its picture may be.
        evaluation: Its rankings say where the index keeps screenshots.
        documents: Document → file, for pages that no setting has found. Each is opened once, in a worker process.
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
        # A screenshot that is gone or damaged is no loss: the file has the page, too.
        with contextlib.suppress(IndexStateError):
            inline[page] = _encoded(load_image(path), bounds[page])
    missing: dict[str, list[int]] = {}
    for doc, number in bounds:
        if (doc, number) not in inline:
            missing.setdefault(doc, []).append(number)
    for doc, numbers in missing.items():
        for number, image in _rendered(documents.get(doc), numbers):
            page = (doc, number)
            inline[page] = InlineImage(reason=image) if isinstance(image, str) else _encoded(image, bounds[page])
    return inline


def _rendered(path: Path | None, numbers: list[int]) -> Iterator[tuple[int, Image | str]]:
    """Pages of one document, each as pixels or as the reason why not."""
    if path is None:
        yield from ((number, "The document is not among the files.") for number in numbers)
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


def _encoded(image: Image, bounds: Bounds) -> InlineImage:
    height = round(_TALL * bounds.width)
    uri, size = inline_jpeg(image, width=bounds.width, height=height, max_bytes=bounds.bytes)
    return InlineImage(uri, *size)
