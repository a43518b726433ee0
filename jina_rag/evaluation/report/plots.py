"""SVG plots of the report: quality against size and latency, and quality by query group.

The SVG contains text as text elements, and colors as variables of the report's style sheet. Drawing a plot does not
import pyplot, and does not change the global settings of matplotlib.
"""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup
from rich.text import Text

from jina_rag._display import displayed
from jina_rag._extras import require
from jina_rag.evaluation.report.findings import SMALL_GROUP, GroupRow
from jina_rag.evaluation.report.formatting import milliseconds, number, size
from jina_rag.evaluation.results import SettingResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "p": "⬟", "P": "✚"}
"""matplotlib marker → character for the legend. 7 markers and 8 colors distinguish 56 settings."""
_PALETTE = ("#1d4ed8", "#c2410c", "#0f766e", "#9333ea", "#a16207", "#be185d", "#4d7c0f", "#475569")
"""Colors of the settings. The SVG refers to these colors as ``--s0`` to ``--s7``, variables of the style sheet."""
_INK, _SOFT, _GRID, _PAPER = "#16181d", "#5a6170", "#e9ebf0", "#fefefe"
_VARIABLES = {color: f"--s{index}" for index, color in enumerate(_PALETTE)} | {
    _INK: "--ink", _SOFT: "--soft", _GRID: "--grid", _PAPER: "--paper",
}  # fmt: skip
_SVG = "{http://www.w3.org/2000/svg}"
_METADATA = ("Creator", "Date", "Format", "Type")
_WIDTH = 430
"""Width of a plot, in points. The style sheet scales the plot to the available width."""
_MAX_NAME_WIDTH = 15
"""Maximum width of a group's name, in terminal columns."""
_STYLE = {
    "svg.fonttype": "none", "text.parse_math": False, "font.size": 12, "text.color": _INK,
    "axes.edgecolor": _SOFT, "axes.labelcolor": _SOFT, "axes.spines.top": False, "axes.spines.right": False,
    "axes.axisbelow": True, "axes.grid": True, "grid.color": _GRID, "xtick.color": _SOFT, "ytick.color": _SOFT,
    "lines.markersize": 8, "lines.markeredgecolor": _PAPER, "xtick.minor.size": 0,
}  # fmt: skip


def key(index: int) -> Markup:
    """Return the colored marker of the setting at `index` as HTML, to be shown before the name of the setting."""
    character = list(_MARKERS.values())[index % len(_MARKERS)]
    return Markup('<span class="key s{}" aria-hidden="true">{}</span>').format(index % len(_PALETTE), character)


def cost_plots(settings: Sequence[SettingResult], measure: str) -> list[tuple[str, Markup]]:
    """Return the plots of quality against size and of quality against latency.

    Args:
        settings: At least one setting.
        measure: Measure of the vertical axis; empty for no plots.

    Returns:
        Caption and ``<svg>`` element of each plot. A plot is omitted if the size or latency of a setting is unknown.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """
    sizes = [setting.vector_bytes_per_page for setting in settings]
    times = [setting.latency.get("p50", 0.0) for setting in settings]
    slowest = [setting.latency.get("p90", 0.0) for setting in settings]
    plots = []
    if measure and min(sizes) > 0:
        plot = _scatter(settings, measure, "bytes per page", sizes, sizes, size)
        plots.append(("Quality against size (better: top left)", plot))
    if measure and min(times) > 0:
        plot = _scatter(settings, measure, "search latency, p50 with a line to p90", times, slowest, milliseconds)
        plots.append(("Quality against latency (better: top left)", plot))
    return plots


def _scatter(
    settings: Sequence[SettingResult],
    measure: str,
    cost: str,
    costs: Sequence[float],
    highest: Sequence[float],
    unit: Callable[[float], str],
) -> Markup:
    """Return a plot of quality against cost, with lines for the interval of the quality and the range of the cost."""

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import LogLocator, NullLocator
        from matplotlib.transforms import ScaledTranslation

        step = min(6.0, 40 / len(settings))
        for index, (setting, x, highest_x) in enumerate(zip(settings, costs, highest, strict=True)):
            # A horizontal offset keeps the intervals of points with equal cost visible.
            offset = ScaledTranslation(step * (index - (len(settings) - 1) / 2) / 72, 0, axes.figure.dpi_scale_trans)
            y = setting.measures[measure]
            low, high = setting.intervals.get(measure, (y, y))
            color, marker = _color_and_marker(index)
            style: dict[str, Any] = {"color": color, "transform": axes.transData + offset}
            axes.plot((x, max(x, highest_x)), (y, y), ":|", markeredgecolor=color, **style)
            axes.plot((x, x), (low, high), "-_", markeredgecolor=color, **style)
            axes.plot(x, y, marker, **style)
        middle, spread = (min(costs) * max(*costs, *highest)) ** 0.5, max(3.0, max(*costs, *highest) / min(costs) * 1.8)
        axes.set_xscale("log")
        axes.set_xlim(middle / spread**0.5, middle * spread**0.5)
        factors = (1, 1.5, 2, 3, 4, 6, 8) if spread < 6 else (1, 2, 5) if spread < 60 else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=factors))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: unit(value).replace(".0 ", " "))
        axes.yaxis.set_major_formatter("{x:.2f}")
        ends = [end for s in settings for end in (s.measures[measure], *s.intervals.get(measure, ()))]
        margin = 0.02 + (max(ends) - min(ends)) / 20
        axes.set_ylim(max(0.0, min(ends) - margin), min(1.0, max(ends) + margin))
        axes.set_xlabel(f"{cost} (log scale)")
        axes.set_ylabel(measure)

    descriptions = (
        f"{setting.name}: {measure} {number(setting.measures[measure])} at {unit(x)}"
        for setting, x in zip(settings, costs, strict=True)
    )
    return _svg(draw, 310, f"{measure} against {cost}", descriptions)


