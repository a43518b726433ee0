"""Base class of the PDF renderers.

A subclass opens the document and reads the `PageContents` of a page with a PDF library. The base class turns the
`PageContents` into a `Page`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from jina_rag.parsing.layout.boxes import to_fractions
from jina_rag.parsing.layout.regions import Shapes, find_regions
from jina_rag.parsing.layout.text_lines import text_lines
from jina_rag.parsing.pdf.document_warnings import picture_zoom_of, zoom_of
from jina_rag.parsing.pdf.undrawn import find_undrawn
from jina_rag.parsing.pdf.visibility import Drawing, PaintOrder, Pixels, TextFreePage, find_visible
from jina_rag.parsing.pdf.words import LayerWord, place_words, truncate_words
from jina_rag.parsing.renderer import DocumentRenderer, attempt
from jina_rag.parsing.slices import MAX_ASPECT
from jina_rag.parsing.text_layer.suspects import TextRun, find_suspects
from jina_rag.types import Box, Page, PageScreenshot, Region, SuspectText, Word

Handle: TypeAlias = Any
"""An untyped object of a PDF library."""


@dataclass(frozen=True, slots=True)
class PageContents:
    """Contents of a page as read by a PDF library.

    Attributes:
        screenshot: The rendered page.
        pixels: Pixels of `screenshot`, RGB, shape (height, width, 3), uint8.
        words: Words of the text layer as `clean_words` returns them, visible or not.
        shapes: Images and vector shapes of the page.
        read_order: Function that reads the order in which the contents of the page are painted. It is called for few
            pages.
        has_hidden_content: Function that returns whether the page has content that the PDF library cannot decode. The
            function is called only for a white page without words, colored images and vector shapes.
        has_lost_picture: Function that returns whether the PDF library cannot decode a raster image of the page. The
            argument says whether the screenshot has a single color on the page or in an image.
        has_colored_picture: Function that returns whether a raster image of the page has pixels that are not white. The
            function is called only for a white page with images.
    """

    screenshot: PageScreenshot
    pixels: Pixels
    words: Sequence[LayerWord]
    shapes: Shapes
    read_order: Callable[[], PaintOrder]
    has_hidden_content: Callable[[], bool]
    has_lost_picture: Callable[[bool], bool]
    has_colored_picture: Callable[[], bool] = lambda: True


class PdfRenderer(DocumentRenderer):
    """A thread-safe `Renderer` for a PDF. A lock allows only one call of the PDF library at a time in the process."""

    @abstractmethod
    def _read(self, number: int, warnings: list[str]) -> PageContents:
        """Return the contents of a page, and append recoverable problems of the page to `warnings`."""

    @abstractmethod
    def _pixels(self, page: Handle, width: float, height: float, zoom: float) -> tuple[tuple[int, int], Any]:
        """Render a page with `zoom` pixels per point. Return (width, height) in pixels and the RGB bytes."""

    @abstractmethod
    def _pictures(self, page: Handle) -> Iterable[tuple[float, float]]:
        """Return the number of pixels of each raster image of a page, and its area as a fraction of the page."""

    @abstractmethod
    def _draw_without_text(self, number: int, contents: PageContents) -> TextFreePage:
        """Render a page without its text, at the resolution of the screenshot.

        Args:
            number: Page number, 1-based.
            contents: The contents of the page.
        """

    @abstractmethod
    def _runs(self, number: int, width: float, height: float) -> list[TextRun]:
        """Return the fonts of a page as runs of characters, in the order of the text layer.

        Args:
            number: Page number, 1-based.
            width: Width of the displayed page in points.
            height: Height of the displayed page in points.
        """

    @abstractmethod
    def _may_lose_text(self, number: int) -> bool:
        """Return whether the text layer of a page may have characters without a valid code."""

    def _page(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        warnings: list[str] = []
        contents = self._read(number, warnings)
        shapes = contents.shapes
        words = self._visible_words(number, contents, warnings)
        words = truncate_words(words, self._settings.limits.max_words, warnings)
        warnings += attempt(lambda: _undrawn(contents), [], "colors", warnings)
        regions: tuple[Region, ...] = ()
        if self._settings.regions:
            regions = attempt(lambda: _regions(shapes, words), (), "charts, tables and figures", warnings)
        suspects: tuple[SuspectText, ...] = attempt(
            lambda: self._suspects(number, contents, words), (), "the text layer's characters", warnings
        )
        page = self._make_page(number, contents.screenshot, warnings, words=words, regions=regions)
        if suspects:
            page = replace(page, suspects=suspects)
        return page, tuple(to_fractions(box, shapes.width, shapes.height) for box in shapes.images)

    def _suspects(self, number: int, contents: PageContents, words: Sequence[Word]) -> tuple[SuspectText, ...]:
        width, height = contents.shapes.width, contents.shapes.height
        return find_suspects(
            contents.screenshot.image,
            words,
            lambda: self._runs(number, width, height),
            any_lost=self._may_lose_text(number),
        )

    def _visible_words(self, number: int, contents: PageContents, warnings: list[str]) -> Sequence[Word]:
        words, shapes = contents.words, contents.shapes

        drawing = Drawing(
            shapes.images,
            contents.pixels,
            contents.screenshot.dpi / 72,
            draw_without_text=lambda: self._draw_without_text(number, contents),
            read_order=cache(contents.read_order),
        )
        visible = attempt(lambda: find_visible(words, drawing), [True] * len(words), "hidden words", warnings)
        return place_words(words, visible, shapes.width, shapes.height)

    def _screenshot(
        self, page: Handle, width: float, height: float, warnings: list[str]
    ) -> tuple[PageScreenshot, Pixels]:
        """Return the rendered page, and its RGB pixels, shape (height, width, 3), uint8."""
        from PIL import Image

        picture_zoom = 0.0
        if max(width, height) > MAX_ASPECT * min(width, height):
            picture_zoom = picture_zoom_of(self._pictures(page), width, height)
        zoom = zoom_of(width, height, self._settings, warnings, picture_zoom=picture_zoom)
        size, pixels = self._pixels(page, width, height, zoom)
        image = Image.new("RGB", size, None)  # unlike `frombuffer`, without filling the image with black before
        image.frombytes(pixels)
        array = np.frombuffer(pixels, dtype=np.uint8).reshape(size[1], size[0], 3)
        return PageScreenshot(image, dpi=zoom * 72), array


def _regions(shapes: Shapes, words: Sequence[Word]) -> tuple[Region, ...]:
    return find_regions(shapes, text_lines(words, shapes.width, shapes.height), text_page=bool(words))


def _undrawn(contents: PageContents) -> list[str]:
    return find_undrawn(
        contents.pixels,
        contents.shapes,
        has_words=bool(contents.words),
        has_colored_picture=contents.has_colored_picture,
        has_hidden_content=contents.has_hidden_content,
        has_lost_picture=contents.has_lost_picture,
    )
