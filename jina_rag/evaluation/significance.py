"""Bootstrap confidence intervals for a mean, and for the paired difference of two settings over the same queries.

Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), percentile interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jina_rag.errors import InvalidInputError

RESAMPLES = 10_000  # default number of bootstrap resamples
_MAX_DRAWS = 2_000_000
"""Maximum number of resampled values in memory at the same time."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean difference between two runs over the same queries.

    Attributes:
        mean: Mean over the queries of the value in the second run minus the value in the first run.
        low: Lower end of the 95 % interval of the mean.
        high: Upper end of the interval.
        better: Number of queries with a higher value in the second run.
        worse: Number of queries with a lower value in the second run.
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
    """Return the mean difference of two runs and the 95 % interval of the mean, by a paired bootstrap over queries.

    Args:
        first: query_id → value of the measure in the baseline run.
        second: query_id → value of the measure in the second run, for the queries of `first`.
        resamples: Number of bootstrap resamples.
        seed: Seed of the random generator.

    Raises:
        InvalidInputError: If the runs cover different queries, or no query.
    """
    if not first or first.keys() != second.keys():
        raise InvalidInputError("The runs cover different queries, or no query. Compare runs over the same queries.")
    deltas = np.array([second[query_id] - first[query_id] for query_id in sorted(first)])
    low, high = interval(deltas, resamples=resamples, seed=seed)
    return Difference(float(deltas.mean()), low, high, int((deltas > 1e-9).sum()), int((deltas < -1e-9).sum()))


def interval(values: npt.ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """Return the lower and upper end of the 95 % interval of a mean, by bootstrap over the queries.

    The interval estimates how far the mean would move with other queries of the same kind. Intervals of two settings
    can overlap even if one setting is reliably better; compare settings with `difference`.

    Args:
        values: One value per query in a fixed order. Shape (n,), converted to float64.
        resamples: Number of bootstrap resamples.
        seed: Seed of the random generator.

    Raises:
        InvalidInputError: If `values` is empty.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise InvalidInputError("values is empty; an interval requires the value of at least one query.")
    rng = np.random.default_rng(seed)
    chunk = max(1, _MAX_DRAWS // len(values))
    means = [
        values[rng.integers(0, len(values), (min(chunk, resamples - start), len(values)))].mean(axis=1)
        for start in range(0, resamples, chunk)
    ]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975)).tolist()
    return low, high
