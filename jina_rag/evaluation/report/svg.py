"""Just enough SVG for plots inside an HTML page: elements, scales, marks; colours come from the page's style sheet."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from jina_rag.evaluation.report.formatting import plain

COLOURS = 8
"""Classes ``s0`` to ``s7`` of the style sheet."""
_SHAPES = 7
_WIDE = frozenset("WF")
_NARROW = frozenset("iljtfrI1.,:;'|!()[] ")


@dataclass(slots=True)
class Drawing:
    """A picture that grows element by element.

    Attributes:
        width: In the picture's own units, which are pixels where it is shown at its size.
        height: As well.
        name: Unique in the page: ids are made of it.
        title: What it is, for those who do not see it.
        description: What is to be seen on it.
    """

    width: float
    height: float
    name: str
    title: str
    description: str
    parts: list[Markup] = field(default_factory=list)

    def line(self, x0: float, y0: float, x1: float, y1: float, style: str) -> None:
        """A straight line; `style` is a class, as everywhere here."""
        template = Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
        self.parts.append(template.format(style, x0, y0, x1, y1))

    def bar(self, x: float, y: float, width: float, height: float, style: str) -> None:
        """A rectangle."""
        template = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>')
        self.parts.append(template.format(style, x, y, max(0.0, width), height))

    def mark(self, x: float, y: float, index: int, *, radius: float = 5.5, hint: str = "") -> None:
        """The mark of setting `index`, with a text that shows under the pointer."""
        shown = Markup("<title>{}</title>").format(plain(hint)) if hint else Markup("")
        template = Markup('<path class="mark {}" d="{}">{}</path>')
        self.parts.append(template.format(colour(index), _outline(index % _SHAPES, x, y, radius), shown))

    def text(self, x: float, y: float, text: str, style: str = "", *, anchor: str = "start", hint: str = "") -> None:
        """A line of text; `y` is its base line."""
        shown = Markup("<title>{}</title>").format(plain(hint)) if hint else Markup("")
        template = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}{}</text>')
        self.parts.append(template.format(style, x, y, anchor, plain(text), shown))

    def turned(self, x: float, y: float, text: str, style: str) -> None:
        """A text that reads upwards, centred on the point."""
        template = Markup('<text class="{0}" transform="translate({1:.1f} {2:.1f}) rotate(-90)" {3}>{4}</text>')
        self.parts.append(template.format(style, x, y, Markup('text-anchor="middle"'), plain(text)))

    def markup(self) -> Markup:
        """The ``<svg>`` element, which scales to the width it is given."""
        return Markup(
            '<svg class="plot" viewBox="0 0 {0:.0f} {1:.0f}" role="img" aria-labelledby="{2}-title {2}-desc">'
            '<title id="{2}-title">{3}</title><desc id="{2}-desc">{4}</desc>{5}</svg>'
        ).format(
            self.width, self.height, self.name, plain(self.title), plain(self.description), Markup("").join(self.parts)
        )


def key(index: int) -> Markup:
    """The mark of a setting alone, to stand before its name."""
    return Markup(
        '<svg class="key" viewBox="0 0 16 16" aria-hidden="true"><path class="mark {}" d="{}"/></svg>'
    ).format(colour(index), _outline(index % _SHAPES, 8, 8, 6))


def colour(index: int) -> str:
    """The class of a setting's colour. Shapes come round sooner, so 56 settings differ in one or the other."""
    return f"s{index % COLOURS}"


def _outline(shape: int, x: float, y: float, radius: float) -> str:
    """The path of a mark: circle, square, triangle, diamond, triangle down, pentagon, plus."""
    if shape == 0:
        return (
            f"M{x - radius:.1f} {y:.1f}a{radius} {radius} 0 1 0 {2 * radius} 0a{radius} {radius} 0 1 0 {-2 * radius} 0z"
        )
    if shape == 6:
        long, short = radius * 1.1, radius * 0.4
        corners = [
            (-short, -long), (short, -long), (short, -short), (long, -short), (long, short), (short, short),
            (short, long), (-short, long), (-short, short), (-long, short), (-long, -short), (-short, -short),
        ]  # fmt: skip
    else:
        count, start, grown = [(4, 45, 1.25), (3, -90, 1.25), (4, 0, 1.25), (3, 90, 1.25), (5, -90, 1.1)][shape - 1]
        angles = [math.radians(start + 360 * corner / count) for corner in range(count)]
        corners = [(radius * grown * math.cos(angle), radius * grown * math.sin(angle)) for angle in angles]
    return "M" + "L".join(f"{x + dx:.1f} {y + dy:.1f}" for dx, dy in corners) + "z"


def text_width(text: str, font_size: float) -> float:
    """About how wide a text is; a sans-serif font's, rather too wide than too narrow."""

    def share(character: str) -> float:
        if unicodedata.east_asian_width(character) in _WIDE:
            return 1.02
        return 0.36 if character in _NARROW else 0.72 if character.isupper() or character in "mwMW@%" else 0.57

    return font_size * sum(map(share, text))


def clipped(text: str, font_size: float, width: float) -> str:
    """As much of a text as fits, with an ellipsis where something is left out."""
    text = plain(text)
    if text_width(text, font_size) <= width:
        return text
    while text and text_width(text + "…", font_size) > width:
        text = text[:-1]
    return text.rstrip() + "…"


@dataclass(frozen=True, slots=True)
class Scale:
    """Values to coordinates, linear or logarithmic.

    Attributes:
        low: Value at `start`.
        high: Value at `end`.
        start: Coordinate; may be greater than `end`, as on an axis that points up.
        end: Coordinate.
        logarithmic: Whether equal steps are equal factors.
        ticks: Values to label.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        """The coordinate of a value; one beyond the axis lies on its end."""
        place: Callable[[float], float] = math.log if self.logarithmic else float
        value = min(max(value, self.low), self.high)
        share = (place(value) - place(self.low)) / (place(self.high) - place(self.low))
        return self.start + share * (self.end - self.start)


def linear(values: Sequence[float], start: float, end: float) -> Scale:
    """An axis for measures in [0, 1] that holds `values`, with about five ticks."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / step <= 4.5 or step == 0.2)
    low = max(0.0, math.floor(low / step + 1e-9) * step)
    high = min(1.0, math.ceil(high / step - 1e-9) * step)
    if high - low < step:
        low, high = max(0.0, low - step), min(1.0, high + step)
    ticks = tuple(round(low + step * i, 4) for i in range(round((high - low) / step) + 1))
    return Scale(low, high, start, end, False, ticks)


def logarithmic(values: Sequence[float], start: float, end: float) -> Scale:
    """An axis for sizes or times above 0 that holds `values` with room beside them, at least a factor of 3 wide."""
    low, high = min(values) / 1.35, max(values) * 1.35
    middle = math.sqrt(low * high)
    low, high = min(low, middle / math.sqrt(3)), max(high, middle * math.sqrt(3))
    ticks: list[float] = []
    for steps in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
        if len(ticks) >= 3:
            break
    return Scale(low, high, start, end, True, tuple(ticks))
