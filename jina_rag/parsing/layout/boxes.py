"""Geometry of boxes (x0, y0, x1, y1). All boxes of a call have the same unit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jina_rag.types import Box


def area(box: Box) -> float:
    """Return the area of a box (width x height); 0 for an empty box."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def intersection(a: Box, b: Box) -> float:
    """Return the area of the intersection of two boxes; 0 if the boxes do not overlap."""
    return area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def iou(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes, from 0 to 1."""
    both = intersection(a, b)
    total = area(a) + area(b) - both
    return both / total if total else 0.0


def union(a: Box, b: Box) -> Box:
    """Return the smallest box that contains `a` and `b`."""
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def bounds(points: Iterable[Sequence[float]]) -> Box:
    """Return the smallest box that contains all points (x, y)."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def clip_box(box: Box, clip: Box | None) -> Box | None:
    """Return the part of a box inside `clip`; None if the box is outside `clip`. If `clip` is None, return the box."""
    if clip is None:
        return box
    x0, y0, x1, y1 = max(box[0], clip[0]), max(box[1], clip[1]), min(box[2], clip[2]), min(box[3], clip[3])
    return (x0, y0, x1, y1) if x1 >= x0 and y1 >= y0 else None


def clip_to_page(box: Box, width: float, height: float) -> Box | None:
    """Return a box clipped to the page; None if the box is outside the page.

    Args:
        box: The box in points of the displayed page. The two corners may be in any order.
        width: Width of the page in points.
        height: Height of the page in points.
    """
    x0, y0 = max(min(box[0], box[2]), 0.0), max(min(box[1], box[3]), 0.0)
    x1, y1 = min(max(box[0], box[2]), width), min(max(box[1], box[3]), height)
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def to_fractions(box: Box, width: float, height: float) -> Box:
    """Convert a box to fractions of the page.

    Args:
        box: Box in points of the displayed page.
        width: Width of the page in points.
        height: Height of the page in points.
    """
    return box[0] / width, box[1] / height, min(box[2] / width, 1.0), min(box[3] / height, 1.0)


def touch(a: Box, b: Box, gap_x: float = 0.0, gap_y: float = 0.0) -> bool:
    """Return whether the horizontal gap of two boxes is at most `gap_x`, and the vertical gap at most `gap_y`."""
    return a[0] - gap_x <= b[2] and b[0] - gap_x <= a[2] and a[1] - gap_y <= b[3] and b[1] - gap_y <= a[3]


def merge_boxes(boxes: Iterable[Box], gap_x: float = 0.0, gap_y: float = 0.0) -> list[Box]:
    """Merge boxes that touch, and repeat with the merged boxes until no two boxes touch.

    Args:
        boxes: The boxes, in points or fractions of the page.
        gap_x: Maximum horizontal gap between touching boxes, in the unit of `boxes`.
        gap_y: Maximum vertical gap between touching boxes, in the unit of `boxes`.
    """
    groups: list[Box] = []
    for box in boxes:
        current = box
        while near := [group for group in groups if touch(group, current, gap_x, gap_y)]:
            for group in near:
                current = union(current, group)
                groups.remove(group)
        groups.append(current)
    return groups
