"""Steps run one after another over a stream, with every drop counted and explained."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from jina_rag._files import open_whole
from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.cleaning.duplicates import Complete, ExactDuplicates
from jina_rag.evaluation.cleaning.near_duplicates import NearDuplicates
from jina_rag.evaluation.cleaning.pairs import Dropped, OnDrop, Pair, Step, as_pairs, dump, read_pairs
from jina_rag.evaluation.cleaning.report import CleaningReport, StepReport
from jina_rag.evaluation.files import READABLE, explain_os_errors, file_hash

Progress: TypeAlias = Callable[[str, int], None]
"""Called with the name of a step and the number of pairs that it has let pass."""


class Cleaning:
    """Steps in their order.

    Without `steps` it drops incomplete pairs, exact and near-duplicates. `Languages` belongs before `NearDuplicates`
    and `Consistency` last, because it is the dearest.

    Example:
        >>> cleaning = Cleaning([Complete(), ExactDuplicates()])
        >>> records = [{"query": "Why?", "passage": "So."}, {"query": "WHY? ", "passage": "so."}]
        >>> list(cleaning.stream(records))
        [{'query': 'Why?', 'passage': 'So.'}]
        >>> cleaning.report.dropped
        1
    """

    def __init__(self, steps: Sequence[Step] | None = None) -> None:
        """Take steps.

        Args:
            steps: In their order; None for incomplete pairs, exact and near-duplicates.
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
        """Give the records that stay, in their order; `report` is complete after the last.

        Args:
            records: Objects with the two texts; read once.
            query_key: The key of the question.
            passage_key: The key of the passage.
            on_drop: Called with each of the others.
            scratch: Where the steps' files go; None for the system's folder of temporary files.

        Raises:
            InvalidInputError: If a record lacks one of the two texts.
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
        """`stream` over pairs; starts a new `report`."""
        report = self.report = CleaningReport([StepReport(step.name, step.settings) for step in self.steps])
        with tempfile.TemporaryDirectory(prefix="jina-rag-clean-", dir=scratch) as root, ExitStack() as open_steps:
            flow: Iterator[Pair] = iter(pairs)
            clock = [0.0] * (len(self.steps) + 1)  # seconds that each step was waited for; none before the first
            for place, (step, tally) in enumerate(zip(self.steps, report.steps, strict=True)):
                folder = Path(root) / str(place)
                folder.mkdir()
                running = step.run(_count_reads(flow, tally), _count_drops(tally, on_drop), folder)
                if hasattr(running, "close"):
                    # Files of a step are closed before its folder goes, also where the caller stops early.
                    open_steps.callback(running.close)
                flow = _measure_time(running, tally, clock, place, folder, progress)
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
    """Clean a JSONL file of pairs into another one.

    Both files appear whole or not at all. Memory does not grow with the input; the steps say what grows on disk.

    Args:
        path: One object a line with the two texts; what else it holds is kept.
        output: The lines that stay, in their order.
        steps: As `Cleaning` takes them.
        dropped: The others, one ``{"line", "step", "reason", "duplicate_of", …, "pair"}`` a line.
        query_key: The key of the question.
        passage_key: The key of the passage.
        scratch: Where the steps' files go; None for the folder of `output`.
        progress: Called with a step and the pairs it has let pass so far, for each pair.

    Raises:
        InvalidInputError: If a file cannot be read or written, is named twice, or its first line holds no pair.
    """
    paths = [p.resolve() for p in (path, output, dropped) if p is not None]
    if len(set(paths)) < len(paths):
        raise InvalidInputError("The pairs, the output and the dropped pairs are different files: name each once.")
    cleaning = Cleaning(steps)
    unreadable: dict[str, int] = {}
    with ExitStack() as stack:
        sink = stack.enter_context(_written(output))
        waste = stack.enter_context(_written(dropped)) if dropped is not None else None

        def drop(one: Dropped) -> None:
            if one.step == "read":
                unreadable[one.reason] = unreadable.get(one.reason, 0) + 1
            if waste is not None:
                waste.write(dump(one.to_json()))

        pairs = read_pairs(path, drop, query_key=query_key, passage_key=passage_key)
        where = scratch or output.resolve().parent
        for pair in cleaning.run(pairs, on_drop=drop, scratch=where, progress=progress):
            sink.write(dump(pair.record))
    report = cleaning.report
    report.unreadable, report.source, report.sha256 = unreadable, path.name, file_hash(path)
    return report


def _measure_time(
    pairs: Iterator[Pair],
    tally: StepReport,
    clock: list[float],
    place: int,
    folder: Path,
    progress: Progress | None,
) -> Iterator[Pair]:
    """Time that a step takes is all the time it is waited for, less that of the steps before it."""
    for count in itertools.count(1):
        start = time.perf_counter()
        try:
            pair = next(pairs)
        except StopIteration:
            tally.disk_bytes = sum(file.stat().st_size for file in folder.iterdir())
            return
        finally:
            clock[place + 1] += time.perf_counter() - start
            tally.seconds = clock[place + 1] - clock[place]
        if progress is not None:
            progress(tally.name, count)
        yield pair


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    """A file that takes its name once it is complete."""
    with explain_os_errors(f"{path} cannot be written"), open_whole(path, mode=READABLE) as file:
        yield file


def _count_reads(pairs: Iterator[Pair], tally: StepReport) -> Iterator[Pair]:
    for pair in pairs:
        tally.read += 1
        yield pair


def _count_drops(tally: StepReport, on_drop: OnDrop | None) -> OnDrop:
    def drop(one: Dropped) -> None:
        tally.dropped[one.reason] = tally.dropped.get(one.reason, 0) + 1
        if on_drop is not None:
            on_drop(one)

    return drop
