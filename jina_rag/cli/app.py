"""The application: its commands, and the way out of all of them.

Each command parses its arguments, calls a public function and prints what came back.
Exit status: 0 done, 1 done with failures listed, 2 wrong usage or input, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from jina_rag._version import __version__
from jina_rag.cli.clean import clean_command
from jina_rag.cli.copy import copy
from jina_rag.cli.delete import delete
from jina_rag.cli.demo import demo
from jina_rag.cli.doctor import doctor
from jina_rag.cli.evaluate import evaluate_app
from jina_rag.cli.info import info
from jina_rag.cli.ingest import ingest
from jina_rag.cli.models import models_app
from jina_rag.cli.output import console
from jina_rag.cli.search import search
from jina_rag.cli.verify import verify
from jina_rag.errors import InvalidInputError, JinaRagError

app = typer.Typer(
    name="jina-rag",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Search PDFs and images the way a person reads them: by looking at the pages. "
    "Everything runs on this machine.",
)
for command in (ingest, search, delete, info, verify, copy, doctor, demo):
    app.command()(command)
app.command("clean")(clean_command)
app.add_typer(models_app)
app.add_typer(evaluate_app)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"jina-rag {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Options that stand before the command."""


def main() -> None:
    """Run the command line; no traceback reaches its user (set JINA_RAG_DEBUG=1 to see it)."""
    try:
        _refuse_empty_arguments(sys.argv[1:])
        app()
    except JinaRagError as exc:
        _leave(str(exc))
    except OSError as exc:
        where = f" {console.one_line(exc.filename)}:" if exc.filename else ""
        _leave(f"The system refused:{where} {exc.strerror or exc}.")
    except Exception as exc:
        _leave(f"This is a defect of jina-rag, please report it: {type(exc).__name__}: {exc}")


def _refuse_empty_arguments(arguments: Sequence[str]) -> None:
    """Refuse what an unset shell variable leaves, or one of blanks: as a path it would mean the current folder.

    Raises:
        InvalidInputError: Naming the argument by the option or the word before it.
    """
    for before, argument in zip(("jina-rag", *arguments), arguments, strict=False):
        option, separator, value = argument.partition("=")
        if not argument.strip() or (option.startswith("--") and separator and not value.strip()):
            raise InvalidInputError(
                f"The argument after {option.strip() or before} is empty or blank: is a variable of the shell unset?"
            )


def _leave(message: str) -> None:
    if os.environ.get("JINA_RAG_DEBUG"):
        raise  # called from except clauses only
    _, err = console.consoles()
    err.print(f"[red]Error:[/] {console.one_line(message)}", soft_wrap=True)
    raise SystemExit(console.USAGE)
