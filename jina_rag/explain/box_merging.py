"""From many small bright boxes to a few areas: words become lines and passages, patches what they cover together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from jina_rag.types import Box, Float32

LEVEL = 0.4
"""A place belongs to an area if its weight is at least this: about the eye's impression of a heat map."""
_MOST = 1500
"""Places that are looked at, the brightest: each is compared with each."""
_WORD_GAP = 0.02
"""Of the page's width, to each side of a word: about as far as a dropped stop word."""
_LINE_GAP = 0.6
"""Of a word's height, above and below it: the lines of a passage touch, those of two paragraphs do not."""


@dataclass(frozen=True, slots=True)
class Area:
    """A bright part of a page.

    Attributes:
        box: Around its places, fractions of the page.
        weight: Of its brightest place, in [0, 1].
        places: How many bright places it holds.
    """

    box: Box
    weight: float
    places: int


def areas_of(
    boxes: Float32, weights: Float32, kind: Literal["words", "patches"], *, k: int, level: float = LEVEL
) -> list[Area]:
    """The brightest areas, best first.

    Args:
        boxes: Shape (places, 4).
        weights: Shape (places,) in [0, 1].
        kind: What the places are: words that stand close to each other are of one area, patches that touch.
        k: How many at most.
        level: What a place must weigh at least.
    """
    bright = np.flatnonzero((weights >= level) & (weights > 0))
    bright = bright[np.argsort(-weights[bright], kind="stable")[:_MOST]]
    if not len(bright):
        return []
    places, place_weights = boxes[bright], weights[bright]
    group = _touching(places, _margins(places, kind))
    while True:
        hulls = _hulls(places, group)
        labels = _touching(hulls, np.zeros((len(hulls), 2), dtype=np.float32))
        if len(np.unique(labels)) == len(hulls):
            break
        group = np.unique(labels, return_inverse=True)[1][group]
    peaks = np.zeros(len(hulls), dtype=np.float32)
    np.maximum.at(peaks, group, place_weights)
    counts = np.bincount(group, minlength=len(hulls))
    order = np.lexsort((-counts, -peaks))[:k]
    return [Area(_box(hulls[i]), float(peaks[i]), int(counts[i])) for i in order]


def _margins(boxes: Float32, kind: str) -> Float32:
    """How far each box reaches beyond itself, shape (boxes, 2): across, down."""
    height = boxes[:, 3] - boxes[:, 1]
    if kind == "words":
        return np.stack([np.full_like(height, _WORD_GAP), height * _LINE_GAP], axis=1)
    # A rounding error wider than nothing: the borders of neighbours are the same number, stored in 16 bits.
    return np.stack([(boxes[:, 2] - boxes[:, 0]) * 0.1, height * 0.1], axis=1)


def _touching(boxes: Float32, margins: Float32) -> npt.NDArray[np.int64]:
    """A number for each box, the same for those that touch, directly or by way of others; numbers count from 0."""
    low, high = boxes[:, :2] - margins, boxes[:, 2:] + margins
    meets = ((low[:, None] <= high[None]) & (low[None] <= high[:, None])).all(axis=-1)
    label = np.arange(len(boxes), dtype=np.int32)
    while True:
        lowest = np.where(meets, label[None], np.int32(len(boxes))).min(axis=1)
        lowest = lowest[lowest]
        if (lowest == label).all():
            return np.unique(label, return_inverse=True)[1].astype(np.int64)
        label = lowest


def _hulls(boxes: Float32, group: npt.NDArray[np.int64]) -> Float32:
    """The box around each group."""
    count = int(group.max()) + 1
    hulls = np.concatenate([np.full((count, 2), np.inf), np.full((count, 2), -np.inf)], axis=1).astype(np.float32)
    np.minimum.at(hulls[:, :2], group, boxes[:, :2])
    np.maximum.at(hulls[:, 2:], group, boxes[:, 2:])
    return hulls


def _box(row: Float32) -> Box:
    x0, y0, x1, y1 = row.tolist()
    return (x0, y0, x1, y1)
