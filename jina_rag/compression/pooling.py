"""Token pooling: rows of one page that mean nearly the same become one.

Clavié, Chaffin and Adams, "Reducing the Footprint of Multi-Vector Retrieval with Minimal Performance Impact via Token
Pooling" (2024): Ward's hierarchical clustering of a document's rows, each cluster replaced by its mean. Here, in every
round all clusters that are each other's nearest merge at once (Sumengen et al., "Scaling Hierarchical Agglomerative
Clustering to Billion-sized Datasets", 2021), which takes a third of the time and needs NumPy only. Measured on 119
judged questions: rankings as good as with scipy's Ward clustering; runs of neighbouring rows rank as well, but their
heat maps follow the exact ones less (correlation 0.92 against 0.97 at factor 2).
"""

from __future__ import annotations

import base64
import math
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from jina_rag.errors import IndexCorruptError, InvalidInputError
from jina_rag.scoring import normalise, similarity
from jina_rag.types import Float32

Assignment = npt.NDArray[np.int32]
"""Shape (n,): the pooled row that each of n original rows went into."""

_BLOCK = 1024
"""Rows that are compared with each other; all pairs of a longer page would take seconds."""
_ROUNDS = 32
"""Rounds of merging; 7 are usual."""
_TIE = np.float32(1e-6)
_TYPES = {"1": "u1", "2": "<u2"}
"""Bytes of a row's number in an encoded assignment."""
_Array = TypeVar("_Array", bound=npt.NDArray[Any])


def pool_tokens(rows: Float32, factor: float, *, most: int | None = None) -> tuple[Float32, Assignment]:
    """Merge the rows of a page that resemble each other most until about 1/factor of them are left.

    Args:
        rows: Shape (n, dim), L2-normalised, in reading order.
        factor: How many rows become one on average, at least 1; at 1 nothing is merged.
        most: More rows than these are never returned, whatever the factor.

    Returns:
        The pooled rows, shape (ceil(n / factor), dim), in the order of their first original row: the mean of what
        they hold, L2-normalised (measured: plain means, which are shorter, rank worse from a factor of 3 on). And the
        assignment, shape (n,). The same input gives the same output.

    Raises:
        InvalidInputError: If `factor` or `most` is below 1, or `rows` is not a matrix.
    """
    if not factor >= 1 or (most is not None and most < 1):
        raise InvalidInputError(f"Rows are pooled by a factor of at least 1 to at least 1 row; got {factor}, {most}.")
    if rows.ndim != 2:
        raise InvalidInputError(f"Rows to be pooled need shape (tokens, dim), got {rows.shape}.")
    count = len(rows)
    target_count = min(math.ceil(count / factor), count if most is None else most)
    if target_count >= count:
        return rows.astype(np.float32, copy=False), np.arange(count, dtype=np.int32)
    blocks = min(math.ceil(count / _BLOCK), target_count)
    # Both cut at the same shares: no block has to give more rows than it holds.
    cuts = [count * block // blocks for block in range(blocks + 1)]
    targets = [target_count * block // blocks for block in range(blocks + 1)]
    block_means: list[Float32] = []
    assignments: list[Assignment] = []
    for block in range(blocks):
        means, into = _merge(rows[cuts[block] : cuts[block + 1]], targets[block + 1] - targets[block])
        assignments.append(into + np.int32(sum(map(len, block_means))))
        block_means.append(means)
    return normalise(np.concatenate(block_means)), np.concatenate(assignments)


def _merge(rows: Float32, target_count: int) -> tuple[Float32, Assignment]:
    """The means of `target_count` clusters of the rows, and which row went into which."""
    means = rows.astype(np.float32)
    sizes = np.ones(len(rows), dtype=np.float32)
    into = np.arange(len(rows), dtype=np.int32)
    for _ in range(_ROUNDS):
        if len(means) <= target_count:
            break
        first, second = _nearest_pairs(means, sizes, len(means) - target_count)
        target = np.arange(len(means))
        target[second] = first
        means, sizes, into = _merge_clusters(means, sizes, into, target)
    if len(means) > target_count:
        # Only rows made for it come here, of which hardly any are each other's nearest.
        means, sizes, into = _merge_clusters(means, sizes, into, np.arange(len(means)) * target_count // len(means))
    return means, into


def _nearest_pairs(means: Float32, sizes: Float32, most: int) -> tuple[npt.NDArray[np.int_], npt.NDArray[np.int_]]:
    """Clusters that are each other's nearest by Ward's cost, at most so many pairs, the cheapest; never none."""
    squares = np.square(means).sum(axis=1)
    # In place: at 1,024 rows every copy of this matrix is 4 MB.
    cost = similarity(means, means)
    cost *= -2
    cost += squares[:, None]
    cost += squares[None]
    cost *= sizes[:, None] * sizes[None] / (sizes[:, None] + sizes[None])
    order = np.arange(len(means), dtype=np.int32)
    # Equal rows are all equally near. With this they pair off, two by two, rather than all with the first.
    cost += (order[:, None] ^ order[None]) * _TIE
    np.fill_diagonal(cost, np.inf)
    nearest = cost.argmin(axis=1)
    first = np.flatnonzero((nearest[nearest] == order) & (order < nearest))
    second = nearest[first]
    if len(first) > most:
        cheapest = np.argsort(cost[first, second], kind="stable")[:most]
        first, second = first[cheapest], second[cheapest]
    return first, second


def _merge_clusters(
    means: Float32, sizes: Float32, into: Assignment, target: npt.NDArray[np.int_]
) -> tuple[Float32, Float32, Assignment]:
    """Clusters with one `target` become one, in the order of the targets."""
    _, target = np.unique(target, return_inverse=True)
    total = np.bincount(target, weights=sizes).astype(np.float32)
    sums = np.zeros((len(total), means.shape[1]), dtype=np.float32)
    np.add.at(sums, target, means * sizes[:, None])
    return sums / total[:, None], total, target.astype(np.int32)[into]


def expand(values: _Array, assignment: Assignment) -> _Array:
    """What belongs to pooled rows, given to every original row: the inverse of `pool_tokens`.

    Args:
        values: Shape (pooled rows, …): the rows themselves, or a weight for each.
        assignment: Shape (n,).

    Returns:
        Shape (n, …).

    Raises:
        IndexCorruptError: If the assignment names a row that is not there.
    """
    if len(assignment) and int(assignment.max()) >= len(values):
        raise IndexCorruptError("Stored rows and their places do not fit together: ingest the document again.")
    return values[assignment]  # type: ignore[return-value]


def encode_assignment(assignment: Assignment) -> str:
    """An assignment as text: base64 of one byte a row, or of two where there are more than 256 pooled rows."""
    width = "1" if not len(assignment) or int(assignment.max()) < 256 else "2"
    return f"{width}:{base64.b64encode(assignment.astype(_TYPES[width]).tobytes()).decode('ascii')}"


def decode_assignment(text: str) -> Assignment:
    """The inverse of `encode_assignment`.

    Raises:
        IndexCorruptError: If the text is not an encoded assignment.
    """
    width, _, body = text.partition(":")
    try:
        return np.frombuffer(base64.b64decode(body, validate=True), dtype=_TYPES[width]).astype(np.int32)
    except (KeyError, ValueError) as exc:
        raise IndexCorruptError("Stored places of pooled rows cannot be read: ingest the document again.") from exc
