"""Lazily loaded models, whose name and revision are known before the weights are loaded."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.mteb.cache import VectorCache
from jina_rag.evaluation.mteb.settings import ModelOptions, model_name
from jina_rag.models import catalogue
from jina_rag.models.registry import find_checkpoint, load_embedder, load_reranker
from jina_rag.protocols import Embedder, PlacedModel, Reranker

_Model = TypeVar("_Model", Embedder, Reranker)


@dataclass(frozen=True, slots=True)
class Identity:
    """Name and revision of a model.

    Attributes:
        name: ``owner/model``, the form that mteb requires: the model id on the Hugging Face Hub, or ``jina_rag/…`` for
            lite models, local folders and model objects.
        revision: Commit of the checkpoint, or a hash of the weights.
        family: ``"lite"``, ``"v4"``, ``"m0"``, ``"colbert-v2"`` or ``"v1"``; empty for a model object.
        modality: ``"text"`` or ``"image"``.
    """

    name: str
    revision: str
    family: str
    modality: str

    @property
    def late(self) -> bool:
        """True for models whose main use is late interaction."""
        return self.family in ("colbert-v2", "lite")


class EmbedderSource:
    """A lazily loaded embedder, with the adapter that the current task requires.

    Attributes:
        options: Loading options.
        identity: Name and revision of the model.
    """

    def __init__(
        self, model: str | os.PathLike[str] | Embedder, options: ModelOptions, *, cache: VectorCache | None = None
    ) -> None:
        """Resolve the model. A checkpoint is located or downloaded, but the weights are not loaded.

        Args:
            model: An embedder, or a model name or folder for `load_embedder`.
            options: Loading options; ignored for an embedder object.
            cache: Vector cache; with ``dtype="auto"``, the model uses the dtype stored in the cache. None for no cache.

        Raises:
            ModelNotFoundError: If the model does not exist.
            InvalidInputError: If the model is a reranker.
        """
        self.options, self._model, self._cache = options, model, cache
        self._tasks: Sequence[str] = getattr(model, "tasks", ())  # only jina-embeddings-v4 has task adapters
        self._loaded: tuple[str, Embedder] | None = None
        if _is_lite(model):
            self._loaded = "retrieval", load_embedder(os.fspath(model), **options.to_load())
            self.identity = _lite_identity(model, self._loaded[1])
        else:
            self.identity = _identity_of(model, "embedder", options)

    def load(self, task: str) -> Embedder:
        """Return the embedder for a task.

        Only jina-embeddings-v4 has task adapters. One adapter is in memory at a time, merged into the weights.

        Args:
            task: ``"retrieval"``, ``"text-matching"`` or ``"code"``.

        Raises:
            InvalidInputError: If the source holds an embedder object that was loaded for other tasks.
        """
        model = self._model
        if not isinstance(model, str | os.PathLike):
            if self._tasks and task not in self._tasks:
                raise InvalidInputError(
                    f"{model.name} was loaded for the tasks {', '.join(self._tasks)}, but the benchmark requires "
                    f"{task!r}. Pass the name of the model, or load the model with the task {task!r}."
                )
            return model
        task = task if self.identity.family == "v4" else "retrieval"
        if self._loaded is None or self._loaded[0] != task:
            self._loaded = None  # release the current model first, because two models may not fit in memory
            load = functools.partial(load_embedder, os.fspath(model), task=task)
            self._loaded = task, _load(load, self.options.to_load(), self.identity, self._cache)
        return self._loaded[1]

    def arguments(self, task: str) -> dict[str, Any]:
        """Return the task arguments for `encode_query` and `encode_document`."""
        return {"task": task} if len(self._tasks) > 1 else {}


class RerankerSource:
    """A lazily loaded reranker.

    Attributes:
        options: Loading options.
        identity: Name and revision of the model.
    """

    def __init__(
        self, model: str | os.PathLike[str] | Reranker, options: ModelOptions, *, cache: VectorCache | None = None
    ) -> None:
        """Resolve the model. A checkpoint is located or downloaded, but the weights are not loaded.

        Args:
            model: A reranker, or a model name or folder for `load_reranker`.
            options: Loading options; ignored for a reranker object.
            cache: Score cache; with ``dtype="auto"``, the model uses the dtype stored in the cache. None for no cache.

        Raises:
            ModelNotFoundError: If the model does not exist.
            InvalidInputError: If the model is an embedder.
        """
        self.options, self._model, self._cache = options, model, cache
        self._loaded: Reranker | None = None
        if _is_lite(model):
            self._loaded = load_reranker(os.fspath(model), **options.to_load(reranker=True))
            self.identity = _lite_identity(model, self._loaded)
        else:
            self.identity = _identity_of(model, "reranker", options)

    def load(self) -> Reranker:
        """Return the reranker, loading it on the first call."""
        if not isinstance(self._model, str | os.PathLike):
            return self._model
        if self._loaded is None:
            load = functools.partial(load_reranker, os.fspath(self._model))
            self._loaded = _load(load, self.options.to_load(reranker=True), self.identity, self._cache)
        return self._loaded


def precision_of(model: Embedder | Reranker) -> str:
    """Return the dtype of a model's weights; ``"float32"`` for a model without the attribute `placement`."""
    return str(model.placement.dtype) if isinstance(model, PlacedModel) else "float32"


def _load(
    load: Callable[..., _Model], options: dict[str, Any], identity: Identity, cache: VectorCache | None
) -> _Model:
    """Load a model; with ``dtype="auto"``, use the dtype stored in the cache, or store the chosen dtype."""
    if cache is None or options["dtype"] != "auto":
        return load(**options)
    key = f"{identity.name}@{identity.revision}"
    model = load(**options | {"dtype": cache.precision(key) or "auto"})
    if isinstance(model, PlacedModel):
        cache.keep_precision(key, str(model.placement.dtype).removeprefix("torch."))
    return model


def _is_lite(model: object) -> TypeGuard[str | os.PathLike[str]]:
    return isinstance(model, str | os.PathLike) and os.fspath(model) in catalogue.names_of("lite")


def _identity_of(model: str | os.PathLike[str] | Embedder | Reranker, role: str, options: ModelOptions) -> Identity:
    if not isinstance(model, str | os.PathLike):
        short_name = model.name.strip("/").rsplit("/", 1)[-1] or "model"
        return Identity(f"jina_rag/{short_name}", _short_hash(model.fingerprint), "", model.modality)
    name = os.fspath(model)
    checkpoint = find_checkpoint(name, revision=options.revision, local_files_only=options.local_files_only, role=role)
    modality = catalogue.describe(checkpoint.family).modality
    if checkpoint.revision is None:
        name, revision = f"jina_rag/{model_name(checkpoint.folder)}", _short_hash(checkpoint.fingerprint())
    else:
        revision = checkpoint.revision
    return Identity(name, revision, checkpoint.family, modality)


def _lite_identity(name: str | os.PathLike[str], lite: Embedder | Reranker) -> Identity:
    return Identity(f"jina_rag/{os.fspath(name)}", _short_hash(lite.fingerprint), "lite", "text")


def _short_hash(fingerprint: str) -> str:
    return hashlib.sha256(fingerprint.encode()).hexdigest()[:16]
