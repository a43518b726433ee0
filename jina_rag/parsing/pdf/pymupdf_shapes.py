"""The vector shapes of a PDF page: where they are, and which of them have curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from jina_rag.types import Box, Float32

Drawings: TypeAlias = tuple[Float32, npt.NDArray[np.bool_]]

# Paths of more pieces, and pages of more shapes, are drawings whose single lines do not matter.
MAX_PIECES = 500
MANY_SHAPES = 4000
# Every channel above this is paper.
WHITE = 0.97


def no_drawings() -> Drawings:
    """What `find_drawings` returns for a page without any."""
    return np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=bool)


def find_drawings(
    page: Any,  # noqa: ANN401  # a pymupdf.Page
    to_display: Any,  # noqa: ANN401  # a pymupdf.Matrix
    width: float,
    height: float,
) -> Drawings:
    """Find the visible vector shapes of a page.

    Args:
        page: With its rotation set to 0.
        to_display: From its coordinates to those of the displayed page.
        width: Of the displayed page, in points.
        height: Of the displayed page, in points.

    Returns:
        Boxes in points of the displayed page, shape (n, 4), clipped to it; and whether each has curves.
    """
    boxes: list[Box] = []
    curved: list[bool] = []
    clips: list[tuple[int, tuple[float, ...]]] = []
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
        # One path may hold all the rules of a table: each is a shape of its own. The outline of an area is not.
        rules = path["type"] == "s" or all(item[0] == "re" for item in items)
        apart = rules and not curves and 1 < len(items) <= MAX_PIECES and len(boxes) < MANY_SHAPES
        pieces = [_extent(item) for item in items] if apart else [path["rect"]]
        if clips:
            pieces = [piece for piece in (_clipped(box, clips[-1][1]) for box in pieces) if piece]
        boxes += pieces
        curved += [curves] * len(pieces)
    return place_drawings(boxes, curved, tuple(to_display), width, height)


def place_drawings(
    boxes: Sequence[Box], curved: Sequence[bool], to_display: Sequence[float], width: float, height: float
) -> Drawings:
    """Bring the boxes of shapes to the displayed page, clipped to it; what is not on it is left out.

    Args:
        boxes: In the coordinates of a library, corners in any order.
        curved: Which of them have curves.
        to_display: The six numbers of the matrix from those coordinates to the displayed page.
        width: Of the displayed page, in points.
        height: Of the displayed page, in points.
    """
    corners = np.array(boxes, dtype=np.float32).reshape(-1, 2, 2)
    turn = np.array(to_display, dtype=np.float32).reshape(3, 2)
    placed = corners @ turn[:2] + turn[2]
    # Lines have no width of their own.
    low = (placed.min(axis=1) - 0.25).clip(min=0)
    high = (placed.max(axis=1) + 0.25).clip(max=(width, height))
    visible = (high > low).all(axis=1)
    return np.concatenate([low, high], axis=1)[visible], np.array(curved, dtype=bool)[visible]


def _is_invisible(path: dict[str, Any]) -> bool:
    """White areas and fully transparent shapes: backgrounds nobody sees."""
    opacity = max(path.get("fill_opacity") or 0.0, path.get("stroke_opacity") or 0.0)
    if "fill_opacity" in path or "stroke_opacity" in path:
        if opacity <= 0:
            return True
    paints = [path[key] for key in ("fill", "color") if path.get(key)]
    return bool(paints) and all(min(paint) > WHITE for paint in paints)


def _extent(item: tuple[Any, ...]) -> Box:
    """The box of a line, rectangle or quad of a path."""
    points = item[1:3] if item[0] == "l" else [item[1][:2], item[1][2:]] if item[0] == "re" else item[1]
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    return min(xs), min(ys), max(xs), max(ys)


def _clipped(box: tuple[float, ...], clip: tuple[float, ...]) -> Box | None:
    x0, y0, x1, y1 = max(box[0], clip[0]), max(box[1], clip[1]), min(box[2], clip[2]), min(box[3], clip[3])
    return (x0, y0, x1, y1) if x1 >= x0 and y1 >= y0 else None
