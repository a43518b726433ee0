"""How sure a figure is: the interval of a mean, and the paired difference of two settings over the same questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jina_rag.errors import InvalidInputError

RESAMPLES = 10_000
_AT_ONCE = 2_000_000
"""Draws that are held in memory together."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean difference between two runs over the same questions.

    Attributes:
        mean: Second run less first one.
        low: Lower end of its 95 % interval.
        high: Upper end.
        better: Questions that are better in the second run.
        worse: Questions that are worse.
    """

    mean: float
    low: float
    high: float
    better: int
    worse: int

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}], {self.better} better, {self.worse} worse"


def difference(
    first: Mapping[str, float], second: Mapping[str, float], *, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """Compare two runs question by question, by a paired bootstrap (Efron and Tibshirani, 1993; percentile interval).

    Args:
        first: Question id → measure.
        second: The same questions.
        resamples: How often the questions are drawn anew.
        seed: Of the draws.

    Raises:
        InvalidInputError: If the runs are of other questions, or of none.
    """
    if not first or first.keys() != second.keys():
        raise InvalidInputError("Two runs can be compared over the same questions only, and at least one.")
    deltas = np.array([second[query_id] - first[query_id] for query_id in sorted(first)])
    low, high = interval(deltas, resamples=resamples, seed=seed)
    return Difference(float(deltas.mean()), low, high, int((deltas > 1e-9).sum()), int((deltas < -1e-9).sum()))


def interval(values: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of a mean, by bootstrap over the questions (percentile interval).

    It tells how far the mean would move with other questions of the same kind. Intervals of two settings may overlap
    though one is surely better: that is what `difference` is for.

    Args:
        values: One for each question, in a fixed order.
        resamples: How often the questions are drawn anew.
        seed: Of the draws.

    Raises:
        InvalidInputError: If there is no value.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise InvalidInputError("An interval needs at least one question.")
    rng = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // len(values))
    means = [
        values[rng.integers(0, len(values), (min(step, resamples - start), len(values)))].mean(axis=1)
        for start in range(0, resamples, step)
    ]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975)).tolist()
    return low, high
