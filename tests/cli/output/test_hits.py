"""Console output of ``search``."""

from __future__ import annotations

import io
from pathlib import Path

from jina_rag.cli.output import hits as hit_output
from jina_rag.types import ScoredPage


def test_table_shows_the_best_region():
    from jina_rag.types import Region

    hit = ScoredPage("a.pdf", Path("a.pdf"), 3, 0.5, region=Region("table", (0.1, 0.2, 0.3, 0.4)), page_count=9)
    (content,) = hit_output.search_json("q", [hit])["hits"]
    assert content["region"] == {"kind": "table", "box": [0.1, 0.2, 0.3, 0.4]}
    assert content["image"] is None
    assert "region: table" in shown_hits([hit], 80)


def shown_hits(hits, width: int) -> str:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width, highlight=False)
    hit_output.print_hits(console, "query", hits)
    return console.file.getvalue()


def test_table_does_not_wrap_common_file_names():
    hit = ScoredPage("reports/2024-summary.pdf", Path("x.pdf"), 1, 0.5, snippet="words " * 30, page_count=1)
    assert "reports/2024-summary.pdf" in shown_hits([hit], 80)
    long = ScoredPage("n" * 240 + ".pdf", Path("x.pdf"), 1, 0.5, snippet="words " * 30, page_count=1)
    assert max(map(len, shown_hits([long], 80).splitlines())) <= 80
