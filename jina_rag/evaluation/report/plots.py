"""The plots of the report: quality against what it costs, and quality by kind of question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from jina_rag.evaluation.report.findings import FEW, GroupRow
from jina_rag.evaluation.report.formatting import interval, number, signed
from jina_rag.evaluation.report.formatting import tick as shortened
from jina_rag.evaluation.report.labels import Label, Rectangle, apart, nearest, place
from jina_rag.evaluation.report.svg import Drawing, clipped, colour, linear, logarithmic, text_width

_WIDTH = 430.0
_FONT = 12.5
_LABEL_WIDTH = 170.0
_APART = 15.0
"""Least distance of two points across, so that their intervals can be told apart."""


@dataclass(frozen=True, slots=True)
class Dot:
    """A setting in the plane.

    Attributes:
        name: Its label.
        cost: What it costs, above 0.
        quality: The measure.
        ends: Its 95 % interval; None for none.
        worst: A second cost, such as the 90th percentile; None for none.
    """

    name: str
    cost: float
    quality: float
    ends: tuple[float, float] | None = None
    worst: float | None = None


def scatter(
    dots: Sequence[Dot],
    *,
    name: str,
    title: str,
    across: str,
    up: str,
    unit: Callable[[float], str],
) -> Markup:
    """Quality against cost, one point a setting, cost on a logarithmic axis.

    Args:
        dots: In the order of the settings, which gives them their marks.
        name: Unique in the page.
        title: Of the plot.
        across: Label of the axis of cost.
        up: Label of the axis of quality.
        unit: Writes a cost.
    """
    height, left, right, top, bottom = 310.0, 52.0, _WIDTH - 22.0, 12.0, 264.0
    told = "; ".join(f"{dot.name}: {up} {number(dot.quality)} at {unit(dot.cost)}" for dot in dots)
    drawing = Drawing(_WIDTH, height, name, title, told)
    costs = [cost for dot in dots for cost in (dot.cost, dot.worst) if cost]
    x = logarithmic(costs, left, right)
    y = linear([value for dot in dots for value in (dot.quality, *(dot.ends or ()))], bottom, top)
    for tick in y.ticks:
        drawing.line(left, y(tick), right, y(tick), "grid")
        drawing.text(left - 8, y(tick) + 4, f"{tick:.2f}", "tick", anchor="end")
    for tick in x.ticks:
        drawing.line(x(tick), bottom, x(tick), bottom + 5, "axis")
        drawing.text(x(tick), bottom + 20, shortened(unit(tick)), "tick", anchor="middle")
    drawing.line(left, bottom, right, bottom, "axis")
    drawing.text((left + right) / 2, height - 8, across, "title", anchor="middle")
    drawing.turned(14, (top + bottom) / 2, up, "title")
    places = apart([x(dot.cost) for dot in dots], _APART)
    obstacles: list[Rectangle] = []
    for index, (dot, at) in enumerate(zip(dots, places, strict=True)):
        if dot.worst:
            end = max(at, at + x(dot.worst) - x(dot.cost))
            drawing.line(at, y(dot.quality), end, y(dot.quality), f"tail {colour(index)}")
            drawing.line(end, y(dot.quality) - 4, end, y(dot.quality) + 4, f"tail {colour(index)}")
            obstacles.append((at, y(dot.quality) - 4, end + 2, y(dot.quality) + 4))
        if dot.ends:
            _whisker(drawing, at, y(dot.ends[0]), y(dot.ends[1]), colour(index))
            obstacles.append((at - 5, y(dot.ends[1]), at + 5, y(dot.ends[0])))
        obstacles.append((at - 7, y(dot.quality) - 7, at + 7, y(dot.quality) + 7))
    texts = [clipped(dot.name, _FONT, _LABEL_WIDTH) for dot in dots]
    labels = [
        Label(at, y(dot.quality), text_width(text, _FONT), _FONT + 3)
        for dot, at, text in zip(dots, places, texts, strict=True)
    ]
    boxes = place(labels, obstacles, (left + 2, top - 10, right + 20, bottom - 2))
    for index, (dot, at, text, box) in enumerate(zip(dots, places, texts, boxes, strict=True)):
        _leader(drawing, labels[index], box, colour(index))
        hint = f"{dot.name}: {number(dot.quality)} ({interval(dot.ends)}) at {unit(dot.cost)}"
        drawing.mark(at, y(dot.quality), index, hint=hint)
        # Anchored on the side of its point, whatever width the reader's font gives it.
        end = box[2] < at
        drawing.text(
            box[2] if end else box[0],
            box[3] - 4,
            text,
            f"name {colour(index)}",
            anchor="end" if end else "start",
            hint=hint,
        )
    return drawing.markup()


def _whisker(drawing: Drawing, x: float, low: float, high: float, style: str) -> None:
    drawing.line(x, low, x, high, f"whisker {style}")
    drawing.line(x - 4, low, x + 4, low, f"whisker {style}")
    drawing.line(x - 4, high, x + 4, high, f"whisker {style}")


def _leader(drawing: Drawing, label: Label, box: Rectangle, style: str) -> None:
    """A thin line from a point to a label that does not stand next to it."""
    x, y = nearest(label, box)
    if abs(x - label.x) + abs(y - label.y) > 16:
        drawing.line(label.x, label.y, x, y, f"leader {style}")


def bars(rows: Sequence[GroupRow], names: Sequence[str], *, name: str, title: str, measure: str) -> Markup:
    """A measure by kind of question: a bar with its interval for each setting.

    Args:
        rows: Kinds of questions.
        names: Of the settings, in the order of their marks.
        name: Unique in the page.
        title: Of the plot.
        measure: Which measure.
    """
    left, right, thick, step, gap = 108.0, _WIDTH - 50.0, 11.0, 14.0, 14.0
    block = max(step * len(names), 32.0)
    height = 8 + (block + gap) * len(rows) + 40
    told = "; ".join(
        f"{row.name} ({row.queries}): "
        + ", ".join(f"{setting} {number(mean)}" for setting, mean in zip(names, row.means, strict=True))
        for row in rows
    )
    drawing = Drawing(_WIDTH, height, name, title, told)
    x = linear([0.0, 1.0], left, right)
    bottom = 8 + (block + gap) * len(rows)
    for tick in x.ticks:
        drawing.line(x(tick), 4, x(tick), bottom, "grid")
        drawing.text(x(tick), bottom + 16, f"{tick:.1f}", "tick", anchor="middle")
    drawing.text((left + right) / 2, height - 6, measure, "title", anchor="middle")
    for place_of, row in enumerate(rows):
        top = 8 + gap / 2 + (block + gap) * place_of
        middle = top + block / 2
        few = ", few" if row.queries < FEW else ""
        drawing.text(left - 10, middle - 2, clipped(row.name, _FONT, left - 14), "name", anchor="end", hint=row.name)
        drawing.text(left - 10, middle + 14, f"n = {row.queries}{few}", "tick", anchor="end")
        start = top + (block - step * len(names)) / 2
        for index, (setting, mean, ends) in enumerate(zip(names, row.means, row.intervals, strict=True)):
            y = start + step * index + step / 2
            drawing.bar(left, y - thick / 2, x(mean) - left, thick, f"bar {colour(index)}")
            if ends is not None:
                drawing.line(x(ends[0]), y, x(ends[1]), y, "error")
                drawing.line(x(ends[0]), y - 3, x(ends[0]), y + 3, "error")
                drawing.line(x(ends[1]), y - 3, x(ends[1]), y + 3, "error")
            hint = f"{setting}, {row.name}: {number(mean)} ({interval(ends)})"
            drawing.mark(x(mean), y, index, radius=4.5, hint=hint)
            drawing.text(right + 10, y + 4, number(mean), "value", hint=hint)
    drawing.line(left, 4, left, bottom, "axis")
    return drawing.markup()


def forest(low: float, mean: float, high: float, reach: float, kind: str) -> Markup:
    """A difference and its interval on a line with zero in the middle, for a cell of a table.

    Args:
        low: Lower end of the interval.
        mean: The difference.
        high: Upper end.
        reach: The greatest difference that any cell of the table shows.
        kind: ``"better"``, ``"worse"`` or another class.
    """
    width, height = 180.0, 20.0

    def x(value: float) -> float:
        return width / 2 + min(1.0, max(-1.0, value / reach)) * (width / 2 - 8)

    line = Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
    return Markup(
        '<svg class="forest" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}{}'
        '<path class="point {}" d="{}"/></svg>'
    ).format(
        width,
        height,
        f"{signed(mean)}, from {signed(low)} to {signed(high)}",
        line.format("zero", x(0), 1, x(0), height - 1),
        line.format(f"range {kind}", x(low), height / 2, x(high), height / 2),
        kind,
        f"M{x(mean) - 4.5:.1f} {height / 2:.1f}l4.5 -4.5l4.5 4.5l-4.5 4.5z",
    )
