"""Base class of the PDF renderers.

A subclass opens the document and reads the `PageContents` of a page with a PDF library. The base class turns the
`PageContents` into a `Page`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from jina_rag.parsing.layout.boxes import to_fractions
from jina_rag.parsing.layout.regions import Shapes, find_regions
from jina_rag.parsing.layout.text_lines import text_lines
from jina_rag.parsing.pdf.document_warnings import BLANK, zoom_of
from jina_rag.parsing.pdf.words import truncate_words
from jina_rag.parsing.renderer import DocumentRenderer, attempt
from jina_rag.types import Box, Page, PageScreenshot, Region, Word

if TYPE_CHECKING:
    from PIL.Image import Image

_BAND_ROWS = 64
"""Number of pixel rows that are checked at a time for pixels that are not white."""
Handle: TypeAlias = Any
"""An untyped object of a PDF library."""


@dataclass(frozen=True, slots=True)
class PageContents:
    """Contents of a page as read by a PDF library.

    Attributes:
        screenshot: The rendered page.
        words: Words of the text layer, with boxes as fractions of the page.
        shapes: Images and vector shapes of the page.
        has_hidden_content: Function that returns whether the page has content that the PDF library cannot decode. The
            function is called only for a white page without words, images and vector shapes.
    """

    screenshot: PageScreenshot
    words: Sequence[Word]
    shapes: Shapes
    has_hidden_content: Callable[[], bool]


class PdfRenderer(DocumentRenderer):
    """A thread-safe `Renderer` for a PDF. A lock allows only one call of the PDF library at a time in the process."""

    @abstractmethod
    def _read(self, number: int, warnings: list[str]) -> PageContents:
        """Return the contents of a page, and append recoverable problems of the page to `warnings`."""

    @abstractmethod
    def _pixels(self, page: Handle, width: float, height: float, zoom: float) -> tuple[tuple[int, int], Any]:
        """Render a page with `zoom` pixels per point. Return (width, height) in pixels and the RGB bytes."""

    def _page(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        warnings: list[str] = []
        contents = self._read(number, warnings)
        shapes = contents.shapes
        words = truncate_words(contents.words, self._settings.limits.max_words, warnings)
        if _is_white(contents.screenshot.image) and (
            words or shapes.images or len(shapes.drawings) or contents.has_hidden_content()
        ):
            warnings.append(BLANK)
        regions: tuple[Region, ...] = ()
        if self._settings.regions:
            regions = attempt(lambda: _regions(shapes, words), (), "charts, tables and figures", warnings)
        page = self._make_page(number, contents.screenshot, warnings, words=words, regions=regions)
        return page, tuple(to_fractions(box, shapes.width, shapes.height) for box in shapes.images)

    def _screenshot(self, page: Handle, width: float, height: float, warnings: list[str]) -> PageScreenshot:
        from PIL import Image

        zoom = zoom_of(width, height, self._settings, warnings)
        size, pixels = self._pixels(page, width, height, zoom)
        image = Image.new("RGB", size, None)  # unlike `frombuffer`, without filling the image with black before
        image.frombytes(pixels)
        return PageScreenshot(image, dpi=zoom * 72)


def _regions(shapes: Shapes, words: Sequence[Word]) -> tuple[Region, ...]:
    return find_regions(shapes, text_lines(words, shapes.width, shapes.height), text_page=bool(words))


def _is_white(image: Image) -> bool:
    # Almost every page has a dark pixel in one of the first bands.
    width, height = image.size
    bands = (image.crop((0, y, width, min(y + _BAND_ROWS, height))) for y in range(0, height, _BAND_ROWS))
    return all(channel[0] == 255 for band in bands for channel in band.getextrema())  # type: ignore[index]
