"""Order of image patches in a vision tower, and the sequences of patches that attend to each other.

A tower gets the patches of several images in one matrix, one row for each patch. In a windowed layer, the patches of a
window attend to each other; in other layers, all patches of an image. The functions here compute, from the sizes of the
images and without a device, the order of the rows and the attention calls of a layer.

Attention over a set of patches does not depend on their order. The patches are therefore reordered once, so that
windows of equal length are adjacent rows, and attend as one batch without a copy of the rows. The number of calls of a
layer is at most `MAX_CALLS` for any mixture of images: if there are more distinct lengths, sequences of similar length
are padded to a common length.

Source: Bai et al., Qwen2.5-VL Technical Report (2025), section 2.1.1, for windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Int64: TypeAlias = npt.NDArray[np.int64]
Bool: TypeAlias = npt.NDArray[np.bool_]
Grid: TypeAlias = "tuple[int, int, int]"
"""Time, height and width of an image in patches."""

MAX_CALLS = 4
"""Maximum number of attention calls of a layer. Windows of one image have at most four lengths: those inside, at the
right edge, at the bottom edge and in the corner."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Sequences that attend in one call, padded to the length of the longest one.

    Attributes:
        start: First row, if `rows` is None.
        count: Number of sequences.
        longest: Length of the longest sequence in patches.
        rows: Row of each patch, shape (count x longest,), int64; padding repeats the first patch of the sequence. None
            if the sequences are the rows from `start` on, in order and without padding.
        is_patch: Whether each of the `count` x `longest` positions is a patch, shape (count, longest), bool; None
            without padding.
    """

    start: int
    count: int
    longest: int
    rows: Int64 | None
    is_patch: Bool | None


@dataclass(frozen=True, slots=True, eq=False)
class SequenceSet:
    """Sequences of patches that cover all rows of the matrix; the patches of each sequence attend to each other.

    Attributes:
        lengths: Length of each sequence in patches, shape (sequences,), int64.
        rows: Rows of the sequences, one sequence after the other, shape (patches,), int64; None if in order.
    """

    lengths: Int64
    rows: Int64 | None = None

    def boundaries(self) -> Int64:
        """Return the first row of each sequence and the number of rows, shape (sequences + 1,), int64."""
        return np.concatenate([[0], np.cumsum(self.lengths)])

    def groups(self) -> tuple[list[Group], Int64 | None]:
        """Return the attention calls, at most `MAX_CALLS`, and the order of their results.

        The results of all calls, padding removed, are concatenated. The second value is the index of each row of the
        matrix in the concatenation, shape (patches,), int64; None if the concatenation has the order of the matrix.
        """
        by_length = np.argsort(-self.lengths, kind="stable")
        starts, lengths = self.boundaries()[:-1][by_length], self.lengths[by_length]
        in_order = self.rows is None and bool((np.diff(by_length) == 1).all())
        groups, concatenated, start = [], [], 0
        for first, stop in _ranges(lengths):
            longest = int(lengths[first])
            offsets = np.arange(longest)
            is_patch = offsets < lengths[first:stop, None]
            is_padded = not bool(is_patch.all())
            rows = None
            if is_padded or not in_order:
                rows = starts[first:stop, None] + np.where(is_patch, offsets, 0)
                rows = rows if self.rows is None else self.rows[rows]
                concatenated.append(rows[is_patch])
                rows = rows.reshape(-1)
            groups.append(Group(start, stop - first, longest, rows, is_patch if is_padded else None))
            start += int(lengths[first:stop].sum())
        if in_order:
            return groups, None
        index = np.empty(start, dtype=np.int64)
        index[np.concatenate(concatenated)] = np.arange(start)
        return groups, index


@dataclass(frozen=True, slots=True, eq=False)
class TowerLayout:
    """Order of the patches in a tower, and the sequences of the layers.

    Attributes:
        order: Patch of each row, shape (patches,), int64; None if the patches keep their order.
        positions: Row and column of the patch of each matrix row in its image, shape (patches, 2), int64.
        windows: Sequences of the windowed layers; None for a tower without windows.
        images: Sequences of the other layers.
        restore: Row of each token after merging, shape (tokens,), int64; None if the tokens keep their order.
    """

    order: Int64 | None
    positions: Int64
    windows: SequenceSet | None
    images: SequenceSet
    restore: Int64 | None


def tower_layout(grids: Sequence[Grid], *, merge: int, window: int | None, by_length: bool) -> TowerLayout:
    """Return the layout of a batch of images.

    Args:
        grids: Size of each image. Each time step is an image of its own.
        merge: Patches per side of the square that one token covers. The patches of a token are adjacent rows.
        window: Tokens per side of a window; None for a tower without windows.
        by_length: Whether to sort the sequences by length, so that sequences of equal length are adjacent. Otherwise,
            the patches of each image are adjacent.
    """
    frames = [_frame(height, width, merge, window) for time, height, width in grids for _ in range(time)]
    counts = np.array([len(frame.tokens) for frame in frames])
    first_tokens = np.concatenate([[0], np.cumsum(counts)[:-1]])
    tokens = np.concatenate([frame.tokens + first for frame, first in zip(frames, first_tokens, strict=True)])
    lengths = np.concatenate([frame.lengths for frame in frames])
    frame_of_token = np.repeat(np.arange(len(frames)), counts)
    if by_length:
        ranking = np.argsort(-lengths, kind="stable")
        rank = np.empty_like(ranking)
        rank[ranking] = np.arange(len(ranking))
        by_rank = np.argsort(np.repeat(rank, lengths), kind="stable")
        tokens, frame_of_token, lengths = tokens[by_rank], frame_of_token[by_rank], lengths[ranking]
    is_reordered = bool((np.diff(tokens) != 1).any())
    restore = np.empty_like(tokens)
    restore[tokens] = np.arange(len(tokens))
    patches = merge * merge
    order = _patches_of(tokens, patches)
    sequences = SequenceSet(lengths * patches)
    images = sequences
    if window is not None:
        by_frame = np.argsort(frame_of_token, kind="stable")
        is_in_order = bool((np.diff(by_frame) == 1).all())
        images = SequenceSet(counts * patches, None if is_in_order else _patches_of(by_frame, patches))
    return TowerLayout(
        order=order if is_reordered else None,
        positions=np.concatenate([frame.positions for frame in frames])[order],
        windows=None if window is None else sequences,
        images=images,
        restore=restore if is_reordered else None,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """Tokens of one image in the order of the windows, tokens per window, and the position of each patch."""

    tokens: Int64
    lengths: Int64
    positions: Int64


@lru_cache(maxsize=64)
def _frame(height: int, width: int, merge: int, window: int | None) -> _Frame:
    rows, columns = height // merge, width // merge
    # The patches of a token are adjacent, and so are the tokens of a row of tokens.
    patch = np.mgrid[:height, :width].reshape(2, rows, merge, columns, merge)
    positions = patch.transpose(1, 3, 2, 4, 0).reshape(-1, 2)
    tokens, lengths = np.arange(rows * columns), np.array([rows * columns])
    if window is not None:
        row, column = np.divmod(tokens, columns)
        window_of_token = row // window * -(-columns // window) + column // window
        tokens = np.argsort(window_of_token, kind="stable")
        lengths = np.bincount(window_of_token)
    for array in (tokens, lengths, positions):
        array.flags.writeable = False  # shared by all batches with an image of this size
    return _Frame(tokens, lengths, positions)


def _patches_of(tokens: Int64, patches: int) -> Int64:
    return (tokens[:, None] * patches + np.arange(patches)).reshape(-1)


def _ranges(lengths: Int64) -> list[tuple[int, int]]:
    """Divide sequences, in order of decreasing length, into at most `MAX_CALLS` ranges with the least padding.

    The cost of a range is the number of sequences times the square of the longest length, because the time of attention
    is proportional to it. Dynamic programming over the distinct lengths finds the ranges.

    Returns:
        Range (start, stop) of the sequences of each call.

    >>> _ranges(np.array([64, 64, 48, 32, 32, 16, 8]))
    [(0, 2), (2, 3), (3, 5), (5, 7)]
    """
    first = np.flatnonzero(np.diff(lengths, prepend=-1))  # first sequence of each distinct length
    edges = np.append(first, len(lengths))
    distinct = len(first)
    if distinct <= MAX_CALLS:
        return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    areas = lengths[first].astype(float) ** 2
    # cost[i]: least cost of the first i distinct lengths in the calls so far.
    cost = np.full(distinct + 1, np.inf)
    cost[0] = 0
    choices = []
    for _ in range(MAX_CALLS):
        options = [cost[:stop] + areas[:stop] * (edges[stop] - edges[:stop]) for stop in range(1, distinct + 1)]
        choices.append([int(option.argmin()) for option in options])
        cost = np.array([np.inf, *(option.min() for option in options)])
    ranges: list[tuple[int, int]] = []
    stop = distinct
    for choice in reversed(choices):
        if stop:
            start = choice[stop - 1]
            ranges.insert(0, (int(edges[start]), int(edges[stop])))
            stop = start
    return ranges
