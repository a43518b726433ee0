"""Builds the class that runs a checkpoint: one function for each family, in `BUILDERS`.

A new family needs a module of its own (`jina_rag.models.jina`), its architecture in
`jina_rag.models.runtime.checkpoints`, a description in `jina_rag.models.catalogue`, and its function here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from jina_rag._extras import require
from jina_rag.config import Limits
from jina_rag.errors import InvalidInputError
from jina_rag.images import Opening
from jina_rag.inputs import check_truncate_dim
from jina_rag.models.runtime.checkpoints import Checkpoint, Family
from jina_rag.models.runtime.prefix_cache import PrefixCache
from jina_rag.protocols import Embedder, Reranker

if TYPE_CHECKING:
    from jina_rag.models.runtime.devices import Placement

_loading = threading.Lock()
"""Modules are built under patches of torch that are global to the process; taken last, by a model that has its room."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a model is loaded: the arguments of `load_embedder` and `load_reranker`, with their defaults.

    `rules` are those that only one family has.
    """

    device: str = "auto"
    dtype: str = "auto"
    task: str | Sequence[str] = "retrieval"
    truncate_dim: int | None = None
    max_pixels: int | None = None
    max_length: int | None = None
    revision: str | None = None
    local_files_only: bool = False
    allow_urls: bool = False
    allow_unexpected: bool = False
    prefix_cache: PrefixCache | bool = True
    rules: Mapping[str, Any] = field(default_factory=dict)

    @property
    def opening(self) -> Opening:
        """The limits on images, and whether addresses are fetched."""
        return Opening(Limits(), self.allow_urls)

    def refuse(self, model: str, *names: str) -> None:
        """Refuse options that a model would ignore although the caller counts on them.

        Args:
            model: Its name.
            names: Of the options that it has no use for.

        Raises:
            InvalidInputError: If one of them is not at its default.
        """
        if self.rules and "rules" in names:
            raise InvalidInputError(f"{model} has no {', '.join(map(repr, self.rules))}.")
        defaults = LoadOptions()
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name in names and value != getattr(defaults, option.name):
                # False is how a caller says that nothing is to be kept; nothing is.
                if value is not False:
                    raise InvalidInputError(f"{model} {_WHY[option.name]}: leave out {option.name}={value!r}.")


_WHY = {
    "task": "has one task, 'retrieval'",
    "max_pixels": "reads words and scales no image down",
    "revision": "has no revisions, because its weights come with a package",
    "allow_urls": "reads texts and the words of pages, no images",
    "allow_unexpected": "is loaded from a package, whose tensors are known",
    "prefix_cache": "keeps nothing of the pages that it reads",
}


def build(checkpoint: Checkpoint, options: LoadOptions) -> Any:  # noqa: ANN401  # what the family is
    """The embedder or reranker of a checkpoint, with its weights on the device.

    Raises:
        CheckpointError: If its weights are not what they should be.
        InvalidInputError: If an option makes no sense for the model.
        MissingDependencyError: If the extra ``models`` is not installed.
    """
    unused, builder = BUILDERS[checkpoint.family]
    options.refuse(checkpoint.name, *unused)
    require_packages()
    import torch

    from jina_rag.models.runtime.devices import place
    from jina_rag.models.runtime.offload import shared_device
    from jina_rag.models.runtime.weights import WeightFiles

    with WeightFiles(checkpoint.weights) as files:
        stored, stored_bytes = files.stored_dtype(), files.total_bytes()
    placement = place(options.device, options.dtype, weight_bytes=stored_bytes, stored_dtype=stored)
    size = stored_bytes * placement.dtype.itemsize // stored.itemsize
    # A tensor made in a caller's inference mode could never be part of a gradient, nor be moved.
    with shared_device(placement.device).loading(checkpoint.name, size), _loading, torch.inference_mode(False):
        return builder(checkpoint, placement, options)


def _embeddings_v4(checkpoint: Checkpoint, placement: Placement, options: LoadOptions) -> Embedder:
    from jina_rag.models.jina.embeddings_v4 import EmbeddingsV4

    return EmbeddingsV4(
        checkpoint,
        placement,
        task=options.task,
        truncate_dim=options.truncate_dim,
        max_pixels=options.max_pixels,
        max_length=options.max_length,
        opening=options.opening,
        allow_unexpected=options.allow_unexpected,
    )


def _colbert_v2(checkpoint: Checkpoint, placement: Placement, options: LoadOptions) -> Embedder:
    from jina_rag.models.jina.colbert_v2 import ColbertOptions, ColbertV2

    try:
        rules = ColbertOptions(**options.rules)
    except TypeError as exc:
        raise InvalidInputError(
            f"jina-colbert-v2 takes skiplist, query_length and attend_to_expansion, not {sorted(options.rules)}."
        ) from exc
    return ColbertV2(
        checkpoint,
        placement,
        truncate_dim=options.truncate_dim,
        max_length=options.max_length,
        options=rules,
        allow_unexpected=options.allow_unexpected,
    )


def _embedding_v1(checkpoint: Checkpoint, placement: Placement, options: LoadOptions) -> Embedder:
    from jina_rag.models.jina.embedding_v1 import EmbeddingV1

    check_truncate_dim(options.truncate_dim, int(checkpoint.config["d_model"]), checkpoint.name)
    return EmbeddingV1(checkpoint, placement, max_length=options.max_length, allow_unexpected=options.allow_unexpected)


def _reranker_m0(checkpoint: Checkpoint, placement: Placement, options: LoadOptions) -> Reranker:
    from jina_rag.models.jina.reranker_m0 import RerankerM0

    cache = options.prefix_cache
    if not isinstance(cache, PrefixCache | bool):
        raise InvalidInputError(f"prefix_cache is a PrefixCache, True or False, got {cache!r}.")
    return RerankerM0(
        checkpoint,
        placement,
        max_pixels=options.max_pixels,
        max_length=options.max_length,
        opening=options.opening,
        prefix_cache=(PrefixCache() if cache else None) if isinstance(cache, bool) else cache,
        allow_unexpected=options.allow_unexpected,
    )


BUILDERS: dict[Family, tuple[tuple[str, ...], Callable[[Checkpoint, Placement, LoadOptions], Embedder | Reranker]]] = {
    "v4": (("rules",), _embeddings_v4),
    "m0": ((), _reranker_m0),
    "colbert-v2": (("task", "max_pixels", "allow_urls"), _colbert_v2),
    "v1": (("task", "max_pixels", "allow_urls", "rules"), _embedding_v1),
}
"""By family: the options that it has no use for, and the function that builds it."""


def require_packages() -> None:
    """Import what the models need, or say how to install it.

    Raises:
        MissingDependencyError: With the pip line.
    """
    for module in ("torch", "safetensors", "transformers", "accelerate", "peft"):
        require(module, extra="models")
