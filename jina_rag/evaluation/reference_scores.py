"""Published figures as a file: what an entry of ``targets.json`` says, and how the file is read.

The file has tables, each a list of rows that share model, use, measure and source, and means. A row takes what it does
not state from its table. All values are percent points, as published (0.531 is 53.1).
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from jina_rag.errors import InvalidInputError

Loader: TypeAlias = Literal["mteb", "paper"]
"""Who read the data: mteb, or the program of the publication."""
Vectors: TypeAlias = Literal["dense", "multi", "rerank", "sparse", "unstated"]
"""One vector a text or page, one a token or patch, a reranker over a first stage, or weighted words."""
Kind: TypeAlias = Literal["results", "paper", "model card", "model page", "reported"]
"""What the source is; "results" is the results repository of mteb, "reported" a figure whose publication is unknown."""

TOLERANCE = 0.5
"""Points that a repetition may differ by: batching, precision and revision of the weights move a score that much."""

_Entry = TypeVar("_Entry", "Target", "Mean")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A published figure of one model on one task.

    Attributes:
        table: Id of the table in the file that the figure is a row of.
        benchmark: The collection the task belongs to, as mteb names it where it has it.
        task: The task as mteb names it; the paper's name if `in_mteb` is false.
        model: Id on the Hugging Face hub where it has one.
        vectors: How the model was used.
        measure: Such as nDCG@5; "unstated" if it is not known.
        value: In percent points, as published.
        source: Paper and table, model card, or results repository.
        kind: What the source is.
        loader: Who read the data.
        in_mteb: Whether mteb has the task.
        revision: Of the weights; several where the source does not say which. None if not stated.
        max_pixels: Largest number of pixels of a page image; None if not stated, or for text.
        language: Where the figure is of one language: its code as published.
        dimensions: Where the vectors were cut: how many numbers were kept.
        setting: What else differs from the model as it is; empty for nothing.
        queries: Number of questions, `empty_queries` included; None if not known.
        empty_queries: Questions without text among them, which score 0.
        tolerance: Points that a repetition may differ by.
        note: What else a reader must know.
    """

    table: str
    benchmark: str
    task: str
    model: str
    vectors: Vectors
    measure: str
    value: float
    source: str
    kind: Kind
    loader: Loader
    in_mteb: bool = True
    revision: str | None = None
    max_pixels: int | None = None
    language: str | None = None
    dimensions: int | None = None
    setting: str = ""
    queries: int | None = None
    empty_queries: int = 0
    tolerance: float = TOLERANCE
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A published average; attributes that `Target` has as well mean the same.

    Attributes:
        decimals: How many the value is printed with, in points.
        of: What it is the mean of, in words.
        count: Number of tasks or languages; None if not stated.
        table: Id of the table that holds its rows; None if they are not published or not transcribed.
        tasks: Tasks of that table that count; empty for all.
        agrees: Whether the mean of those rows, rounded, is the value. If not, `note` says what it is instead.
    """

    benchmark: str
    model: str
    vectors: Vectors
    measure: str
    value: float
    decimals: int
    source: str
    kind: Kind
    loader: Loader
    of: str
    count: int | None = None
    table: str | None = None
    tasks: tuple[str, ...] = ()
    agrees: bool | None = None
    max_pixels: int | None = None
    dimensions: int | None = None
    setting: str = ""
    tolerance: float = TOLERANCE
    note: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """All figures of a file."""

    targets: tuple[Target, ...]
    means: tuple[Mean, ...]

    def rows(self, mean: Mean) -> tuple[Target, ...]:
        """The figures that `mean` is the average of; empty if the file has none."""
        rows = (target for target in self.targets if target.table == mean.table)
        return tuple(target for target in rows if not mean.tasks or target.task in mean.tasks)


def load_targets(path: Path | None = None) -> Published:
    """Read published figures; those of the package if `path` is None.

    Raises:
        InvalidInputError: If the file cannot be read, or an entry is not what `Target` and `Mean` say.
    """
    return _shipped() if path is None else _parse(_text(path), str(path))


@cache
def _shipped() -> Published:
    text = importlib.resources.files("jina_rag.evaluation").joinpath("targets.json").read_text(encoding="utf-8")
    return _parse(text, "targets.json")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise InvalidInputError(f"{path} cannot be read: {exc.strerror or exc}.") from exc
    except UnicodeDecodeError as exc:
        raise InvalidInputError(f"{path} is not UTF-8 text (byte {exc.start}).") from exc


def _parse(text: str, name: str) -> Published:
    try:
        data = json.loads(text)
        tables, means = list(data["tables"]), list(data["means"])
        rows = [({**table, "table": table["id"]}, row) for table in tables for row in table["rows"]]
    except (json.JSONDecodeError, KeyError, TypeError) as exc:
        raise InvalidInputError(
            f'{name}: expected a JSON object with "tables" (each with "id" and "rows") and "means": {exc}.'
        ) from exc
    targets = tuple(
        _entry(Target, {**{k: v for k, v in table.items() if k not in ("id", "rows")}, **row}, name)
        for table, row in rows
    )
    return Published(targets, tuple(_entry(Mean, mean, name) for mean in means))


def _entry(kind: type[_Entry], values: Mapping[str, Any], name: str) -> _Entry:
    where = f"{name}, {values.get('table') or values.get('benchmark')}, {values.get('task') or values.get('model')}"
    unknown = values.keys() - {field.name for field in fields(kind)}
    if unknown:
        raise InvalidInputError(f"{where}: {kind.__name__} has no {', '.join(sorted(unknown))}.")
    arguments: dict[str, Any] = {k: tuple(v) if k == "tasks" else v for k, v in values.items()}
    try:
        entry = kind(**arguments)
    except TypeError as exc:
        raise InvalidInputError(f"{where}: {exc}.") from exc
    for field, allowed in (("loader", Loader), ("vectors", Vectors), ("kind", Kind)):
        if getattr(entry, field) not in get_args(allowed):
            raise InvalidInputError(f"{where}: {field} must be one of {', '.join(get_args(allowed))}.")
    # Rank correlations can be below 0.
    if not isinstance(entry.value, int | float) or not -100 <= entry.value <= 100:
        raise InvalidInputError(f"{where}: value must be a number of percent points, from -100 to 100.")
    if not entry.source:
        raise InvalidInputError(f"{where}: source is empty; say where the figure stands.")
    return entry
