"""The report as one HTML file: pictures as data URIs, plots as SVG, text from documents as text.

The policy in the page forbids every request; the one script, which sorts a table, is allowed by its hash. Without
matplotlib the report has no plots, and says how to get them.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jina_rag.errors import InvalidInputError, MissingDependencyError
from jina_rag.evaluation.datasets import PageKey
from jina_rag.evaluation.files import write_text
from jina_rag.evaluation.report import formatting
from jina_rag.evaluation.report.findings import (
    FEW,
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
from jina_rag.evaluation.report.plots import cost_plots, group_bars, key
from jina_rag.evaluation.report.queries import by_query, misses, outcomes, report_query
from jina_rag.evaluation.results import Evaluation, SettingResult
from jina_rag.types import Failure

_LARGE = Bounds(620, 100_000)
_SMALL = Bounds(300, 40_000)
_RELEVANT = 2
_RETRIEVED = 3
_EACH = (_RELEVANT + 1) * _LARGE.bytes + (_RETRIEVED - 1) * _SMALL.bytes
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
    write_text(path, render(evaluation, documents=documents, failures=failures), what="report")


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
        script=Markup(script),  # noqa: S704  # our own file
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


@dataclass(frozen=True, slots=True)
class _PageView:
    """A page of a failure as the template draws it: where it is from, its picture, and what is known of it."""

    page: PageKey
    image: InlineImage
    grade: int | None
    rank: int | None = None
    score: float | None = None


def _context(evaluation: Evaluation, documents: Mapping[str, Path], failures: int) -> dict[str, Any]:
    """Everything the template names."""
    settings = evaluation.settings
    measure = main_measure(evaluation)
    all_verdicts = verdicts(evaluation)
    ends = [abs(end) for v in all_verdicts for end in (v.comparison.difference.low, v.comparison.difference.high)]
    kinds = ("modality", "language") if measure else ()
    by_kind = {kind: group_rows for kind in kinds if (group_rows := groups(evaluation, kind, measure))}
    names = [setting.name for setting in settings]
    try:
        missing, plots = "", cost_plots(settings, measure)
        bars = {kind: group_bars(rows, names, kind=kind, measure=measure) for kind, rows in by_kind.items()}
    except MissingDependencyError as exc:
        missing, plots, bars = str(exc), [], {}
    results = by_query(evaluation)
    rows = [
        (query := report_query(evaluation, query_id), outcomes(r, query, measure)) for query_id, r in results.items()
    ]
    unjudged_at = sorted({k for setting in settings for k in setting.unjudged})
    return {
        "evaluation": evaluation,
        "settings": settings,
        "measure": measure,
        "measures": list(settings[0].measures),
        "documents": len(documents),
        "queries": len(results),
        "headline": headline(evaluation),
        "main_verdicts": [verdict for verdict in all_verdicts if verdict.comparison.measure == measure],
        "caution": caution(evaluation),
        "best": best(evaluation),
        "unjudged_at": 5 if 5 in unjudged_at else unjudged_at[0] if unjudged_at else 0,
        "first_unjudged": {setting.name: first_unjudged(evaluation, setting) for setting in settings},
        "verdicts": _by_setting(all_verdicts),
        "reach": max(ends, default=0.0) or 1.0,
        "chances": len(all_verdicts),
        "plots": plots,
        "bars": bars,
        "plots_missing": missing,
        "groups": by_kind,
        "few": FEW,
        "cards": _cards(evaluation, documents, measure, failures),
        "rows": rows,
        "places": {setting.name: place for place, setting in enumerate(settings)},
        "fingerprints": fingerprints(evaluation),
        "failed": _failed(settings),
        "notes": _notes(settings),
    }


def _by_setting(all_verdicts: Sequence[Verdict]) -> list[tuple[str, str, list[Verdict]]]:
    """(second, first, its verdicts), in order."""
    pairs: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in all_verdicts:
        pairs.setdefault((verdict.comparison.second, verdict.comparison.first), []).append(verdict)
    return [(second, first, some) for (second, first), some in pairs.items()]


def _cards(evaluation: Evaluation, documents: Mapping[str, Path], measure: str, most: int) -> list[dict[str, Any]]:
    """The failures of the first setting with pictures of the relevant pages and of those that came."""
    if not measure:
        return []
    worst = misses(evaluation, evaluation.settings[0], measure, most)
    bounds: dict[PageKey, Bounds] = {}
    share = min(1.0, _MOST / (_EACH * max(1, len(worst))))
    for miss in worst:
        for hit in miss.retrieved[:_RETRIEVED]:
            bounds.setdefault(hit.page, _SMALL.part(share))
    for miss in worst:
        large = [page for page, _ in miss.relevant[:_RELEVANT]] + [hit.page for hit in miss.retrieved[:1]]
        bounds.update(dict.fromkeys(large, _LARGE.part(share)))
    image_of = images(bounds, evaluation, documents)
    cards = []
    for miss in worst:
        ranks = {hit.page: hit.rank for hit in miss.retrieved}
        relevant = [_PageView(p, image_of[p], grade, ranks.get(p)) for p, grade in miss.relevant[:_RELEVANT]]
        retrieved = [_PageView(h.page, image_of[h.page], h.grade, h.rank, h.score) for h in miss.retrieved[:_RETRIEVED]]
        cards.append({"miss": miss, "relevant": relevant, "retrieved": retrieved})
    return cards


def _failed(settings: Sequence[SettingResult]) -> list[tuple[Failure, list[str]]]:
    """Each file or page that could not be indexed, with the settings that it is missing from."""
    names: dict[Failure, list[str]] = {}
    for setting in settings:
        for failure in dict.fromkeys(setting.failed):
            names.setdefault(failure, []).append(setting.name)
    return list(names.items())


def _notes(settings: Sequence[SettingResult]) -> list[tuple[str, str, int]]:
    """(setting, what was not done as asked, how many questions)."""
    times = Counter(
        (setting.name, note)
        for setting in settings
        for result in setting.per_query
        for note in dict.fromkeys(result.notes)
    )
    return [(name, note, count) for (name, note), count in times.items()]
