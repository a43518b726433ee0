"""Layout of the vision towers (`jina_rag.models.jina.vision_layout`): order of the patches and attention calls."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jina_rag.models.jina.vision_layout import MAX_CALLS, SequenceSet, _ranges, tower_layout

grids = st.lists(
    st.tuples(st.integers(1, 2), st.integers(1, 11).map(lambda n: 2 * n), st.integers(1, 11).map(lambda n: 2 * n)),
    min_size=1,
    max_size=9,
)


def sets_of(sequences):
    """The sequences as sets of rows."""
    rows = np.arange(sequences.lengths.sum()) if sequences.rows is None else sequences.rows
    limits = sequences.boundaries()
    return {frozenset(rows[start:stop].tolist()) for start, stop in itertools.pairwise(limits)}


def expected_sets(sizes, window):
    """Patches of each image and each window, computed one by one."""
    images, windows, first = set(), {}, 0
    for number, (height, width) in enumerate(sizes):
        images.add(frozenset(range(first, first + height * width)))
        at = first
        for row, column, _ in itertools.product(range(height // 2), range(width // 2), range(4)):
            windows.setdefault((number, row // window, column // window), set()).add(at)
            at += 1
        first += height * width
    return images, {frozenset(window) for window in windows.values()}


@pytest.mark.parametrize("by_length", [False, True])
@given(grids=grids, window=st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_windows_and_images_contain_the_right_patches(by_length, grids, window):
    layout = tower_layout(grids, merge=2, window=window, by_length=by_length)
    sizes = [(height, width) for time, height, width in grids for _ in range(time)]
    images, windows = expected_sets(sizes, window)
    total = sum(height * width for height, width in sizes)
    order = np.arange(total) if layout.order is None else layout.order
    assert sorted(order) == list(range(total))
    for sequences, expected in ((layout.images, images), (layout.windows, windows)):
        assert {frozenset(order[list(rows)].tolist()) for rows in sets_of(sequences)} == expected
    # `restore` undoes the order of the tokens, and the patches of a token stay together.
    tokens = order[::4] // 4
    np.testing.assert_array_equal(order, (tokens[:, None] * 4 + np.arange(4)).reshape(-1))
    restored = tokens if layout.restore is None else tokens[layout.restore]
    np.testing.assert_array_equal(restored, np.arange(total // 4))
    if not by_length:  # sequences in order, as kernels for sequences of different lengths require
        assert layout.images.rows is None
        assert layout.windows.rows is None


@given(grids=grids)
@settings(deadline=None, max_examples=30)
def test_positions_are_row_and_column_of_each_patch(grids):
    layout = tower_layout(grids, merge=2, window=4, by_length=True)
    sizes = [(height, width) for time, height, width in grids for _ in range(time)]
    expected = np.concatenate(
        [
            [
                (2 * row + y, 2 * column + x)
                for row, column, y, x in itertools.product(range(height // 2), range(width // 2), range(2), range(2))
            ]
            for height, width in sizes
        ]
    )
    order = slice(None) if layout.order is None else layout.order
    np.testing.assert_array_equal(layout.positions, expected[order])


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30), shuffled=st.booleans())
@settings(deadline=None)
def test_groups_cover_each_row_once_in_few_calls(lengths, shuffled):
    total = sum(lengths)
    rows = np.random.default_rng(0).permutation(total) if shuffled else None
    sequences = SequenceSet(np.array(lengths), rows)
    groups, order = sequences.groups()
    assert len(groups) <= MAX_CALLS
    attended, results = set(), []
    for group in groups:
        picked = np.arange(group.start, group.start + group.count * group.longest) if group.rows is None else group.rows
        picked = picked.reshape(group.count, group.longest)
        is_patch = np.ones(picked.shape, bool) if group.is_patch is None else group.is_patch
        attended |= {frozenset(row[mask].tolist()) for row, mask in zip(picked, is_patch, strict=True)}
        for row, mask in zip(picked, is_patch, strict=True):  # padding adds no other sequence's row
            assert set(row.tolist()) == set(row[mask].tolist())
        results.append(picked[is_patch])
    assert attended == sets_of(sequences)
    concatenated = np.concatenate(results)
    np.testing.assert_array_equal(concatenated if order is None else concatenated[order], np.arange(total))


def test_equal_lengths_need_no_copy_and_no_padding():
    """Windows of one page: four lengths, four calls on adjacent rows."""
    layout = tower_layout([(1, 62, 48)] * 3, merge=2, window=4, by_length=True)
    groups, order = layout.windows.groups()
    assert order is None
    assert [(group.rows, group.is_patch) for group in groups] == [(None, None)] * len(groups)
    assert sorted({group.longest for group in groups}) == sorted(set(layout.windows.lengths.tolist()))


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=9))
@settings(deadline=None, max_examples=60)
def test_padding_is_the_least_possible(lengths):
    """The ranges cost as little as the best of all divisions into at most four ranges."""
    ordered = np.array(sorted(lengths, reverse=True))

    def cost(edges):
        return sum(int(ordered[start]) ** 2 * (stop - start) for start, stop in itertools.pairwise(edges))

    best = min(
        cost((0, *cuts, len(ordered)))
        for count in range(MAX_CALLS)
        for cuts in itertools.combinations(range(1, len(ordered)), count)
    )
    ranges = _ranges(ordered)
    assert [start for start, _ in ranges] == [0, *(stop for _, stop in ranges[:-1])]
    assert cost((0, *(stop for _, stop in ranges))) == best
