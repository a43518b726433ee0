"""Bootstrap intervals of means and of paired differences between runs."""

from __future__ import annotations

import numpy as np
import pytest

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.significance import difference, interval


def test_difference_mean_interval_and_counts():
    rng = np.random.default_rng(3)
    first = {f"q{n}": float(x) for n, x in enumerate(rng.random(200))}
    second = {
        query_id: value + float(step)
        for (query_id, value), step in zip(first.items(), rng.normal(0.1, 0.2, 200), strict=True)
    }
    result = difference(first, second)
    deltas = np.array([second[query_id] - first[query_id] for query_id in first])
    assert result.mean == pytest.approx(deltas.mean())
    # For many queries, the bootstrap interval approaches the normal approximation.
    half_width = 1.96 * deltas.std() / len(deltas) ** 0.5
    assert result.low == pytest.approx(deltas.mean() - half_width, abs=0.003)
    assert result.high == pytest.approx(deltas.mean() + half_width, abs=0.003)
    assert (result.better, result.worse) == ((deltas > 0).sum(), (deltas < 0).sum())
    assert str(result).startswith(f"{result.mean:+.3f} [{result.low:+.3f}, ")


def test_difference_of_equal_runs_is_zero():
    run = {"a": 0.5, "b": 1.0}
    result = difference(run, dict(run))
    assert (result.mean, result.low, result.high, result.better, result.worse) == (0, 0, 0, 0, 0)
    shift_difference = difference(run, {"a": 0.75, "b": 1.25})
    assert (shift_difference.low, shift_difference.high) == (0.25, 0.25), (
        "a constant shift has no variance in a paired comparison"
    )


@pytest.mark.parametrize(("first", "second"), [({}, {}), ({"a": 1.0}, {"b": 1.0}), ({"a": 1.0}, {})])
def test_difference_of_different_queries_raises_invalid_input(first, second):
    with pytest.raises(InvalidInputError, match="different queries"):
        difference(first, second)


def test_interval_of_a_mean():
    rng = np.random.default_rng(5)
    values = rng.random(400).tolist()
    low, high = interval(values, seed=1)
    half_width = 1.96 * np.std(values) / 20
    assert low == pytest.approx(np.mean(values) - half_width, abs=0.003)
    assert high == pytest.approx(np.mean(values) + half_width, abs=0.003)
    assert interval(values, seed=1) == (low, high), "equal seeds give equal intervals"
    assert interval(values, seed=2) != (low, high)
    assert interval([0.5]) == (0.5, 0.5)
    with pytest.raises(InvalidInputError, match="at least one query"):
        interval([])


def test_interval_limits_memory_for_many_queries():
    values = np.linspace(0, 1, 50_001).tolist()  # all draws at once would take 4 GB at 10,000 resamples
    low, high = interval(values, resamples=100)
    assert 0.49 < low < 0.5 < high < 0.51
