"""Streaming pipeline of cleaning steps, which reports every dropped pair."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from jina_rag._files import open_atomic
from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.cleaning.duplicates import Complete, ExactDuplicates
from jina_rag.evaluation.cleaning.near_duplicates import NearDuplicates
from jina_rag.evaluation.cleaning.pairs import Dropped, OnDrop, Pair, Step, as_pairs, dump, read_pairs
from jina_rag.evaluation.cleaning.report import CleaningReport, StepReport
from jina_rag.evaluation.files import FILE_MODE, explain_os_errors, file_hash

Progress: TypeAlias = Callable[[str, int], None]
"""Callback that receives the name of a step and the number of pairs that have passed the step."""


class Cleaning:
    """A pipeline of cleaning steps.

    The default steps drop incomplete pairs, exact duplicates and near-duplicates. Place `Languages` before
    `NearDuplicates`, and `Consistency` last, because `Consistency` is the most expensive step.

    Attributes:
        steps: The steps in order.
        report: Report of the current run, or of the last run. The report is complete after the last pair of the run.

    Example:
        >>> cleaning = Cleaning([Complete(), ExactDuplicates()])
        >>> records = [{"query": "Why?", "passage": "So."}, {"query": "WHY? ", "passage": "so."}]
        >>> list(cleaning.stream(records))
        [{'query': 'Why?', 'passage': 'So.'}]
        >>> cleaning.report.dropped
        1
    """

    def __init__(self, steps: Sequence[Step] | None = None) -> None:
        """Initialize the pipeline.

        Args:
            steps: The steps in order; None for `Complete`, `ExactDuplicates` and `NearDuplicates`.
        """
        self.steps: tuple[Step, ...] = (
            tuple(steps) if steps is not None else (Complete(), ExactDuplicates(), NearDuplicates())
        )
        self.report = CleaningReport([])

    def stream(
        self,
        records: Iterable[Mapping[str, Any]],
        *,
        query_key: str = "query",
        passage_key: str = "passage",
        on_drop: OnDrop | None = None,
        scratch: Path | None = None,
    ) -> Iterator[Mapping[str, Any]]:
        """Yield the records that stay, in input order. `report` is complete after the last record.

        Args:
            records: Mappings that hold a query and a passage, read once.
            query_key: Key of the query in a record.
            passage_key: Key of the passage in a record.
            on_drop: Called with each dropped pair; None to ignore dropped pairs.
            scratch: Folder for the steps' temporary files; None for the system's temporary folder.

        Raises:
            InvalidInputError: If a record lacks the query or the passage.
        """
        pairs = as_pairs(records, query_key=query_key, passage_key=passage_key)
        for pair in self.run(pairs, on_drop=on_drop, scratch=scratch):
            yield pair.record

    def run(
        self,
        pairs: Iterable[Pair],
        *,
        on_drop: OnDrop | None = None,
        scratch: Path | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Pair]:
        """Yield the kept pairs in input order, and set `report` to the report of this run.

        Args:
            pairs: Input pairs, which the pipeline reads once.
            on_drop: Called with each dropped pair; None to ignore dropped pairs.
            scratch: Folder for the steps' temporary files; None for the system's temporary folder.
            progress: Called after each pair that a step keeps, with the step name and the number of pairs that the
                step has kept; None to ignore.
        """
        report = self.report = CleaningReport([StepReport(step.name, step.settings) for step in self.steps])
        with tempfile.TemporaryDirectory(prefix="jina-rag-clean-", dir=scratch) as root, ExitStack() as open_steps:
            flow: Iterator[Pair] = iter(pairs)
            wait_seconds = [0.0] * (len(self.steps) + 1)  # index i + 1: seconds of waiting for step i; index 0 stays 0
            for position, (step, tally) in enumerate(zip(self.steps, report.steps, strict=True)):
                folder = Path(root) / str(position)
                folder.mkdir()
                running = step.run(_count_reads(flow, tally), _count_drops(tally, on_drop), folder)
                if hasattr(running, "close"):
                    # Close the files of a step before the temporary folder is deleted, even if the caller stops early.
                    open_steps.callback(running.close)
                flow = _measure_time(running, tally, wait_seconds, position, folder, progress)
            for pair in flow:
                report.kept += 1
                yield pair


def clean_file(
    path: Path,
    output: Path,
    steps: Sequence[Step] | None = None,
    *,
    dropped: Path | None = None,
    query_key: str = "query",
    passage_key: str = "passage",
    scratch: Path | None = None,
    progress: Progress | None = None,
) -> CleaningReport:
    """Clean a JSONL file of pairs and write the pairs that stay to `output`.

    `output` and `dropped` are written atomically. Memory does not grow with the input. The docstring of each step class
    states the disk usage of the step.

    Args:
        path: A JSONL file with one object per line. Each object holds a query and a passage. Other keys are preserved.
        output: Destination of the pairs that stay, in order.
        steps: The steps in order; None for the default steps of `Cleaning`.
        dropped: Destination of the dropped pairs, one object ``{"line", "step", "reason", "duplicate_of", …, "pair"}``
            per line; None for no file.
        query_key: Key of the query in an object.
        passage_key: Key of the passage in an object.
        scratch: Folder for the steps' temporary files; None for the folder of `output`.
        progress: Called with the step name and the number of passed pairs for each passed pair; None to ignore.

    Returns:
        The report of the run, with the name and the SHA-256 of the input file.

    Raises:
        InvalidInputError: If a file cannot be read or written, if two of the paths are the same file, or if the first
            non-blank line holds no pair.
    """
    paths = [p.resolve() for p in (path, output, dropped) if p is not None]
    if len(set(paths)) < len(paths):
        raise InvalidInputError(
            f"Input, output (--output) and dropped (--dropped) paths must differ; got {', '.join(map(str, paths))}."
        )
    cleaning = Cleaning(steps)
    unreadable: dict[str, int] = {}
    with ExitStack() as stack:
        output_file = stack.enter_context(_atomic_file(output))
        dropped_file = stack.enter_context(_atomic_file(dropped)) if dropped is not None else None

        def drop(entry: Dropped) -> None:
            if entry.step == "read":
                unreadable[entry.reason] = unreadable.get(entry.reason, 0) + 1
            if dropped_file is not None:
                dropped_file.write(dump(entry.to_json()))

        pairs = read_pairs(path, drop, query_key=query_key, passage_key=passage_key)
        folder = scratch or output.resolve().parent
        for pair in cleaning.run(pairs, on_drop=drop, scratch=folder, progress=progress):
            output_file.write(dump(pair.record))
    report = cleaning.report
    report.unreadable, report.source, report.sha256 = unreadable, path.name, file_hash(path)
    return report


def _measure_time(
    pairs: Iterator[Pair],
    tally: StepReport,
    wait_seconds: list[float],
    position: int,
    folder: Path,
    progress: Progress | None,
) -> Iterator[Pair]:
    """Yield `pairs` and record the time of the step: the wait for its pairs minus the wait for the pairs it reads."""
    for count in itertools.count(1):
        start = time.perf_counter()
        try:
            pair = next(pairs)
        except StopIteration:
            tally.disk_bytes = sum(file.stat().st_size for file in folder.iterdir())
            return
        finally:
            wait_seconds[position + 1] += time.perf_counter() - start
            tally.seconds = wait_seconds[position + 1] - wait_seconds[position]
        if progress is not None:
            progress(tally.name, count)
        yield pair


@contextmanager
def _atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file, which replaces the file at `path` if the ``with`` block succeeds."""
    with explain_os_errors(f"{path} cannot be written"), open_atomic(path, mode=FILE_MODE) as file:
        yield file


def _count_reads(pairs: Iterator[Pair], tally: StepReport) -> Iterator[Pair]:
    for pair in pairs:
        tally.read += 1
        yield pair


def _count_drops(tally: StepReport, on_drop: OnDrop | None) -> OnDrop:
    def drop(entry: Dropped) -> None:
        tally.dropped[entry.reason] = tally.dropped.get(entry.reason, 0) + 1
        if on_drop is not None:
            on_drop(entry)

    return drop
