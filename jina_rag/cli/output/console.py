"""Console output: results to stdout, progress and messages to stderr, one JSON object with ``--json``."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from jina_rag._display import displayed

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import ProgressColumn
    from rich.status import Status

    from jina_rag.indexing.ingest import IngestProgress
    from jina_rag.types import Failure

_OTHER = re.compile(r"[^ -~]")
OK, PARTLY, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses: success, some files or pages failed, invalid usage or input, interrupted."""


def consoles() -> tuple[Console, Console]:
    """Return the consoles of stdout and stderr. Both consoles escape characters that the terminal cannot encode."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    return Console(highlight=False), Console(stderr=True, highlight=False)


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object to stdout."""
    # JSON in ASCII is readable for terminals and pipes that do not use UTF-8. With either encoding, a lone surrogate of
    # a file name is written as \\udcXX.
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    # JSON escapes C0 controls only. A terminal also obeys C1 controls and bidirectional controls.
    text = json.dumps(value, ensure_ascii=ascii_only)
    text = _OTHER.sub(lambda match: match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1], text)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def one_line(name: object) -> str:
    """Return `name` as one printable line: control characters escaped, rich markup disabled."""
    return escape(displayed(name))


@contextmanager
def spinner(err: Console, activity: str, *, quiet: bool) -> Iterator[Status | None]:
    """Show a spinner on a terminal; yield None if stderr is not a terminal or `quiet` is set."""
    if quiet or not err.is_terminal:
        yield None
        return
    with err.status(activity) as status:
        yield status


@contextmanager
def ingest_progress(err: Console, *, quiet: bool) -> Iterator[Callable[[IngestProgress], None] | None]:
    """Show a progress bar on stderr with pages done, total pages, elapsed and remaining time."""
    from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), "pages", TimeElapsedColumn(), "remaining", TimeRemainingColumn())
    with _bar(err, "finding documents", "{task.description}", *columns, quiet=quiet) as update:

        def show(progress: IngestProgress) -> None:
            description = one_line(progress.current[-40:]) or "parsing"
            assert update is not None
            update(description=description, completed=progress.pages, total=progress.pages_expected or None)

        yield show if update else None


@contextmanager
def counting(err: Console, unit: str, *, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Show a progress bar on stderr that counts `unit`; yield its update function, or None without a terminal."""
    with _bar(err, unit, quiet=quiet) as update:
        yield (lambda done, total: update(completed=done, total=total)) if update else None


@contextmanager
def _bar(err: Console, label: str, *columns: str | ProgressColumn, quiet: bool) -> Iterator[Callable[..., None] | None]:
    """Yield the update function of a progress bar; None if stderr is not a terminal or `quiet` is set."""
    if quiet or not err.is_terminal:
        yield None
        return
    from rich.progress import Progress

    with Progress(*columns, console=err, transient=True) as bar:
        yield partial(bar.update, bar.add_task(label, total=None))


def failure_line(failure: Failure) -> str:
    """Return one line with the file, the page and the reason of a failure."""
    page = f", page {failure.page}" if failure.page else ""
    return f"{one_line(failure.path)}{page}: {one_line(failure.reason)}"


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: "1 page", "2 pages"."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def duration(seconds: float) -> str:
    """Format seconds as s, min or h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def size(number: int) -> str:
    """Format bytes as kB, MB or GB."""
    if number >= 1e9:
        return f"{number / 1e9:.1f} GB"
    return f"{number / 1e6:.1f} MB" if number >= 1e6 else f"{number / 1e3:.0f} kB"
