"""Conversion of the boxes of vector shapes to the displayed page, shared by the PDF renderers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from jina_rag.types import Box, Float32

Drawings: TypeAlias = tuple[Float32, npt.NDArray[np.bool_]]

# A path with more than `MAX_PIECES` lines counts as one shape, because single lines of a drawing do not matter for the
# layout. After `MANY_SHAPES` shapes of a page, every path counts as one shape.
MAX_PIECES = 500
MANY_SHAPES = 4000
# A color with every channel above this value counts as paper white.
WHITE = 0.97


def place_drawings(
    boxes: Sequence[Box], curved: Sequence[bool], to_display: Sequence[float], width: float, height: float
) -> Drawings:
    """Transform the boxes of shapes to the displayed page, clip the boxes, and drop boxes outside the page.

    Args:
        boxes: Boxes in points, in the page coordinates of a PDF library. The two corners may be in any order.
        curved: Whether each shape has curves.
        to_display: The six values of the transformation matrix to the displayed page.
        width: Width of the displayed page in points.
        height: Height of the displayed page in points.

    Returns:
        (boxes, curved): boxes in points of the displayed page, shape (n, 4), float32; whether each shape has curves,
        shape (n,), bool.
    """
    corners = np.array(boxes, dtype=np.float32).reshape(-1, 2, 2)
    matrix = np.array(to_display, dtype=np.float32).reshape(3, 2)
    corners = corners @ matrix[:2] + matrix[2]
    # The boxes are extended by 0.25 points, because a line without width would be an empty box.
    low = (corners.min(axis=1) - 0.25).clip(min=0)
    high = (corners.max(axis=1) + 0.25).clip(max=(width, height))
    visible = (high > low).all(axis=1)
    return np.concatenate([low, high], axis=1)[visible], np.array(curved, dtype=bool)[visible]
