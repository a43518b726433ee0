"""Vector shapes of a PDF page, from whichever library read them, as they lie on the displayed page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from jina_rag.types import Box, Float32

Drawings: TypeAlias = tuple[Float32, npt.NDArray[np.bool_]]

# Paths of more pieces, and pages of more shapes, are drawings whose single lines do not matter.
MAX_PIECES = 500
MANY_SHAPES = 4000
# Every channel above this is paper.
WHITE = 0.97


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
    corners = corners @ turn[:2] + turn[2]
    # Lines have no width of their own.
    low = (corners.min(axis=1) - 0.25).clip(min=0)
    high = (corners.max(axis=1) + 0.25).clip(max=(width, height))
    visible = (high > low).all(axis=1)
    return np.concatenate([low, high], axis=1)[visible], np.array(curved, dtype=bool)[visible]
