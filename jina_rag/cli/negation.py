"""The command ``evaluate negation``: does an embedder notice that a statement is denied?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jina_rag.cli.common import JsonOption
from jina_rag.cli.output import console


def negation(
    triplets: Annotated[
        Path | None,
        typer.Argument(
            help='JSONL, one {"anchor", "entailment", "negative"} a line; 100 of ours if left out.',
            metavar="TRIPLETS.jsonl",
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    embedder: Annotated[str, typer.Option("--embedder", "-e", help="Model.", metavar="NAME")] = "lite",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    json: JsonOption = False,
) -> None:
    """The negation test of Jina Embeddings v1: easy and hard accuracy, beside the published ones.

    Examples:

      jina-rag evaluate negation -e jinaai/jina-embedding-l-en-v1

      jina-rag evaluate negation negation-test.jsonl -e lite --json
    """
    from jina_rag.evaluation.negation import evaluate_negation, read_triplets, sample_triplets
    from jina_rag.models.registry import load_embedder

    out, err = console.consoles()
    texts = sample_triplets() if triplets is None else read_triplets(triplets)
    with console.waiting(err, "embedding", quiet=json):
        result = evaluate_negation(load_embedder(embedder, device=device), texts)
    if json:
        console.print_json(result.to_json())
    else:
        out.print(console.one_line(str(result)), soft_wrap=True)
        if triplets is None:
            err.print("These are our own triplets, which are harder: the published figures are of other ones.")
