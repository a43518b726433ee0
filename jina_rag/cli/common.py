"""What several commands share: options, readings of what stands on the command line, an index opened."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jina_rag.errors import InvalidInputError

if TYPE_CHECKING:
    from jina_rag.index.document_index import DocumentIndex

_CONDITION = re.compile(r"(.+?)(>=|<=|>|<|=)(.*)", re.DOTALL)
_ENDS = {">=": "gte", "<=": "lte", ">": "gt", "<": "lt"}

IndexOption = Annotated[
    str,
    typer.Option(
        "--index",
        "-i",
        help="Folder of the index, or the address of a collection on a Qdrant server: http://HOST:6333/NAME.",
        metavar="DIR|URL",
    ),
]
AssetsOption = Annotated[
    Path | None,
    typer.Option("--assets-dir", help="With a server: folder for page images and the manifest.", metavar="DIR"),
]
FilterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        help="Metadata (=, >=, <=, >, <), path=GLOB, or has=chart|table|figure of a page; repeatable, all must hold, a "
        "key given twice matches either value.",
        metavar="KEY=VALUE",
    ),
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


def open_index(location: str, assets_dir: Path | None, *, reranker: str | None = None) -> DocumentIndex:
    """Open an index that exists.

    Raises:
        IndexNotFoundError: If there is none.
    """
    # Imported here: the commands that use no index, and --help, do not wait for it.
    from jina_rag.index.document_index import DocumentIndex

    return DocumentIndex.open(location, create=False, assets_dir=assets_dir, reranker=reranker)


def folder_exists(path: Path) -> None:
    """Before the work: nobody should wait for a result that has no place to go."""
    if not path.parent.is_dir():
        raise InvalidInputError(f"{path} cannot be written: there is no folder {str(path.parent)!r}.")


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
