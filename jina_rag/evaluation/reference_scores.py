"""Published scores of models (``targets.json``) and their comparison with measured scores.

The scores come from the papers and model cards of the Jina models and from the results repository of mteb. Each score
has its source, measure, model revision and page resolution.

A score is specific to the program that read the data (its loader). In eight tasks of JinaVDR the paper counts one query
more than mteb: an empty query, which always scores 0. In those tasks the paper's score is mteb's score times
(N − 1) / N, where N is the number of queries in the paper (`paper_from_mteb`). A value measured with mteb's loader is
therefore compared only with scores of mteb's loader, and a value measured with the paper's loader only with scores of
the paper's loader.

File format: a list of tables and a list of means. A table is a list of rows and the fields that the rows share, for
example model, vectors, measure and source. A row inherits each field that it does not set. All values are in percentage
points, as published (0.531 is 53.1).

Source: the field `source` of each score in ``targets.json``.
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
"""Program that read the data: mteb, or the program of the publication."""
Vectors: TypeAlias = Literal["dense", "multi", "rerank", "sparse", "unstated"]
"""Dense: one vector per input. Multi: one per token or patch. Rerank: reranked candidates. Sparse: term weights."""
Kind: TypeAlias = Literal["results", "paper", "model card", "model page", "reported"]
"""Kind of source: "results" is the results repository of mteb; "reported" is a score of unknown publication."""

TOLERANCE = 0.5
"""Deviation that batching, precision and weight revision can cause in a reproduced score, in percentage points."""

_Score = TypeVar("_Score", "Target", "Mean")


@dataclass(frozen=True, slots=True, kw_only=True)
class _ScoreFields:
    """Fields that `Target` and `Mean` share; see `Target`."""

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
class Target(_ScoreFields):
    """A published score of one model on one task.

    Attributes:
        table: Id of the table in ``targets.json`` that holds the score.
        benchmark: Benchmark of the task, under mteb's name if mteb has the benchmark.
        task: mteb's name of the task; the paper's name if `in_mteb` is False.
        model: Id of the model on the Hugging Face Hub, if it has one.
        vectors: Vector type, or reranking; see `Vectors`.
        measure: Name of the measure, for example nDCG@5; "unstated" if unknown.
        value: Score in percentage points, as published.
        source: Paper and table, model card, or results repository.
        kind: Kind of the source.
        loader: Program that read the data.
        in_mteb: True if mteb has the task.
        revision: Revision of the weights; several if the source does not state which one; None if not stated.
        max_pixels: Largest number of pixels per page image; None for texts, or if not stated.
        language: Language code of a score for one language, as published; otherwise None.
        dimensions: Number of dimensions after Matryoshka truncation; None for full vectors.
        setting: Other deviations from the published model; empty for none.
        queries: Number of queries, including `empty_queries`; None if unknown.
        empty_queries: Number of queries without text, which score 0.
        tolerance: Expected deviation of a reproduction, in percentage points.
        note: Remarks for the reader.
    """

    table: str
    task: str
    in_mteb: bool = True
    revision: str | None = None
    language: str | None = None
    queries: int | None = None
    empty_queries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean(_ScoreFields):
    """A published mean over tasks or languages. Attributes not listed here are those of `Target`.

    Attributes:
        decimals: Number of decimals of the published value, in percentage points.
        of: Description of the averaged scores.
        count: Number of tasks or languages; None if not stated.
        table: Id of the table with the averaged scores; None if they are not published or not transcribed.
        tasks: Tasks of that table that the mean covers; empty for all.
        agrees: True if the rounded mean of the table's scores is the published value. If False, `note` explains the
            deviation. None without a table.
    """

    decimals: int
    of: str
    count: int | None = None
    table: str | None = None
    tasks: tuple[str, ...] = ()
    agrees: bool | None = None


@dataclass(frozen=True, slots=True)
class ReferenceScores:
    """All scores and means of a file.

    Attributes:
        targets: Scores in the order of the file.
        means: Means in the order of the file.
    """

    targets: tuple[Target, ...]
    means: tuple[Mean, ...]

    def rows(self, mean: Mean) -> tuple[Target, ...]:
        """Return the scores that `mean` averages; empty if the file does not hold them.

        Args:
            mean: A mean of this file.
        """
        rows = (target for target in self.targets if target.table == mean.table)
        return tuple(target for target in rows if not mean.tasks or target.task in mean.tasks)


def load_targets(path: Path | None = None) -> ReferenceScores:
    """Return the published scores of a file.

    Args:
        path: Path of the file; None for the ``targets.json`` of the package.

    Raises:
        InvalidInputError: If the file cannot be read, or an entry does not match `Target` or `Mean`.
    """
    return _package_scores() if path is None else _parse_scores(read_text(path), str(path))


@cache
def _package_scores() -> ReferenceScores:
    text = importlib.resources.files("jina_rag.evaluation").joinpath("targets.json").read_text(encoding="utf-8")
    return _parse_scores(text, "targets.json")


def _parse_scores(text: str, name: str) -> ReferenceScores:
    try:
        data = json.loads(text)
        tables, means = list(data["tables"]), list(data["means"])
        rows = [({**table, "table": table["id"]}, row) for table in tables for row in table["rows"]]
    except (json.JSONDecodeError, KeyError, TypeError) as exc:
        raise InvalidInputError(
            f'{name}: expected a JSON object with "tables" (each with "id" and "rows") and "means" ({exc}).'
        ) from exc
    targets = tuple(
        _parse_score(Target, {**{k: v for k, v in table.items() if k not in ("id", "rows")}, **row}, name)
        for table, row in rows
    )
    return ReferenceScores(targets, tuple(_parse_score(Mean, mean, name) for mean in means))


def _parse_score(kind: type[_Score], values: Mapping[str, Any], name: str) -> _Score:
    location = f"{name}, {values.get('table') or values.get('benchmark')}, {values.get('task') or values.get('model')}"
    if unknown := values.keys() - {field.name for field in fields(kind)}:
        raise InvalidInputError(f"{location}: {kind.__name__} has no field {', '.join(sorted(unknown))}.")
    arguments: dict[str, Any] = {k: tuple(v) if k == "tasks" else v for k, v in values.items()}
    try:
        score = kind(**arguments)
    except TypeError as exc:
        raise InvalidInputError(f"{location}: {exc}.") from exc
    for field, choices in (("loader", Loader), ("vectors", Vectors), ("kind", Kind)):
        if getattr(score, field) not in get_args(choices):
            raise InvalidInputError(f"{location}: {field} is invalid; expected one of {', '.join(get_args(choices))}.")
    # Rank correlations can be below 0.
    if not isinstance(score.value, int | float) or not -100 <= score.value <= 100:
        raise InvalidInputError(f"{location}: value is {score.value!r}; expected percentage points from -100 to 100.")
    if not score.source:
        raise InvalidInputError(f"{location}: source is empty; expected a publication, for example a paper.")
    return score


@dataclass(frozen=True, slots=True)
class Comparison:
    """A measured value next to a published score.

    Attributes:
        target: The published score or mean.
        value: The measured value, in percentage points.
        difference: Measured minus published value, in percentage points.
        tolerance: Largest of 0.5 points, one query (100 / n points), and the tolerance of the score.
        within: True if the absolute difference is at most `tolerance`.
    """

    target: Target | Mean
    value: float
    difference: float
    tolerance: float
    within: bool

    @property
    def source(self) -> str:
        """One sentence with the published score, its measure and its source."""
        target = self.target
        details = [target.source]
        if isinstance(target, Target) and target.revision:
            details.append(f"revision {target.revision}")
        if target.max_pixels:
            details.append(f"at most {target.max_pixels:,} pixels per page")
        if target.dimensions:
            details.append(f"{target.dimensions} dimensions")
        if target.setting:
            details.append(target.setting)
        details.append("data read by mteb" if target.loader == "mteb" else "data read by the authors' program")
        of = f", mean of {target.of}" if isinstance(target, Mean) else ""
        note = f" {target.note}" if target.note else ""
        return f"Published: {target.value:.2f} {target.measure}{of} ({'; '.join(details)}).{note}"

    def __str__(self) -> str:
        verdict = "within" if self.within else "outside"
        return f"{self.value:.2f}, {self.difference:+.2f} from {self.target.value:.2f}, {verdict} ±{self.tolerance:.2f}"


class ScoreFilter(TypedDict, total=False):
    """Field values to select scores by; a missing field or None matches every value.

    Attributes:
        model: Id of the model.
        vectors: Vector type, or reranking; see `Vectors`.
        loader: Program that read the data.
        measure: Name of the measure.
    """

    model: str | None
    vectors: Vectors | None
    loader: Loader | None
    measure: str | None


def targets_for(
    task: str, *, published: ReferenceScores | None = None, **filters: Unpack[ScoreFilter]
) -> tuple[Target, ...]:
    """Return all scores of a task, in the order of the file.

    Args:
        task: mteb's name of the task.
        published: Scores to select from; default: those of the package.
        **filters: Values that the scores must have; see `ScoreFilter`.
    """
    return _select((published or load_targets()).targets, task=task, **filters)


def means_for(
    benchmark: str, *, published: ReferenceScores | None = None, **filters: Unpack[ScoreFilter]
) -> tuple[Mean, ...]:
    """Return all means of a benchmark, in the order of the file.

    Args:
        benchmark: mteb's name of the benchmark.
        published: Scores to select from; default: those of the package.
        **filters: Values that the means must have; see `ScoreFilter`.
    """
    return _select((published or load_targets()).means, benchmark=benchmark, **filters)


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
    """Compare a measured value with the published score of the same model, vectors and loader.

    If several sources published a score for that loader, the results repository of mteb takes precedence over papers.

    Args:
        task: mteb's name of the task.
        model: Id of the model.
        vectors: Vector type, or reranking; see `Vectors`.
        value: Measured value in percentage points (87.3, not 0.873).
        n_queries: Number of measured queries, at least 1; one query weighs 100 / n points.
        loader: Program that read the data; scores of the other loader are not used.
        measure: Name of the measure; None for any.
        language: Language code, for a score of one language.
        dimensions: Number of dimensions after Matryoshka truncation; None for full vectors.
        published: Scores to compare with; default: those of the package.

    Returns:
        The comparison, or None without a matching score.

    Raises:
        InvalidInputError: If `value` is not a number from −100 to 100, or `n_queries` is below 1.
    """
    _check_percentage_points(value)
    if n_queries < 1:
        raise InvalidInputError(f"{task}: n_queries is {n_queries}; expected at least 1.")
    targets = targets_for(task, model=model, vectors=vectors, loader=loader, measure=measure, published=published)
    candidates = [t for t in targets if (t.language, t.dimensions, t.setting) == (language, dimensions, "")]
    return _compare_with(candidates, value, 100 / n_queries)


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
    """Compare a measured mean with the published mean of the same model, vectors and loader.

    Args:
        benchmark: mteb's name of the benchmark.
        model: Id of the model.
        vectors: Vector type, or reranking; see `Vectors`.
        value: Measured mean in percentage points (87.3, not 0.873).
        loader: Program that read the data; means of the other loader are not used.
        tasks: Averaged tasks; published means known to cover other tasks are not used. None for any.
        measure: Name of the measure; None for any.
        dimensions: Number of dimensions after Matryoshka truncation; None for full vectors.
        published: Scores to compare with; default: those of the package.

    Returns:
        The comparison, or None without a matching mean.

    Raises:
        InvalidInputError: If `value` is not a number from −100 to 100.
    """
    _check_percentage_points(value)
    scores = published or load_targets()
    means = means_for(benchmark, model=model, vectors=vectors, loader=loader, measure=measure, published=scores)
    candidates = [m for m in means if (m.dimensions, m.setting) == (dimensions, "")]
    if tasks is not None:
        candidates = [m for m in candidates if m.table is None or {row.task for row in scores.rows(m)} == set(tasks)]
    return _compare_with(candidates, value, 0.0)


def paper_from_mteb(value: float, n: int) -> float:
    """Convert mteb's score into the score of the paper's program.

    The paper's N queries include an empty query that scores 0. The sum over the queries is equal, so the paper's mean
    is mteb's mean times (N − 1) / N.

    Args:
        value: Score measured with mteb's loader over n − 1 queries, in percentage points.
        n: Number of queries in the paper, including the empty query (`Target.queries` of the paper's score).

    Raises:
        InvalidInputError: If `n` is below 2.
    """
    return value * _nonempty_queries(n) / n


def mteb_from_paper(value: float, n: int) -> float:
    """Convert a score of the paper's program into the score of mteb: times N / (N − 1). See `paper_from_mteb`.

    Args:
        value: Score measured with the paper's loader over n queries, in percentage points.
        n: Number of queries in the paper, including the empty query.

    Raises:
        InvalidInputError: If `n` is below 2.
    """
    return value * n / _nonempty_queries(n)


def _nonempty_queries(n: int) -> int:
    if n < 2:
        raise InvalidInputError(f"n is {n}; expected at least 2, because n includes the empty query.")
    return n - 1


def _check_percentage_points(value: float) -> None:
    # Rank correlations can be below 0, and rounding can lift a mean of 100 slightly above 100.
    if not abs(value) <= 100 + 1e-6:
        raise InvalidInputError(f"value is {value}; expected percentage points from -100 to 100.")


def _select(scores: Sequence[_Score], **values: str | None) -> tuple[_Score, ...]:
    """Return the scores whose fields have these values; None matches every value."""
    return tuple(s for s in scores if all(v is None or getattr(s, name) == v for name, v in values.items()))


def _compare_with(targets: Sequence[Target | Mean], value: float, one_query: float) -> Comparison | None:
    """Compare with the score of the first available kind, in the order of `Kind`; None without scores."""
    target = min(targets, key=lambda target: get_args(Kind).index(target.kind), default=None)
    if target is None:
        return None
    difference, tolerance = value - target.value, max(TOLERANCE, one_query, target.tolerance)
    # The margin keeps a difference of exactly the tolerance within it, despite floating-point rounding.
    return Comparison(target, value, difference, tolerance, abs(difference) <= tolerance + 1e-9)
