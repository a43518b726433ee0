"""The command ``doctor``: examine this installation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jina_rag.cli.common import JsonOption, folder_exists
from jina_rag.cli.output import console

if TYPE_CHECKING:
    from rich.console import Console

    from jina_rag.doctor.examination import Examination

_COLOURS = {"ok": "green", "failed": "red", "refused": "red", "skipped": "yellow"}
_STATUSES = {"ok": console.OK, "failed": console.PARTLY, "refused": console.USAGE}


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
        examination = examine(
            model,
            device=device,
            dtype=dtype,
            expected=expected,
            write_expected=write_expected,
            local_files_only=offline,
        )
    if json:
        console.print_json(examination.to_json())
    else:
        _print_examination(out, examination)
    raise typer.Exit(_STATUSES.get(examination.worst, console.OK))


def _print_examination(out: Console, examination: Examination) -> None:
    for name, value in examination.facts:
        out.print(f"{console.one_line(name):<20} {console.one_line(value)}", soft_wrap=True)
    out.print()
    for finding in examination.findings:
        mark = f"[{_COLOURS[finding.status]}]{finding.status:<8}[/]"
        out.print(f"{mark} {console.one_line(finding.what)}: {console.one_line(finding.detail)}", soft_wrap=True)
