"""Vector shapes of a PDF page, read with MuPDF."""

from __future__ import annotations

from typing import Any

from jina_rag.parsing.layout.boxes import bounds, clip_box
from jina_rag.parsing.pdf.drawings import MANY_SHAPES, MAX_PIECES, WHITE, Drawings, place_drawings
from jina_rag.types import Box


def find_drawings(
    page: Any,  # noqa: ANN401  # a pymupdf.Page
    to_display: Any,  # noqa: ANN401  # a pymupdf.Matrix
    width: float,
    height: float,
) -> Drawings:
    """Return the visible vector shapes of a page.

    Args:
        page: A pymupdf.Page whose rotation is set to 0.
        to_display: A pymupdf.Matrix from page coordinates to the displayed page.
        width: Width of the displayed page in points.
        height: Height of the displayed page in points.

    Returns:
        (boxes, curved): boxes in points of the displayed page, clipped to the page, shape (n, 4), float32; whether each
        shape has curves, shape (n,), bool.
    """
    boxes: list[Box] = []
    curved: list[bool] = []
    clips: list[tuple[int, Box]] = []
    for path in page.get_cdrawings(extended=True):
        while clips and clips[-1][0] >= path["level"]:
            clips.pop()
        if path["type"] == "clip":
            clips.append((path["level"], path["scissor"]))
            continue
        if path["type"] == "group" or _is_invisible(path):
            continue
        items = path["items"]
        curves = any(item[0] == "c" for item in items)
        # If a path contains all rules of a table, each rule becomes a shape. The outline of an area stays one shape.
        rules = path["type"] == "s" or all(item[0] == "re" for item in items)
        split_rules = rules and not curves and 1 < len(items) <= MAX_PIECES and len(boxes) < MANY_SHAPES
        pieces = [_extent(item) for item in items] if split_rules else [path["rect"]]
        if clips:
            pieces = [piece for piece in (clip_box(box, clips[-1][1]) for box in pieces) if piece]
        boxes += pieces
        curved += [curves] * len(pieces)
    return place_drawings(boxes, curved, tuple(to_display), width, height)


def _is_invisible(path: dict[str, Any]) -> bool:
    """Return whether a shape is white or fully transparent."""
    opacity = max(path.get("fill_opacity") or 0.0, path.get("stroke_opacity") or 0.0)
    if "fill_opacity" in path or "stroke_opacity" in path:
        if opacity <= 0:
            return True
    paints = [path[key] for key in ("fill", "color") if path.get(key)]
    return bool(paints) and all(min(paint) > WHITE for paint in paints)


def _extent(item: tuple[Any, ...]) -> Box:
    """Return the box of one item of a path: a line, rectangle or quad."""
    points = item[1:3] if item[0] == "l" else [item[1][:2], item[1][2:]] if item[0] == "re" else item[1]
    return bounds(points)
