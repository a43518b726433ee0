"""What the commands print: results to stdout, progress and trouble to stderr, and with ``--json`` one object alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from jina_rag.types import Failure, IngestReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from jina_rag.doctor.examination import Examination
    from jina_rag.indexing.dry_run import IngestPlan
    from jina_rag.indexing.ingest import IngestProgress
    from jina_rag.models.catalogue import ModelDescription

OK, PARTLY, USAGE, INTERRUPTED = 0, 1, 2, 130
_LISTED = 20
"""Lines of a list that a person still reads; --json has all."""


def consoles() -> tuple[Console, Console]:
    """(stdout, stderr). Names from the disk may hold what a terminal cannot encode: such characters are escaped."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    return Console(highlight=False), Console(stderr=True, highlight=False)


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout, and nothing else there."""
    # Where the terminal or the pipe is not UTF-8, pure ASCII is the same JSON. A lone surrogate of a file name
    # becomes \\udcXX by either way.
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stdout.write(json.dumps(value, ensure_ascii=ascii_only) + "\n")
    sys.stdout.flush()


def shown(name: object) -> str:
    """A name from the disk for a person: one line, no control characters, no markup."""
    return escape("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name)))


def ingest_json(report: IngestReport) -> dict[str, Any]:
    """The object that ``ingest --json`` prints."""
    return {
        "documents": report.documents,
        "pages": report.pages,
        "regions": report.regions,
        "unchanged": report.unchanged,
        "moved": report.moved,
        "removed": report.removed,
        "repeated": report.repeated,
        "duplicates": [_failure_json(failure) for failure in report.duplicates],
        "failed": [_failure_json(failure) for failure in report.failed],
        "skipped": [_failure_json(failure) for failure in report.skipped],
        "warnings": [_failure_json(failure) for failure in report.warnings],
        "interrupted": report.interrupted,
        "seconds": round(report.seconds, 3),
    }


def plan_json(plan: IngestPlan) -> dict[str, Any]:
    """The object that ``ingest --dry-run --json`` prints."""
    return {
        "new": plan.new,
        "changed": plan.changed,
        "again": plan.force,
        "unchanged": plan.unchanged,
        "moved": plan.moved,
        "duplicates": plan.duplicates,
        "removed": plan.removed,
        "pages": plan.pages,
        "estimate": {"seconds": round(plan.seconds, 1), "bytes": plan.bytes, "basis": plan.basis},
        "failed": [_failure_json(failure) for failure in plan.failed],
        "skipped": [_failure_json(failure) for failure in plan.skipped],
    }


def print_plan(out: Console, err: Console, plan: IngestPlan) -> None:
    """What an ingestion would do, for a person."""
    out.print(
        f"Would index {count(plan.new, 'new document')} and {count(plan.changed, 'changed document')}, "
        f"{count(plan.pages, 'page')}; {plan.unchanged} unchanged, {plan.moved} of them moved; "
        f"{count(plan.duplicates, 'duplicate')}; {plan.removed} to be removed.",
        soft_wrap=True,
    )
    if plan.pages:
        out.print(
            f"About {duration(plan.seconds)} and {size(plan.bytes)} of disk, estimated {plan.basis}.", soft_wrap=True
        )
    _list(err, "Passed over", plan.skipped, most=5)
    _list(err, "[red]Would fail", plan.failed)


def print_report(err: Console, report: IngestReport) -> None:
    """What became of every file, for a person."""
    unchanged = f"{count(report.unchanged, 'document')} unchanged"
    unchanged += f" ({report.moved} moved)" if report.moved else ""
    if report.documents or report.pages:
        line = f"Indexed {count(report.documents, 'document')}, {count(report.pages, 'page')}"
        line += f", {count(report.regions, 'region')}" if report.regions else ""
        line += f" in {report.seconds:.1f} s" + (f"; {unchanged}" if report.unchanged else "")
    else:
        line = f"Nothing new to index: {unchanged}" if report.unchanged else "Nothing was indexed"
    err.print(line + ".", soft_wrap=True)
    if report.removed:
        err.print(f"Removed {count(report.removed, 'document')} whose file is gone.")
    if report.repeated:
        err.print(f"{count(report.repeated, 'page')} nearly repeat earlier ones, and are marked so.")
    _list(err, "Duplicates", report.duplicates, most=5)
    _list(err, "[yellow]Worth a look", report.warnings)
    _list(err, "Passed over", report.skipped, most=5)
    _list(err, "[red]Failed", report.failed)
    if report.interrupted:
        err.print(
            "[yellow]Interrupted:[/] the index can be searched, and the same command goes on from here.", soft_wrap=True
        )


def print_models(
    out: Console, models: Iterable[ModelDescription], places: Mapping[str, Path | None], default: str
) -> None:
    """The models as a table."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("name", "what it is", "size", "licence", "here"):
        table.add_column(name, overflow="fold", no_wrap=name in ("name", "size", "here"))
    for model in models:
        weight = f"{model.megabytes / 1000:.1f} GB" if model.megabytes >= 1000 else f"{model.megabytes:.0f} MB"
        role = "embedder, reranker" if model.role == "both" else model.role
        table.add_row(
            f"[bold]{model.name}[/]" if model.name == default else model.name,
            f"{role}; {model.modality}",
            weight,
            model.licence if model.commercial else f"[yellow]{model.licence}[/]",
            "yes" if places[model.name] else "no",
        )
    out.print(table)
    out.print(f"The default is {default}. What is not here is downloaded when it is first loaded.", soft_wrap=True)
    out.print("Qwen Research and CC-BY-NC weights: no commercial use without an agreement.", soft_wrap=True)


