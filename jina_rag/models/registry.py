"""Loading of embedders and rerankers by name, hub id or folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jina_rag.errors import InvalidInputError, ModelNotFoundError
from jina_rag.models import catalogue
from jina_rag.models.catalogue import MODELS
from jina_rag.models.factory import LoadOptions, build, require_packages
from jina_rag.models.runtime import hub
from jina_rag.models.runtime.checkpoints import Checkpoint, commit_in, open_checkpoint
from jina_rag.models.runtime.device_names import DeviceNames
from jina_rag.models.runtime.prefix_cache import PrefixCache
from jina_rag.protocols import Embedder, Reranker

_log = logging.getLogger("jina_rag")


def load_embedder(
    name_or_path: str | Path,
    *,
    device: DeviceNames = "auto",
    dtype: str = "auto",
    task: str | Sequence[str] = "retrieval",
    truncate_dim: int | None = None,
    max_pixels: int | None = None,
    max_length: int | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    allow_urls: bool = False,
    allow_unexpected: bool = False,
    **rules: Any,  # noqa: ANN401  # options of one family, checked by its builder
) -> Embedder:
    """Load an embedder, which encodes queries and pages as vectors.

    Args:
        name_or_path: ``"lite"``, ``"lite-en"``, a hub id (for example ``"jinaai/jina-embeddings-v4"``, downloaded
            once), or the folder of a checkpoint.
        device: ``"auto"`` (CUDA, else MPS, else the CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``. The lite
            models run on the CPU only. With several devices, ``["cuda:0", "cuda:1"]``, ``"cuda:0,cuda:1"`` or ``"all"``
            (all CUDA devices), each device gets a process with the whole model, and each call is shared out over the
            processes (`jina_rag.models.runtime.multi_device.MultiDeviceEmbedder`).
        dtype: Dtype of the weights: ``"auto"``, ``"float32"``, ``"bfloat16"``, ``"float16"``. Vectors are always
            float32.
        task: ``"retrieval"``; for jina-embeddings-v4 also ``"text-matching"`` or ``"code"``. The adapter of a single
            task is merged into the weights. With several tasks, all adapters stay in memory, and each call selects a
            task.
        truncate_dim: Length to which dense vectors (for jina-colbert-v2, the rows) are truncated, for models that
            support truncation; None for the full length.
        max_pixels: Size in pixels (width times height) to which larger images are scaled down, for models that read
            images; None for the model's limit.
        max_length: Maximum length of an input in tokens; None for the model's limit.
        revision: Branch, tag or commit on the hub; None for ``main``.
        local_files_only: Disable downloads.
        allow_urls: Fetch images from http and https URLs, passed as ``{"image": "https://…"}``. Supported by models
            that read images and by the lite models, which read images by OCR.
        allow_unexpected: Load a checkpoint that contains unused tensors.
        rules: Options of jina-colbert-v2: `skiplist`, `query_length`, `attend_to_expansion`
            (`jina_rag.models.jina.colbert_v2.ColbertOptions`).

    Returns:
        The embedder, with the weights on the device.

    Raises:
        ModelNotFoundError: If the model does not exist or cannot be downloaded.
        CheckpointError: If the weights do not match the architecture.
        InvalidInputError: If an argument is invalid for the model.
        MissingDependencyError: If the model requires the extra ``models``, which is not installed.
    """
    options = LoadOptions(
        device=device,
        dtype=dtype,
        task=task,
        truncate_dim=truncate_dim,
        max_pixels=max_pixels,
        max_length=max_length,
        revision=revision,
        local_files_only=local_files_only,
        allow_urls=allow_urls,
        allow_unexpected=allow_unexpected,
        rules=rules,
    )
    embedder: Embedder = _load(name_or_path, "embedder", options)
    return embedder


def load_reranker(
    name_or_path: str | Path,
    *,
    device: DeviceNames = "auto",
    dtype: str = "auto",
    max_pixels: int | None = None,
    max_length: int | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    allow_urls: bool = False,
    prefix_cache: PrefixCache | bool = True,
    allow_unexpected: bool = False,
) -> Reranker:
    """Load a reranker, which scores documents for a query.

    Args:
        name_or_path: ``"lite"``, ``"lite-en"``, a hub id (for example ``"jinaai/jina-reranker-m0"``, downloaded once),
            or the folder of a checkpoint.
        device: ``"auto"`` (CUDA, else MPS, else the CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``. The lite
            models run on the CPU only. With several devices, for example ``["cuda:0", "cuda:1"]`` or ``"all"`` (all
            CUDA devices), each device gets a process with the whole model (see `load_embedder`), and the pairs of each
            call are shared out. The lite models accept one device.
        dtype: Dtype of the weights: ``"auto"``, ``"float32"``, ``"bfloat16"``, ``"float16"``. Scores are always
            float32.
        max_pixels: Size in pixels (width times height) to which larger images are scaled down, for models that read
            images; None for the model's limit.
        max_length: Maximum total length of query and document in tokens; None for the model's limit.
        revision: Branch, tag or commit on the hub; None for ``main``.
        local_files_only: Disable downloads.
        allow_urls: Fetch images from http and https URLs, passed as ``{"image": "https://…"}``.
        prefix_cache: Cache of jina-reranker-m0 for scored documents. When a cached document is scored for another
            query, only the tokens of the query are computed, and the score is the same as without the cache. Pass a
            `PrefixCache` with limits, True for the default limits (fractions of the free memory), or False to disable
            the cache. The lite models have no prefix cache.
        allow_unexpected: Load a checkpoint that contains unused tensors.

    Returns:
        The reranker, with the weights on the device.

    Raises:
        ModelNotFoundError: If the model does not exist or cannot be downloaded.
        CheckpointError: If the weights do not match the architecture.
        InvalidInputError: If an argument is invalid for the model.
        MissingDependencyError: If the model requires the extra ``models``, which is not installed.
    """
    options = LoadOptions(
        device=device,
        dtype=dtype,
        max_pixels=max_pixels,
        max_length=max_length,
        revision=revision,
        local_files_only=local_files_only,
        allow_urls=allow_urls,
        prefix_cache=prefix_cache,
        allow_unexpected=allow_unexpected,
    )
    reranker: Reranker = _load(name_or_path, "reranker", options)
    return reranker


def _load(name_or_path: str | Path, role: str, options: LoadOptions) -> Any:  # noqa: ANN401  # depends on `role`
    if str(name_or_path) in catalogue.names_of("lite"):
        from jina_rag.models.lite.loading import load_lite_embedder, load_lite_reranker

        return (load_lite_embedder if role == "embedder" else load_lite_reranker)(str(name_or_path), options)
    checkpoint = find_checkpoint(
        name_or_path, revision=options.revision, local_files_only=options.local_files_only, role=role
    )
    return build(checkpoint, options)


def find_checkpoint(
    name_or_path: str | Path, *, revision: str | None = None, local_files_only: bool = False, role: str | None = None
) -> Checkpoint:
    """Return the checkpoint of a folder or a hub id, after a download if necessary; weights are not read.

    An existing folder takes precedence over a hub id of the same name.

    Args:
        name_or_path: Hub id, or the folder of a checkpoint.
        revision: Branch, tag or commit on the hub; None for ``main``.
        local_files_only: Disable downloads.
        role: Required role, ``"embedder"`` or ``"reranker"``; None accepts both.

    Raises:
        ModelNotFoundError: If the model does not exist or cannot be downloaded.
        CheckpointError: If the checkpoint is of an unsupported family.
        InvalidInputError: If the role of the model is not `role`, or `revision` is passed for a folder.
    """
    name = os.fspath(name_or_path)
    model = MODELS.get(name)
    if model is not None and role is not None:
        _check_role(name, model.role, role)
    folder = Path(name)
    if folder.is_dir() and name:
        if revision is not None:
            raise InvalidInputError(f"{name} is a folder, which has no revisions. Remove revision={revision!r}.")
        checkpoint = open_checkpoint(folder, name=os.path.abspath(folder))
    elif isinstance(name_or_path, str) and hub.is_hub_id(name):
        require_packages()  # check the packages before gigabytes are downloaded
        snapshot = hub.fetch(name, revision=revision, local_files_only=local_files_only)
        checkpoint = open_checkpoint(snapshot, name=name, revision=commit_in(snapshot))
    else:
        raise ModelNotFoundError(
            f"No model {name!r}. Run `jina-rag models` to list the models, or pass a Hugging Face id (owner/model) or "
            "an existing folder."
        )
    if role is not None:
        _check_role(name, catalogue.describe(checkpoint.family).role, role)
    _warn_about_license(checkpoint)
    return checkpoint


def download(repo_id: str, *, revision: str | None = None) -> Checkpoint:
    """Download a model into the hub's cache, resuming a partial download, and return the checkpoint.

    Args:
        repo_id: Hub id, ``owner/model``.
        revision: Branch, tag or commit; None for ``main``.

    Raises:
        ModelNotFoundError: If the model cannot be downloaded.
        CheckpointError: If the checkpoint is of an unsupported family.
        InvalidInputError: If `repo_id` is not a hub id.
    """
    if repo_id in catalogue.names_of("lite"):
        raise InvalidInputError(f"The weights of {repo_id!r} are part of a Python package. No download is needed.")
    if not hub.is_hub_id(repo_id):
        raise InvalidInputError(
            f"repo_id is {repo_id!r}; expected a hub id of the form owner/model. "
            "Run `jina-rag models` to list the models."
        )
    snapshot = hub.fetch(repo_id, revision=revision, local_files_only=False)
    checkpoint = open_checkpoint(snapshot, name=repo_id, revision=commit_in(snapshot))
    _warn_about_license(checkpoint)
    return checkpoint


def _check_role(name: str, actual_role: str, required_role: str) -> None:
    if actual_role not in (required_role, "both"):
        role_noun = "an embedder" if actual_role == "embedder" else "a reranker"
        raise InvalidInputError(f"{name} is {role_noun}. Load the model with load_{actual_role}.")


_families_warned_about: set[str] = set()


def _warn_about_license(checkpoint: Checkpoint) -> None:
    """Log a warning, once per family, if commercial use of the weights requires an agreement."""
    model = catalogue.describe(checkpoint.family)
    if model.family in _families_warned_about:
        return
    _families_warned_about.add(model.family)
    if not model.commercial:
        _log.warning(
            "License of the %s weights: %s. Commercial use requires an agreement with Jina AI.",
            model.title,
            model.licence,
        )
