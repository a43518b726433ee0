"""The paired difference between two runs."""

from __future__ import annotations

import numpy as np
import pytest

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.significance import difference, interval


def test_a_difference_has_its_mean_its_interval_and_its_questions():
    rng = np.random.default_rng(3)
    first = {f"q{n}": float(x) for n, x in enumerate(rng.random(200))}
    second = {
        query_id: value + float(step)
        for (query_id, value), step in zip(first.items(), rng.normal(0.1, 0.2, 200), strict=True)
    }
    result = difference(first, second)
    deltas = np.array([second[query_id] - first[query_id] for query_id in first])
    assert result.mean == pytest.approx(deltas.mean())
    # The interval of a mean, as theory has it for many questions.
    half = 1.96 * deltas.std() / len(deltas) ** 0.5
    assert result.low == pytest.approx(deltas.mean() - half, abs=0.003)
    assert result.high == pytest.approx(deltas.mean() + half, abs=0.003)
    assert (result.better, result.worse) == ((deltas > 0).sum(), (deltas < 0).sum())
    assert str(result).startswith(f"{result.mean:+.3f} [{result.low:+.3f}, ")


def test_the_same_run_differs_by_nothing():
    run = {"a": 0.5, "b": 1.0}
    result = difference(run, dict(run))
    assert (result.mean, result.low, result.high, result.better, result.worse) == (0, 0, 0, 0, 0)
    shifted = difference(run, {"a": 0.75, "b": 1.25})
    assert (shifted.low, shifted.high) == (0.25, 0.25), "paired: what all have in common is no doubt"


@pytest.mark.parametrize(("first", "second"), [({}, {}), ({"a": 1.0}, {"b": 1.0}), ({"a": 1.0}, {})])
def test_runs_of_other_questions_are_not_compared(first, second):
    with pytest.raises(InvalidInputError, match="same questions"):
        difference(first, second)


def test_the_interval_of_a_mean():
    rng = np.random.default_rng(5)
    values = rng.random(400).tolist()
    low, high = interval(values, seed=1)
    half = 1.96 * np.std(values) / 20
    assert low == pytest.approx(np.mean(values) - half, abs=0.003)
    assert high == pytest.approx(np.mean(values) + half, abs=0.003)
    assert interval(values, seed=1) == (low, high), "the seed repeats it"
    assert interval(values, seed=2) != (low, high)
    assert interval([0.5]) == (0.5, 0.5)
    with pytest.raises(InvalidInputError, match="at least one question"):
        interval([])


def test_many_questions_are_drawn_in_parts():
    values = np.linspace(0, 1, 50_001).tolist()  # 10,000 draws of so many would take 4 GB at once
    low, high = interval(values, resamples=100)
    assert 0.49 < low < 0.5 < high < 0.51
