"""The command ``evaluate negation``: the negation test of an embedding model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jina_rag.cli.common import DeviceOption, JsonOption
from jina_rag.cli.output import console


def negation(
    triplets: Annotated[
        Path | None,
        typer.Argument(
            help='JSONL file, one object with "anchor", "entailment" and "negative" per line.',
            metavar="TRIPLETS.jsonl",
            dir_okay=False,
            show_default="100 built-in triplets",
        ),
    ] = None,
    embedder: Annotated[str, typer.Option("--embedder", "-e", help="Embedding model.", metavar="NAME")] = "lite",
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Run the negation test of Jina Embeddings v1.

    Prints the measured and the published accuracies.
    Easy accuracy: fraction of triplets whose anchor is closer to the entailment than to the negative.
    Hard accuracy: fraction of triplets whose entailment is closer to the anchor than to the negative.

    Examples:

      jina-rag evaluate negation -e jinaai/jina-embedding-l-en-v1
      jina-rag evaluate negation negation-test.jsonl -e lite --json
    """
    from jina_rag.evaluation.negation import evaluate_negation, read_triplets, sample_triplets
    from jina_rag.models.registry import load_embedder

    out, err = console.consoles()
    texts = sample_triplets() if triplets is None else read_triplets(triplets)
    with console.spinner(err, "embedding", quiet=json):
        result = evaluate_negation(load_embedder(embedder, device=device), texts)
    if json:
        console.print_json(result.to_json())
    else:
        for line in str(result).splitlines():
            out.print(console.one_line(line), soft_wrap=True)
        if triplets is None:
            err.print(
                "The accuracies are not comparable: the built-in triplets are harder than the published triplets."
            )
