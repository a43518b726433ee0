"""Published scores of models (``targets.json``), and the comparison of measured scores with published scores.

The scores come from the papers and model cards of the Jina models and from the results repository of mteb. Each score
has a source, a measure, a model revision and a page resolution, as far as published.

A score depends on the loader, which is the program that read the data. In eight tasks of JinaVDR, the paper's data has
an empty query that mteb omits. The empty query always scores 0, so in these eight tasks the paper's score is mteb's
score times (n − 1) / n, where n is the number of queries in the paper (see `paper_from_mteb`). For this reason, a
measured value is compared only with published scores of the same loader.

The file holds a list of tables and a list of means. A table has a list of rows, and fields that apply to all rows, for
example model, vectors, measure and source. A row can override each field of the table. All values are in percentage
points: a published 0.531 is stored as 53.1.

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
"""Dense: one vector per input. Multi: one vector per token or image patch. Rerank: scores of a reranker for the best
candidates of a search. Sparse: term weights."""
Kind: TypeAlias = Literal["results", "paper", "model card", "model page", "reported"]
"""Kind of source. "results" is the results repository of mteb. A "reported" score has no known publication."""

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
        model: Id of the model on the Hugging Face Hub; the published name of a model without an id.
        vectors: Vector type, or reranking; see `Vectors`.
        measure: Name of the measure, for example nDCG@5; "unstated" if unknown.
        value: Score in percentage points, as published.
        source: Paper and table, model card, or results repository.
        kind: Kind of the source.
        loader: Program that read the data.
        in_mteb: True if mteb has the task.
        revision: Revision of the weights, or the possible revisions joined by "or"; None if not stated.
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
    """A published mean over tasks or languages. For the other attributes, see `Target`.

    Attributes:
        decimals: Number of decimals of the published value, in percentage points.
        of: Description of the averaged scores.
        count: Number of tasks or languages; None if not stated.
        table: Id of the table with the averaged scores; None if the averaged scores are not in the file.
        tasks: Tasks of the table that the mean covers; empty for all tasks.
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
        """Return the scores that `mean` averages; empty if the averaged scores are not in the file.

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
        raise InvalidInputError(
            f"{location}: {kind.__name__} has no field {', '.join(sorted(unknown))}. Remove the field."
        )
    arguments: dict[str, Any] = {k: tuple(v) if k == "tasks" else v for k, v in values.items()}
    try:
        score = kind(**arguments)
    except TypeError as exc:
        raise InvalidInputError(f"{location}: {exc}. Add the missing field.") from exc
    for field, choices in (("loader", Loader), ("vectors", Vectors), ("kind", Kind)):
        if (choice := getattr(score, field)) not in get_args(choices):
            expected = ", ".join(get_args(choices))
            raise InvalidInputError(f"{location}: {field} is {choice!r}; expected one of {expected}.")
    # Some published scores are rank correlations, which can be below 0.
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
        tolerance: Largest of 0.5 points, the weight of one query (100 / n points for n queries), and the tolerance of
            `target`.
        within: True if the absolute difference is at most `tolerance`.
    """

    target: Target | Mean
    value: float
    difference: float
    tolerance: float
    within: bool

    @property
    def source(self) -> str:
        """One sentence that states the published score with measure and source."""
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
    """Field values that select published scores; a missing field or None matches every value.

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
        published: Scores to select from; default: the scores of the package.
        **filters: Values that the scores must have; see `ScoreFilter`.
    """
    return _select((published or load_targets()).targets, task=task, **filters)


def means_for(
    benchmark: str, *, published: ReferenceScores | None = None, **filters: Unpack[ScoreFilter]
) -> tuple[Mean, ...]:
    """Return all published mean scores of a benchmark, in the order of the file.

    Args:
        benchmark: mteb's name of the benchmark.
        published: Scores to select from; default: the scores of the package.
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

    If several sources published a score for the loader, the results repository of mteb takes precedence over papers.

    Args:
        task: mteb's name of the task.
        model: Id of the model.
        vectors: Vector type, or reranking; see `Vectors`.
        value: Measured value in percentage points (87.3, not 0.873).
        n_queries: Number of measured queries, at least 1. The weight of one query is 100 / `n_queries` points.
        loader: Program that read the data. Scores of other loaders are not used.
        measure: Name of the measure; None for any measure.
        language: Language code, for a score of one language.
        dimensions: Number of dimensions after Matryoshka truncation; None for full vectors.
        published: Scores to compare with; default: the scores of the package.

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
        loader: Program that read the data. Means of other loaders are not used.
        tasks: Tasks of the measured mean. Published means that are known to cover other tasks are not used. None to
            compare without this check.
        measure: Name of the measure; None for any measure.
        dimensions: Number of dimensions after Matryoshka truncation; None for full vectors.
        published: Scores to compare with; default: the scores of the package.

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

    The paper's data has n queries, including an empty query that mteb omits. The empty query adds 0 to the sum of the
    scores, so the paper's mean is mteb's mean times (n − 1) / n.

    Args:
        value: Score measured with mteb's loader over n − 1 queries, in percentage points.
        n: Number of queries in the paper, including the empty query (`Target.queries` of the paper's score).

    Raises:
        InvalidInputError: If `n` is below 2.
    """
    return value * _nonempty_queries(n) / n


def mteb_from_paper(value: float, n: int) -> float:
    """Convert a score of the paper's program into mteb's score: `value` times n / (n − 1).

    The conversion is the inverse of `paper_from_mteb`.

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
    """Return the scores whose fields are equal to `values`; None matches every value."""
    return tuple(s for s in scores if all(v is None or getattr(s, name) == v for name, v in values.items()))


def _compare_with(targets: Sequence[Target | Mean], value: float, one_query: float) -> Comparison | None:
    """Compare `value` with the target whose kind comes first in `Kind`; return None if `targets` is empty."""
    target = min(targets, key=lambda target: get_args(Kind).index(target.kind), default=None)
    if target is None:
        return None
    difference, tolerance = value - target.value, max(TOLERANCE, one_query, target.tolerance)
    # 1e-9: floating-point rounding must not move a difference that is equal to the tolerance outside the tolerance.
    return Comparison(target, value, difference, tolerance, abs(difference) <= tolerance + 1e-9)
