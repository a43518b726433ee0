"""Construction of embedders and rerankers from checkpoints; `BUILDERS` has one function per model family.

A new model family needs a module in `jina_rag.models.jina`, an architecture in `jina_rag.models.runtime.checkpoints`,
a description in `jina_rag.models.catalogue`, and a function in `BUILDERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from jina_rag._extras import require
from jina_rag._forks import RenewedLock, after_fork_in_child
from jina_rag.config import Limits
from jina_rag.errors import InvalidInputError
from jina_rag.images import Opening
from jina_rag.inputs import check_truncate_dim
from jina_rag.models.runtime.checkpoints import Checkpoint, Family
from jina_rag.models.runtime.device_names import DeviceNames, device_names
from jina_rag.models.runtime.prefix_cache import PrefixCache
from jina_rag.protocols import Embedder, Reranker

if TYPE_CHECKING:
    from jina_rag.models.runtime.devices import Placement

_loading_lock = RenewedLock()
"""Lock held while a model is built, because the construction patches torch globally. A thread first waits for free
memory on the device, and then for this lock."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Options for loading a model: the arguments of `load_embedder` and `load_reranker`, with equal defaults.

    Attributes:
        device: Device name, ``"auto"``, or several device names; see `device_names`.
        dtype: Dtype name, or ``"auto"``.
        task: Task or tasks of jina-embeddings-v4.
        truncate_dim: Length of the dense vectors; None for the full length.
        max_pixels: Maximum image size in pixels (width times height); None for the model's limit.
        max_length: Maximum length of an input in tokens; None for the model's limit.
        revision: Branch, tag or commit on the hub; None for ``main``.
        local_files_only: Whether to disable downloads.
        allow_urls: Whether to fetch images from http and https URLs.
        allow_unexpected: Whether to load a checkpoint with unused tensors.
        prefix_cache: Limits of the reranker's prefix cache; True for the default limits, False to disable the cache.
        rules: Options that only one model family supports, by name.
    """

    device: DeviceNames = "auto"
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
        """Limits for opening images, and whether image URLs are fetched."""
        return Opening(Limits(), self.allow_urls)

    def refuse(self, model: str, *names: str) -> None:
        """Raise an error if options that a model would ignore are set.

        Args:
            model: Name of the model, for the message.
            names: Options that the model does not support.

        Raises:
            InvalidInputError: If an option in `names` differs from the default.
        """
        if self.rules and "rules" in names:
            rules = ", ".join(self.rules)
            raise InvalidInputError(f"{model} does not support {rules}. Remove {rules}.")
        defaults = LoadOptions()
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name in names and value != getattr(defaults, option.name):
                # Accept False, which only disables a feature that the model does not have.
                if value is not False:
                    raise InvalidInputError(f"{model} {_REFUSAL_REASONS[option.name]}. Remove {option.name}={value!r}.")


_REFUSAL_REASONS = {
    "task": "supports the task 'retrieval' only",
    "max_pixels": "reads text and does not resize images",
    "revision": "has no revisions, because the weights are part of a package",
    "allow_urls": "reads texts and the text of pages, but no images",
    "allow_unexpected": "is loaded from a package with a fixed set of tensors",
    "prefix_cache": "has no prefix cache",
}


def build(checkpoint: Checkpoint, options: LoadOptions) -> Any:  # noqa: ANN401  # depends on the family
    """Load a checkpoint's weights onto the device or devices and return the embedder or reranker.

    Args:
        checkpoint: Checkpoint to load.
        options: Device, dtype and the other arguments of `load_embedder` and `load_reranker`. With several devices,
            each device gets a process that loads the checkpoint.

    Raises:
        CheckpointError: If the weights do not match the architecture.
        InvalidInputError: If an option is invalid for the model.
        MissingDependencyError: If the extra ``models`` is not installed.
    """
    unsupported_options, builder = BUILDERS[checkpoint.family]
    options.refuse(checkpoint.name, *unsupported_options)
    require_packages()
    _prepare_for_forks()
    devices = device_names(options.device)
    if len(devices) > 1:
        return _build_on_devices(checkpoint, options, devices)
    import torch

    from jina_rag.models.runtime.devices import place
    from jina_rag.models.runtime.offload import shared_device
    from jina_rag.models.runtime.weights import open_weights

    with open_weights(checkpoint) as files:
        stored_dtype, stored_bytes = files.stored_dtype(), files.total_bytes()
    placement = place(devices[0], options.dtype, weight_bytes=stored_bytes, stored_dtype=stored_dtype)
    size = stored_bytes * placement.dtype.itemsize // stored_dtype.itemsize
    # Disable a caller's inference mode: tensors created in inference mode can neither have gradients nor be offloaded.
    with shared_device(placement.device).loading(checkpoint.name, size), _loading_lock, torch.inference_mode(False):
        return builder(checkpoint, placement, options)


def _build_on_devices(checkpoint: Checkpoint, options: LoadOptions, devices: Sequence[str]) -> Embedder | Reranker:
    """Return an embedder or a reranker that loads the checkpoint in one process per device."""
    from jina_rag.models.runtime.devices import available_memory, place
    from jina_rag.models.runtime.kv_cache import HOST_SHARE
    from jina_rag.models.runtime.multi_device import MultiDeviceEmbedder, MultiDeviceReranker
    from jina_rag.models.runtime.weights import open_weights

    for device in devices:
        place(device, "float32")  # reports a missing device before the processes start
    if options.dtype == "auto" and set(devices) == {"cpu"}:
        # Selected once for all processes: on a CPU, the choice depends on a measurement and on the free memory.
        with open_weights(checkpoint) as files:
            stored_dtype, size = files.stored_dtype(), files.total_bytes() * len(devices)
        dtype = place("cpu", "auto", weight_bytes=size, stored_dtype=stored_dtype).dtype
        options = replace(options, dtype=str(dtype).removeprefix("torch."))
    cache = PrefixCache() if options.prefix_cache is True else options.prefix_cache
    if checkpoint.family == "m0" and isinstance(cache, PrefixCache) and cache.host_bytes is None:
        # The processes share the host memory.
        host_bytes = int(HOST_SHARE * available_memory()) // len(devices)
        options = replace(options, prefix_cache=replace(cache, host_bytes=host_bytes))
    factories = [partial(build, checkpoint, replace(options, device=device)) for device in devices]
    if checkpoint.family == "m0":
        return MultiDeviceReranker(factories, devices=devices)
    return MultiDeviceEmbedder(factories, devices=devices)


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
            f"jina-colbert-v2 supports skiplist, query_length and attend_to_expansion; got {sorted(options.rules)}. "
            "Remove all other options."
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
        raise InvalidInputError(f"prefix_cache is {cache!r}; expected a PrefixCache, True or False.")
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
"""For each model family, the names of the unsupported options and the function that builds the model."""


@cache
def _prepare_for_forks() -> None:
    """Let forked children compute in one thread: OpenMP would wait for the threads of the parent without end."""
    import torch

    after_fork_in_child(partial(torch.set_num_threads, 1))


def require_packages() -> None:
    """Import the packages of the extra ``models``.

    Raises:
        MissingDependencyError: If a package is not installed. The message contains the pip command.
    """
    for module in ("torch", "safetensors", "transformers", "accelerate", "peft"):
        require(module, extra="models")
