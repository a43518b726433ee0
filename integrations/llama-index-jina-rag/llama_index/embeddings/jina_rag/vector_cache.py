"""What was embedded a moment ago, kept until the vector store asks for it.

A node of LlamaIndex has room for one vector. `JinaPageEmbedding` makes the many vectors of late interaction in the same
pass, and `JinaVectorStore` needs them: without this they would be made twice.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, TypeAlias

import numpy as np

from jina_rag import Embeddings

Key: TypeAlias = tuple[str, str | None]
"""An embedder's fingerprint, and the name of what was embedded (`node_inputs.cache_key_of`); nothing is kept under
None."""
DEFAULT_BYTES = 256 * 1024 * 1024
"""Some 600 pages of jina-embeddings-v4, or 1000 of "lite"."""


class VectorCache:
    """Embeddings of single inputs, up to a number of bytes; the oldest go first. Safe to use from several threads."""

    def __init__(self, max_bytes: int = DEFAULT_BYTES) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._vectors: OrderedDict[Key, Embeddings] = OrderedDict()
        self._lock = threading.RLock()

    def put(self, key: Key, encoded: Embeddings) -> None:
        """Keep the embeddings of one input; one that alone is too large is not kept."""
        with self._lock:
            self.drop(key)
            self._vectors[key] = encoded
            self.bytes += _size(encoded)
            if _size(encoded) > self.max_bytes:
                self.drop(key)
            while self.bytes > self.max_bytes:
                self.drop(next(iter(self._vectors)))

    def get(self, key: Key, dim: int = 0) -> Embeddings | None:
        """The embeddings of one input; None where there are none (any more) with dense vectors of `dim` numbers."""
        with self._lock:
            if key not in self._vectors or self._vectors[key].require_single().shape[1] < dim:
                return None
            self._vectors.move_to_end(key)
            return self._vectors[key]

    def drop(self, key: Key) -> None:
        """Forget one: it has been stored."""
        with self._lock:
            if key in self._vectors:
                self.bytes -= _size(self._vectors.pop(key))

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._vectors.clear()
            self.bytes = 0

    def __len__(self) -> int:
        return len(self._vectors)


VECTOR_CACHE = VectorCache()
"""Of this process."""


def take_row(encoded: Embeddings, row: int) -> Embeddings:
    """The embeddings of one input of several, as arrays of their own: a view would keep the whole batch."""
    return Embeddings(
        single=encoded.require_single()[row : row + 1].copy(),
        multi=[encoded.require_multi()[row].copy()],
        grids=None if encoded.grids is None else [encoded.grids[row]],
    )


def concatenate(embeddings: list[Embeddings], dim: int) -> Embeddings:
    """Embeddings of single inputs as those of one call, with dense vectors of `dim` numbers.

    Longer dense vectors are cut and made of length 1 again, as the model itself does for ``truncate_dim``.
    """
    single = np.concatenate([encoded.single for encoded in embeddings if encoded.single is not None])
    if single.shape[1] > dim:
        single = single[:, :dim]
        single = single / np.maximum(np.linalg.norm(single, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    grids: list[Any] = [None if encoded.grids is None else encoded.grids[0] for encoded in embeddings]
    return Embeddings(
        single=single, multi=[rows for encoded in embeddings for rows in encoded.multi or ()], grids=grids
    )


def _size(encoded: Embeddings) -> int:
    arrays = [encoded.single, *(encoded.multi or ())]
    for grid in encoded.grids or ():
        arrays += [] if grid is None else [grid.boxes, grid.images]
    return sum(array.nbytes for array in arrays if array is not None)
