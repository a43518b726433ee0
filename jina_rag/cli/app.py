"""The command-line application: its commands and its error handling.

Each command parses its arguments, calls one public function and prints the result.
Exit status: 0 success, 1 some files or pages failed (listed), 2 invalid usage or input, 130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

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


class _OrderedGroup(TyperGroup):
    """A group that lists its commands in the order of use."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401
        """Return the command names in the order of `_ORDER`."""
        return sorted(super().list_commands(ctx), key=_ORDER.index)


_ORDER = ["ingest", "search", "info", "delete", "verify", "copy", "models", "evaluate", "clean", "doctor", "demo"]

app = typer.Typer(
    name="jina-rag",
    cls=_OrderedGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Search the pages of PDFs, images and office files.\n\n"
    "All models run on this machine.\n\n"
    "Examples:\n\n"
    "  jina-rag ingest docs/ --index kb\n"
    '  jina-rag search "Which region grew fastest?" --index kb',
    epilog="Run jina-rag COMMAND --help for the options and examples of a command.",
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
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Handle the options that precede the command."""


def main() -> None:
    """Run the command line; errors are printed without a traceback, unless JINA_RAG_DEBUG=1 is set."""
    try:
        _refuse_empty_arguments(sys.argv[1:])
        app()
    except JinaRagError as exc:
        _exit_with_error(str(exc))
    except OSError as exc:
        file = f" on {console.one_line(exc.filename)}" if exc.filename else ""
        _exit_with_error(f"The operating system reported an error{file}: {exc.strerror or exc}.")
    except Exception as exc:
        _exit_with_error(
            f"Internal error in jina-rag: {type(exc).__name__}: {exc}. "
            "Report this error with the traceback that JINA_RAG_DEBUG=1 prints."
        )


def _refuse_empty_arguments(arguments: Sequence[str]) -> None:
    """Reject empty and blank arguments, because an empty path would mean the current folder.

    Raises:
        InvalidInputError: If an argument is empty or blank. The message names the preceding option or argument.
    """
    for preceding, argument in zip(("jina-rag", *arguments), arguments, strict=False):
        option, separator, value = argument.partition("=")
        if not argument.strip() or (option.startswith("--") and separator and not value.strip()):
            raise InvalidInputError(
                f"The argument after {option.strip() or preceding} is empty. "
                "Pass a value, or check for an unset shell variable."
            )


def _exit_with_error(message: str) -> None:
    if os.environ.get("JINA_RAG_DEBUG"):
        raise  # re-raises the current exception, because only except clauses call this function
    _, err = console.consoles()
    err.print(f"[red]Error:[/] {console.one_line(message)}", soft_wrap=True)
    raise SystemExit(console.USAGE)
