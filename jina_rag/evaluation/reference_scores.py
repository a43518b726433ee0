"""Published figures of models, in ``targets.json``, and how a measured figure compares with them.

They are those of the papers and model cards of the Jina models, and those of the results repository of mteb, each with
its source, measure, revision and page resolution.

A figure holds for the program that read the data (its loader). In eight tasks of JinaVDR the paper counts one more
question than mteb: it has no text and always scores 0. There, the paper's figure is that of mteb times (N − 1) / N,
where N are the paper's questions (``paper_from_mteb``). So a value that was measured with mteb's loader is compared
with figures of mteb's loader only, and one that was measured with the paper's with the paper's only.

The file has tables, each a list of rows that share model, use, measure and source, and means. A row takes what it does
not state from its table. All values are percent points, as published (0.531 is 53.1).
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar, Unpack, get_args

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.files import read_text

Loader: TypeAlias = Literal["mteb", "paper"]
"""Who read the data: mteb, or the program of the publication."""
Vectors: TypeAlias = Literal["dense", "multi", "rerank", "sparse", "unstated"]
"""One vector a text or page, one a token or patch, a reranker over a first stage, or weighted words."""
Kind: TypeAlias = Literal["results", "paper", "model card", "model page", "reported"]
"""What the source is; "results" is the results repository of mteb, "reported" a figure whose publication is unknown."""

TOLERANCE = 0.5
"""Points that a repetition may differ by: batching, precision and revision of the weights move a score that much."""

_Score = TypeVar("_Score", "Target", "Mean")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figure:
    """What figures and averages have in common, see `Target`."""

    benchmark: str
    model: str
    vectors: Vectors
    measure: str
    value: float
    source: str
    kind: Kind
    loader: Loader
    max_pixels: int | None = None
    dimensions: int | None = None
    setting: str = ""
    tolerance: float = TOLERANCE
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target(_Figure):
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
    task: str
    in_mteb: bool = True
    revision: str | None = None
    language: str | None = None
    queries: int | None = None
    empty_queries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean(_Figure):
    """A published average; attributes that `Target` has as well mean the same.

    Attributes:
        decimals: How many the value is printed with, in points.
        of: What it is the mean of, in words.
        count: Number of tasks or languages; None if not stated.
        table: Id of the table that holds its rows; None if they are not published or not transcribed.
        tasks: Tasks of that table that count; empty for all.
        agrees: Whether the mean of those rows, rounded, is the value. If not, `note` says what it is instead.
    """

    decimals: int
    of: str
    count: int | None = None
    table: str | None = None
    tasks: tuple[str, ...] = ()
    agrees: bool | None = None


@dataclass(frozen=True, slots=True)
class ReferenceScores:
    """All figures of a file."""

    targets: tuple[Target, ...]
    means: tuple[Mean, ...]

    def rows(self, mean: Mean) -> tuple[Target, ...]:
        """The figures that `mean` is the average of; empty if the file has none."""
        rows = (target for target in self.targets if target.table == mean.table)
        return tuple(target for target in rows if not mean.tasks or target.task in mean.tasks)


def load_targets(path: Path | None = None) -> ReferenceScores:
    """Read published figures; those of the package if `path` is None.

    Raises:
        InvalidInputError: If the file cannot be read, or an entry is not what `Target` and `Mean` say.
    """
    return _shipped() if path is None else _parse(read_text(path), str(path))


@cache
def _shipped() -> ReferenceScores:
    text = importlib.resources.files("jina_rag.evaluation").joinpath("targets.json").read_text(encoding="utf-8")
    return _parse(text, "targets.json")


def _parse(text: str, name: str) -> ReferenceScores:
    try:
        data = json.loads(text)
        tables, means = list(data["tables"]), list(data["means"])
        rows = [({**table, "table": table["id"]}, row) for table in tables for row in table["rows"]]
    except (json.JSONDecodeError, KeyError, TypeError) as exc:
        raise InvalidInputError(
            f'{name}: expected a JSON object with "tables" (each with "id" and "rows") and "means": {exc}.'
        ) from exc
    targets = tuple(
        _score(Target, {**{k: v for k, v in table.items() if k not in ("id", "rows")}, **row}, name)
        for table, row in rows
    )
    return ReferenceScores(targets, tuple(_score(Mean, mean, name) for mean in means))


def _score(kind: type[_Score], values: Mapping[str, Any], name: str) -> _Score:
    where = f"{name}, {values.get('table') or values.get('benchmark')}, {values.get('task') or values.get('model')}"
    if unknown := values.keys() - {field.name for field in fields(kind)}:
        raise InvalidInputError(f"{where}: {kind.__name__} has no {', '.join(sorted(unknown))}.")
    arguments: dict[str, Any] = {k: tuple(v) if k == "tasks" else v for k, v in values.items()}
    try:
        score = kind(**arguments)
    except TypeError as exc:
        raise InvalidInputError(f"{where}: {exc}.") from exc
    for field, choices in (("loader", Loader), ("vectors", Vectors), ("kind", Kind)):
        if getattr(score, field) not in get_args(choices):
            raise InvalidInputError(f"{where}: {field} must be one of {', '.join(get_args(choices))}.")
    # Rank correlations can be below 0.
    if not isinstance(score.value, int | float) or not -100 <= score.value <= 100:
        raise InvalidInputError(f"{where}: value must be a number of percent points, from -100 to 100.")
    if not score.source:
        raise InvalidInputError(f"{where}: source is empty; say where the figure stands.")
    return score


@dataclass(frozen=True, slots=True)
class Comparison:
    """A measured value beside a published one.

    Attributes:
        target: The published figure.
        value: What was measured, in percent points.
        difference: Measured less published, in points.
        tolerance: The larger of 0.5 points, one question, and what the figure states itself.
        within: Whether the difference is at most that.
    """

    target: Target | Mean
    value: float
    difference: float
    tolerance: float
    within: bool

    @property
    def source(self) -> str:
        """A sentence that says what is compared with, and where it stands."""
        target = self.target
        facts = [target.source]
        if isinstance(target, Target) and target.revision:
            facts.append(f"revision {target.revision}")
        if target.max_pixels:
            facts.append(f"at most {target.max_pixels:,} pixels a page")
        if target.dimensions:
            facts.append(f"{target.dimensions} dimensions")
        if target.setting:
            facts.append(target.setting)
        facts.append("data read by mteb" if target.loader == "mteb" else "data read by the authors' own program")
        of = f", mean of {target.of}" if isinstance(target, Mean) else ""
        note = f" {target.note}" if target.note else ""
        return f"Published: {target.value:.2f} {target.measure}{of} ({'; '.join(facts)}).{note}"

    def __str__(self) -> str:
        where = "within" if self.within else "outside"
        return f"{self.value:.2f}, {self.difference:+.2f} to {self.target.value:.2f}: {where} {self.tolerance:.2f}"


class ScoreFilter(TypedDict, total=False):
    """Facts that figures must have; a fact that is None or left out may be any."""

    model: str | None
    vectors: Vectors | None
    loader: Loader | None
    measure: str | None


def targets_for(
    task: str, *, published: ReferenceScores | None = None, **facts: Unpack[ScoreFilter]
) -> tuple[Target, ...]:
    """All figures of a task, in the order of the file."""
    return _matching((published or load_targets()).targets, task=task, **facts)


def means_for(
    benchmark: str, *, published: ReferenceScores | None = None, **facts: Unpack[ScoreFilter]
) -> tuple[Mean, ...]:
    """All averages of a benchmark, in the order of the file."""
    return _matching((published or load_targets()).means, benchmark=benchmark, **facts)


def compare(
    task: str,
    model: str,
    vectors: Vectors,
    value: float,
    n_queries: int,
    loader: Loader,
    *,
    measure: str | None = None,
    language: str | None = None,
    dimensions: int | None = None,
    published: ReferenceScores | None = None,
) -> Comparison | None:
    """Put a measured value beside the published figure of the same model, use and loader.

    Where the results repository and a paper both have a figure of that loader, it is that of the results repository.

    Args:
        task: As mteb names it.
        model: Id of the model.
        vectors: How it was used.
        value: What was measured, in percent points (87.3, not 0.873).
        n_queries: Number of questions that were measured: one of them is 100 / n points.
        loader: Who read the data; figures of the other loader are not used.
        measure: Name of the measure; None for whichever the figure has.
        language: Code of the language, for a figure of one language.
        dimensions: How many numbers of each vector were kept; None for all.
        published: Figures of another file.

    Returns:
        The comparison, or None if nothing is published for it.

    Raises:
        InvalidInputError: If `value` is no number of percent points or `n_queries` is below 1.
    """
    _check(value)
    if n_queries < 1:
        raise InvalidInputError(f"{task}: a value of {n_queries} questions cannot be compared; it needs at least 1.")
    targets = targets_for(task, model=model, vectors=vectors, loader=loader, measure=measure, published=published)
    same = [t for t in targets if (t.language, t.dimensions, t.setting) == (language, dimensions, "")]
    return _comparison(same, value, 100 / n_queries)


def compare_mean(
    benchmark: str,
    model: str,
    vectors: Vectors,
    value: float,
    loader: Loader,
    *,
    tasks: Sequence[str] | None = None,
    measure: str | None = None,
    dimensions: int | None = None,
    published: ReferenceScores | None = None,
) -> Comparison | None:
    """Put a measured average beside the published one; arguments, result and errors as those of `compare`.

    `tasks` are those that were averaged: averages whose rows are known to be of other tasks are not used.
    """
    _check(value)
    everything = published or load_targets()
    means = means_for(benchmark, model=model, vectors=vectors, loader=loader, measure=measure, published=everything)
    same = [m for m in means if (m.dimensions, m.setting) == (dimensions, "")]
    if tasks is not None:
        same = [m for m in same if m.table is None or {row.task for row in everything.rows(m)} == set(tasks)]
    return _comparison(same, value, 0.0)


def paper_from_mteb(value: float, n: int) -> float:
    """What the paper's program gives where mteb gives `value`: its N questions have an empty one, which scores 0.

    The sum over the questions is the same, so the paper's mean is that of mteb times (N − 1) / N.

    Args:
        value: Measured with mteb's loader, over n − 1 questions.
        n: Questions that the paper counts, the empty one included (`Target.queries` of its figure).

    Raises:
        InvalidInputError: If `n` is below 2.
    """
    return value * _but_one(n) / n


def mteb_from_paper(value: float, n: int) -> float:
    """What mteb gives where the paper's program gives `value`: times N / (N − 1), as `paper_from_mteb` explains."""
    return value * n / _but_one(n)


def _but_one(n: int) -> int:
    if n < 2:
        raise InvalidInputError(f"{n} question(s), one of them empty, leave none: n counts the empty question, too.")
    return n - 1


def _check(value: float) -> None:
    # Rank correlations can be below 0, and a mean of ones times 100 a rounding error above 100.
    if not abs(value) <= 100 + 1e-6:
        raise InvalidInputError(f"{value} is not in percent points: give a value from -100 to 100.")


def _matching(scores: Sequence[_Score], **values: str | None) -> tuple[_Score, ...]:
    """Those that have these values; None means any."""
    return tuple(s for s in scores if all(v is None or getattr(s, name) == v for name, v in values.items()))


def _comparison(targets: Sequence[Target | Mean], value: float, one_query: float) -> Comparison | None:
    """With the figure of the most trusted kind."""
    target = min(targets, key=lambda target: get_args(Kind).index(target.kind), default=None)
    if target is None:
        return None
    difference, tolerance = value - target.value, max(TOLERANCE, one_query, target.tolerance)
    # Both are decimals with few places: a difference of just the tolerance is within it.
    return Comparison(target, value, difference, tolerance, abs(difference) <= tolerance + 1e-9)
