"""Detection of tables from parallel rules and rows of text. Boxes are in points of the displayed page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from jina_rag.parsing.layout.boxes import area, intersection, union
from jina_rag.parsing.layout.text_lines import TextLine
from jina_rag.types import Box, Float32

# Maximum thickness and minimum length of a rule (a thin horizontal line) in points.
RULE_THICKNESS = 3.0
_RULE_LENGTH = 40.0
_ROW_HEIGHT = 40.0
_RULE_JOINT = 4.0
_MAX_RULES = 300


def ruled_tables(drawings: Float32, figures: Sequence[Box], lines: Sequence[TextLine]) -> list[Box]:
    """Return the boxes of tables that consist of aligned horizontal rules of equal length with words between the rules.

    Args:
        drawings: Boxes of the vector shapes, shape (n, 4), float32.
        figures: Boxes of figures. Rules inside a figure are ignored.
        lines: Text lines of the page, with boxes in points of the displayed page.
    """
    # With an array, a page of hundreds of rules and thousands of words takes seconds instead of minutes.
    texts = np.array([line.box for line in lines], dtype=np.float64).reshape(-1, 4)
    groups: list[Box] = []
    ends: list[Box] = []
    for rule in _rules(drawings):
        if any(intersection(rule, box) > 0.5 * area(rule) for box in figures):
            continue
        for index, last in enumerate(ends):
            if _same_extent(last, rule) and _is_tabular((last[0], last[1], last[2], rule[3]), texts):
                groups[index], ends[index] = union(groups[index], rule), rule
                break
        else:
            groups.append(rule)
            ends.append(rule)
    return [
        group
        for group, end in zip(groups, ends, strict=True)
        # The grid lines of a chart also have equal length, but no words are between the lines.
        if group != end and _is_tabular(group, texts)
    ]


def _rules(drawings: Float32) -> list[Box]:
    """Return the horizontal rules from top to bottom. The segments of an interrupted rule are joined."""
    is_thin = (drawings[:, 3] - drawings[:, 1] <= RULE_THICKNESS) & (drawings[:, 2] - drawings[:, 0] > RULE_THICKNESS)
    pieces = drawings[is_thin]
    rows = np.round((pieces[:, 1] + pieces[:, 3]) / 2)
    rules: list[Box] = []
    row = None
    for index in np.lexsort((pieces[:, 0], rows)).tolist():
        x0, y0, x1, y1 = pieces[index].tolist()
        if rules and row == rows[index] and x0 - rules[-1][2] <= _RULE_JOINT:
            rules[-1] = union(rules[-1], (x0, y0, x1, y1))
        else:
            rules.append((x0, y0, x1, y1))
        row = rows[index]
    return [rule for rule in rules if rule[2] - rule[0] >= _RULE_LENGTH][:_MAX_RULES]


def _same_extent(a: Box, b: Box) -> bool:
    both = min(a[2], b[2]) - max(a[0], b[0])
    return both >= 0.9 * max(a[2] - a[0], b[2] - b[0])


def _is_tabular(box: Box, texts: npt.NDArray[np.float64]) -> bool:
    """Return whether the text in a box forms columns. A box without text is tabular if no row fits into the box."""
    sizes = (np.minimum(texts[:, 2:], box[2:]) - np.maximum(texts[:, :2], box[:2])).clip(0)
    areas = (texts[:, 2:] - texts[:, :2]).clip(0)
    inside = texts[sizes[:, 0] * sizes[:, 1] > 0.5 * areas[:, 0] * areas[:, 1]]
    if not len(inside):
        return box[3] - box[1] < _ROW_HEIGHT
    return has_columns([(x0, y0, x1, y1) for x0, y0, x1, y1 in inside.tolist()])


def has_columns(pieces: Sequence[Box]) -> bool:
    """Return whether at least half of the text rows have several pieces. Multi-line cells add rows with one piece.

    Args:
        pieces: Boxes of the text lines, in points of the displayed page. Each cell of a row is a piece.
    """
    rows: list[list[float]] = []  # vertical center, half of the height, number of pieces
    for _, y0, _, y1 in sorted(pieces, key=lambda box: box[1] + box[3]):
        middle = (y0 + y1) / 2
        if rows and middle - rows[-1][0] < rows[-1][1]:
            rows[-1][2] += 1
        else:
            rows.append([middle, (y1 - y0) / 2, 1])
    return sum(1 for row in rows if row[2] > 1) >= 0.5 * len(rows)
