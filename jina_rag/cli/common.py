"""Options and argument parsing shared by several commands."""

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
        help="Index folder, or URL of a Qdrant collection: http://HOST:6333/NAME.",
        metavar="DIR|URL",
    ),
]
AssetsOption = Annotated[
    Path | None,
    typer.Option(
        "--assets-dir",
        help="Folder of page images and manifest, only with a Qdrant collection.",
        metavar="DIR",
        show_default="user data folder",
    ),
]
FilterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        help="Filter by metadata (=, >=, <=, > or <, also of dates), path=GLOB, or has=chart|table|figure. "
        "Repeatable: all keys must match; values of one key are alternatives.",
        metavar="KEY=VALUE",
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        help="Device: auto, cpu, cuda, cuda:N or mps; cuda:0,cuda:1 or all for one process per GPU.", metavar="DEVICE"
    ),
]
DtypeOption = Annotated[
    str, typer.Option(help="Dtype of the weights: auto, float32, bfloat16 or float16.", metavar="DTYPE")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; messages go to stderr.")]
EmbedderOption = Annotated[
    str | None,
    typer.Option(
        "--embedder",
        "-e",
        help="Embedding model: lite (multilingual), lite-en (English), a Hugging Face id or a checkpoint folder.",
        metavar="NAME",
        show_default="lite for a new index",
    ),
]


def open_index(
    location: str, assets_dir: Path | None, *, reranker: str | None = None, device: str = "auto"
) -> DocumentIndex:
    """Open an existing index.

    Args:
        location: Index folder, or URL of a Qdrant collection.
        assets_dir: Folder of the page images and the manifest of a Qdrant collection; None for the default.
        reranker: Name of the reranker; None for no reranking.
        device: Device or devices of the models.

    Raises:
        IndexNotFoundError: If no index exists at `location`.
    """
    # Imported here, because --help and commands without an index must start fast.
    from jina_rag.index.document_index import DocumentIndex

    return DocumentIndex.open(location, create=False, assets_dir=assets_dir, reranker=reranker, device=device)


def check_parent_folder(path: Path) -> None:
    """Check that the folder of an output file exists, before the command computes the output.

    Raises:
        InvalidInputError: If the folder does not exist.
    """
    if not path.parent.is_dir():
        raise InvalidInputError(
            f"{path} cannot be written: the folder {str(path.parent)!r} does not exist. Create the folder."
        )


def filters(options: list[str]) -> Mapping[str, Any]:
    """Parse the values of ``--filter`` into a filter.

    Repeated ``KEY=VALUE`` options with the same key are alternatives. ``KEY>=N`` and ``KEY<=N`` form one range, of
    numbers, dates or times.

    Raises:
        typer.BadParameter: If a value is not of the form ``KEY=VALUE``, ``KEY>=NUMBER`` or ``KEY>=DATE``.
    """
    from jina_rag.types import Range

    conditions: dict[str, Any] = {}
    ranges: dict[str, dict[str, float | str]] = {}
    for option in options:
        match = _CONDITION.fullmatch(option)
        if match is None or match[1].endswith("!"):  # KEY!=VALUE would look for a key with the name "KEY!"
            raise typer.BadParameter(f"--filter {option!r} is invalid. Write KEY=VALUE, KEY>=NUMBER or KEY>=DATE.")
        key, operator, value = match.groups()
        if operator == "=":
            conditions.setdefault(key, []).extend(_typed_values(value) if key != "path" else [value])
            continue
        ranges.setdefault(key, {})[_ENDS[operator]] = _bound(option, value.strip())
    for key, ends in ranges.items():
        if key in conditions:
            raise typer.BadParameter(f"--filter {key!r} has both a value and a range. Pass a value or a range only.")
        conditions[key] = Range(**ends)
    return conditions


def _bound(option: str, value: str) -> float | str:
    """Return the bound of a range as a number, or as the text of a date or time."""
    from jina_rag.stores.dates import parse

    with suppress(ValueError):
        return float(value)
    if parse(value) is None:
        raise typer.BadParameter(
            f"--filter {option!r}: {value!r} is not a number and not a date. Write KEY>=NUMBER, KEY>=2025-01-31, or "
            "KEY>=2025-01-31T09:30Z."
        )
    return value


def _typed_values(value: str) -> list[str | int | float | bool]:
    """Return the string and the boolean or number that the string spells, if any: metadata may have either type."""
    values: list[str | int | float | bool] = [value]
    if value in ("true", "false"):
        values.append(value == "true")
    for number_type in (int, float):
        with suppress(ValueError):
            values.append(number_type(value))
            break
    return [item for item in values if not isinstance(item, float) or math.isfinite(item)]
