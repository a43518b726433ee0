"""The command ``doctor``: check this installation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jina_rag.cli.common import DeviceOption, DtypeOption, JsonOption, check_parent_folder
from jina_rag.cli.output import console

if TYPE_CHECKING:
    from rich.console import Console

    from jina_rag.doctor.examination import Examination

_COLORS = {"ok": "green", "failed": "red", "refused": "red", "skipped": "yellow"}
_STATUSES = {"ok": console.OK, "failed": console.PARTLY, "refused": console.USAGE}


def doctor(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Model to load and check: a name, a Hugging Face id or a checkpoint folder.",
            metavar="MODEL",
            show_default=False,
        ),
    ] = None,
    expected: Annotated[
        Path | None,
        typer.Option(
            help="Compare the outputs of the model with those in this file.", metavar="FILE.zip", dir_okay=False
        ),
    ] = None,
    write_expected: Annotated[
        Path | None,
        typer.Option(
            help="Write the outputs of the model, for --expected on another machine.",
            metavar="FILE.zip",
            dir_okay=False,
        ),
    ] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Use local models only; download none.")] = False,
    json: JsonOption = False,
) -> None:
    """Check packages, devices, memory and model outputs.

    Compares the outputs of tiny built-in checkpoints with outputs of the published code.
    Attach the printed text to a bug report.

    Examples:

      jina-rag doctor
      jina-rag doctor jinaai/jina-embeddings-v4 --device cuda
      jina-rag doctor my-checkpoint/ --expected outputs.zip
    """
    if model is None and (expected is not None or write_expected is not None):
        raise typer.BadParameter("--expected and --write-expected require a MODEL.")
    if write_expected is not None:
        check_parent_folder(write_expected)
    from jina_rag.doctor.examination import examine

    out, err = console.consoles()
    with console.spinner(err, "checking", quiet=json):
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
        mark = f"[{_COLORS[finding.status]}]{finding.status:<8}[/]"
        out.print(f"{mark} {console.one_line(finding.what)}: {console.one_line(finding.detail)}", soft_wrap=True)