def print_examination(out: Console, found: Examination) -> None:
    """What the doctor found, on one page."""
    for name, value in found.facts:
        out.print(f"{shown(name):<20} {shown(value)}", soft_wrap=True)
    out.print()
    colours = {"ok": "green", "failed": "red", "refused": "red", "skipped": "yellow"}
    for finding in found.findings:
        mark = f"[{colours[finding.status]}]{finding.status:<8}[/]"
        out.print(f"{mark} {shown(finding.what)}: {shown(finding.detail)}", soft_wrap=True)


@contextmanager
def waiting(err: Console, what: str, *, quiet: bool) -> Iterator[None]:
    """A sign of life on a terminal."""
    if quiet or not err.is_terminal:
        yield
        return
    with err.status(what):
        yield


@contextmanager
def ingest_progress(err: Console, *, quiet: bool) -> Iterator[Callable[[IngestProgress], None] | None]:
    """A progress bar on stderr with pages done, pages in all and time left."""
    if quiet or not err.is_terminal:
        yield None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("pages"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("looking for documents", total=None)

        def show(progress: IngestProgress) -> None:
            bar.update(
                task,
                description=shown(progress.current[-40:]) or "reading",
                completed=progress.pages,
                total=progress.pages_total or None,
            )

        yield show


@contextmanager
def counting(err: Console, what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on stderr over a number of things."""
    if quiet or not err.is_terminal:
        yield None
        return
    from rich.progress import Progress

    with Progress(console=err, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _list(err: Console, title: str, failures: Sequence[Failure], *, most: int = _LISTED) -> None:
    if not failures:
        return
    err.print(f"{title}[/] ({len(failures)}):" if title.startswith("[") else f"{title} ({len(failures)}):")
    for failure in failures[:most]:
        page = f", page {failure.page}" if failure.page else ""
        err.print(f"  {shown(failure.path)}{page}: {shown(failure.reason)}", soft_wrap=True)
    if len(failures) > most:
        err.print(f"  … and {len(failures) - most} more; --json lists all.")


def _failure_json(failure: Failure) -> dict[str, Any]:
    entry: dict[str, Any] = {"path": str(failure.path), "reason": failure.reason}
    return entry | {"page": failure.page} if failure.page is not None else entry


def count(number: int, noun: str) -> str:
    """A number and its noun: "1 page", "2 pages"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """Seconds for a person."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def size(number: int) -> str:
    """Bytes for a person."""
    if number >= 1e9:
        return f"{number / 1e9:.1f} GB"
    return f"{number / 1e6:.1f} MB" if number >= 1e6 else f"{number / 1e3:.0f} kB"
