"""Plain geometry of boxes (x0, y0, x1, y1), in whatever unit both sides share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jina_rag.types import Box


def area(box: Box) -> float:
    """Width x height; 0 for an empty box."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def intersection(a: Box, b: Box) -> float:
    """The area that both cover."""
    return area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def iou(a: Box, b: Box) -> float:
    """Intersection over union, 0 to 1."""
    both = intersection(a, b)
    total = area(a) + area(b) - both
    return both / total if total else 0.0


def union(a: Box, b: Box) -> Box:
    """The smallest box around both."""
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def bounds(points: Iterable[Sequence[float]]) -> Box:
    """The smallest box around points (x, y)."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def clipped(box: Box, clip: Box | None) -> Box | None:
    """What of a box lies within `clip` (None for no limit); None if nothing does. Edges count."""
    if clip is None:
        return box
    x0, y0, x1, y1 = max(box[0], clip[0]), max(box[1], clip[1]), min(box[2], clip[2]), min(box[3], clip[3])
    return (x0, y0, x1, y1) if x1 >= x0 and y1 >= y0 else None


def visible(box: Box, width: float, height: float) -> Box | None:
    """A box, its corners in any order, clipped to the page; None if nothing of it is on the page."""
    x0, y0 = max(min(box[0], box[2]), 0.0), max(min(box[1], box[3]), 0.0)
    x1, y1 = min(max(box[0], box[2]), width), min(max(box[1], box[3]), height)
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def fractions(box: Box, width: float, height: float) -> Box:
    """Points of the displayed page as fractions of it."""
    return box[0] / width, box[1] / height, min(box[2] / width, 1.0), min(box[3] / height, 1.0)


def touch(a: Box, b: Box, gap_x: float = 0.0, gap_y: float = 0.0) -> bool:
    """Whether they overlap or lie no further apart than the gaps."""
    return a[0] - gap_x <= b[2] and b[0] - gap_x <= a[2] and a[1] - gap_y <= b[3] and b[1] - gap_y <= a[3]


def merged(boxes: Iterable[Box], gap_x: float = 0.0, gap_y: float = 0.0) -> list[Box]:
    """Join boxes that touch until none do; the boxes around them no longer touch each other."""
    groups: list[Box] = []
    for box in boxes:
        current = box
        while near := [group for group in groups if touch(group, current, gap_x, gap_y)]:
            for group in near:
                current = union(current, group)
                groups.remove(group)
        groups.append(current)
    return groups
