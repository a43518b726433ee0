"""Output of ``ingest``: the report of an ingestion or of a dry run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console

from jina_rag.cli.output import console
from jina_rag.types import Failure, IngestReport

if TYPE_CHECKING:
    from jina_rag.indexing.dry_run import IngestPlan

_MAX_LINES = 20
"""Maximum number of lines printed per list; --json prints all."""


def ingest_json(report: IngestReport) -> dict[str, Any]:
    """Return the object that ``ingest --json`` prints."""
    return _to_json(report) | {"seconds": round(report.seconds, 3)}


def plan_json(plan: IngestPlan) -> dict[str, Any]:
    """Return the object that ``ingest --dry-run --json`` prints."""
    content = _to_json(plan)
    content["again"] = content.pop("force")
    estimate = {name: content.pop(name) for name in ("seconds", "bytes", "basis")}
    return content | {"estimate": estimate | {"seconds": round(plan.seconds, 1)}}


def print_plan(out: Console, err: Console, plan: IngestPlan) -> None:
    """Print the planned changes of an ingestion, with the estimated time and disk space."""
    out.print(
        f"Would index {console.count(plan.new, 'new document')} and {console.count(plan.changed, 'changed document')}, "
        f"{console.count(plan.pages, 'page')}; {plan.unchanged} unchanged ({plan.moved} moved); "
        f"{console.count(plan.duplicates, 'duplicate')}; {plan.removed} to delete.",
        soft_wrap=True,
    )
    if plan.pages:
        out.print(
            f"About {console.duration(plan.seconds)} and {console.size(plan.bytes)} of disk space, "
            f"estimated {plan.basis}.",
            soft_wrap=True,
        )
    _print_list(err, "[yellow]Warnings", plan.warnings)
    _print_list(err, "Skipped", plan.skipped, max_lines=5)
    _print_list(err, "[red]Would fail", plan.failed)
    if plan.interrupted:
        err.print("[yellow]Interrupted:[/] the remaining documents are not counted.")


def print_report(err: Console, report: IngestReport) -> None:
    """Print the counts of an ingestion, and its duplicates, warnings, skipped files and failures."""
    unchanged = f"{console.count(report.unchanged, 'document')} unchanged"
    unchanged += f" ({report.moved} moved)" if report.moved else ""
    if report.documents or report.pages:
        line = f"Indexed {console.count(report.documents, 'document')}, {console.count(report.pages, 'page')}"
        line += f", {console.count(report.regions, 'region')}" if report.regions else ""
        line += f" in {report.seconds:.1f} s" + (f"; {unchanged}" if report.unchanged else "")
    else:
        line = f"Nothing to index: {unchanged}" if report.unchanged else "Nothing was indexed"
    err.print(line + ".", soft_wrap=True)
    if report.removed:
        err.print(f"Deleted {console.count(report.removed, 'document')} whose source file no longer exists.")
    if report.repeated:
        err.print(f"Marked {console.count(report.repeated, 'page')} as near-duplicates of earlier pages.")
    _print_list(err, "Duplicates", report.duplicates, max_lines=5)
    _print_list(err, "[yellow]Warnings", report.warnings)
    _print_list(err, "Skipped", report.skipped, max_lines=5)
    _print_list(err, "[red]Failed", report.failed)
    if report.interrupted:
        err.print("[yellow]Interrupted:[/] the index is usable. Run the same command again to resume.", soft_wrap=True)


def _print_list(err: Console, title: str, failures: Sequence[Failure], *, max_lines: int = _MAX_LINES) -> None:
    if not failures:
        return
    err.print(f"{title}[/] ({len(failures)}):" if title.startswith("[") else f"{title} ({len(failures)}):")
    for failure in failures[:max_lines]:
        err.print(f"  {console.failure_line(failure)}", soft_wrap=True)
    if len(failures) > max_lines:
        err.print(f"  … and {len(failures) - max_lines} more; --json prints all.")


def _to_json(result: IngestReport | IngestPlan) -> dict[str, Any]:
    content = asdict(result)
    for name, value in content.items():
        if isinstance(value, tuple):
            content[name] = [_failure_json(failure) for failure in getattr(result, name)]
    return content


def _failure_json(failure: Failure) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": str(failure.path), "reason": failure.reason}
    return entry | {"page": failure.page} if failure.page is not None else entry
