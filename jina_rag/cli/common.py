"""The application object, and what several commands share: options, and readings of what stands on the command line."""

from __future__ import annotations

import glob
import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from jina_rag._version import __version__
from jina_rag.errors import InvalidInputError

_CONDITION = re.compile(r"(.+?)(>=|<=|>|<|=)(.*)", re.DOTALL)
_ENDS = {">=": "gte", "<=": "lte", ">": "gt", "<": "lt"}

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

IndexOption = Annotated[
    str,
    typer.Option(
        "--index",
        "-i",
        help="Folder of the index, or the address of a collection on a Qdrant server: http://HOST:6333/NAME.",
        metavar="DIR|URL",
    ),
]
FilesOption = Annotated[
    Path | None,
    typer.Option("--assets-dir", help="With a server: folder for page images and the manifest.", metavar="DIR"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else there.")]
EmbedderOption = Annotated[
    str | None,
    typer.Option(
        "--embedder",
        "-e",
        help="Model: lite (many languages), lite-en (English, small), a hub id, or a folder.",
        metavar="NAME",
    ),
]
StorageOption = Annotated[
    str | None,
    typer.Option("--storage", help="How a new index keeps its vectors: exact, balanced or compact.", metavar="NAME"),
]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"jina-rag {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Options that stand before the command."""


def existing(paths: list[Path]) -> None:
    """Before an index is made: a misspelt path must not leave an empty one behind."""
    for path in paths:
        if os.path.lexists(path):
            continue
        if not glob.has_magic(str(path)):
            raise InvalidInputError(f"There is no file or folder {str(path)!r}: check the path.")
        if next(glob.iglob(str(path), recursive=True), None) is None:
            raise InvalidInputError(f"Nothing matches {str(path)!r}: check the path and its wildcards.")


def folder_exists(path: Path) -> None:
    """Before the work: nobody should wait for a result that has no place to go."""
    if not path.parent.is_dir():
        raise InvalidInputError(f"{path} cannot be written: there is no folder {str(path.parent)!r}.")


def pairs(options: list[str], name: str) -> dict[str, str]:
    """``KEY=VALUE`` given several times; `name` is the option's, for the message."""
    found = {}
    for option in options:
        key, separator, value = option.partition("=")
        if not separator or not key:
            raise typer.BadParameter(f"{name} {option!r}: write KEY=VALUE.")
        found[key] = value
    return found


def metadata_of(options: list[str]) -> dict[str, str | int | float]:
    """``--meta KEY=VALUE`` as metadata; what is written as a number is one, so that ranges of it can be asked for."""
    return {key: _number(value) for key, value in pairs(options, "--meta").items()}


def filters(options: list[str]) -> Mapping[str, Any]:
    """``--filter KEY=VALUE`` as a filter; a key given twice matches either value. ``KEY>=N`` is one end of a range."""
    from jina_rag.types import Range

    where: dict[str, Any] = {}
    ranges: dict[str, dict[str, float]] = {}
    for option in options:
        match = _CONDITION.fullmatch(option)
        if match is None:
            raise typer.BadParameter(f"--filter {option!r}: write KEY=VALUE, or KEY>=NUMBER.")
        key, operator, value = match.groups()
        if operator == "=":
            where.setdefault(key, []).extend(_readings(value) if key != "path" else [value])
            continue
        try:
            ranges.setdefault(key, {})[_ENDS[operator]] = float(value)
        except ValueError:
            raise typer.BadParameter(f"--filter {option!r}: {value!r} is no number.") from None
    for key, ends in ranges.items():
        if key in where:
            raise typer.BadParameter(f"--filter {key!r}: give values or a range, not both.")
        where[key] = Range(**ends)
    return where


def limits_of(options: list[str]) -> Any:  # noqa: ANN401  # config.Limits, imported when it is needed
    """``--limit NAME=NUMBER`` as settings."""
    from jina_rag.config import Limits

    known = [field.name for field in fields(Limits)]
    given: dict[str, int] = {}
    for name, value in pairs(options, "--limit").items():
        if name not in known:
            raise typer.BadParameter(f"--limit {name!r}: the limits are {', '.join(known)}.")
        try:
            given[name] = int(value.replace("_", ""))
        except ValueError:
            raise typer.BadParameter(f"--limit {name}={value!r}: write a whole number.") from None
    return Limits(**given)


def passwords_of(words: list[str], file: Path | None) -> tuple[str, ...] | dict[str, list[str]]:
    """``--password`` and ``--passwords FILE.json`` as the setting.

    The file holds a list of passwords, or an object from globs over file names to one or several.
    """
    if file is None:
        return tuple(words)
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as exc:
        raise InvalidInputError(f"{file} cannot be read: {exc.strerror or exc}.") from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidInputError(f"{file} is not JSON: {exc}.") from exc
    several = {"*": found} if isinstance(found, list) else found
    if not isinstance(several, dict):
        raise InvalidInputError(f"{file} must hold a list of passwords, or an object from globs to passwords.")
    lists = {glob_: [given] if isinstance(given, str) else given for glob_, given in several.items()}
    for glob_, given in lists.items():
        if not isinstance(given, list) or not all(isinstance(word, str) for word in given):
            raise InvalidInputError(f"{file} gives {glob_!r} what is no password: write a text, or a list of texts.")
    return {glob_: [*given, *words] for glob_, given in {**lists, "*": lists.get("*", [])}.items()}


def _readings(value: str) -> list[str | int | float | bool]:
    """What a value on the command line may stand for: metadata given in Python has numbers and booleans, too."""
    readings: list[str | int | float | bool] = [value]
    if value in ("true", "false"):
        readings.append(value == "true")
    for number in (int, float):
        with suppress(ValueError):
            readings.append(number(value))
            break
    return [reading for reading in readings if not isinstance(reading, float) or math.isfinite(reading)]


def _number(value: str) -> str | int | float:
    """The number that a text writes out as Python does; 007 and 1e5 stay texts, as codes do."""
    for kind in (int, float):
        with suppress(ValueError):
            if str(kind(value)) == value and math.isfinite(kind(value)):
                return kind(value)
    return value


def write_image(image: Any, path: Path) -> None:  # noqa: ANN401  # PIL's Image
    """Write a PNG file."""
    try:
        image.save(path, format="PNG")
    except OSError as exc:
        raise InvalidInputError(f"The heat map cannot be written to {path}: {exc.strerror or exc}.") from exc
