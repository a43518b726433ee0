"""Console output: progress bars, durations and sizes."""

from __future__ import annotations

import io
from pathlib import Path

from jina_rag.cli.output import console, ingestion
from jina_rag.indexing.dry_run import IngestPlan
from jina_rag.types import Failure


def test_progress_bar_requires_a_terminal():
    from rich.console import Console

    from jina_rag.indexing.ingest import IngestProgress

    terminal = Console(file=io.StringIO(), force_terminal=True, width=120)
    with console.ingest_progress(terminal, quiet=False) as progress:
        assert progress is not None
        progress(IngestProgress(1, 3, 7, 21, current="a[b]\n.pdf"))
        progress(IngestProgress(3, 3, 21, 21))
    assert "21/21" in terminal.file.getvalue()
    for target, quiet in ((Console(file=io.StringIO()), False), (terminal, True)):
        with console.ingest_progress(target, quiet=quiet) as progress:
            assert progress is None


def test_durations_and_sizes_have_units():
    assert [console.duration(s) for s in (3.4, 200, 3600 * 5)] == ["3 s", "3 min", "5.0 h"]
    assert console.size(3_200_000_000) == "3.2 GB"
    assert ingestion.plan_json(IngestPlan())["estimate"]["basis"] == "nothing to do"
    warning = Failure(Path("a.yaml"), "The metadata key 'x' was left out.")
    assert ingestion.plan_json(IngestPlan(warnings=(warning,)))["warnings"] == [
        {"path": "a.yaml", "reason": warning.reason}
    ]
