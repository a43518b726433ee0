"""Merging of small relevant boxes into areas: words into lines and passages, image patches into clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from jina_rag.types import Box, Float32

MIN_WEIGHT = 0.4
"""Minimum weight of a box in an area: approximately the lowest weight that is visible on a heat map."""
_MAX_BOXES = 1500
"""Maximum number of merged boxes. The boxes with the greatest weights are chosen, because the merge compares all pairs
of boxes."""
_WORD_GAP = 0.02
"""Horizontal margin of a word on each side, as a fraction of the page width. The margin bridges a stop word of low
weight."""
_LINE_GAP = 0.6
"""Vertical margin above and below a word, in word heights. The margin joins the lines of a passage but not two
paragraphs."""


@dataclass(frozen=True, slots=True)
class Area:
    """An area of a page with high weights in a heat map.

    Attributes:
        box: Bounding box of the area, as fractions of the page.
        weight: Greatest weight in the area, from 0 to 1.
        box_count: Number of boxes (words or image patches) merged into the area.
    """

    box: Box
    weight: float
    box_count: int


def find_areas(
    boxes: Float32, weights: Float32, kind: Literal["words", "patches"], *, k: int, min_weight: float = MIN_WEIGHT
) -> list[Area]:
    """Merge boxes into areas, and return the areas with the greatest weights, best first.

    Args:
        boxes: Boxes of the words or patches, shape (n, 4), float32, as fractions of the page.
        weights: Weights of the boxes in the heat map, shape (n,), float32, from 0 to 1.
        kind: ``"words"`` merges words that are close to each other, ``"patches"`` merges image patches that touch.
        k: Maximum number of areas.
        min_weight: Minimum weight of a box in an area, from 0 to 1.
    """
    bright = np.flatnonzero((weights >= min_weight) & (weights > 0))
    bright = bright[np.argsort(-weights[bright], kind="stable")[:_MAX_BOXES]]
    if not len(bright):
        return []
    bright_boxes, bright_weights = boxes[bright], weights[bright]
    group = _connected_components(bright_boxes, _margins(bright_boxes, kind))
    while True:
        hulls = _bounding_boxes(bright_boxes, group)
        labels = _connected_components(hulls, np.zeros((len(hulls), 2), dtype=np.float32))
        if len(np.unique(labels)) == len(hulls):
            break
        group = np.unique(labels, return_inverse=True)[1][group]
    peaks = np.zeros(len(hulls), dtype=np.float32)
    np.maximum.at(peaks, group, bright_weights)
    counts = np.bincount(group, minlength=len(hulls))
    order = np.lexsort((-counts, -peaks))[:k]
    return [Area(_to_box(hulls[i]), float(peaks[i]), int(counts[i])) for i in order]


def _margins(boxes: Float32, kind: str) -> Float32:
    """Return the (horizontal, vertical) margin of each box, shape (n, 2), float32. Boxes touch if margins overlap."""
    height = boxes[:, 3] - boxes[:, 1]
    if kind == "words":
        return np.stack([np.full_like(height, _WORD_GAP), height * _LINE_GAP], axis=1)
    # Adjacent patches share an edge, but edges are stored in 16 bits. The margin absorbs the rounding error.
    return np.stack([(boxes[:, 2] - boxes[:, 0]) * 0.1, height * 0.1], axis=1)


def _connected_components(boxes: Float32, margins: Float32) -> npt.NDArray[np.int64]:
    """Return the index of the component of each box, shape (n,), int64; boxes that touch are in one component."""
    low, high = boxes[:, :2] - margins, boxes[:, 2:] + margins
    touches = ((low[:, None] <= high[None]) & (low[None] <= high[:, None])).all(axis=-1)
    labels = np.arange(len(boxes), dtype=np.int32)
    while True:
        smallest = np.where(touches, labels[None], np.int32(len(boxes))).min(axis=1)
        smallest = smallest[smallest]
        if (smallest == labels).all():
            return np.unique(labels, return_inverse=True)[1].astype(np.int64)
        labels = smallest


def _bounding_boxes(boxes: Float32, group: npt.NDArray[np.int64]) -> Float32:
    """Return the bounding box of each component of boxes, shape (components, 4), float32."""
    count = int(group.max()) + 1
    hulls = np.concatenate([np.full((count, 2), np.inf), np.full((count, 2), -np.inf)], axis=1).astype(np.float32)
    np.minimum.at(hulls[:, :2], group, boxes[:, :2])
    np.maximum.at(hulls[:, 2:], group, boxes[:, 2:])
    return hulls


def _to_box(row: Float32) -> Box:
    x0, y0, x1, y1 = row.tolist()
    return (x0, y0, x1, y1)
