"""The command ``models``: list and download models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jina_rag.cli.common import JsonOption
from jina_rag.cli.output import console

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from rich.console import Console

    from jina_rag.models.catalogue import ModelDescription

models_app = typer.Typer(name="models", invoke_without_command=True, rich_markup_mode="rich")


@models_app.callback()
def models(context: typer.Context, json: JsonOption = False) -> None:
    """List the models with size, license and local availability.

    Pass the name of an embedder as --embedder, and the name of a reranker as --reranker.

    Examples:

      jina-rag models
      jina-rag models download jinaai/jina-embeddings-v4
    """
    if context.invoked_subcommand is not None:
        return
    from jina_rag.index.session import DEFAULT_EMBEDDER
    from jina_rag.models.catalogue import MODELS, weights_of

    folders = {name: weights_of(name) for name in MODELS}
    if json:
        entries = [
            model.to_json()
            | {
                "installed": folders[name] is not None,
                "path": str(folders[name]) if folders[name] else None,
                "default": name == DEFAULT_EMBEDDER,
            }
            for name, model in MODELS.items()
        ]
        console.print_json({"models": entries})
        return
    _print_models(console.consoles()[0], MODELS.values(), folders, DEFAULT_EMBEDDER)


@models_app.command()
def download(
    model: Annotated[str, typer.Argument(help="Model id on the Hugging Face hub: owner/model.", metavar="ID")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.", show_default="main")] = None,
    json: JsonOption = False,
) -> None:
    """Download a model from the Hugging Face hub, or resume a download.

    Downloads weights and settings only, never code.

    Example:

      jina-rag models download jinaai/jina-reranker-m0
    """
    from jina_rag.models.registry import download as fetch

    checkpoint = fetch(model, revision=revision)
    if json:
        console.print_json({"model": model, "revision": checkpoint.revision, "path": str(checkpoint.folder)})
        return
    out, _ = console.consoles()
    commit = f" at commit {checkpoint.revision}" if checkpoint.revision else ""
    out.print(f"{console.one_line(model)}{commit}: {console.one_line(checkpoint.folder)}", soft_wrap=True)


def _print_models(
    out: Console, models: Iterable[ModelDescription], folders: Mapping[str, Path | None], default: str
) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("name", "role", "size", "license", "local"):
        table.add_column(name, overflow="fold", no_wrap=name in ("name", "size", "local"))
    for model in models:
        weight = f"{model.megabytes / 1000:.1f} GB" if model.megabytes >= 1000 else f"{model.megabytes:.0f} MB"
        role = "embedder, reranker" if model.role == "both" else model.role
        table.add_row(
            f"[bold]{model.name}[/]" if model.name == default else model.name,
            f"{role}; {model.modality}",
            weight,
            model.licence if model.commercial else f"[yellow]{model.licence}[/]",
            "yes" if folders[model.name] else "no",
        )
    out.print(table)
    out.print(f"The default is {default}. Models that are not local are downloaded on first use.", soft_wrap=True)
    out.print("Qwen Research and CC-BY-NC: commercial use requires an agreement with Jina AI.", soft_wrap=True)
