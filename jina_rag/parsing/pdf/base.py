"""What is the same for a PDF whatever library reads it: the page is put together here.

A renderer names its library's way to open a document and to read one page of it as `PageContents`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from jina_rag.parsing.layout.boxes import fractions
from jina_rag.parsing.layout.regions import Shapes, find_regions
from jina_rag.parsing.layout.text_lines import text_lines
from jina_rag.parsing.pdf.document_warnings import BLANK, zoom_of
from jina_rag.parsing.pdf.words import cut_words
from jina_rag.parsing.renderer import DocumentRenderer
from jina_rag.types import Box, Page, PageScreenshot, Word

if TYPE_CHECKING:
    from PIL.Image import Image

Handle: TypeAlias = Any
"""An object of a library, which has no type we could name."""


@dataclass(frozen=True, slots=True)
class PageContents:
    """What a library says of one page.

    Attributes:
        screenshot: The page as a viewer shows it.
        words: Of its text layer, boxes as fractions of the page.
        shapes: Images and vector shapes.
        hides_content: Called for a page that renders white and has none of these: whether it has content nevertheless.
    """

    screenshot: PageScreenshot
    words: Sequence[Word]
    shapes: Shapes
    hides_content: Callable[[], bool]


class PdfRenderer(DocumentRenderer):
    """A `Renderer` of one PDF. May be used from any thread, one call at a time in the whole process."""

    @abstractmethod
    def _read(self, number: int, warnings: list[str]) -> PageContents:
        """Read page `number`; what is wrong with it is added to `warnings`."""

    @abstractmethod
    def _pixels(self, page: Handle, width: float, height: float, zoom: float) -> tuple[tuple[int, int], Any]:
        """Render a page, `zoom` pixels a point: its size in pixels, and the RGB bytes."""

    def _page(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        warnings: list[str] = []
        contents = self._read(number, warnings)
        shapes = contents.shapes
        words = cut_words(contents.words, self._settings.limits.max_words, warnings)
        if _is_white(contents.screenshot.image) and (
            words or shapes.images or len(shapes.drawings) or contents.hides_content()
        ):
            warnings.append(BLANK)
        regions = (
            find_regions(shapes, text_lines(words, shapes.width, shapes.height), text_page=bool(words))
            if self._settings.regions
            else ()
        )
        page = self._make_page(number, contents.screenshot, warnings, words=words, regions=regions)
        return page, tuple(fractions(box, shapes.width, shapes.height) for box in shapes.images)

    def _screenshot(self, page: Handle, width: float, height: float, warnings: list[str]) -> PageScreenshot:
        from PIL import Image

        zoom = zoom_of(width, height, self._settings, warnings)
        size, pixels = self._pixels(page, width, height, zoom)
        return PageScreenshot(image=Image.frombuffer("RGB", size, pixels, "raw", "RGB", 0, 1), dpi=zoom * 72)


def _is_white(image: Image) -> bool:
    return all(channel[0] == 255 for channel in image.getextrema())  # type: ignore[index]
