"""Cache that passes multi-vectors from `JinaPageEmbedding` to `JinaVectorStore`.

A LlamaIndex node can store only one vector. The multi-vectors from the forward pass that embedded the node stay in this
cache until the vector store adds the node, so that the node is not encoded twice.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, TypeAlias

import numpy as np

from jina_rag import Embeddings

Key: TypeAlias = tuple[str, str | None]
"""Key of the cache: fingerprint of the embedder, and key of the content (see `node_inputs.cache_key`). Content with key
None is not cached."""
DEFAULT_BYTES = 256 * 1024 * 1024
"""Default limit of the cache, 256 MiB: about 600 pages with jina-embeddings-v4, or 1000 pages with "lite"."""


class VectorCache:
    """Thread-safe LRU cache of the embeddings of single inputs, with a maximum size in bytes.

    Attributes:
        max_bytes: Maximum size in bytes.
        bytes: Current size in bytes.
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES) -> None:
        """Create an empty cache.

        Args:
            max_bytes: Maximum size in bytes.
        """
        self.max_bytes = max_bytes
        self.bytes = 0
        self._vectors: OrderedDict[Key, Embeddings] = OrderedDict()
        self._lock = threading.RLock()

    def put(self, key: Key, encoded: Embeddings) -> None:
        """Store the embeddings of one input; evict least recently used entries if the cache exceeds `max_bytes`.

        Args:
            key: Fingerprint and content key.
            encoded: Embeddings of one input; not stored if larger than `max_bytes`.
        """
        with self._lock:
            self.drop(key)
            self._vectors[key] = encoded
            self.bytes += _num_bytes(encoded)
            if _num_bytes(encoded) > self.max_bytes:
                self.drop(key)
            while self.bytes > self.max_bytes:
                self.drop(next(iter(self._vectors)))

    def get(self, key: Key, dim: int = 0) -> Embeddings | None:
        """Return the embeddings of one input; None if no embeddings with a long enough dense vector are cached.

        Args:
            key: Fingerprint and content key.
            dim: Minimum length of the dense vector.
        """
        with self._lock:
            if key not in self._vectors or self._vectors[key].require_single().shape[1] < dim:
                return None
            self._vectors.move_to_end(key)
            return self._vectors[key]

    def drop(self, key: Key) -> None:
        """Remove one entry; a missing key is ignored.

        Args:
            key: Fingerprint and content key.
        """
        with self._lock:
            if key in self._vectors:
                self.bytes -= _num_bytes(self._vectors.pop(key))

    def clear(self) -> None:
        """Remove all entries."""
        with self._lock:
            self._vectors.clear()
            self.bytes = 0

    def __len__(self) -> int:
        return len(self._vectors)


VECTOR_CACHE = VectorCache()
"""The cache that all adapters of this process share."""


def take_row(encoded: Embeddings, row: int) -> Embeddings:
    """Return the embeddings of one input in a batch as a copy, because a view would keep the whole batch in memory.

    Args:
        encoded: Embeddings of a batch, with dense vectors and multi-vectors.
        row: Index of the input in the batch.
    """
    return Embeddings(
        single=encoded.require_single()[row : row + 1].copy(),
        multi=[encoded.require_multi()[row].copy()],
        grids=None if encoded.grids is None else [encoded.grids[row]],
    )


def concatenate(embeddings: list[Embeddings], dim: int) -> Embeddings:
    """Concatenate embeddings of single inputs, with dense vectors truncated to `dim`.

    Truncated vectors are L2-normalized, as by an embedder with ``truncate_dim``.

    Args:
        embeddings: Embeddings of one input each.
        dim: Length of the dense vectors.

    Returns:
        Embeddings with dense vectors of shape (n, dim), float32, and n multi-vectors.
    """
    single = np.concatenate([encoded.single for encoded in embeddings if encoded.single is not None])
    if single.shape[1] > dim:
        single = single[:, :dim]
        single = single / np.maximum(np.linalg.norm(single, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    grids: list[Any] = [None if encoded.grids is None else encoded.grids[0] for encoded in embeddings]
    return Embeddings(
        single=single, multi=[rows for encoded in embeddings for rows in encoded.multi or ()], grids=grids
    )


def _num_bytes(encoded: Embeddings) -> int:
    arrays = [encoded.single, *(encoded.multi or ())]
    for grid in encoded.grids or ():
        arrays += [] if grid is None else [grid.boxes, grid.images]
    return sum(array.nbytes for array in arrays if array is not None)
