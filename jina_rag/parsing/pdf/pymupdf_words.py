"""Words of a PDF page with their colors, and pictures of a page without its text, read with MuPDF."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

from jina_rag.parsing.layout.boxes import area, bounds, clip_box, intersection
from jina_rag.parsing.pdf.base import Handle
from jina_rag.parsing.pdf.ligatures import has_right_to_left, words_in_order
from jina_rag.parsing.pdf.words import Color, LayerWord
from jina_rag.types import Box

# Bits of the `char_flags` of a span: the characters are filled, stroked, or part of a clip path.
_FILLED, _STROKED, _CLIPPED = 16, 32, 64
# Text with a lower opacity (0 to 255) counts as transparent.
_OPACITY = 12
# Distance of the origin of a character from its top in vertical writing mode, as a fraction of the font size.
_VERTICAL_ORIGIN = 0.88
# The operator that sets the text render mode, and the same operator for invisible text.
_RENDER_MODE = re.compile(rb"(?<![^\s\])>])[0-7]\s+Tr(?![^\s/\[(<])")
_INVISIBLE = b"3 Tr"
# Stands for the line of a word that the dictionary of the page lacks.
_NO_LINE: dict[str, Any] = {"spans": (), "wmode": 0}
# Minimum fraction of a word that a shape covers.
_COVERED = 0.9


def read_words(library: Handle, page: Handle) -> list[LayerWord]:
    """Return the words of a page in the order of the text layer, with boxes in points of the unrotated page.

    Args:
        library: The module ``pymupdf``.
        page: A ``pymupdf.Page`` whose rotation is set to 0.
    """
    # With these flags, MuPDF expands ligatures and returns unmapped codes as U+FFFD, which `clean_words` drops.
    flags = library.TEXT_PRESERVE_WHITESPACE | library.TEXT_MEDIABOX_CLIP
    text_page = page.get_textpage(flags=flags)
    entries = text_page.extractWORDS()
    if not entries:
        return [LayerWord(text, box) for text, box in _words_without_width(page, flags)]
    blocks = None
    if any(has_right_to_left(entry[4]) for entry in entries):
        with suppress(SystemError):  # PyMuPDF cannot return some invalid characters; the words keep the order of MuPDF
            blocks = text_page.extractRAWDICT()["blocks"]
            entries = words_in_order(entries, blocks)
    if blocks is None:
        blocks = text_page.extractDICT()["blocks"]
    lines: dict[tuple[int, int], dict[str, Any]] = {
        (block["number"], number): line for block in blocks for number, line in enumerate(block.get("lines", ()))
    }
    words: list[LayerWord] = []
    key: tuple[int, int] | None = None
    spans = _Spans(())
    shift = 0.0, 0.0
    for x0, y0, x1, y1, text, block, number, _ in entries:
        if (block, number) != key:
            key = block, number
            line = lines.get(key, _NO_LINE)
            spans, shift = _Spans(line["spans"]), _vertical_shift(line)
        words += spans.split(text, (x0 - shift[0], y0 - shift[1], x1 - shift[0], y1 - shift[1]))
    return words


def _vertical_shift(line: dict[str, Any]) -> tuple[float, float]:
    """Return (x, y) by which MuPDF moves the boxes of a line in vertical writing mode: from the top to the origin."""
    if line["wmode"] != 1:
        return 0.0, 0.0
    distance = _VERTICAL_ORIGIN * max(span["size"] for span in line["spans"])
    return distance * line["dir"][0], distance * line["dir"][1]


class _Spans:
    """The spans of a line: runs of characters of one font and color. `split` is called for each word in order."""

    def __init__(self, spans: Sequence[dict[str, Any]]) -> None:
        self._spans = spans
        self._text = "".join(span["text"] for span in spans)
        self._at = 0

    def split(self, text: str, box: Box) -> list[LayerWord]:
        """Return the parts of a word that differ in color. Almost every word has one part."""
        if len(self._spans) <= 1:
            return [_word(text, box, self._spans)]
        start = self._text.find(text, self._at)
        if start < 0:  # the word has characters that the spans do not have
            return [_word(text, box, self._spans[:1])]
        self._at = start + len(text)
        parts: list[tuple[str, list[dict[str, Any]]]] = []
        offset = 0
        for span in self._spans:
            first, last = max(start, offset), min(self._at, offset + len(span["text"]))
            offset += len(span["text"])
            if first >= last:
                continue
            piece = text[first - start : last - start]
            if parts and _paint(parts[-1][1][0]) == _paint(span):
                parts[-1] = parts[-1][0] + piece, [*parts[-1][1], span]
            else:
                parts.append((piece, [span]))
        if len(parts) == 1:
            return [_word(text, box, parts[0][1])]
        return [
            _word(piece, _part_of(box, spans), spans, continues=number > 0)
            for number, (piece, spans) in enumerate(parts)
        ]


def _paint(span: dict[str, Any]) -> tuple[Color | None, bool]:
    """Return the color of a span, None if it is unknown, and whether the span is painted."""
    flags = span.get("char_flags", _FILLED)
    if flags & _CLIPPED:  # a picture or pattern is painted through the letters
        return None, True
    color = span["color"]
    rgb = (color >> 16) & 255, (color >> 8) & 255, color & 255
    return rgb, bool(flags & (_FILLED | _STROKED)) and span.get("alpha", 255) >= _OPACITY


def _word(text: str, box: Box, spans: Sequence[dict[str, Any]], *, continues: bool = False) -> LayerWord:
    if not spans:
        return LayerWord(text, box)
    return LayerWord(text, box, *_paint(spans[0]), max(span["size"] for span in spans), continues)


def _part_of(box: Box, spans: Sequence[dict[str, Any]]) -> Box:
    """Return the part of the box of a word that the spans cover."""
    around = bounds(point for span in spans for point in (span["bbox"][:2], span["bbox"][2:]))
    return clip_box(box, around) or box


def _words_without_width(page: Handle, flags: int) -> Iterator[tuple[str, Box]]:
    """Yield the words of fonts with invalid widths. PyMuPDF omits words with empty boxes.

    Each word gets the box of the text block, widened so that the width is at least the height.
    """
    for x0, y0, x1, y1, text, *_ in page.get_text("blocks", flags=flags):
        for word in text.split():
            yield word, (x0, y0, max(x1, x0 + y1 - y0), y1)


@contextmanager
def without_text(document: Handle, number: int) -> Iterator[Handle]:
    """Open a page whose text is invisible. Annotations keep their text. The document is restored on exit.

    Args:
        document: The ``pymupdf.Document``.
        number: Page number, 1-based.

    Yields:
        The ``pymupdf.Page``, a second object beside the page of the caller.
    """
    page = document.load_page(number - 1)
    xref = page.xref
    kind, contents = document.xref_get_key(xref, "Contents")
    changed = document.get_new_xref()
    document.update_object(changed, "<<>>")
    document.update_stream(changed, _INVISIBLE + b" " + _RENDER_MODE.sub(_INVISIBLE, page.read_contents()))
    document.xref_set_key(xref, "Contents", f"{changed} 0 R")
    try:
        yield document.load_page(number - 1)
    finally:
        document.xref_set_key(xref, "Contents", contents if kind != "null" else "null")


@contextmanager
def unrotated(page: Handle) -> Iterator[None]:
    """Set the rotation of a page to 0, because PyMuPDF mixes rotated and unrotated coordinates on rotated pages."""
    rotation = page.rotation
    page.set_rotation(0)
    try:
        yield
    finally:
        page.set_rotation(rotation)


class MuPdfPaintOrder:
    """A `PaintOrder` of a page that is open in MuPDF.

    Args:
        page: A ``pymupdf.Page`` whose rotation is set to 0.
        to_display: Function that converts a box from the unrotated page to the displayed page.
    """

    def __init__(self, page: Handle, to_display: Callable[[Box], Box]) -> None:
        self._page = page
        self._to_display = to_display
        # The operations are numbered as in `Page.get_texttrace`.
        operations = list(enumerate(page.get_bboxlog()))
        self._images = [(number, to_display(box)) for number, (kind, box) in operations if kind == "fill-image"]
        self._paths = [(number, to_display(box)) for number, (kind, box) in operations if kind == "fill-path"]
        self._texts = [(number, to_display(box)) for number, (kind, box) in operations if kind.endswith("-text")]

    def is_behind_image(self, word: LayerWord) -> bool:
        """Return whether an image may be painted over a word.

        Args:
            word: The word.
        """
        covers = [number for number, box in self._images if intersection(box, word.box) > 0.5 * area(word.box)]
        if not covers:
            return False
        x, y = _center(word)
        return any(number < covers[-1] and _contains(box, x, y) for number, box in self._texts)

    def is_replaced(self, below: LayerWord, above: LayerWord) -> bool:
        """Return whether a shape or image is painted over a word before another word is painted at the same place.

        Args:
            below: The word that may be covered.
            above: The other word.
        """
        covers = [
            number
            for number, box in (*self._images, *self._paths)
            if intersection(box, below.box) >= _COVERED * area(below.box)
        ]
        if not covers:
            return False
        first, last = min(self._numbers(below), default=None), max(self._numbers(above), default=None)
        return first is not None and last is not None and any(first < number < last for number in covers)

    def _numbers(self, word: LayerWord) -> list[int]:
        """Return the numbers of the drawing operations that may paint a word."""
        x, y = _center(word)
        return [number for number, text, box in self._lines if word.text in text and _contains(box, x, y)]

    @cached_property
    def _lines(self) -> list[tuple[int, str, Box]]:
        with unrotated(self._page):
            return [
                (
                    span["seqno"],
                    "".join(chr(character[0]) for character in span["chars"]),
                    self._to_display(span["bbox"]),
                )
                for span in self._page.get_texttrace()
            ]


def _center(word: LayerWord) -> tuple[float, float]:
    return (word.box[0] + word.box[2]) / 2, (word.box[1] + word.box[3]) / 2


def _contains(box: Box, x: float, y: float) -> bool:
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]
