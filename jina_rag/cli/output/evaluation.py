"""Output of ``evaluate``: tables, or one JSON object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from jina_rag.cli.output.console import failure_line, one_line, size

if TYPE_CHECKING:
    from rich.table import Table

    from jina_rag.evaluation.checks import FolderCheck
    from jina_rag.evaluation.results import Evaluation, PairedComparison, QueryResult, SettingResult
    from jina_rag.types import Failure

_SETTING_WIDTH = 24
"""Width in characters at which the name of a setting wraps."""


def evaluation_json(evaluation: Evaluation, earlier: Sequence[PairedComparison] = ()) -> dict[str, Any]:
    """Return the object that ``evaluate --json`` prints.

    The object contains the results of the first setting. With several settings, ``settings`` has the results of each.

    Args:
        evaluation: Results of all settings.
        earlier: Comparisons with an earlier evaluation.
    """
    from jina_rag.evaluation.serialization import comparison_json, setting_json

    first = evaluation.settings[0]
    value = setting_json(first) | {
        "per_query": {r.query_id: {"measures": r.measures, "milliseconds": r.milliseconds} for r in first.per_query},
        "data_hash": evaluation.data_hash,
        "command": evaluation.command,
        "versions": evaluation.versions,
        "seed": evaluation.seed,
        "seconds": round(evaluation.seconds, 3),
    }
    if len(evaluation.settings) > 1:
        value["settings"] = [setting_json(setting) for setting in evaluation.settings]
    if comparisons := [*evaluation.comparisons, *earlier]:
        value["compared"] = [comparison_json(comparison) for comparison in comparisons]
    return value


def print_evaluation(
    out: Console, err: Console, evaluation: Evaluation, earlier: Sequence[PairedComparison] = ()
) -> None:
    """Print the measures, the differences between settings, and the failures."""
    if len(evaluation.settings) == 1:
        _print_groups(out, evaluation.settings[0])
    else:
        _print_settings(out, evaluation)
    if comparisons := [*evaluation.comparisons, *earlier]:
        _print_differences(out, comparisons)
    print_failed(err, {(f.path, f.reason): f for setting in evaluation.settings for f in setting.failed}.values())
    index_seconds = sum({setting.index_seconds for setting in evaluation.settings})
    err.print(f"{evaluation.seconds:.1f} s, of which {index_seconds:.1f} s for indexing.")


def print_failed(err: Console, failures: Iterable[Failure]) -> None:
    """Print the files and pages that failed, one line each."""
    for failure in failures:
        err.print(f"[red]Failed:[/] {failure_line(failure)}", soft_wrap=True)


def print_failures(out: Console, evaluation: Evaluation, max_queries: int) -> None:
    """Print the lowest-scoring queries of the first setting, with their relevant and retrieved pages.

    Args:
        out: Console of stdout.
        evaluation: Results of all settings.
        max_queries: Maximum number of queries to print.
    """
    first = evaluation.settings[0]
    main = next(iter(first.measures))
    below = [result for result in first.per_query if result.measures and result.measures[main] < 1]
    worst = sorted(below, key=lambda result: result.measures[main])
    if not worst:
        out.print(f"{main} is 1 for all queries.")
        return
    out.print(
        f"Lowest-scoring queries by {main}"
        + (f" with {one_line(first.name)}:" if len(evaluation.settings) > 1 else ":")
    )
    for result in worst[:max_queries]:
        _print_failure(out, evaluation, result, main)
    if len(worst) > max_queries:
        out.print(f"  … and {len(worst) - max_queries} more below 1.")


def print_check(out: Console, check: FolderCheck) -> None:
    """Print the problems of a judged folder, one line each, and its contents."""
    for finding in check.findings:
        out.print(f"[red]{one_line(finding.kind)}:[/] {one_line(finding.what)}", soft_wrap=True)
    for note in check.notes:
        out.print(one_line(note), soft_wrap=True)


def _print_failure(out: Console, evaluation: Evaluation, result: QueryResult, main: str) -> None:
    query = evaluation.queries[result.query_id]
    relevant = ", ".join(f"{doc} p. {page}" for doc, page, grade in query["relevant"] if grade)
    retrieved = ", ".join(f"{doc} p. {page}" for doc, page in result.ranking[:3]) or "nothing"
    out.print(f"  {result.measures[main]:.2f}  {one_line(result.query_id)}  {one_line(query['query'])}", soft_wrap=True)
    out.print(f"        relevant: {one_line(relevant)}; retrieved: {one_line(retrieved)}", soft_wrap=True)


def _print_groups(out: Console, setting: SettingResult) -> None:
    names = list(setting.measures)
    table = _table("group", "n", *names)
    table.add_row("all", str(setting.queries), *(f"{setting.measures[name]:.3f}" for name in names))
    table.add_row("[dim]95 % from[/]", "", *(f"[dim]{setting.intervals[name][0]:.3f}[/]" for name in names))
    table.add_row("[dim]to[/]", "", *(f"[dim]{setting.intervals[name][1]:.3f}[/]" for name in names))
    for group, rows in setting.by.items():
        for key, row in rows.items():
            table.add_row(f"{group}: {one_line(key)}", f"{row['queries']:.0f}", *(f"{row[name]:.3f}" for name in names))
    out.print(table)
    notes = [
        f"{setting.vector_bytes_per_page / 1000:.1f} kB of vectors per page, {size(sum(setting.bytes.values()))} in all"
    ]
    if setting.latency:
        notes.append("query latency: " + ", ".join(f"{ms:.0f} ms ({name})" for name, ms in setting.latency.items()))
    deepest = max(setting.unjudged)
    notes.append(f"{setting.unjudged[deepest]:.1f} of the first {deepest} pages per query are unjudged")
    out.print("; ".join(notes) + ".")


def _print_settings(out: Console, evaluation: Evaluation) -> None:
    names = list(evaluation.settings[0].measures)
    costs = ["kB/page", "index s"]
    if any(setting.latency for setting in evaluation.settings):
        costs = ["p50 ms", "p99 ms", *costs]
    widest = max(len(setting.name) for setting in evaluation.settings)
    free_width = out.width - min(widest, _SETTING_WIDTH) - sum(len(name) + 1 for name in costs)
    fitting = [
        name for position, name in enumerate(names) if sum(len(n) + 1 for n in names[: position + 1]) <= free_width
    ]
    table = _table("setting", *fitting, *costs)
    for setting in evaluation.settings:
        cost_of = {
            **{f"{name} ms": f"{setting.latency.get(name, 0):.0f}" for name in ("p50", "p99")},
            "kB/page": f"{setting.vector_bytes_per_page / 1000:.1f}",
            "index s": f"{setting.index_seconds:.0f}",
        }
        values = (f"{setting.measures[name]:.3f}" for name in fitting)
        table.add_row(one_line(setting.name), *values, *(cost_of[name] for name in costs))
    out.print(table)
    hint = (
        f" Omitted: {', '.join(names[len(fitting) :])}. Use --json, or widen the terminal."
        if len(fitting) < len(names)
        else ""
    )
    out.print(f"{evaluation.settings[0].queries} judged queries. kB/page: size of the vectors and their payload.{hint}")


def _print_differences(out: Console, comparisons: Sequence[PairedComparison]) -> None:
    """Print the first measure of each comparison; --json and the report contain all measures."""
    main = [comparison for comparison in comparisons if comparison.measure == comparisons[0].measure]
    for first in dict.fromkeys(comparison.first for comparison in main):
        title = f"{main[0].measure} vs. {one_line(first)}"
        table = _table(title, "difference", "95 % interval", "better", "worse")
        for comparison in main:
            if comparison.first == first:
                delta = comparison.difference
                significant = delta.low > 0 or delta.high < 0
                table.add_row(
                    one_line(comparison.second),
                    f"[bold]{delta.mean:+.3f}[/]" if significant else f"{delta.mean:+.3f}",
                    rf"\[{delta.low:+.3f}, {delta.high:+.3f}]",
                    str(delta.better),
                    str(delta.worse),
                )
        out.print(table)
    out.print("If an interval contains 0, the difference is not significant on these queries.")


def _table(first: str, *others: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table
