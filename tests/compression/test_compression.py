"""Pooling is a partition with a way back; codes are read as they were written; storage settings make sense."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jina_rag.compression import (
    cut_rows,
    decode_assignment,
    decode_signs,
    encode_assignment,
    encode_signs,
    expand,
    pool_tokens,
    pooling,
    row_dim,
)
from jina_rag.config import Storage
from jina_rag.errors import IndexCorruptError, IndexMismatchError, InvalidInputError
from jina_rag.scoring import normalise
from jina_rag.testing import FakeEmbedder


@st.composite
def pages(draw, most=60):
    """Unit rows of a page, some of them equal."""
    count, dim = draw(st.integers(0, most)), draw(st.integers(1, 6))
    numbers = draw(hnp.arrays(np.int8, (count, dim), elements=st.integers(-3, 3)))
    rows = numbers.astype(np.float32)
    rows[:, 0] += np.where((rows == 0).all(axis=1), 1, 0)
    return normalise(rows)


factors = st.floats(1, 9)


def random_rows(count, dim=32, seed=0):
    return normalise(np.random.default_rng(seed).normal(size=(count, dim)))


@settings(deadline=None)
@given(pages(), factors)
def test_pooling_is_a_partition_in_reading_order_with_as_many_rows_as_asked(rows, factor):
    pooled, assignment = pool_tokens(rows, factor)
    assert pooled.dtype == np.float32
    assert pooled.shape == (math.ceil(len(rows) / factor), rows.shape[1])
    assert len(assignment) == len(rows)
    # Every pooled row holds something, and they come in the order of the first thing that they hold.
    named, first = np.unique(assignment, return_index=True)
    assert named.tolist() == list(range(len(pooled)))
    assert (np.diff(first) > 0).all()


@settings(deadline=None)
@given(pages(), factors)
def test_a_pooled_row_is_the_unit_mean_of_its_rows(rows, factor):
    pooled, assignment = pool_tokens(rows, factor)
    for number, row in enumerate(pooled):
        mean = rows[assignment == number].mean(axis=0)
        # The mean of rows that cancel out has no direction to speak of.
        if np.linalg.norm(mean) > 1e-3:
            np.testing.assert_allclose(row, normalise(mean), atol=1e-4)
            assert np.linalg.norm(row) == pytest.approx(1, abs=1e-5)


@settings(deadline=None)
@given(pages(), factors)
def test_pooling_the_same_again_gives_the_same(rows, factor):
    before = rows.copy()
    once, twice = pool_tokens(rows, factor), pool_tokens(rows, factor)
    np.testing.assert_array_equal(once[0], twice[0])
    np.testing.assert_array_equal(once[1], twice[1])
    np.testing.assert_array_equal(rows, before)


@given(pages(), st.integers(1, 70))
def test_no_more_rows_than_the_store_takes(rows, most):
    pooled, assignment = pool_tokens(rows, 1, most=most)
    assert len(pooled) == min(len(rows), most)
    assert expand(pooled, assignment).shape == rows.shape


@given(pages())
def test_a_factor_of_one_changes_nothing(rows):
    pooled, assignment = pool_tokens(rows, 1)
    np.testing.assert_array_equal(pooled, rows)
    np.testing.assert_array_equal(assignment, np.arange(len(rows)))


def test_a_page_without_rows_and_one_with_a_single_row():
    pooled, assignment = pool_tokens(np.zeros((0, 8), np.float32), 3)
    assert (pooled.shape, len(assignment)) == ((0, 8), 0)
    pooled, assignment = pool_tokens(random_rows(1), 3)
    np.testing.assert_allclose(pooled, random_rows(1), atol=1e-6)
    assert assignment.tolist() == [0]


def test_rows_that_mean_the_same_are_pooled_first():
    kinds = random_rows(5, 64)
    which = np.random.default_rng(1).permutation(np.repeat(np.arange(5), 4))
    _, assignment = pool_tokens(normalise(kinds[which] + 0.01 * random_rows(20, 64, seed=2)), 4)
    for kind in range(5):
        assert len(set(assignment[which == kind])) == 1


@pytest.mark.parametrize("count", [1500, 3000])
@pytest.mark.parametrize("different", [1, 10, 3000])
def test_long_pages_are_pooled_block_by_block_and_equal_rows_cost_no_more(count, different):
    rows = np.resize(random_rows(different), (count, 32))
    started = time.process_time()
    pooled, assignment = pool_tokens(rows, 3)
    assert time.process_time() - started < 5
    assert len(pooled) == count // 3
    blocks = math.ceil(count / pooling._BLOCK)
    edges = [len(rows) * n // blocks for n in range(blocks + 1)]
    for start, end in itertools.pairwise(edges):
        assert not set(assignment[start:end]) & set(assignment[end:])


def test_rows_that_never_pair_off_are_merged_with_their_neighbours(monkeypatch):
    monkeypatch.setattr(pooling, "_ROUNDS", 1)
    pooled, assignment = pool_tokens(random_rows(100), 20)
    assert len(pooled) == 5
    assert set(assignment) == set(range(5))


@pytest.mark.parametrize(
    ("shape", "factor", "most"), [((4, 2), 0.5, None), ((4, 2), math.nan, None), ((4, 2), 2, 0), ((4,), 2, None)]
)
def test_pooling_that_makes_no_sense_is_refused(shape, factor, most):
    with pytest.raises(InvalidInputError, match="pooled"):
        pool_tokens(np.ones(shape, np.float32), factor, most=most)


@given(st.lists(st.integers(0, 65535), max_size=50))
def test_assignments_are_read_as_they_were_written(numbers):
    assignment = np.array(numbers, np.int32)
    text = encode_assignment(assignment)
    read = decode_assignment(text)
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, assignment)
    assert text.isascii()


def test_an_assignment_takes_a_byte_a_row_while_that_is_enough():
    assert len(encode_assignment(np.arange(256, dtype=np.int32))) == 2 + 344
    assert len(encode_assignment(np.arange(257, dtype=np.int32))) == 2 + 688


@pytest.mark.parametrize("text", ["", "1", "3:AAAA", "2:AA==", "1:*", ":AAAA", "x"])
def test_a_damaged_assignment_is_reported(text):
    if text == "1":
        assert not len(decode_assignment(text))
        return
    with pytest.raises(IndexCorruptError, match="again"):
        decode_assignment(text)


def test_weights_of_pooled_rows_come_back_to_every_row():
    assignment = np.array([0, 1, 0, 2], np.int32)
    assert expand(np.array([0.1, 0.2, 0.3]), assignment).tolist() == [0.1, 0.2, 0.1, 0.3]
    rows = random_rows(3)
    np.testing.assert_array_equal(expand(rows, assignment), rows[[0, 1, 0, 2]])
    assert expand(np.zeros((0, 4)), np.zeros(0, np.int32)).shape == (0, 4)
    with pytest.raises(IndexCorruptError, match="fit together"):
        expand(rows[:2], assignment)


@given(pages(), st.integers(1, 6))
def test_cut_rows_have_unit_length_again(rows, dim):
    if dim > rows.shape[1]:
        with pytest.raises(InvalidInputError, match="cannot be cut"):
            cut_rows(rows, dim)
        return
    cut = cut_rows(rows, dim)
    assert cut.shape == (len(rows), dim)
    lengths = np.linalg.norm(cut, axis=1)
    assert (np.isclose(lengths, 1, atol=1e-5) | (lengths == 0)).all()


def test_cut_rows_are_what_the_model_would_have_made():
    rows = random_rows(7, 128)
    assert cut_rows(rows, 128) is rows
    np.testing.assert_allclose(cut_rows(cut_rows(rows, 96), 64), cut_rows(rows, 64), atol=1e-6)


def test_rows_are_cut_only_to_what_the_model_was_trained_for():
    embedder = FakeEmbedder(multi_dim=96)
    assert row_dim(embedder, None) == row_dim(embedder, 96) == 96
    with pytest.raises(InvalidInputError, match="fake can have 96 dimensions"):
        row_dim(embedder, 64)
    embedder.multi_matryoshka_dims = (128, 96, 64)
    assert row_dim(embedder, 64) == 64
    with pytest.raises(InvalidInputError, match="96, 64 dimensions"):
        row_dim(embedder, 128)


def test_sign_codes_of_pooled_rows_tell_places_as_the_rows_do():
    rows = random_rows(40, 128)
    pooled, assignment = pool_tokens(rows, 2)
    codes = expand(decode_signs(encode_signs(pooled), 128), assignment)
    query = random_rows(4, 128, seed=3)
    exact = expand(pooled, assignment) @ query.mean(axis=0)
    assert np.corrcoef(codes @ query.mean(axis=0), exact)[0, 1] > 0.5


# -- settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["exact", "balanced", "compact"])
def test_presets_survive_json_and_know_their_names(name):
    storage = Storage.named(name)
    assert Storage.from_json(storage.to_json()) == storage
    assert str(storage) == name


def test_exact_is_the_default_and_what_an_old_index_has():
    assert Storage() == Storage.named("exact") == Storage.from_json({})
    assert (Storage().datatype, Storage().pool_factor) == ("float16", 1)


def test_other_knobs_are_spelt_out():
    assert str(Storage(pool_factor=2, multi_dim=64)) == "pool_factor=2, multi_dim=64"


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"datatype": "float8"}, "datatype is 'float8'"),
        ({"quantization": "product"}, "quantization"),
        ({"pool_factor": 0.9}, "pool_factor"),
        ({"pool_factor": math.nan}, "pool_factor"),
        ({"pool_factor": 33}, "pool_factor"),
        ({"pool_factor": "2"}, "pool_factor"),
        ({"pool_factor": True}, "pool_factor"),
        ({"oversampling": 0}, "oversampling"),
        ({"multi_dim": 0}, "multi_dim"),
        ({"multi_dim": 64.0}, "multi_dim"),
    ],
)
def test_knobs_that_make_no_sense_are_refused(knobs, said):
    with pytest.raises(InvalidInputError, match=said):
        Storage(**knobs)
    with pytest.raises(IndexMismatchError, match="update jina-rag"):
        Storage.from_json(knobs)


def test_an_unknown_preset_or_knob_is_refused():
    with pytest.raises(InvalidInputError, match="exact, balanced, compact"):
        Storage.named("tiny")
    with pytest.raises(IndexMismatchError, match="update jina-rag"):
        Storage.from_json({"holographic": True})
