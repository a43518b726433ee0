"""Fonts of the characters of a PDF page, read with MuPDF. The check of the text layer needs them on few pages."""

from __future__ import annotations

import re

from jina_rag.parsing.layout.boxes import bounds, clip_to_page, to_fractions, touch, union
from jina_rag.parsing.pdf.base import Handle
from jina_rag.parsing.text_layer.suspects import TextRun, is_lost
from jina_rag.types import Box

# A run ends at a gap or shift of more than this, in font sizes.
_GAP = 1.0
# A control character as the target in a ToUnicode map. MuPDF treats them as spaces between words.
_CONTROL = re.compile(rb"<00[01][0-9A-Fa-f]>\s*[\r\n]")
# Names of glyphs that say nothing about the character, for example /g21.
_UNKNOWN_NAME = re.compile(r"/(?:[A-Za-z]{1,3}|glyph|index|cid)\d{1,5}(?![0-9A-Za-z])")
# A font loses text if it has at least this many codes without a valid character.
_MIN_LOST = 3


class LostTextFonts:
    """Answers whether the fonts of a page may have characters that MuPDF returns in no word, once per font."""

    def __init__(self, document: Handle) -> None:
        self._document = document
        self._may_lose: dict[int, bool] = {}

    def any(self, page: Handle) -> bool:
        """Return whether a font of a page may have characters that are control characters in the text layer.

        Args:
            page: The ``pymupdf.Page``.
        """
        result = False
        for xref, _, kind, *_ in page.get_fonts():
            if xref not in self._may_lose:
                self._may_lose[xref] = self._check(xref, kind)
            result |= self._may_lose[xref]
        return result

    def _check(self, xref: int, kind: str) -> bool:
        if not xref:
            return False
        key, value = self._document.xref_get_key(xref, "ToUnicode")
        if key != "xref":
            key, encoding = self._document.xref_get_key(xref, "Encoding")
            if kind == "Type0":  # the codes of a composite font without a map are glyph numbers
                return bool(encoding.startswith("/Identity"))
            if key == "xref":
                encoding = self._document.xref_object(int(encoding.split()[0]))
            return len(_UNKNOWN_NAME.findall(encoding)) >= _MIN_LOST
        return len(_CONTROL.findall(self._document.xref_stream(int(value.split()[0])) or b"")) >= _MIN_LOST


def read_runs(library: Handle, page: Handle, to_display: Handle, width: float, height: float) -> list[TextRun]:
    """Return the runs of characters of a page in the order of the text layer.

    Args:
        library: The module ``pymupdf``.
        page: The ``pymupdf.Page`` with the rotation 0.
        to_display: Matrix to points of the displayed page.
        width: Width of the displayed page in points.
        height: Height of the displayed page in points.
    """
    # Without the prefix of the subset, two fonts with the same name would be one font.
    library.TOOLS.set_subset_fontnames(True)
    try:
        spans = page.get_texttrace()
    finally:
        library.TOOLS.set_subset_fontnames(False)
    spans.sort(key=lambda span: span["seqno"])
    runs: list[TextRun] = []
    for span in spans:
        for box, lost, length in _split(span):
            corners = bounds(tuple(library.Point(x, y) * to_display) for x in box[::2] for y in box[1::2])
            clipped = clip_to_page(corners, width, height)
            if clipped:
                runs.append(TextRun(span["font"], to_fractions(clipped, width, height), lost, length))
    return runs


def _split(span: dict[str, Handle]) -> list[tuple[Box, int, int]]:
    """Return (box, lost characters, characters) of each part of a span without a wide gap."""
    parts: list[tuple[Box, int, int]] = []
    gap = _GAP * span["size"]
    last: Box | None = None
    for code, _, _, box in span["chars"]:
        if code in (0x20, 0xA0):
            continue
        lost = int(is_lost(code))
        if last and touch(last, box, gap, gap) and _is_level(last, box):
            around, lost_before, length = parts[-1]
            parts[-1] = union(around, box), lost_before + lost, length + 1
        else:
            parts.append((box, lost, 1))
        last = box
    return parts


def _is_level(last: Box, box: Box) -> bool:
    """Return whether two characters are on one line, horizontal or vertical."""
    return any(
        min(last[axis + 2], box[axis + 2]) - max(last[axis], box[axis]) > 0.5 * (box[axis + 2] - box[axis])
        for axis in (0, 1)
    )
