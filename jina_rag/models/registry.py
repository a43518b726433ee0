"""The way in: loads a model by name, by hub id or from a folder."""

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
from jina_rag.models.runtime.prefix_cache import PrefixCache
from jina_rag.protocols import Embedder, Reranker

_log = logging.getLogger("jina_rag")


def load_embedder(
    name_or_path: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    task: str | Sequence[str] = "retrieval",
    truncate_dim: int | None = None,
    max_pixels: int | None = None,
    max_length: int | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    allow_urls: bool = False,
    allow_unexpected: bool = False,
    **rules: Any,  # noqa: ANN401  # names and types depend on the family; checked there
) -> Embedder:
    """Load a model that turns questions and pages into vectors.

    Args:
        name_or_path: ``"lite"``, ``"lite-en"``, an id on the Hugging Face hub such as ``"jinaai/jina-embeddings-v4"``
            (downloaded once), or the folder of a checkpoint.
        device: ``"auto"`` (CUDA, else MPS, else the CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``. The lite
            models run on the CPU.
        dtype: ``"auto"``, ``"float32"``, ``"bfloat16"``, ``"float16"``: of the weights. Vectors are float32 in any
            case.
        task: ``"retrieval"``, or for jina-embeddings-v4 also ``"text-matching"`` or ``"code"``; its adapter is merged
            into the weights. With several, all stay in memory and each call names one.
        truncate_dim: Length of the dense vectors (of the rows, for jina-colbert-v2), for models whose vectors can be
            cut.
        max_pixels: What images are scaled down to, for models that look at pixels.
        max_length: Tokens of an input that are read; None for the model's own limits.
        revision: Branch, tag or commit on the hub; None for ``main``.
        local_files_only: Download nothing.
        allow_urls: Fetch images from http and https addresses, given as ``{"image": "https://…"}``; for models that
            look at pixels, and for the lite models, which read images by OCR.
        allow_unexpected: Load a checkpoint although it has tensors that nothing uses.
        rules: For jina-colbert-v2: `skiplist`, `query_length`, `attend_to_expansion`
            (`jina_rag.models.jina.colbert_v2.ColbertOptions`).

    Raises:
        ModelNotFoundError: If there is no such model, or it cannot be fetched.
        CheckpointError: If its weights are not what they should be.
        InvalidInputError: If an argument makes no sense for the model.
        MissingDependencyError: If the extra ``models`` is not installed and the model needs it.
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
    device: str = "auto",
    dtype: str = "auto",
    max_pixels: int | None = None,
    max_length: int | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    allow_urls: bool = False,
    prefix_cache: PrefixCache | bool = True,
    allow_unexpected: bool = False,
) -> Reranker:
    """Load a model that scores documents for a question; other arguments and errors are those of `load_embedder`.

    `prefix_cache` says how much jina-reranker-m0 keeps of documents that it has read, so that further questions about
    them cost their own tokens only: a `PrefixCache`, True for a share of the memory that is
    free, or False for nothing. Scores are the same. The lite models have none.
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


def _load(name_or_path: str | Path, role: str, options: LoadOptions) -> Any:  # noqa: ANN401  # of that role
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
    """The checkpoint of a folder or a hub id, downloaded if need be; no weight is read.

    A folder of that name is taken before the hub is asked.

    Raises:
        ModelNotFoundError: If there is none.
        CheckpointError: If it is not of a family that is known.
        InvalidInputError: If it is no model for `role` (``"embedder"`` or ``"reranker"``).
    """
    name = os.fspath(name_or_path)
    model = MODELS.get(name)
    if model is not None and role is not None:
        _check_role(name, model.role, role)
    folder = Path(name)
    if folder.is_dir() and name:
        if revision is not None:
            raise InvalidInputError(f"{name} is a folder, and folders have no revisions, got revision={revision!r}.")
        checkpoint = open_checkpoint(folder, name=os.path.abspath(folder))
    elif isinstance(name_or_path, str) and hub.is_hub_id(name):
        require_packages()  # before gigabytes are fetched that nothing here could run
        snapshot = hub.fetch(name, revision=revision, local_files_only=local_files_only)
        checkpoint = open_checkpoint(snapshot, name=name, revision=commit_in(snapshot))
    else:
        raise ModelNotFoundError(
            f"There is no model {name!r}: give one of {', '.join(map(repr, MODELS))}, another id of the Hugging Face "
            "hub (owner/model), or an existing folder."
        )
    if role is not None:
        _check_role(name, catalogue.describe(checkpoint.family).role, role)
    _say_licence(checkpoint)
    return checkpoint


def download(repo_id: str, *, revision: str | None = None) -> Checkpoint:
    """Fetch a model from the hub into its cache, or go on with a download, and look at it.

    Raises:
        ModelNotFoundError: If it cannot be fetched.
        CheckpointError: If it is not of a family that is known.
        InvalidInputError: If `repo_id` is not the id of a model on the hub.
    """
    if repo_id in catalogue.names_of("lite"):
        raise InvalidInputError(f"The weights of {repo_id!r} come with a package: there is nothing to download.")
    if not hub.is_hub_id(repo_id):
        raise InvalidInputError(f"{repo_id!r} is not the id of a model on the hub: write owner/model.")
    snapshot = hub.fetch(repo_id, revision=revision, local_files_only=False)
    checkpoint = open_checkpoint(snapshot, name=repo_id, revision=commit_in(snapshot))
    _say_licence(checkpoint)
    return checkpoint


def _check_role(name: str, has: str, needs: str) -> None:
    if has not in (needs, "both"):
        article = "an embedder" if has == "embedder" else "a reranker"
        raise InvalidInputError(f"{name} is {article}: load it with load_{has}.")


_families_warned_about: set[str] = set()


def _say_licence(checkpoint: Checkpoint) -> None:
    """Once for each family: what its weights may be used for."""
    model = catalogue.describe(checkpoint.family)
    if model.family in _families_warned_about:
        return
    _families_warned_about.add(model.family)
    if not model.commercial:
        _log.warning(
            "The weights of %s are under the %s: not for commercial use without an agreement with Jina AI.",
            model.title,
            model.licence,
        )
