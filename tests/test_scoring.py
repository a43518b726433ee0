"""Scores are held against loops that anyone can check by eye."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jina_rag import scoring
from jina_rag.errors import InvalidInputError


def naive(query, document):
    if len(document) == 0:
        return -math.inf
    return sum(max(sum(float(a) * float(b) for a, b in zip(q, d, strict=True)) for d in document) for q in query)


@st.composite
def ragged(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dim = draw(st.integers(1, 6))
    shift = draw(st.sampled_from([0.0, -3.0]))
    lengths = draw(st.lists(st.integers(0, 7), min_size=1, max_size=6))
    query = np.abs(rng.normal(size=(draw(st.integers(1, 4)), dim))).astype("f4")
    return query, [(rng.normal(size=(n, dim)) + shift).astype("f4") for n in lengths]


@given(ragged())
def test_maxsim_is_the_naive_sum_of_maxima(case):
    query, documents = case
    expected = [naive(query, document) for document in documents]
    np.testing.assert_allclose(scoring.maxsim_many(query, documents), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose([scoring.maxsim(query, d) for d in documents], expected, rtol=1e-4, atol=1e-4)


def test_scores_below_zero_are_not_capped():
    query = np.ones((2, 3), "f4")
    short, long = -np.ones((1, 3), "f4"), -np.ones((9, 3), "f4")
    assert scoring.maxsim_many(query, [short, long]).tolist() == [-6.0, -6.0]


def test_no_documents_and_documents_without_tokens():
    query = np.ones((1, 2), "f4")
    assert scoring.maxsim_many(query, []).shape == (0,)
    assert scoring.maxsim_many(query, [np.zeros((0, 2), "f4"), query]).tolist() == [-math.inf, 2.0]
    assert scoring.best_window(query, np.zeros((0, 2), "f4")) == -math.inf


@given(ragged(), st.integers(1, 9))
def test_best_window_is_between_one_token_and_the_whole_page(case, window):
    query, documents = case
    for document in documents:
        best = scoring.best_window(query, document, window=window)
        assert best <= scoring.maxsim(query, document) + 1e-4
        if len(document):
            assert best >= max(scoring.maxsim(query, document[i : i + 1]) for i in range(len(document))) - 1e-4
            if len(document) <= window:
                assert best == pytest.approx(scoring.maxsim(query, document), abs=1e-4)


def test_best_window_prefers_words_that_stand_together():
    query = np.eye(2, dtype="f4")
    filler = np.zeros((200, 2), "f4")
    apart, near = filler.copy(), filler.copy()
    apart[0] = near[100] = [1, 0]
    apart[199] = near[101] = [0, 1]
    assert scoring.maxsim(query, apart) == scoring.maxsim(query, near) == 2
    assert scoring.best_window(query, apart) == 1
    assert scoring.best_window(query, near) == 2


def test_token_similarity_points_at_the_token_that_speaks_to_the_whole_question():
    query = np.array([[1, 0], [0, 1]], "f4")
    document = np.array([[1, 0], [1, 1], [1, 0]], "f4")
    heat = scoring.token_similarity(query, document)
    assert heat.argmax() == 1
    np.testing.assert_allclose(heat, [0.5, 1, 0.5])
    assert scoring.token_similarity(query, document[:0]).shape == (0,)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(InvalidInputError, match="same model"):
        scoring.maxsim(np.ones((1, 2), "f4"), np.ones((1, 3), "f4"))
    with pytest.raises(InvalidInputError, match="at least one token"):
        scoring.maxsim(np.ones((0, 2), "f4"), np.ones((1, 2), "f4"))
    with pytest.raises(InvalidInputError, match="shape"):
        scoring.best_window(np.ones(2, "f4"), np.ones((1, 2), "f4"))


def test_normalise_keeps_zero_rows():
    rows = scoring.normalise([[3, 4], [0, 0]])
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0, 0]])


def test_examples_in_the_docstrings():
    result = doctest.testmod(scoring)
    assert result.attempted
    assert not result.failed
