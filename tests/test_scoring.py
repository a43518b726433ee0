"""Late-interaction scores: MaxSim, best window and token similarity, compared with naive loops."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jina_rag import scoring
from jina_rag.errors import InvalidInputError


def naive_maxsim(query, document):
    if len(document) == 0:
        return -math.inf
    return sum(max(sum(float(a) * float(b) for a, b in zip(q, d, strict=True)) for d in document) for q in query)


@st.composite
def query_and_documents(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dim = draw(st.integers(1, 6))
    shift = draw(st.sampled_from([0.0, -3.0]))
    lengths = draw(st.lists(st.integers(0, 7), min_size=1, max_size=6))
    query = np.abs(rng.normal(size=(draw(st.integers(1, 4)), dim))).astype("f4")
    return query, [(rng.normal(size=(n, dim)) + shift).astype("f4") for n in lengths]


@given(query_and_documents())
def test_maxsim_matches_naive_loops(case):
    query, documents = case
    expected = [naive_maxsim(query, document) for document in documents]
    np.testing.assert_allclose(scoring.maxsim_many(query, documents), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose([scoring.maxsim(query, d) for d in documents], expected, rtol=1e-4, atol=1e-4)


def test_maxsim_keeps_negative_scores():
    query = np.ones((2, 3), "f4")
    short_document, long_document = -np.ones((1, 3), "f4"), -np.ones((9, 3), "f4")
    assert scoring.maxsim_many(query, [short_document, long_document]).tolist() == [-6.0, -6.0]


def test_maxsim_of_no_documents_and_of_empty_documents():
    query = np.ones((1, 2), "f4")
    assert scoring.maxsim_many(query, []).shape == (0,)
    assert scoring.maxsim_many(query, [np.zeros((0, 2), "f4"), query]).tolist() == [-math.inf, 2.0]
    assert scoring.best_window(query, np.zeros((0, 2), "f4")) == -math.inf


@given(query_and_documents(), st.integers(1, 9))
def test_best_window_is_between_single_token_and_maxsim(case, window):
    query, documents = case
    for document in documents:
        best = scoring.best_window(query, document, window=window)
        assert best <= scoring.maxsim(query, document) + 1e-4
        if len(document):
            assert best >= max(scoring.maxsim(query, document[i : i + 1]) for i in range(len(document))) - 1e-4
            if len(document) <= window:
                assert best == pytest.approx(scoring.maxsim(query, document), abs=1e-4)


def test_best_window_prefers_adjacent_words():
    query = np.eye(2, dtype="f4")
    filler = np.zeros((200, 2), "f4")
    apart, adjacent = filler.copy(), filler.copy()
    apart[0] = adjacent[100] = [1, 0]
    apart[199] = adjacent[101] = [0, 1]
    assert scoring.maxsim(query, apart) == scoring.maxsim(query, adjacent) == 2
    assert scoring.best_window(query, apart) == 1
    assert scoring.best_window(query, adjacent) == 2


def test_token_similarity_peaks_at_token_matching_whole_query():
    query = np.array([[1, 0], [0, 1]], "f4")
    document = np.array([[1, 0], [1, 1], [1, 0]], "f4")
    similarities = scoring.token_similarity(query, document)
    assert similarities.argmax() == 1
    np.testing.assert_allclose(similarities, [0.5, 1, 0.5])
    assert scoring.token_similarity(query, document[:0]).shape == (0,)


def test_invalid_shapes_raise_invalid_input_error():
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


def test_docstring_examples():
    result = doctest.testmod(scoring)
    assert result.attempted
    assert not result.failed
