"""The report as one HTML file: pictures as data URIs, plots as SVG, nothing fetched, text from documents as text.

The policy in the page forbids every request; the one script, which sorts a table, is allowed by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.datasets import PageKey
from jina_rag.evaluation.report import formatting
from jina_rag.evaluation.report.findings import (
    FEW,
    GroupRow,
    Verdict,
    best,
    caution,
    fingerprints,
    first_unjudged,
    groups,
    headline,
    main_measure,
    verdicts,
)
from jina_rag.evaluation.report.page_images import Bounds, InlineImage, images
from jina_rag.evaluation.report.plots import Dot, bars, forest, scatter
from jina_rag.evaluation.report.queries import Asked, Got, Miss, PerSetting, asked, by_query, misses, per_setting
from jina_rag.evaluation.report.svg import colour, key
from jina_rag.evaluation.results import Evaluation, SettingResult
from jina_rag.evaluation.runner import write_whole
from jina_rag.types import Failure

_LARGE = Bounds(620, 100_000)
_SMALL = Bounds(300, 40_000)
_WANTED = 2
_GOT = 3
_EACH = (_WANTED + 1) * _LARGE.bytes + (_GOT - 1) * _SMALL.bytes
"""Bytes that the pictures of a failure take at most; base64 makes 0.51 MB of them, so ten take 5.1 MB."""
_MOST = 20_000_000
"""Bytes that all pictures take at most: with more than 52 failures they are smaller."""


def write_html(evaluation: Evaluation, path: Path, *, documents: Mapping[str, Path], failures: int = 10) -> None:
    """Write the report of an evaluation as one HTML file that needs no network and no other file.

    Args:
        evaluation: What was found.
        path: The file; it appears whole or not at all. Its pictures take 0.5 MB a failure at most, 27 MB in all.
        documents: Document → its file: pages that no setting has found are rendered from it.
        failures: How many questions to show with pictures: those that went worst with the first setting.

    Raises:
        InvalidInputError: If the evaluation has no setting, or the file cannot be written.
    """
    if not evaluation.settings:
        raise InvalidInputError("The evaluation has no setting: there is nothing to report.")
    write_whole(path, render(evaluation, documents=documents, failures=failures), what="report")


def render(evaluation: Evaluation, *, documents: Mapping[str, Path], failures: int = 10) -> str:
    """The report as HTML; arguments as in `write_html`."""
    import jinja2
    from markupsafe import Markup

    files = importlib.resources.files("jina_rag.evaluation.report")
    script = files.joinpath("sort.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Whatever is text and not made here is made harmless, wherever the template puts it.
        finalize=lambda value: (
            formatting.plain(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
        ),
    )
    for name in ("number", "signed", "interval", "size", "milliseconds", "seconds", "count", "listed", "moment"):
        environment.filters[name] = getattr(formatting, name)
    template = environment.from_string(files.joinpath("report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        **_context(evaluation, documents, failures),
        key=key,
        colour=colour,
        script=Markup(script),  # noqa: S704  # our own file
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


@dataclass(frozen=True, slots=True)
class _Shown:
    """A page of a failure as the template draws it: where it is from, its picture, and what is known of it."""

    page: PageKey
    image: InlineImage
    grade: int | None
    rank: int | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class _Card:
    """A failure as the template draws it."""

    miss: Miss
    wanted: list[_Shown]
    got: list[_Shown]


@dataclass(frozen=True, slots=True)
class _Row:
    """A question in the table of all."""

    query: Asked
    settings: Sequence[PerSetting]


def _context(evaluation: Evaluation, documents: Mapping[str, Path], failures: int) -> dict[str, Any]:
    """Everything the template names."""
    settings = evaluation.settings
    measure = main_measure(evaluation)
    found = verdicts(evaluation)
    ends = [abs(end) for v in found for end in (v.compared.difference.low, v.compared.difference.high)]
    reach = max(ends, default=0.0) or 1.0
    by_kind = {kind: groups(evaluation, kind, measure) for kind in ("modality", "language")} if measure else {}
    results = by_query(evaluation)
    rows = [_Row(query := asked(evaluation, qid), per_setting(some, query, measure)) for qid, some in results.items()]
    unjudged_at = sorted({k for setting in settings for k in setting.unjudged})
    return {
        "evaluation": evaluation,
        "settings": settings,
        "measure": measure,
        "measures": list(settings[0].measures),
        "documents": len(documents),
        "asked": len(results),
        "headline": headline(evaluation),
        "told": [verdict for verdict in found if verdict.compared.measure == measure],
        "caution": caution(evaluation),
        "best": best(evaluation),
        "unjudged_at": 5 if 5 in unjudged_at else unjudged_at[0] if unjudged_at else 0,
        "first_unjudged": {setting.name: first_unjudged(evaluation, setting) for setting in settings},
        "verdicts": _by_setting(found),
        "forest": lambda v: forest(
            v.compared.difference.low, v.compared.difference.mean, v.compared.difference.high, reach, v.kind
        ),
        "chances": len(found),
        "plots": _plots(settings, measure),
        "groups": [(kind, rows_, _bars(kind, rows_, settings, measure)) for kind, rows_ in by_kind.items() if rows_],
        "few": FEW,
        "cards": _cards(evaluation, documents, measure, failures),
        "rows": rows,
        "places": {setting.name: place for place, setting in enumerate(settings)},
        "fingerprints": fingerprints(evaluation),
        "failed": _failed(settings),
        "notes": _notes(settings),
    }


def _by_setting(found: Sequence[Verdict]) -> list[tuple[str, str, list[Verdict]]]:
    """(second, first, its verdicts), in order."""
    grouped: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in found:
        grouped.setdefault((verdict.compared.second, verdict.compared.first), []).append(verdict)
    return [(second, first, some) for (second, first), some in grouped.items()]


def _plots(settings: Sequence[SettingResult], measure: str) -> list[tuple[str, Any]]:
    """(caption, picture) of quality against size and against latency; a cost that nobody measured has no plot."""

    def dots(costs: Sequence[float], worst: Sequence[float | None]) -> list[Dot]:
        return [
            Dot(setting.name, cost, setting.measures[measure], setting.intervals.get(measure), high)
            for setting, cost, high in zip(settings, costs, worst, strict=True)
        ]

    sizes = [setting.vector_bytes_per_page for setting in settings]
    times = [setting.latency.get("p50", 0.0) for setting in settings]
    shown: list[tuple[str, Any]] = []
    if measure and min(sizes) > 0:
        image = scatter(
            dots(sizes, [None] * len(sizes)),
            name="plot-size",
            title=f"{measure} against bytes a page",
            across="bytes a page (logarithmic)",
            up=measure,
            unit=formatting.size,
        )
        shown.append(("Quality against size. Up and to the left is better.", image))
    if measure and min(times) > 0:
        image = scatter(
            dots(times, [setting.latency.get("p90") for setting in settings]),
            name="plot-latency",
            title=f"{measure} against latency",
            across="latency of a search, p50 with a line to p90 (logarithmic)",
            up=measure,
            unit=formatting.milliseconds,
        )
        shown.append(("Quality against latency. Up and to the left is better.", image))
    return shown


def _bars(kind: str, rows: Sequence[GroupRow], settings: Sequence[SettingResult], measure: str) -> Any:  # noqa: ANN401
    return bars(
        rows,
        [setting.name for setting in settings],
        name=f"plot-{kind}",
        title=f"{measure} by {kind}",
        measure=measure,
    )


def _cards(evaluation: Evaluation, documents: Mapping[str, Path], measure: str, most: int) -> list[_Card]:
    """The failures of the first setting with pictures of what was wanted and of what came."""
    if not measure:
        return []
    found = misses(evaluation, evaluation.settings[0], measure, most)
    sizes: dict[PageKey, Bounds] = {}
    share = min(1.0, _MOST / (_EACH * max(1, len(found))))
    small, whole = _SMALL.part(share), _LARGE.part(share)
    for miss in found:
        for got in miss.got[:_GOT]:
            sizes.setdefault(got.page, small)
    for miss in found:
        large = [page for page, _ in miss.wanted[:_WANTED]] + [got.page for got in miss.got[:1]]
        sizes.update(dict.fromkeys(large, whole))
    made = images(sizes, evaluation, documents)
    return [
        _Card(
            miss,
            [_Shown(page, made[page], grade, _rank(miss.got, page)) for page, grade in miss.wanted[:_WANTED]],
            [_Shown(got.page, made[got.page], got.grade, got.rank, got.score) for got in miss.got[:_GOT]],
        )
        for miss in found
    ]


def _rank(got: Sequence[Got], page: PageKey) -> int | None:
    return next((one.rank for one in got if one.page == page), None)


def _failed(settings: Sequence[SettingResult]) -> list[tuple[Failure, list[str]]]:
    """Each file or page that could not be indexed, with the settings that it is missing from."""
    found: dict[Failure, list[str]] = {}
    for setting in settings:
        for failure in dict.fromkeys(setting.failed):
            found.setdefault(failure, []).append(setting.name)
    return list(found.items())


def _notes(settings: Sequence[SettingResult]) -> list[tuple[str, str, int]]:
    """(setting, what was not done as asked, how many questions)."""
    found: dict[tuple[str, str], int] = {}
    for setting in settings:
        for result in setting.per_query:
            for note in dict.fromkeys(result.notes):
                found[setting.name, note] = found.get((setting.name, note), 0) + 1
    return [(name, note, times) for (name, note), times in found.items()]
