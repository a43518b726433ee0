"""Detection of the captions of charts, tables and figures."""

from __future__ import annotations

import re
from collections.abc import Sequence

from jina_rag.parsing.layout.boxes import touch
from jina_rag.parsing.layout.text_lines import TextLine
from jina_rag.types import Box, RegionKind

# Caption labels in many languages, for example "Figure". A number or colon must follow the label, so that a sentence
# that starts with the word "Figure" is not a caption.
_LABEL = re.compile(
    r"^\W{0,2}(?:fig(?:ure|ura|\.)?|table|tab\.?|chart|graph|diagram|exhibit|plate|scheme|abb(?:ildung|\.)?|tabelle|"
    r"grafik|schaubild|tableau|graphique|cuadro|tabla|gr[áa]fico|tabela|tabella|figuur|tabel|"
    r"рис(?:унок|\.)?|табл(?:ица|\.)?|график|схема|図表?|表|图|圖|그림|표|شكل|جدول|รูปที่|ตาราง(?:ที่)?|चित्र|तालिका)"
    r"\s*[-–.]?\s*(?:[\dIVX一二三四五六七八九十]+|[:：])",
    re.IGNORECASE,
)
_REACH = 40.0
_MAX_CHARACTERS = 300
_MAX_LINES = 3


def find_caption(kind: RegionKind, box: Box, lines: Sequence[TextLine]) -> str:
    """Return the caption of a region: the nearest line with a caption label, or else an adjacent title.

    Args:
        kind: Kind of the region. A title above a table takes precedence over a title below the table. For other
            kinds, a title below the region takes precedence.
        box: Box of the region, in points of the displayed page.
        lines: All text lines of the page in reading order, with boxes in points of the displayed page.

    Returns:
        The caption, at most three lines and 300 characters; empty if none was found.
    """
    caption = named_caption(box, lines)
    if caption is not None:
        return caption
    above = [i for i, line in enumerate(lines) if line.box[3] <= box[1] + 4 and _is_title(line, box)]
    below = [i for i, line in enumerate(lines) if line.box[1] >= box[3] - 4 and _is_title(line, box)]
    for side in (above, below) if kind == "table" else (below, above):
        if side:
            return lines[min(side, key=lambda index: _distance(lines[index].box, box))].text[:_MAX_CHARACTERS]
    return ""


def named_caption(box: Box, lines: Sequence[TextLine]) -> str | None:
    """Return the nearest caption with a label ("Figure 3"), at most three lines; None if the region has no label.

    Args:
        box: Box of the region, in points of the displayed page.
        lines: All text lines of the page in reading order, with boxes in points of the displayed page.
    """
    near = [index for index, line in enumerate(lines) if _distance(line.box, box) <= _REACH and _LABEL.match(line.text)]
    return _paragraph(min(near, key=lambda index: _distance(lines[index].box, box)), lines) if near else None


def _is_title(line: TextLine, box: Box) -> bool:
    """Return whether a line is directly above or below the region and contains words other than numbers."""
    return touch(line.box, box, 0, 24) and line.numbers < line.words and any(c.isalpha() for c in line.text)


def _distance(a: Box, b: Box) -> float:
    across = max(a[0] - b[2], b[0] - a[2], 0.0)
    down = max(a[1] - b[3], b[1] - a[3], 0.0)
    return across + down


def _paragraph(index: int, lines: Sequence[TextLine]) -> str:
    """Return the text of a line and of the next lines of the paragraph, at most three lines and 300 characters."""
    paragraph = [lines[index]]
    for line in lines[index + 1 : index + _MAX_LINES]:
        last = paragraph[-1]
        high = last.box[3] - last.box[1]
        if abs(line.box[1] - last.box[3]) > 0.6 * high or not touch(line.box, last.box, 0, high):
            break
        paragraph.append(line)
    return " ".join(line.text for line in paragraph)[:_MAX_CHARACTERS]
