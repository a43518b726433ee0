"""Fonts of the characters of a PDF page, read with MuPDF. The check of the text layer needs them on few pages."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jina_rag.parsing.layout.boxes import clip_to_page, to_fractions
from jina_rag.parsing.pdf.base import Handle
from jina_rag.parsing.text_layer.suspects import TextRun, is_lost

# A run ends at a gap or shift of more than this, in font sizes.
_GAP = 1.0
_SPACES = (0x20, 0xA0)
# Two spans of fonts with the same name have the same font if at least this share of their common glyphs are equal.
_EQUAL_SHARE = 0.5
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
    fonts = _font_names(spans)
    codes = np.array([char[0] for span in spans for char in span["chars"]], np.int64)
    boxes = np.array([char[3] for span in spans for char in span["chars"]], np.float64).reshape(-1, 4)
    owners = np.repeat(np.arange(len(spans)), [len(span["chars"]) for span in spans])
    is_letter = ~np.isin(codes, _SPACES)
    codes, boxes, owners = codes[is_letter], boxes[is_letter], owners[is_letter]
    if not len(codes):
        return []
    sizes = np.array([span["size"] for span in spans], np.float64)
    starts = _starts(boxes, owners, _GAP * sizes[owners])
    lost_codes = [code for code in np.unique(codes).tolist() if is_lost(code)]
    lost = np.add.reduceat(np.isin(codes, lost_codes).astype(np.int64), starts)
    lengths = np.diff(np.append(starts, len(codes)))
    low, high = np.minimum.reduceat(boxes[:, :2], starts), np.maximum.reduceat(boxes[:, 2:], starts)
    around = _transformed(np.concatenate([low, high], axis=1), tuple(to_display))
    runs: list[TextRun] = []
    for owner, box, lost_count, length in zip(
        owners[starts].tolist(), around.tolist(), lost.tolist(), lengths.tolist(), strict=True
    ):
        clipped = clip_to_page(tuple(box), width, height)
        if clipped:
            runs.append(TextRun(fonts[owner], to_fractions(clipped, width, height), lost_count, length))
    return runs


def _font_names(spans: Sequence[dict[str, Any]]) -> list[str]:
    """Return the name of the font of each span, numbered if fonts with different character maps have one name.

    In one font, a glyph has one character. Two fonts with the same name differ in the characters of their glyphs.
    """
    names: list[str] = []
    maps: defaultdict[str, list[dict[int, int]]] = defaultdict(list)
    for span in spans:
        characters = {glyph: code for code, glyph, *_ in span["chars"] if glyph >= 0 and code not in _SPACES}
        candidates = maps[span["font"]]
        shares = [_share_of_equal(characters, candidate) for candidate in candidates]
        number = shares.index(max(shares)) if shares and max(shares) >= _EQUAL_SHARE else len(candidates)
        if number == len(candidates):
            candidates.append({})
        candidates[number].update(characters)
        names.append(f"{span['font']} ({number + 1})" if number else span["font"])
    return names


def _share_of_equal(a: dict[int, int], b: dict[int, int]) -> float:
    """Return the share of the glyphs of both maps that have the same character; `_EQUAL_SHARE` without such glyphs."""
    common = a.keys() & b.keys()
    return sum(a[glyph] == b[glyph] for glyph in common) / len(common) if common else _EQUAL_SHARE


def _starts(
    boxes: npt.NDArray[np.float64], owners: npt.NDArray[np.intp], gaps: npt.NDArray[np.float64]
) -> npt.NDArray[np.intp]:
    """Return the index of the first character of each run.

    Args:
        boxes: Boxes of the characters, shape (n, 4).
        owners: Span of each character, shape (n,).
        gaps: Maximum gap before each character, shape (n,).
    """
    last, box, gap = boxes[:-1], boxes[1:], gaps[1:, None]
    # Two neighbors of a run touch, and are on one line, horizontal or vertical.
    touches = (last[:, :2] - gap <= box[:, 2:]) & (box[:, :2] - gap <= last[:, 2:])
    overlaps = np.minimum(last[:, 2:], box[:, 2:]) - np.maximum(last[:, :2], box[:, :2])
    is_level = overlaps > 0.5 * (box[:, 2:] - box[:, :2])
    continues = (owners[1:] == owners[:-1]) & touches.all(axis=1) & is_level.any(axis=1)
    return np.flatnonzero(np.append(True, ~continues))


def _transformed(boxes: npt.NDArray[np.float64], matrix: tuple[float, ...]) -> npt.NDArray[np.float64]:
    """Return the boxes around transformed boxes, shape (n, 4)."""
    a, b, c, d, e, f = matrix
    xs = np.stack([a * boxes[:, x] + c * boxes[:, y] + e for x in (0, 2) for y in (1, 3)])
    ys = np.stack([b * boxes[:, x] + d * boxes[:, y] + f for x in (0, 2) for y in (1, 3)])
    return np.stack([xs.min(axis=0), ys.min(axis=0), xs.max(axis=0), ys.max(axis=0)], axis=1)
