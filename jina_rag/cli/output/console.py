"""What the commands print: results to stdout, progress and trouble to stderr, and with ``--json`` one object alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import ProgressColumn
    from rich.status import Status

    from jina_rag.indexing.ingest import IngestProgress
    from jina_rag.types import Failure

OK, PARTLY, USAGE, INTERRUPTED = 0, 1, 2, 130


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


def one_line(name: object) -> str:
    """A name from the disk for a person: one line, no control characters, no markup."""
    return escape("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name)))


@contextmanager
def waiting(err: Console, what: str, *, quiet: bool) -> Iterator[Status | None]:
    """A sign of life on a terminal; None where nobody looks at one."""
    if quiet or not err.is_terminal:
        yield None
        return
    with err.status(what) as status:
        yield status


@contextmanager
def ingest_progress(err: Console, *, quiet: bool) -> Iterator[Callable[[IngestProgress], None] | None]:
    """A progress bar on stderr with pages done, pages in all and time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), "pages", TimeElapsedColumn(), "left", TimeRemainingColumn())
    with _bar(err, "looking for documents", "{task.description}", *columns, quiet=quiet) as update:

        def show(progress: IngestProgress) -> None:
            description = one_line(progress.current[-40:]) or "reading"
            assert update is not None
            update(description=description, completed=progress.pages, total=progress.pages_expected or None)

        yield show if update else None


@contextmanager
def counting(err: Console, what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on stderr over a number of things."""
    with _bar(err, what, quiet=quiet) as update:
        yield (lambda done, total: update(completed=done, total=total)) if update else None


@contextmanager
def _bar(err: Console, what: str, *columns: str | ProgressColumn, quiet: bool) -> Iterator[Callable[..., None] | None]:
    """What updates a progress bar; None where nobody looks at one."""
    if quiet or not err.is_terminal:
        yield None
        return
    from rich.progress import Progress

    with Progress(*columns, console=err, transient=True) as bar:
        yield partial(bar.update, bar.add_task(what, total=None))


def failure_line(failure: Failure) -> str:
    """A file or page that could not be read, and why."""
    page = f", page {failure.page}" if failure.page else ""
    return f"{one_line(failure.path)}{page}: {one_line(failure.reason)}"


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