def group_bars(rows: Sequence[GroupRow], names: Sequence[str], *, kind: str, measure: str) -> Markup:
    """Return a bar plot of a measure by query group, with a bar and an interval for each setting.

    Args:
        rows: The query groups.
        names: Names of the settings, in the order of `GroupRow.means`.
        kind: Property that groups the queries, for the title of the plot.
        measure: Name of the measure.

    Returns:
        The plot as an ``<svg>`` element.

    Raises:
        MissingDependencyError: If matplotlib is not installed.
    """

    def draw(axes: Axes) -> None:
        for position, row in enumerate(rows):
            for index, (mean, ends) in enumerate(zip(row.means, row.intervals, strict=True)):
                y = position + 0.8 * ((index + 0.5) / len(names) - 0.5)
                color, marker = _color_and_marker(index)
                axes.barh(y, mean, 0.62 / len(names), color=color, alpha=0.3)
                if ends is not None:
                    axes.plot(ends, (y, y), color=_INK, linewidth=1, marker="|", markersize=6, markeredgecolor=_INK)
                axes.plot(mean, y, marker, color=color, markersize=7)
                axes.text(1.03, y, number(mean), va="center", size=11)
            count = f"n = {row.queries}{', few' if row.queries < SMALL_GROUP else ''}"
            axes.annotate(count, (0, position), (-4, -20), textcoords="offset points", ha="right", color=_SOFT)
        axes.set_yticks(range(len(rows)), [_shorten(row.name) for row in rows])
        axes.set_xlim(0, 1)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, labelcolor=_INK)
        axes.set_xlabel(measure)

    descriptions = (
        f"{row.name} ({row.queries}): " + ", ".join(f"{n} {number(m)}" for n, m in zip(names, row.means, strict=True))
        for row in rows
    )
    return _svg(draw, 48 + max(14 * len(names) + 14, 46) * len(rows), f"{measure} by {kind}", descriptions)


def _color_and_marker(index: int) -> tuple[str, str]:
    return _PALETTE[index % len(_PALETTE)], list(_MARKERS)[index % len(_MARKERS)]


def _shorten(name: str) -> str:
    text = Text(displayed(name))
    text.truncate(_MAX_NAME_WIDTH, overflow="ellipsis")
    return text.plain


def _svg(draw: Callable[[Axes], None], height: float, title: str, descriptions: Iterable[str]) -> Markup:
    """Return a figure with one pair of axes as an ``<svg>`` element for embedding in HTML."""
    matplotlib = require("matplotlib", extra="eval")
    from matplotlib.figure import Figure

    file = io.StringIO()
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": title}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the browser draws missing glyphs
        figure = Figure((_WIDTH / 72, height / 72), layout="constrained")
        draw(figure.subplots())
        figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(_METADATA))
    root = ET.fromstring(file.getvalue())  # noqa: S314  # matplotlib's own output
    prefix = re.sub(r"\W+", "-", title).lower()
    for element in root.iter():
        attributes = {name.rpartition("}")[2]: value for name, value in element.items()}
        attributes.pop("clip-path", None)
        if element.tag == f"{_SVG}g":
            attributes.pop("id", None)
        for name, mark in (("id", ""), ("href", "#")):
            if name in attributes:  # the prefix makes ids unique in a report with several plots
                attributes[name] = f"{mark}{prefix}-{attributes[name].removeprefix('#')}"
        if "style" in attributes:
            style = re.sub(r" *font-family:[^;]*;?", "", attributes["style"])
            attributes["style"] = re.sub("#[0-9a-f]{6}", lambda match: f"var({_VARIABLES[match[0]]})", style)
        element.tag = element.tag.removeprefix(_SVG)
        element.attrib.clear()
        element.attrib.update(attributes)
    for definitions in root.findall("defs"):
        root.remove(definitions)  # matplotlib's style sheet and clip paths, which are not needed
    markup = "".join(ET.tostring(child, encoding="unicode") for child in root)
    return Markup(
        '<svg class="plot" viewBox="{0}" role="img" aria-labelledby="{1}-title {1}-text">'
        '<title id="{1}-title">{2}</title><desc id="{1}-text">{3}</desc>{4}</svg>'
    ).format(root.get("viewBox"), prefix, displayed(title), displayed("; ".join(descriptions)), Markup(markup))  # noqa: S704
