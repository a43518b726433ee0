"""Compression: token pooling, row assignments, Matryoshka truncation, and the storage settings."""

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
def pages(draw, max_rows=60):
    """Return the unit rows of a page, some of them equal."""
    count, dim = draw(st.integers(0, max_rows)), draw(st.integers(1, 6))
    numbers = draw(hnp.arrays(np.int8, (count, dim), elements=st.integers(-3, 3)))
    rows = numbers.astype(np.float32)
    rows[:, 0] += np.where((rows == 0).all(axis=1), 1, 0)
    return normalise(rows)


factors = st.floats(1, 9)


def random_rows(count, dim=32, seed=0):
    return normalise(np.random.default_rng(seed).normal(size=(count, dim)))


@settings(deadline=None)
@given(pages(), factors)
def test_pool_tokens_partitions_rows_in_reading_order(rows, factor):
    pooled, assignment = pool_tokens(rows, factor)
    assert pooled.dtype == np.float32
    assert pooled.shape == (math.ceil(len(rows) / factor), rows.shape[1])
    assert len(assignment) == len(rows)
    # Each pooled row has at least one original row. Pooled rows are in the order of the first original row of each.
    indices, first_rows = np.unique(assignment, return_index=True)
    assert indices.tolist() == list(range(len(pooled)))
    assert (np.diff(first_rows) > 0).all()


@settings(deadline=None)
@given(pages(), factors)
def test_pooled_row_is_normalized_mean_of_its_rows(rows, factor):
    pooled, assignment = pool_tokens(rows, factor)
    for number, row in enumerate(pooled):
        mean = rows[assignment == number].mean(axis=0)
        # The direction of the mean is undefined where the rows cancel out.
        if np.linalg.norm(mean) > 1e-3:
            np.testing.assert_allclose(row, normalise(mean), atol=1e-4)
            assert np.linalg.norm(row) == pytest.approx(1, abs=1e-5)


@settings(deadline=None)
@given(pages(), factors)
def test_pool_tokens_is_deterministic_and_keeps_input(rows, factor):
    original = rows.copy()
    first, second = pool_tokens(rows, factor), pool_tokens(rows, factor)
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    np.testing.assert_array_equal(rows, original)


@given(pages(), st.integers(1, 70))
def test_max_rows_limits_pooled_rows(rows, max_rows):
    pooled, assignment = pool_tokens(rows, 1, max_rows=max_rows)
    assert len(pooled) == min(len(rows), max_rows)
    assert expand(pooled, assignment).shape == rows.shape


@given(pages())
def test_factor_of_one_keeps_rows(rows):
    pooled, assignment = pool_tokens(rows, 1)
    np.testing.assert_array_equal(pooled, rows)
    np.testing.assert_array_equal(assignment, np.arange(len(rows)))


def test_pool_tokens_of_zero_and_one_row():
    pooled, assignment = pool_tokens(np.zeros((0, 8), np.float32), 3)
    assert (pooled.shape, len(assignment)) == ((0, 8), 0)
    pooled, assignment = pool_tokens(random_rows(1), 3)
    np.testing.assert_allclose(pooled, random_rows(1), atol=1e-6)
    assert assignment.tolist() == [0]


def test_similar_rows_are_pooled_together():
    centers = random_rows(5, 64)
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(5), 4))
    _, assignment = pool_tokens(normalise(centers[labels] + 0.01 * random_rows(20, 64, seed=2)), 4)
    for label in range(5):
        assert len(set(assignment[labels == label])) == 1


@pytest.mark.parametrize("count", [1500, 3000])
@pytest.mark.parametrize("distinct_rows", [1, 10, 3000])
def test_long_pages_are_pooled_by_block_in_bounded_time(count, distinct_rows):
    rows = np.resize(random_rows(distinct_rows), (count, 32))
    started = time.process_time()
    pooled, assignment = pool_tokens(rows, 3)
    assert time.process_time() - started < 5
    assert len(pooled) == count // 3
    blocks = math.ceil(count / pooling._BLOCK)
    block_edges = [len(rows) * n // blocks for n in range(blocks + 1)]
    for start, end in itertools.pairwise(block_edges):
        assert not set(assignment[start:end]) & set(assignment[end:])


def test_rows_left_after_last_round_are_merged_by_position(monkeypatch):
    monkeypatch.setattr(pooling, "_ROUNDS", 1)
    pooled, assignment = pool_tokens(random_rows(100), 20)
    assert len(pooled) == 5
    assert set(assignment) == set(range(5))


@pytest.mark.parametrize(
    ("shape", "factor", "max_rows"), [((4, 2), 0.5, None), ((4, 2), math.nan, None), ((4, 2), 2, 0), ((4,), 2, None)]
)
def test_invalid_pooling_arguments_raise_invalid_input_error(shape, factor, max_rows):
    with pytest.raises(InvalidInputError, match=r"numbers of at least 1|shape"):
        pool_tokens(np.ones(shape, np.float32), factor, max_rows=max_rows)


@given(st.lists(st.integers(0, 65535), max_size=50))
def test_assignment_round_trips(numbers):
    assignment = np.array(numbers, np.int32)
    text = encode_assignment(assignment)
    read = decode_assignment(text)
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, assignment)
    assert text.isascii()


