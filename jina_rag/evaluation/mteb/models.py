"""The models of one run: an encoder for each kind of vectors, a search, a reranker; each made when a task needs it."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.aggregated_task import AbsTaskAggregate
from mteb.models import SearchEncoderWrapper
from mteb.types import PromptType

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.mteb.cache import VectorCache
from jina_rag.evaluation.mteb.encoders import JinaRagEncoder
from jina_rag.evaluation.mteb.folder_task import Content
from jina_rag.evaluation.mteb.loading import EmbedderSource, Identity, RerankerSource
from jina_rag.evaluation.mteb.pipeline import JinaRagSearch
from jina_rag.evaluation.mteb.rerankers import JinaRagReranker
from jina_rag.evaluation.mteb.settings import BenchmarkSetting, ModelOptions, VectorKind
from jina_rag.evaluation.reference_scores import Vectors
from jina_rag.models import catalogue

_CHUNK = 1_024
"""Documents whose multi-vectors are held at once: 400 MB of jina-embeddings-v4's pages."""


class Models:
    """What a setting measures a task with.

    Attributes:
        reranks: Whether a reranker judges what the vectors found, by mteb's own reranking.
    """

    def __init__(self, setting: BenchmarkSetting, place: Path, store: VectorCache) -> None:
        """Look at the models; none is loaded that need not be.

        Args:
            setting: What is measured.
            place: Folder of the results.
            store: Where vectors and scores are kept.
        """
        self._setting, self._place, self._store = setting, place, store
        options = _options(setting.model, setting)
        self._embedder = EmbedderSource(setting.model, options, cache=store)
        self._reranker: RerankerSource | None = None
        if setting.reranker is not None:
            # The revision is the embedder's.
            options = replace(_options(setting.reranker, setting), revision=None)
            self._reranker = RerankerSource(setting.reranker, options, cache=store)
        self._encoders: dict[VectorKind, JinaRagEncoder] = {}
        self._cross_encoders: dict[VectorKind, JinaRagReranker] = {}
        self.reranks = setting.reranker is not None and not setting.pipeline

    @property
    def identity(self) -> Identity:
        """Which model results are filed under: the reranker where it has the last word."""
        return self._reranker.identity if self._reranker is not None and self.reranks else self._embedder.identity

    @property
    def content(self) -> Content:
        """What a judged folder has to hold for these models."""
        if self._setting.pipeline:
            return "image"  # the files themselves are ingested
        if self._setting.parts != "auto":
            return self._setting.parts
        modalities = {source.identity.modality for source in (self._embedder, self._reranker) if source is not None}
        return "both" if len(modalities) > 1 else "text" if modalities == {"text"} else "image"

    @property
    def embedded(self) -> int:
        """Inputs that went through the embedder by way of an encoder."""
        return sum(encoder.embedded for encoder in self._encoders.values())

    def vectors(self, task: Any) -> VectorKind:  # noqa: ANN401  # mteb.AbsTask
        """Which vectors a task is measured with."""
        if self._setting.vectors != "auto":
            return self._setting.vectors
        return "multi" if self._embedder.identity.late and _is_search(task) else "single"

    def reference_vectors(self, task: Any) -> Vectors:  # noqa: ANN401
        """What reference scores call that. A whole search is held beside those of late interaction."""
        if self._reranker is not None:
            return "rerank"
        return "multi" if self._setting.pipeline or self.vectors(task) == "multi" else "dense"

    def check(self, task: Any) -> None:  # noqa: ANN401
        """Refuse a task that the models cannot do, before anything is loaded or embedded.

        Raises:
            InvalidInputError: If it is no search and this needs one, or the model does not read what it has.
        """
        search, kind = _is_search(task), task.metadata.type
        if not search and (self._setting.pipeline or self.reranks):
            what = "a whole search" if self._setting.pipeline else "a reranker"
            raise InvalidInputError(f"It is a task of {kind}, and {what} is measured on searches only.")
        if not search and self.vectors(task) == "multi":
            raise InvalidInputError(
                f"A task of {kind} compares one vector of each text: measure it with single vectors."
            )
        if self._setting.pipeline:
            return
        readable = set(self.encoder(task).mteb_model_meta.modalities)
        for side in (PromptType.query, PromptType.document) if search else (None,):
            has: Set[str] = set(task.metadata.get_modalities(side))
            if not (has & readable if search else has <= readable):
                raise InvalidInputError(
                    f"{self._embedder.identity.name} reads {_listed(readable)}; the task has {_listed(has)}."
                )

    def encoder(self, task: Any) -> JinaRagEncoder:  # noqa: ANN401
        """The encoder for a task."""
        kind = self.vectors(task)
        if kind not in self._encoders:
            self._encoders[kind] = JinaRagEncoder(
                self._embedder, vectors=kind, parts=self._setting.parts, cache=self._store
            )
        return self._encoders[kind]

    def first_stage(self, task: Any) -> Any:  # noqa: ANN401
        """The encoder for mteb; multi-vectors are large, so it is made to hold those of fewer documents at once."""
        encoder = self.encoder(task)
        return SearchEncoderWrapper(encoder, corpus_chunk_size=_CHUNK) if self.vectors(task) == "multi" else encoder

    def model(self, task: Any) -> Any:  # noqa: ANN401
        """What mteb evaluates on a task."""
        if self._setting.pipeline:
            return self._pipeline
        return self._cross_encoder(task) if self.reranks else self.first_stage(task)

    def meta(self, task: Any) -> Any:  # noqa: ANN401
        """What mteb files the result under."""
        if self._setting.pipeline:
            return self._pipeline.mteb_model_meta
        return (self._cross_encoder(task) if self.reranks else self.encoder(task)).mteb_model_meta

    @cached_property
    def _pipeline(self) -> JinaRagSearch:
        return JinaRagSearch(
            self._place / "indexes",
            self._embedder,
            reranker=self._reranker,
            storage=self._setting.storage,
            stages=self._setting.stages,
        )

    def _cross_encoder(self, task: Any) -> JinaRagReranker:  # noqa: ANN401
        assert self._reranker is not None
        kind = self.vectors(task)
        if kind not in self._cross_encoders:
            first = self._embedder.identity
            self._cross_encoders[kind] = JinaRagReranker(
                self._reranker,
                parts=self._setting.parts,
                cache=self._store,
                experiment={
                    "first": f"{first.name}@{first.revision[:8]}-{kind}",
                    "top": self._setting.rerank_top,
                    **{f"first_{name}": value for name, value in self._embedder.options.changed().items()},
                },
            )
        return self._cross_encoders[kind]


def _options(model: object, setting: BenchmarkSetting) -> ModelOptions:
    """Of two models one that reads words takes no part in what is said about pixels, nor a lite one about devices."""
    description = catalogue.MODELS.get(str(model))
    if setting.reranker is None or description is None or description.modality != "text":
        return setting.options
    if description.family == "lite":
        return replace(setting.options, device="auto", dtype="auto", max_pixels=None)
    return replace(setting.options, max_pixels=None)


def _is_search(task: Any) -> bool:  # noqa: ANN401
    parts = task.metadata.tasks if isinstance(task, AbsTaskAggregate) else [task]
    return all(isinstance(part, AbsTaskRetrieval) for part in parts)


def _listed(names: Set[str]) -> str:
    return " and ".join(sorted(names))
