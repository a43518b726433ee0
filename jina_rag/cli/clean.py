"""The command that cleans pairs of questions and passages: clean."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jina_rag.cli.common import JsonOption, folder_exists
from jina_rag.cli.output import console

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.status import Status

    from jina_rag.evaluation.cleaning import Step

_SHOWN = 100
"""A line on the terminal for so many pairs."""


def clean_command(
    pairs: Annotated[Path, typer.Argument(help='JSONL, one {"query", "passage"} a line.', metavar="PAIRS.jsonl")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the lines that stay go.", metavar="OUT.jsonl")],
    report: Annotated[
        Path | None, typer.Option(help="Write counts, settings and seeds as JSON.", metavar="OUT.json", dir_okay=False)
    ] = None,
    dropped: Annotated[
        Path | None,
        typer.Option(help="Write the other lines, each with its reason.", metavar="OUT.jsonl", dir_okay=False),
    ] = None,
    language: Annotated[
        list[str] | None,
        typer.Option("--language", help="Keep pairs in this language, such as en; repeatable.", metavar="CODE"),
    ] = None,
    near: Annotated[
        float, typer.Option(help="Passages this alike, 0 to 1, are near-duplicates if the questions are, too.")
    ] = 0.8,
    near_query: Annotated[float, typer.Option(help="The same for questions.")] = 0.7,
    no_near: Annotated[bool, typer.Option("--no-near", help="Leave near-duplicates in.")] = False,
    embedder: Annotated[
        str | None,
        typer.Option(
            "--embedder",
            "-e",
            help="Keep pairs whose passage this model ranks first or nearly so: lite, a hub id, a folder.",
            metavar="NAME",
        ),
    ] = None,
    rank: Annotated[int, typer.Option(help="With an embedder: ranks that are good enough.", metavar="N")] = 2,
    sample: Annotated[
        int, typer.Option(help="With an embedder: passages to rank among, drawn from the file.", metavar="N")
    ] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the draw and of the hash functions.", metavar="N")] = 0,
    query_key: Annotated[str, typer.Option(help="The key of the question.", metavar="KEY")] = "query",
    passage_key: Annotated[str, typer.Option(help="The key of the passage.", metavar="KEY")] = "passage",
    scratch: Annotated[
        Path | None,
        typer.Option(
            help="Folder for 1 kB a pair during the run, and the pairs; else that of the output.", metavar="DIR"
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Clean pairs for training or evaluation of duplicates, other languages, and passages that do not answer.

    Examples:

      jina-rag clean pairs.jsonl --output clean.jsonl --dropped dropped.jsonl

      jina-rag clean pairs.jsonl --output clean.jsonl --language en --embedder lite --report report.json
    """
    from jina_rag.evaluation.cleaning import (
        Complete,
        Consistency,
        ExactDuplicates,
        Languages,
        NearDuplicates,
        clean_file,
    )
    from jina_rag.evaluation.files import write_text

    _, err = console.consoles()
    for path in (output, report, dropped):
        if path is not None:
            folder_exists(path)
    if scratch is not None:
        folder_exists(scratch / "file")
    steps: list[Step] = [Complete(), ExactDuplicates()]
    if language:
        steps.append(Languages(tuple(language)))
    if not no_near:
        steps.append(NearDuplicates(passage=near, query=near_query, seed=seed))
    if embedder is not None:
        from jina_rag.models.registry import load_embedder

        steps.append(Consistency(load_embedder(embedder), n=rank, sample=sample, seed=seed))
    with console.waiting(err, "reading", quiet=json) as status:
        result = clean_file(
            pairs,
            output,
            steps,
            dropped=dropped,
            query_key=query_key,
            passage_key=passage_key,
            scratch=scratch,
            progress=_progress(status) if status else None,
        )
    if report is not None:
        write_text(report, dumps(result.to_json(), ensure_ascii=False, indent=2) + "\n", what="report")
    if json:
        console.print_json(result.to_json())
    else:
        for line in str(result).splitlines():
            err.print(console.one_line(line), soft_wrap=True)
    raise typer.Exit(console.PARTLY if result.unreadable else console.OK)


def _progress(status: Status) -> Callable[[str, int], None]:
    """How many pairs have passed each step, on a terminal."""
    counts: dict[str, int] = {}

    def show(step: str, count: int) -> None:
        counts[step] = count
        if count % _SHOWN == 0:
            status.update("passed " + ", ".join(f"{name} {number}" for name, number in counts.items()))

    return show