def test_encoded_assignment_has_one_or_two_bytes_per_row():
    assert len(encode_assignment(np.arange(256, dtype=np.int32))) == 2 + 344
    assert len(encode_assignment(np.arange(257, dtype=np.int32))) == 2 + 688


@pytest.mark.parametrize("text", ["", "1", "3:AAAA", "2:AA==", "1:*", ":AAAA", "x"])
def test_damaged_assignment_raises_index_corrupt_error(text):
    if text == "1":
        assert not len(decode_assignment(text))
        return
    with pytest.raises(IndexCorruptError, match="Ingest the document again"):
        decode_assignment(text)


def test_expand_gives_value_of_each_original_row():
    assignment = np.array([0, 1, 0, 2], np.int32)
    assert expand(np.array([0.1, 0.2, 0.3]), assignment).tolist() == [0.1, 0.2, 0.1, 0.3]
    rows = random_rows(3)
    np.testing.assert_array_equal(expand(rows, assignment), rows[[0, 1, 0, 2]])
    assert expand(np.zeros((0, 4)), np.zeros(0, np.int32)).shape == (0, 4)
    with pytest.raises(IndexCorruptError, match="out of range"):
        expand(rows[:2], assignment)


@given(pages(), st.integers(1, 6))
def test_cut_rows_are_renormalized(rows, dim):
    if dim > rows.shape[1]:
        with pytest.raises(InvalidInputError, match=r"dim is \d+; expected an integer from 1"):
            cut_rows(rows, dim)
        return
    cut = cut_rows(rows, dim)
    assert cut.shape == (len(rows), dim)
    lengths = np.linalg.norm(cut, axis=1)
    assert (np.isclose(lengths, 1, atol=1e-5) | (lengths == 0)).all()


def test_cutting_rows_twice_equals_cutting_once():
    rows = random_rows(7, 128)
    assert cut_rows(rows, 128) is rows
    np.testing.assert_allclose(cut_rows(cut_rows(rows, 96), 64), cut_rows(rows, 64), atol=1e-6)


def test_row_dim_accepts_only_matryoshka_dims():
    embedder = FakeEmbedder(multi_dim=96)
    assert row_dim(embedder, None) == row_dim(embedder, 96) == 96
    with pytest.raises(InvalidInputError, match="multi_dim is 64; expected one of 96, the row lengths of fake"):
        row_dim(embedder, 64)
    embedder.multi_matryoshka_dims = (128, 96, 64)
    assert row_dim(embedder, 64) == 64
    with pytest.raises(InvalidInputError, match="expected one of 96, 64"):
        row_dim(embedder, 128)


def test_sign_codes_of_pooled_rows_correlate_with_rows():
    rows = random_rows(40, 128)
    pooled, assignment = pool_tokens(rows, 2)
    codes = expand(decode_signs(encode_signs(pooled), 128), assignment)
    query = random_rows(4, 128, seed=3)
    exact = expand(pooled, assignment) @ query.mean(axis=0)
    assert np.corrcoef(codes @ query.mean(axis=0), exact)[0, 1] > 0.5


@pytest.mark.parametrize("name", ["exact", "balanced", "compact"])
def test_storage_presets_round_trip_json_with_names(name):
    storage = Storage.named(name)
    assert Storage.from_json(storage.to_json()) == storage
    assert str(storage) == name


def test_exact_is_default_storage_and_storage_of_old_indexes():
    assert Storage() == Storage.named("exact") == Storage.from_json({})
    assert (Storage().datatype, Storage().pool_factor) == ("float16", 1)


def test_str_of_custom_storage_lists_options():
    assert str(Storage(pool_factor=2, multi_dim=64)) == "pool_factor=2, multi_dim=64"


@pytest.mark.parametrize(
    ("options", "message"),
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
def test_invalid_storage_option_raises_error(options, message):
    with pytest.raises(InvalidInputError, match=message):
        Storage(**options)
    with pytest.raises(IndexMismatchError, match="Update jina-rag"):
        Storage.from_json(options)


def test_unknown_storage_preset_or_option_raises_error():
    with pytest.raises(InvalidInputError, match="exact, balanced, compact"):
        Storage.named("tiny")
    with pytest.raises(IndexMismatchError, match="Update jina-rag"):
        Storage.from_json({"holographic": True})
