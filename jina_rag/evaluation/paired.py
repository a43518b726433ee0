"""Whether one setting ranks better than another: the paired difference over the same questions, and its interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jina_rag.errors import InvalidInputError


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
    first: Mapping[str, float], second: Mapping[str, float], *, resamples: int = 10_000, seed: int = 0
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
    deltas = np.array([second[qid] - first[qid] for qid in sorted(first)])
    rng = np.random.default_rng(seed)
    means = np.array([deltas[rng.integers(0, len(deltas), len(deltas))].mean() for _ in range(resamples)])
    low, high = np.quantile(means, (0.025, 0.975)).tolist()
    return Difference(float(deltas.mean()), low, high, int((deltas > 1e-9).sum()), int((deltas < -1e-9).sum()))
