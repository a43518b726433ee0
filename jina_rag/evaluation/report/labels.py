"""Where labels stand beside their points: near, on nothing else, and within the plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

Rectangle: TypeAlias = tuple[float, float, float, float]
"""(left, top, right, bottom)."""

_CLEAR = 7.0
"""How far the line from a text to its point stays from other points."""
_ROUNDS = 3
"""How often each label may choose again, knowing where the others stand."""


@dataclass(frozen=True, slots=True)
class Label:
    """A text to be placed: its point, and its size."""

    x: float
    y: float
    width: float
    height: float


def place(labels: Sequence[Label], obstacles: Sequence[Rectangle], bounds: Rectangle) -> list[Rectangle]:
    """A place for each label, beside its label's point.

    Each takes the place with the least overlap, then the nearest one; the others' places are known from the second
    round on. Deterministic.

    Args:
        labels: Points and sizes of texts.
        obstacles: What texts should not cover.
        bounds: What they must not leave, unless no place is within.
    """
    placed: list[Rectangle | None] = [None] * len(labels)
    for _ in range(_ROUNDS):
        for index, label in enumerate(labels):
            others = [other for at, other in enumerate(placed) if other is not None and at != index]

            def cost(
                candidate: tuple[float, Rectangle],
                label: Label = label,
                index: int = index,
                others: list[Rectangle] = others,
            ) -> float:
                distance, box = candidate
                outside = _area(box) - _overlap(box, bounds)
                covered = sum(_overlap(box, obstacle) for obstacle in obstacles)
                crossed = sum(_crosses(label, box, labels[at]) for at in range(len(labels)) if at != index)
                return 50 * outside + 12 * sum(_overlap(box, o) for o in others) + 4 * covered + 60 * crossed + distance

            placed[index] = min(_candidates(label), key=cost)[1]
    return [box for box in placed if box is not None]


def _candidates(label: Label) -> list[tuple[float, Rectangle]]:
    """Places round the point, each with its distance: right and left first, then above and below, then farther."""
    found = []
    for gap in (10.0, 20.0, 34.0, 50.0, 70.0):
        rows = (-label.height / 2, -label.height - gap * 0.6, gap * 0.6, -label.height - gap * 1.6, gap * 1.6)
        for order, top in enumerate(rows):
            for penalty, left in ((0.0, gap), (1.0, -label.width - gap), (6.0, -label.width / 2)):
                if penalty == 6.0 and order == 0:
                    continue  # on the point itself
                box = (label.x + left, label.y + top, label.x + left + label.width, label.y + top + label.height)
                found.append((gap + 4 * order + penalty, box))
    return found


def nearest(label: Label, box: Rectangle) -> tuple[float, float]:
    """Where the line from a label's point to its text ends."""
    return min(max(label.x, box[0]), box[2]), min(max(label.y, box[1]), box[3])


def _crosses(label: Label, box: Rectangle, other: Label) -> bool:
    """Whether that line passes over another label's point."""
    x, y = nearest(label, box)
    length = (x - label.x) ** 2 + (y - label.y) ** 2
    if not length:
        return False
    along = ((other.x - label.x) * (x - label.x) + (other.y - label.y) * (y - label.y)) / length
    along = min(1.0, max(0.0, along))
    away = (label.x + along * (x - label.x) - other.x) ** 2 + (label.y + along * (y - label.y) - other.y) ** 2
    return away < _CLEAR**2


def _area(box: Rectangle) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _overlap(one: Rectangle, other: Rectangle) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def apart(places: Sequence[float], least: float) -> list[float]:
    """Coordinates moved as little as needed so that neighbours are `least` apart; the order stays."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    groups: list[tuple[float, list[int]]] = []  # centre, members in order
    for index in order:
        centre, members = places[index], [index]
        while groups and groups[-1][0] + least * (len(groups[-1][1]) + len(members)) / 2 > centre + 1e-9:
            members = groups.pop()[1] + members
            centre = sum(places[member] for member in members) / len(members)
        groups.append((centre, members))
    moved = list(places)
    for centre, members in groups:
        for offset, member in enumerate(members):
            moved[member] = centre + least * (offset - (len(members) - 1) / 2)
    return moved
