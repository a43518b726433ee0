"""HTML report of an evaluation, with images as data URIs and plots as SVG.

The Content-Security-Policy of the report forbids all requests. The policy allows one script, identified by hash, which
sorts the table of queries and expands collapsed sections for printing.
Without matplotlib, the report omits the plots and names the command that installs matplotlib.
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

from jina_rag._display import displayed
from jina_rag.errors import InvalidInputError, MissingDependencyError
from jina_rag.evaluation.datasets import PageKey
from jina_rag.evaluation.files import write_text
from jina_rag.evaluation.report import formatting
from jina_rag.evaluation.report.findings import (
    SMALL_GROUP,
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
_MAX_RELEVANT = 2
_MAX_HITS = 3
_MAX_QUERY_BYTES = (_MAX_RELEVANT + 1) * _LARGE.bytes + (_MAX_HITS - 1) * _SMALL.bytes
"""Maximum bytes of the images of one query: at most 0.51 MB in base64, or 5.1 MB for ten queries."""
_MAX_BYTES = 20_000_000
"""Maximum bytes of all images, before base64. With more than 52 queries, images are scaled down."""


def write_html(evaluation: Evaluation, path: Path, *, documents: Mapping[str, Path], failures: int = 10) -> None:
    """Write the report of an evaluation as one self-contained HTML file, atomically.

    Args:
        evaluation: An evaluation with at least one setting, whose results the report shows.
        path: Path of the HTML file. The images take at most 0.51 MB per lowest-scoring query, and 27 MB in total.
        documents: Document name → path. Pages without a screenshot in an index are rendered from these files.
        failures: Number of lowest-scoring queries of the first setting to show with page images.

    Raises:
        InvalidInputError: If the evaluation has no setting, or the file cannot be written.
    """
    if not evaluation.settings:
        raise InvalidInputError("The evaluation has no setting. Evaluate at least one setting first.")
    write_text(path, render(evaluation, documents=documents, failures=failures), label="report")


def render(evaluation: Evaluation, *, documents: Mapping[str, Path], failures: int = 10) -> str:
    """Return the report of an evaluation as HTML.

    Args:
        evaluation: An evaluation with at least one setting.
        documents: Document name → path. Pages without a screenshot in an index are rendered from these files.
        failures: Number of lowest-scoring queries of the first setting to show with page images.
    """
    import jinja2
    from markupsafe import Markup

    files = importlib.resources.files("jina_rag.evaluation.report")
    script = files.joinpath("sort.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Sanitize all text except Markup, which only this package creates.
        finalize=lambda value: displayed(value) if isinstance(value, str) and not hasattr(value, "__html__") else value,
    )
    for name in ("number", "signed", "interval", "size", "milliseconds", "seconds", "count", "join_names", "timestamp"):
        environment.filters[name] = getattr(formatting, name)
    template = environment.from_string(files.joinpath("report.html.j2").read_text(encoding="utf-8"))
    return template.render(
        **_context(evaluation, documents, failures),
        key=key,
        script=Markup(script),  # noqa: S704  # sort.js is part of the package
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


@dataclass(frozen=True, slots=True)
class _PageView:
    """A relevant or retrieved page, as the template shows the page below a lowest-scoring query.

    Attributes:
        page: Document name and page number.
        image: The page image, or the reason why the page has no image.
        grade: Relevance grade; None for an unjudged page.
        rank: Rank, counted from 1; None for a page that was not retrieved.
        score: Score of a retrieved page; None for a relevant page, and if the result has no scores.
    """

    page: PageKey
    image: InlineImage
    grade: int | None
    rank: int | None = None
    score: float | None = None


def _context(evaluation: Evaluation, documents: Mapping[str, Path], failures: int) -> dict[str, Any]:
    """Return the variables of the template."""
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
        "max_difference": max(ends, default=0.0) or 1.0,
        "comparison_count": len(all_verdicts),
        "plots": plots,
        "bars": bars,
        "plots_missing": missing,
        "groups": by_kind,
        "small_group": SMALL_GROUP,
        "cards": _cards(evaluation, documents, measure, failures),
        "rows": rows,
        "positions": {setting.name: position for position, setting in enumerate(settings)},
        "fingerprints": fingerprints(evaluation),
        "failed": _failed(settings),
        "notes": _notes(settings),
    }


def _by_setting(all_verdicts: Sequence[Verdict]) -> list[tuple[str, str, list[Verdict]]]:
    """Return the verdicts of each pair of settings, as (name of the second setting, name of the first, verdicts)."""
    pairs: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in all_verdicts:
        pairs.setdefault((verdict.comparison.second, verdict.comparison.first), []).append(verdict)
    return [(second, first, pair_verdicts) for (second, first), pair_verdicts in pairs.items()]


def _cards(evaluation: Evaluation, documents: Mapping[str, Path], measure: str, limit: int) -> list[dict[str, Any]]:
    """Return the lowest-scoring queries of the first setting, with images of relevant and retrieved pages."""
    if not measure:
        return []
    worst = misses(evaluation, evaluation.settings[0], measure, limit)
    bounds: dict[PageKey, Bounds] = {}
    fraction = min(1.0, _MAX_BYTES / (_MAX_QUERY_BYTES * max(1, len(worst))))
    for miss in worst:
        for hit in miss.retrieved[:_MAX_HITS]:
            bounds.setdefault(hit.page, _SMALL.scale(fraction))
    for miss in worst:
        large = [page for page, _ in miss.relevant[:_MAX_RELEVANT]] + [hit.page for hit in miss.retrieved[:1]]
        bounds.update(dict.fromkeys(large, _LARGE.scale(fraction)))
    inline = images(bounds, evaluation, documents)
    cards = []
    for miss in worst:
        ranks = {hit.page: hit.rank for hit in miss.retrieved}
        relevant = [_PageView(p, inline[p], grade, ranks.get(p)) for p, grade in miss.relevant[:_MAX_RELEVANT]]
        retrieved = [_PageView(h.page, inline[h.page], h.grade, h.rank, h.score) for h in miss.retrieved[:_MAX_HITS]]
        cards.append({"miss": miss, "relevant": relevant, "retrieved": retrieved})
    return cards


def _failed(settings: Sequence[SettingResult]) -> list[tuple[Failure, list[str]]]:
    """Return each file or page that was not indexed, with the names of the affected settings."""
    names: dict[Failure, list[str]] = {}
    for setting in settings:
        for failure in dict.fromkeys(setting.failed):
            names.setdefault(failure, []).append(setting.name)
    return list(names.items())


def _notes(settings: Sequence[SettingResult]) -> list[tuple[str, str, int]]:
    """Return (setting, note, number of queries) for each note of a search."""
    counts = Counter(
        (setting.name, note)
        for setting in settings
        for result in setting.per_query
        for note in dict.fromkeys(result.notes)
    )
    return [(name, note, count) for (name, note), count in counts.items()]
