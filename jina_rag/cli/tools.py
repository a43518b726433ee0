"""The commands around an index: models, doctor, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jina_rag.cli.common import EmbedderOption, JsonOption, app, folder_exists
from jina_rag.cli.output import console
from jina_rag.cli.output import hits as hit_output

models_app = typer.Typer(invoke_without_command=True, rich_markup_mode="rich")
app.add_typer(models_app, name="models")


@models_app.callback()
def models(context: typer.Context, json: JsonOption = False) -> None:
    """The models this version can run: size, languages, licence, whether they are on this machine.

    Examples:

      jina-rag models

      jina-rag models download jinaai/jina-embeddings-v4
    """
    if context.invoked_subcommand is not None:
        return
    from jina_rag.index.session import DEFAULT_EMBEDDER
    from jina_rag.models.catalogue import MODELS, weights_of

    places = {name: weights_of(name) for name in MODELS}
    if json:
        entries = [
            model.to_json()
            | {
                "installed": places[name] is not None,
                "path": str(places[name]) if places[name] else None,
                "default": name == DEFAULT_EMBEDDER,
            }
            for name, model in MODELS.items()
        ]
        console.print_json({"models": entries})
        return
    console.print_models(console.consoles()[0], MODELS.values(), places, DEFAULT_EMBEDDER)


@models_app.command()
def download(
    model: Annotated[str, typer.Argument(help="Its id on the Hugging Face hub: owner/model.", metavar="ID")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit; main if left out.")] = None,
    json: JsonOption = False,
) -> None:
    """Download a model from the hub, or go on with a download. Weights and settings only, never code.

    Example:

      jina-rag models download jinaai/jina-reranker-m0
    """
    from jina_rag.models.registry import download as fetch

    found = fetch(model, revision=revision)
    if json:
        console.print_json({"model": model, "revision": found.revision, "path": str(found.folder)})
        return
    out, _ = console.consoles()
    commit = f" at commit {found.revision}" if found.revision else ""
    out.print(f"{console.shown(model)}{commit}: {console.shown(found.folder)}", soft_wrap=True)


@app.command()
def doctor(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A model to load and try: a name, a hub id, or a folder.", metavar="MODEL", show_default=False
        ),
    ] = None,
    expected: Annotated[
        Path | None, typer.Option(help="Compare the model with known outputs.", metavar="FILE.zip", dir_okay=False)
    ] = None,
    write_expected: Annotated[
        Path | None,
        typer.Option(
            help="Write the model's outputs, to compare other machines with.", metavar="FILE.zip", dir_okay=False
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Download nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Examine this installation: packages, devices, memory, and whether models compute what they should.

    Tiny checkpoints that come with the package are compared with what the published code made of them. A bug report
    can carry the page this prints.

    Examples:

      jina-rag doctor

      jina-rag doctor jinaai/jina-embeddings-v4 --device cuda

      jina-rag doctor my-checkpoint/ --expected known.zip
    """
    if model is None and (expected is not None or write_expected is not None):
        raise typer.BadParameter("--expected and --write-expected go with a MODEL.")
    if write_expected is not None:
        folder_exists(write_expected)
    from jina_rag.doctor.examination import examine

    out, err = console.consoles()
    with console.waiting(err, "examining", quiet=json):
        found = examine(
            model,
            device=device,
            dtype=dtype,
            expected=expected,
            write_expected=write_expected,
            local_files_only=offline,
        )
    if json:
        console.print_json(found.to_json())
    else:
        console.print_examination(out, found)
    raise typer.Exit(
        {"ok": console.OK, "failed": console.PARTLY, "refused": console.USAGE}.get(found.worst, console.OK)
    )


@app.command()
def demo(
    folder: Annotated[
        Path, typer.Option("--output", "-o", help="Where the index and the report go.", metavar="DIR")
    ] = Path("demo-output"),
    embedder: EmbedderOption = None,
    json: JsonOption = False,
) -> None:
    """Index the sample documents, ask five questions, and write a report with pictures.

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
                "ingest": console.ingest_json(result.ingest),
                "questions": [hit_output.search_json(a.query, a.hits) for a in result.answers],
            }
        )
        return
    for answer in result.answers:
        hit_output.print_hits(out, f"{answer.query}  ({answer.kind}, {answer.seconds * 1000:.0f} ms)", answer.hits)
    console.print_report(err, result.ingest)
    out.print(
        f"\nOpen this in a browser: [bold]{console.shown(result.report.resolve().as_uri())}[/bold]",
        soft_wrap=True,
    )
