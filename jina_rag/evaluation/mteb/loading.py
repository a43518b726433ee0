"""A model by its name: what results are filed under, known before its weights are read."""

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
    """Which model it is.

    Attributes:
        name: ``owner/model``, as mteb wants it: the id on the hub, or ``jina_rag/…`` for the lite models, folders and
            models that were handed over.
        revision: Its commit, or a hash of its weights.
        family: ``"lite"``, ``"v4"``, ``"m0"``, ``"colbert-v2"``, ``"v1"``; empty for a model that was handed over.
        modality: Words, or pixels.
    """

    name: str
    revision: str
    family: str
    modality: str

    @property
    def late(self) -> bool:
        """Whether it is made for late interaction first of all."""
        return self.family in ("colbert-v2", "lite")


class EmbedderSource:
    """Gives an embedder when it is needed: for models with task adapters, the one that the task asks for.

    Attributes:
        options: How it is loaded.
        identity: Which model it is.
    """

    def __init__(
        self, model: str | os.PathLike[str] | Embedder, options: ModelOptions, *, cache: VectorCache | None = None
    ) -> None:
        """Look at the model; checkpoints are found, or fetched, but not read.

        Args:
            model: An embedder, or what `load_embedder` takes.
            options: How it is loaded; without effect on an embedder.
            cache: Where vectors are kept: a dtype that is left to the model is the one that it was kept with.

        Raises:
            ModelNotFoundError: If there is no such model.
            InvalidInputError: If it is a reranker.
        """
        self.options, self._model, self._cache = options, model, cache
        self._tasks: Sequence[str] = getattr(model, "tasks", ())  # those of jina-embeddings-v4
        self._loaded: tuple[str, Embedder] | None = None
        if _is_lite(model):
            self._loaded = "retrieval", load_embedder(os.fspath(model), **options.to_load())
            self.identity = _lite_identity(model, self._loaded[1])
        else:
            self.identity = _identity_of(model, "embedder", options)

    def load(self, task: str) -> Embedder:
        """The embedder for a task: ``"retrieval"``, ``"text-matching"`` or ``"code"``.

        Only jina-embeddings-v4 has adapters; one is in memory at a time, merged into the weights.

        Raises:
            InvalidInputError: If an embedder that was handed over was loaded for other tasks.
        """
        model = self._model
        if not isinstance(model, str | os.PathLike):
            if self._tasks and task not in self._tasks:
                raise InvalidInputError(
                    f"{model.name} was loaded for {', '.join(self._tasks)}, and this needs {task!r}: hand over its "
                    "name, or load it with both tasks."
                )
            return model
        task = task if self.identity.family == "v4" else "retrieval"
        if self._loaded is None or self._loaded[0] != task:
            self._loaded = None  # two of them may not fit into memory
            load = functools.partial(load_embedder, os.fspath(model), task=task)
            self._loaded = task, _load(load, self.options.to_load(), self.identity, self._cache)
        return self._loaded[1]

    def arguments(self, task: str) -> dict[str, Any]:
        """What each call of `encode_query` and `encode_document` is given besides."""
        return {"task": task} if len(self._tasks) > 1 else {}


class RerankerSource:
    """Gives a reranker when it is needed; see `EmbedderSource`."""

    def __init__(
        self, model: str | os.PathLike[str] | Reranker, options: ModelOptions, *, cache: VectorCache | None = None
    ) -> None:
        """Look at the model; see `EmbedderSource`.

        Args:
            model: A reranker, or what `load_reranker` takes.
            options: How it is loaded.
            cache: Where scores are kept.

        Raises:
            ModelNotFoundError: If there is no such model.
            InvalidInputError: If it is an embedder.
        """
        self.options, self._model, self._cache = options, model, cache
        self._loaded: Reranker | None = None
        if _is_lite(model):
            self._loaded = load_reranker(os.fspath(model), **options.to_load(reranker=True))
            self.identity = _lite_identity(model, self._loaded)
        else:
            self.identity = _identity_of(model, "reranker", options)

    def load(self) -> Reranker:
        """The reranker."""
        if not isinstance(self._model, str | os.PathLike):
            return self._model
        if self._loaded is None:
            load = functools.partial(load_reranker, os.fspath(self._model))
            self._loaded = _load(load, self.options.to_load(reranker=True), self.identity, self._cache)
        return self._loaded


def precision_of(model: Embedder | Reranker) -> str:
    """The number format of a model's weights, which its outputs depend on."""
    return str(model.placement.dtype) if isinstance(model, PlacedModel) else "float32"


def _load(
    load: Callable[..., _Model], options: dict[str, Any], identity: Identity, cache: VectorCache | None
) -> _Model:
    """Load a model with the dtype that it was cached with, where it is left to the model."""
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
        own = model.name.strip("/").rsplit("/", 1)[-1] or "model"
        return Identity(f"jina_rag/{own}", _short(model.fingerprint), "", model.modality)
    name = os.fspath(model)
    checkpoint = find_checkpoint(name, revision=options.revision, local_files_only=options.local_files_only, role=role)
    modality = catalogue.describe(checkpoint.family).modality
    if checkpoint.revision is None:
        name, revision = f"jina_rag/{model_name(checkpoint.folder)}", _short(checkpoint.fingerprint())
    else:
        revision = checkpoint.revision
    return Identity(name, revision, checkpoint.family, modality)


def _lite_identity(name: str | os.PathLike[str], lite: Embedder | Reranker) -> Identity:
    return Identity(f"jina_rag/{os.fspath(name)}", _short(lite.fingerprint), "lite", "text")


def _short(fingerprint: str) -> str:
    return hashlib.sha256(fingerprint.encode()).hexdigest()[:16]
