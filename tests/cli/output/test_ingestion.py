"""Console output of ``ingest``."""

from __future__ import annotations

import io
from pathlib import Path

from jina_rag.cli.output import ingestion
from jina_rag.types import Failure, IngestReport


def test_long_list_is_shortened_in_text_output_only():
    from rich.console import Console

    failures = tuple(Failure(Path(f"{n}.pdf"), "It is empty.", page=n or None) for n in range(50))
    report = IngestReport(failed=failures, warnings=failures[:1], skipped=failures[:7], interrupted=True)
    console = Console(file=io.StringIO(), width=80)
    ingestion.print_report(console, report)
    message = console.file.getvalue()
    assert "Nothing was indexed." in message
    assert "0.pdf: It is empty." in message
    assert "3.pdf, page 3: It is empty." in message
    assert "… and 30 more; --json prints all." in message
    assert "… and 2 more" in message
    assert "Warnings (1):" in message
    assert "Run the same command again to resume." in message
    assert len(ingestion.ingest_json(report)["failed"]) == 50
    assert ingestion.ingest_json(report)["failed"][3] == {"path": "3.pdf", "reason": "It is empty.", "page": 3}
