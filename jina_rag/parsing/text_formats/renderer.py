"""Renderer of the text formats with MuPDF, which lays out the text on pages of A4."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final

import numpy as np

from jina_rag.errors import DocumentError
from jina_rag.parsing.layout.regions import Shapes
from jina_rag.parsing.pdf.base import PageContents
from jina_rag.parsing.pdf.pymupdf_renderer import PyMuPdfRenderer, load_library
from jina_rag.parsing.pdf.pymupdf_shapes import find_drawings
from jina_rag.parsing.pdf.visibility import Pixels
from jina_rag.parsing.pdf.words import LayerWord, place_words
from jina_rag.parsing.renderer import attempt
from jina_rag.parsing.text_formats.formats import text_format
from jina_rag.parsing.text_formats.markup import Markup, to_html
from jina_rag.types import Box, SuspectText, Word

_A4: Final = (595.0, 842.0)
"""Width and height of a page in points."""
_FONT_SIZE: Final = 11
_USER_STYLE: Final = (
    "body { overflow-wrap: break-word; } pre { white-space: pre-wrap; } td, th { overflow-wrap: normal; }"
)
"""Style of all documents: long words and lines of code continue on the next line instead of beyond the page. In tables,
MuPDF would break short words, too."""
_MARGIN: Final = 36
"""Space in points between a table that is wider than a page and the right edge of the wider page."""
_MAX_WIDTH: Final = 2_400
"""Maximum width of a page in points."""
_MEASURED_PAGES: Final = 500
"""Number of pages whose width is measured."""
_CUT: Final = (
    "The text is wider than the page, and its right part is missing. Convert the file to PDF to index all text."
)
_UNREADABLE: Final = "The file cannot be read as text"
_MIN_CONTRAST: Final = 12
"""Difference of the brightest and the darkest value of a color, 0 to 255, below which a word cannot be seen."""


class TextRenderer(PyMuPdfRenderer):
    """A `Renderer` for HTML, EPUB, Markdown, plain text, tables and mail.

    No other file and no address is read: the document is opened from memory.
    """

    def _open(self, resources: ExitStack) -> tuple[int, tuple[str, ...]]:
        if self._settings.renderer == "pypdfium2":
            raise DocumentError(
                "Text files are rendered with PyMuPDF only. Omit renderer (--renderer), or convert the file to PDF."
            )
        self._pymupdf = load_library()
        path = self._source.path
        kind = text_format(path)
        if kind is None:
            raise DocumentError("The suffix does not name a text format. Rename the file.")
        markup = Markup("")
        with self._convert_errors(_UNREADABLE):
            if kind == "epub":
                content, file_type = path.read_bytes(), "epub"
            else:
                markup = to_html(path, kind)
                content, file_type = markup.html.encode("utf-8", "replace"), "html"
            self._pymupdf.mupdf.fz_set_user_css(_USER_STYLE)
            self._document = self._pymupdf.open(stream=content, filetype=file_type)
            resources.callback(self._document.close)
            if self._document.needs_pass:
                raise DocumentError("The file is protected. Convert the file to PDF with a program that can open it.")
            is_cut = self._lay_out(*(reversed(_A4) if markup.is_wide else _A4))
            return self._document.page_count, (*_warnings(markup), *[_CUT] * is_cut)

    def _lay_out(self, width: float, height: float) -> bool:
        """Lay out the pages, wider if a table or an image is wider. Return whether text is still beyond the edge."""
        self._document.layout(width=width, height=height, fontsize=_FONT_SIZE)
        right = self._right_edge()
        if right <= width:
            return False
        wider = min(right + _MARGIN, _MAX_WIDTH)
        self._document.layout(width=wider, height=height * wider / width, fontsize=_FONT_SIZE)
        return self._right_edge() > wider

    def _right_edge(self) -> float:
        """Return the right edge of the contents of the widest page, in points."""
        mupdf = self._pymupdf.mupdf
        right = 0.0
        for page in itertools.islice(self._document, _MEASURED_PAGES):
            box = mupdf.FzRect(mupdf.FzRect.Fixed_EMPTY)
            device = mupdf.fz_new_bbox_device(box)
            mupdf.fz_run_page(page.this, device, mupdf.FzMatrix(), mupdf.FzCookie())
            mupdf.fz_close_device(device)
            right = max(right, box.x1)
        return right

    def _read(self, number: int, warnings: list[str]) -> PageContents:
        page = self._document.load_page(number - 1)
        width, height = page.rect.width, page.rect.height
        screenshot, pixels = self._screenshot(page, width, height, warnings)
        identity = self._pymupdf.Identity
        words: list[LayerWord] = attempt(lambda: self._words(page, identity, width, height), [], "words", warnings)
        images: tuple[Box, ...] = attempt(lambda: self._images(page, identity, width, height), (), "images", warnings)
        drawings: tuple[Any, ...] = ()
        if self._settings.regions:
            drawings = attempt(lambda: find_drawings(page, identity, width, height), drawings, "drawings", warnings)
        return PageContents(
            screenshot,
            pixels,
            words,
            Shapes(width, height, images, *drawings),
            read_order=lambda: self._paint_order(number, width),
            has_hidden_content=lambda: False,
            has_lost_picture=lambda _: False,
        )

    def _suspects(self, number: int, contents: PageContents, words: Sequence[Word]) -> tuple[SuspectText, ...]:
        return ()  # the text comes from the file itself, not from fonts

    def _visible_words(self, number: int, contents: PageContents, warnings: list[str]) -> Sequence[Word]:
        scale = contents.screenshot.dpi / 72
        visible = [_is_visible(contents.pixels, word, scale) for word in contents.words]
        return place_words(contents.words, visible, contents.shapes.width, contents.shapes.height)


def _warnings(markup: Markup) -> tuple[str, ...]:
    if not markup.missing_images:
        return ()
    count = f"{markup.missing_images:,} image" + "s" * (markup.missing_images > 1)
    return (f"The file refers to {count} outside the file, not shown. Save the file as PDF to index the images.",)


def _is_visible(pixels: Pixels, word: LayerWord, scale: float) -> bool:
    """Return whether the pixels of a word have different colors: white text on white has none."""
    left, top, right, bottom = (round(side * scale) for side in word.box)
    area = pixels[max(top, 0) : bottom + 1, max(left, 0) : right + 1]
    return bool(area.size) and int(np.ptp(area.reshape(-1, 3), axis=0).max()) >= _MIN_CONTRAST
