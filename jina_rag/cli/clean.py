"""The command ``clean``: filter query-passage pairs."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jina_rag.cli.common import JsonOption, check_parent_folder
from jina_rag.cli.output import console

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.status import Status

    from jina_rag.evaluation.cleaning import Step

_PAIRS_PER_UPDATE = 100
"""Pairs between two updates of the status line."""


def clean_command(
    pairs: Annotated[
        Path, typer.Argument(help='JSONL file, one object with "query" and "passage" per line.', metavar="PAIRS.jsonl")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File for the kept pairs.", metavar="OUT.jsonl")],
    report: Annotated[
        Path | None, typer.Option(help="Write counts, settings and seeds as JSON.", metavar="OUT.json", dir_okay=False)
    ] = None,
    dropped: Annotated[
        Path | None,
        typer.Option(
            help="Write the dropped pairs, each with the reason for the drop.", metavar="OUT.jsonl", dir_okay=False
        ),
    ] = None,
    language: Annotated[
        list[str] | None,
        typer.Option(
            "--language", help="Keep only pairs in this language, for example en. Repeatable.", metavar="CODE"
        ),
    ] = None,
    near: Annotated[
        float,
        typer.Option(
            help="Minimum Jaccard similarity of the passages of two near-duplicate pairs, from 0 to 1.",
            metavar="N",
        ),
    ] = 0.8,
    near_query: Annotated[
        float,
        typer.Option(
            help="Minimum Jaccard similarity of the queries of two near-duplicate pairs, from 0 to 1.", metavar="N"
        ),
    ] = 0.7,
    no_near: Annotated[bool, typer.Option("--no-near", help="Keep near-duplicates.")] = False,
    embedder: Annotated[
        str | None,
        typer.Option(
            "--embedder",
            "-e",
            help="Model that ranks the sampled passages for each query: lite, a Hugging Face id or a folder.",
            metavar="NAME",
        ),
    ] = None,
    rank: Annotated[
        int, typer.Option(help="With --embedder: keep pairs whose passage has this rank or better.", metavar="N")
    ] = 2,
    sample: Annotated[
        int, typer.Option(help="With --embedder: number of passages to rank, sampled from the file.", metavar="N")
    ] = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the sample and of the MinHash functions.", metavar="N")] = 0,
    query_key: Annotated[str, typer.Option(help="JSON key of the query.", metavar="KEY")] = "query",
    passage_key: Annotated[str, typer.Option(help="JSON key of the passage.", metavar="KEY")] = "passage",
    scratch: Annotated[
        Path | None,
        typer.Option(
            help="Folder for temporary data: about 1 kB per pair, and a copy of the pairs.",
            metavar="DIR",
            show_default="folder of --output",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Drop duplicate and inconsistent query-passage pairs.

    For training or evaluation data. Drops incomplete pairs, exact duplicates and near-duplicates.
    With --language, drops pairs in other languages.
    With --embedder, drops pairs whose passage ranks below --rank for the query.

    Examples:

      jina-rag clean pairs.jsonl --output clean.jsonl --dropped dropped.jsonl
      jina-rag clean pairs.jsonl -o clean.jsonl --language en --embedder lite
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
            check_parent_folder(path)
    if scratch is not None:
        check_parent_folder(scratch / "file")
    steps: list[Step] = [Complete(), ExactDuplicates()]
    if language:
        steps.append(Languages(tuple(language)))
    if not no_near:
        steps.append(NearDuplicates(passage=near, query=near_query, seed=seed))
    if embedder is not None:
        from jina_rag.models.registry import load_embedder

        steps.append(Consistency(load_embedder(embedder), n=rank, sample=sample, seed=seed))
    with console.spinner(err, "reading", quiet=json) as status:
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
        write_text(report, dumps(result.to_json(), ensure_ascii=False, indent=2) + "\n", label="report")
    if json:
        console.print_json(result.to_json())
    else:
        for line in str(result).splitlines():
            err.print(console.one_line(line), soft_wrap=True)
    raise typer.Exit(console.PARTLY if result.unreadable else console.OK)


def _progress(status: Status) -> Callable[[str, int], None]:
    """Return a callback that shows the number of pairs after each step."""
    counts: dict[str, int] = {}

    def show(step: str, count: int) -> None:
        counts[step] = count
        if count % _PAIRS_PER_UPDATE == 0:
            status.update("passed " + ", ".join(f"{name} {number}" for name, number in counts.items()))

    return show
