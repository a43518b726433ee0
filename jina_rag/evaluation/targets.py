"""How a measured figure compares with the published ones, which lie in ``targets.json``.

They are those of the papers and model cards of the Jina models, and those of the results repository of mteb, each with
its source, measure, revision and page resolution.

A figure holds for the program that read the data (its loader). In eight tasks of JinaVDR the paper counts one more
question than mteb: it has no text and always scores 0. There, the paper's figure is that of mteb times (N − 1) / N,
where N are the paper's questions (``paper_from_mteb``). So a value that was measured with mteb's loader is compared
with figures of mteb's loader only, and one that was measured with the paper's with the paper's only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, get_args

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.reference_scores import (
    TOLERANCE,
    Kind,
    Loader,
    Mean,
    Published,
    Target,
    Vectors,
    load_targets,
)

__all__ = [
    "Comparison",
    "Loader",
    "Mean",
    "Published",
    "Target",
    "Vectors",
    "compare",
    "compare_mean",
    "load_targets",
    "means_for",
    "mteb_from_paper",
    "paper_from_mteb",
    "targets_for",
]

_Entry = TypeVar("_Entry", Target, Mean)


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


def targets_for(
    task: str,
    *,
    model: str | None = None,
    vectors: Vectors | None = None,
    loader: Loader | None = None,
    measure: str | None = None,
    published: Published | None = None,
) -> tuple[Target, ...]:
    """All figures of a task, in the order of the file; None means any."""
    wanted = _wanted(task=task, model=model, vectors=vectors, loader=loader, measure=measure)
    return tuple(filter(wanted, (published or load_targets()).targets))


def means_for(
    benchmark: str,
    *,
    model: str | None = None,
    vectors: Vectors | None = None,
    loader: Loader | None = None,
    measure: str | None = None,
    published: Published | None = None,
) -> tuple[Mean, ...]:
    """All averages of a benchmark, in the order of the file; None means any."""
    wanted = _wanted(benchmark=benchmark, model=model, vectors=vectors, loader=loader, measure=measure)
    return tuple(filter(wanted, (published or load_targets()).means))


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
    published: Published | None = None,
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
    found = targets_for(task, model=model, vectors=vectors, loader=loader, measure=measure, published=published)
    same = [t for t in found if (t.language, t.dimensions, t.setting) == (language, dimensions, "")]
    return _compared(_preferred(same), value, 100 / n_queries)


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
    published: Published | None = None,
) -> Comparison | None:
    """Put a measured average beside the published one; arguments, result and errors as those of `compare`.

    `tasks` are those that were averaged: averages whose rows are known to be of other tasks are not used.
    """
    _check(value)
    everything = published or load_targets()
    found = means_for(benchmark, model=model, vectors=vectors, loader=loader, measure=measure, published=everything)
    same = [m for m in found if (m.dimensions, m.setting) == (dimensions, "")]
    if tasks is not None:
        same = [m for m in same if m.table is None or {row.task for row in everything.rows(m)} == set(tasks)]
    return _compared(_preferred(same), value, 0.0)


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


def _wanted(**parts: str | None) -> Callable[[Target | Mean], bool]:
    asked = {name: part for name, part in parts.items() if part is not None}
    return lambda entry: all(getattr(entry, name) == part for name, part in asked.items())


def _preferred(entries: Sequence[_Entry]) -> _Entry | None:
    return min(entries, key=lambda entry: get_args(Kind).index(entry.kind), default=None)


def _compared(target: Target | Mean | None, value: float, one_query: float) -> Comparison | None:
    if target is None:
        return None
    difference, tolerance = value - target.value, max(TOLERANCE, one_query, target.tolerance)
    # Both are decimals with few places: a difference of just the tolerance is within it.
    return Comparison(target, value, difference, tolerance, abs(difference) <= tolerance + 1e-9)
