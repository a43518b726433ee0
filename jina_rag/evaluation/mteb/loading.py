"""A model by its name: what results are filed under, known before its weights are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.mteb.cache import VectorCache
from jina_rag.evaluation.mteb.settings import ModelOptions, model_name
from jina_rag.models import catalogue
from jina_rag.models.registry import find_checkpoint, load_embedder, load_reranker
from jina_rag.protocols import Embedder, PlacedModel, Reranker


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
        self.options = options
        self._asked, self._cache = model, cache
        self._now: tuple[str, Embedder] | None = None
        if isinstance(model, str | os.PathLike):
            name = os.fspath(model)
            self._lite = name in catalogue.names_of("lite")
            self.identity = _named(name, "embedder", options, lambda: self.load("retrieval").fingerprint)
        else:
            self.identity = _given(model.name, model.fingerprint, model.modality)

    def load(self, task: str) -> Embedder:
        """The embedder for a task: ``"retrieval"``, ``"text-matching"`` or ``"code"``.

        Only jina-embeddings-v4 has adapters; one is in memory at a time, merged into the weights.

        Raises:
            InvalidInputError: If an embedder that was handed over was loaded for other tasks.
        """
        asked = self._asked
        if not isinstance(asked, str | os.PathLike):
            tasks = getattr(asked, "tasks", None)
            if tasks is not None and task not in tasks:
                raise InvalidInputError(
                    f"{asked.name} was loaded for {', '.join(tasks)}, and this needs {task!r}: hand over its name, or "
                    "load it with both tasks."
                )
            return asked
        wanted = task if not self._lite and self.identity.family == "v4" else "retrieval"
        if self._now is None or self._now[0] != wanted:
            self._now = None  # two of them may not fit into memory
            options = (
                self.options.to_load() if self._lite else _pinned(self.options.to_load(), self.identity, self._cache)
            )
            self._now = wanted, load_embedder(os.fspath(asked), **options, task=wanted)
            if not self._lite:
                _pin(self._now[1], self.options, self.identity, self._cache)
        return self._now[1]

    def arguments(self, task: str) -> dict[str, Any]:
        """What each call of `encode_query` and `encode_document` is given besides."""
        tasks = getattr(self._asked, "tasks", ())
        return {"task": task} if len(tasks) > 1 else {}


class RerankerSource:
    """Gives a reranker when it is needed; see `EmbedderSource`."""

    def __init__(
        self,
        model: str | os.PathLike[str] | Reranker,
        options: ModelOptions,
        *,
        revision: str | None = None,
        cache: VectorCache | None = None,
    ) -> None:
        """Look at the model; see `EmbedderSource`.

        Args:
            model: A reranker, or what `load_reranker` takes.
            options: How it is loaded; the revision in it is the embedder's.
            revision: Its own.
            cache: Where scores are kept.

        Raises:
            ModelNotFoundError: If there is no such model.
            InvalidInputError: If it is an embedder.
        """
        self.options = options
        self._asked, self._revision, self._cache = model, revision, cache
        self._now: Reranker | None = None
        if isinstance(model, str | os.PathLike):
            name = os.fspath(model)
            own = replace(options, revision=revision)
            self.identity = _named(name, "reranker", own, lambda: _lite_version(name))
        else:
            self.identity = _given(model.name, model.fingerprint, model.modality)

    def load(self) -> Reranker:
        """The reranker."""
        if not isinstance(self._asked, str | os.PathLike):
            return self._asked
        if self._now is None:
            options = _pinned(self.options.to_load(reranker=True), self.identity, self._cache)
            self._now = load_reranker(os.fspath(self._asked), **options, revision=self._revision)
            _pin(self._now, self.options, self.identity, self._cache)
        return self._now


def _pinned(options: dict[str, Any], model: Identity, cache: VectorCache | None) -> dict[str, Any]:
    """Options with the dtype that the model was kept with, where it is left to the model."""
    known = None if cache is None or options["dtype"] != "auto" else cache.precision(f"{model.name}@{model.revision}")
    return options if known is None else options | {"dtype": known}


def _pin(loaded: object, options: ModelOptions, model: Identity, cache: VectorCache | None) -> None:
    if cache is not None and isinstance(loaded, PlacedModel) and options.dtype == "auto":
        precision = str(loaded.placement.dtype).removeprefix("torch.")
        cache.keep_precision(f"{model.name}@{model.revision}", precision)


def _named(name: str, role: str, options: ModelOptions, lite: Callable[[], str]) -> Identity:
    if name in catalogue.names_of("lite"):
        return Identity(f"jina_rag/{name}", _short(lite()), "lite", "words")
    found = find_checkpoint(
        name,
        revision=options.revision,
        local_files_only=options.local_files_only,
        role=role,
    )
    modality = catalogue.describe(found.family).modality
    if found.revision is not None:
        return Identity(name, found.revision, found.family, modality)
    return Identity(f"jina_rag/{model_name(found.folder)}", _short(found.fingerprint()), found.family, modality)


def _given(name: str, fingerprint: str, modality: str) -> Identity:
    own = name.strip("/").rsplit("/", 1)[-1] or "model"
    return Identity(f"jina_rag/{own}", _short(fingerprint), "", modality)


def _lite_version(name: str) -> str:
    model: Mapping[str, Any] = catalogue.MODELS[name].to_json()
    return f"{model['package']}=={model['version']}"


def _short(fingerprint: str) -> str:
    return hashlib.sha256(fingerprint.encode()).hexdigest()[:16]
