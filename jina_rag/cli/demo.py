"""The command ``demo``: index the sample documents, run five queries, write a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jina_rag.cli.common import EmbedderOption, JsonOption
from jina_rag.cli.output import console, ingestion
from jina_rag.cli.output import hits as hit_output


def demo(
    folder: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the index and the report.", metavar="DIR")
    ] = Path("demo-output"),
    embedder: EmbedderOption = None,
    json: JsonOption = False,
) -> None:
    """Index the sample documents, run five queries and write a report.

    Run the command again to reuse the index.

    Example:

      jina-rag demo --output demo-output
    """
    from jina_rag.demo.run import run_demo

    out, err = console.consoles()
    with console.ingest_progress(err, quiet=json) as progress:
        result = run_demo(folder, embedder=embedder, progress=progress)
    if json:
        console.print_json(
            {
                "report": str(result.report),
                "ingest": ingestion.ingest_json(result.ingest),
                "questions": [hit_output.search_json(a.query, a.hits) for a in result.answers],
            }
        )
        return
    for answer in result.answers:
        hit_output.print_hits(out, f"{answer.query}  ({answer.kind}, {answer.seconds * 1000:.0f} ms)", answer.hits)
    ingestion.print_report(err, result.ingest)
    address = console.one_line(result.report.resolve().as_uri())
    out.print(f"\nOpen the report in a browser: [bold]{address}[/bold]", soft_wrap=True)
