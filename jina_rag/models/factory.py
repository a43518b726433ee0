"""Puts a checkpoint of one of Jina's families into the class that runs it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from jina_rag._extras import require
from jina_rag.config import Limits
from jina_rag.errors import InvalidInputError
from jina_rag.models.runtime.checkpoints import Checkpoint
from jina_rag.models.runtime.prefix_cache import PrefixCache
from jina_rag.protocols import Embedder, Reranker

if TYPE_CHECKING:
    from jina_rag.models.runtime.devices import Placement

_loading = threading.Lock()
"""Modules are built under patches of torch that are global to the process."""


def native_embedder(
    checkpoint: Checkpoint,
    *,
    device: str,
    dtype: str,
    task: str | Sequence[str] = "retrieval",
    truncate_dim: int | None = None,
    max_pixels: int | None = None,
    max_length: int | None = None,
    allow_urls: bool = False,
    allow_unexpected: bool = False,
    rules: Mapping[str, Any] | None = None,
) -> Embedder:
    """See `jina_rag.models.registry.load_embedder`."""
    if rules and checkpoint.family != "colbert-v2":
        raise InvalidInputError(f"{checkpoint.name} has no {', '.join(map(repr, rules))}.")
    if task != "retrieval" and checkpoint.family != "v4":
        raise InvalidInputError(f"{checkpoint.name} has one task, 'retrieval', got {task!r}.")
    require_packages()
    placement = placement_of(checkpoint, device, dtype)
    with _loading, _room_for(checkpoint, placement), _plain_tensors():
        if checkpoint.family == "v4":
            from jina_rag.images import Opening
            from jina_rag.models.jina.embeddings_v4 import EmbeddingsV4

            return EmbeddingsV4(
                checkpoint,
                placement,
                task=task,
                truncate_dim=truncate_dim,
                max_pixels=max_pixels,
                max_length=max_length,
                opening=Opening(Limits(), allow_urls),
                allow_unexpected=allow_unexpected,
            )
        if checkpoint.family == "colbert-v2":
            from jina_rag.models.jina.colbert_v2 import ColbertOptions, ColbertV2

            try:
                options = ColbertOptions(**(rules or {}))
            except TypeError as exc:
                raise InvalidInputError(
                    f"jina-colbert-v2 takes skiplist, query_length and attend_to_expansion, not {sorted(rules or {})}."
                ) from exc
            return ColbertV2(
                checkpoint,
                placement,
                truncate_dim=truncate_dim,
                max_length=max_length,
                options=options,
                allow_unexpected=allow_unexpected,
            )
        from jina_rag.models.jina.embedding_v1 import EmbeddingV1

        embedder = EmbeddingV1(checkpoint, placement, max_length=max_length, allow_unexpected=allow_unexpected)
        embedder.check_truncate_dim(truncate_dim)
        return embedder


def native_reranker(
    checkpoint: Checkpoint,
    *,
    device: str,
    dtype: str,
    max_pixels: int | None = None,
    max_length: int | None = None,
    allow_urls: bool = False,
    prefix_cache: PrefixCache | bool = True,
    allow_unexpected: bool = False,
) -> Reranker:
    """See `jina_rag.models.registry.load_reranker`."""
    if not isinstance(prefix_cache, PrefixCache | bool):
        raise InvalidInputError(f"page_memory is a PageMemory, True or False, got {prefix_cache!r}.")
    memory = (PrefixCache() if prefix_cache else None) if isinstance(prefix_cache, bool) else prefix_cache
    require_packages()
    placement = placement_of(checkpoint, device, dtype)
    with _loading, _room_for(checkpoint, placement), _plain_tensors():
        from jina_rag.images import Opening
        from jina_rag.models.jina.reranker_m0 import RerankerM0

        return RerankerM0(
            checkpoint,
            placement,
            max_pixels=max_pixels,
            max_length=max_length,
            opening=Opening(Limits(), allow_urls),
            prefix_cache=memory,
            allow_unexpected=allow_unexpected,
        )


def placement_of(checkpoint: Checkpoint, device: str, dtype: str) -> Placement:
    """Where a checkpoint runs and in which dtype, by what it weighs."""
    from jina_rag.models.runtime.devices import place
    from jina_rag.models.runtime.weights import WeightFiles

    with WeightFiles(checkpoint.weights) as files:
        return place(device, dtype, weight_bytes=files.total_bytes(), stored=files.stored_dtype())


def _plain_tensors() -> AbstractContextManager[None]:
    """Outside a caller's inference mode: a tensor made in there could never be part of a gradient, nor be moved."""
    import torch

    return torch.inference_mode(False)


def _room_for(checkpoint: Checkpoint, placement: Placement) -> AbstractContextManager[None]:
    """Memory for a checkpoint on its device while it is loaded; others leave if need be."""
    from jina_rag.models.runtime.offload import shared_device
    from jina_rag.models.runtime.weights import WeightFiles

    with WeightFiles(checkpoint.weights) as files:
        size = files.total_bytes() * placement.dtype.itemsize // files.stored_dtype().itemsize
    return shared_device(placement.device).loading(checkpoint.name, size)


def require_packages() -> None:
    """Import what the models need, or say how to install it.

    Raises:
        MissingDependencyError: With the pip line.
    """
    for module in ("torch", "safetensors", "transformers", "accelerate", "peft"):
        require(module, extra="models")
