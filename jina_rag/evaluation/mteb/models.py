"""The models of a benchmark run: encoders, search and reranker, each created when a task requires it."""

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
"""Documents whose multi-vectors are in memory at the same time; about 400 MB for pages of jina-embeddings-v4."""


class Models:
    """The models that a setting evaluates.

    Attributes:
        reranks: True if mteb reranks the best documents of the vector ranking, because the setting has a reranker but
            no search pipeline.
    """

    def __init__(self, setting: BenchmarkSetting, output: Path, cache: VectorCache) -> None:
        """Resolve the models; weights are loaded when a task requires them.

        Args:
            setting: The models and options to evaluate.
            output: Folder of the results.
            cache: Cache for vectors and scores.
        """
        self._setting, self._output, self._cache = setting, output, cache
        options = _options(setting.model, setting)
        self._embedder = EmbedderSource(setting.model, options, cache=cache)
        self._reranker: RerankerSource | None = None
        if setting.reranker is not None:
            # setting.options.revision is a revision of the embedder, so the reranker uses the default revision.
            options = replace(_options(setting.reranker, setting), revision=None)
            self._reranker = RerankerSource(setting.reranker, options, cache=cache)
        self._encoders: dict[VectorKind, JinaRagEncoder] = {}
        self._cross_encoders: dict[VectorKind, JinaRagReranker] = {}
        self.reranks = setting.reranker is not None and not setting.pipeline

    @property
    def identity(self) -> Identity:
        """The model under which results are stored: the reranker if `reranks` is True, or else the embedder."""
        return self._reranker.identity if self._reranker is not None and self.reranks else self._embedder.identity

    @property
    def content(self) -> Content:
        """Page content that a judged folder must provide for the models of the setting."""
        if self._setting.pipeline:
            return "image"  # the search pipeline ingests the documents and ignores the page content
        if self._setting.parts != "auto":
            return self._setting.parts
        modalities = {source.identity.modality for source in (self._embedder, self._reranker) if source is not None}
        return "both" if len(modalities) > 1 else "text" if modalities == {"text"} else "image"

    @property
    def embedded(self) -> int:
        """Number of inputs that the embedder has embedded through an encoder."""
        return sum(encoder.embedded for encoder in self._encoders.values())

    def vectors(self, task: Any) -> VectorKind:  # noqa: ANN401  # mteb.AbsTask
        """Return the kind of vectors for a task.

        Args:
            task: An mteb task.
        """
        if self._setting.vectors != "auto":
            return self._setting.vectors
        return "multi" if self._embedder.identity.late and _is_search(task) else "single"

    def reference_vectors(self, task: Any) -> Vectors:  # noqa: ANN401
        """Return the kind of published scores to compare with.

        Scores of the search pipeline are compared with published scores of late interaction.

        Args:
            task: An mteb task.
        """
        if self._reranker is not None:
            return "rerank"
        return "multi" if self._setting.pipeline or self.vectors(task) == "multi" else "dense"

    def check(self, task: Any) -> None:  # noqa: ANN401
        """Check that the models support a task, before any model or data is loaded.

        Args:
            task: An mteb task.

        Raises:
            InvalidInputError: If the setting supports retrieval tasks only and the task is of another type, or the
                model does not read the task's modality.
        """
        search, kind = _is_search(task), task.metadata.type
        if not search and (self._setting.pipeline or self.reranks):
            subject = "the search pipeline" if self._setting.pipeline else "a reranker"
            raise InvalidInputError(
                f"The task is of type {kind}, but {subject} can be evaluated on retrieval tasks only. Omit the task."
            )
        if not search and self.vectors(task) == "multi":
            raise InvalidInputError(
                f"The task is of type {kind}, which requires dense vectors. Pass vectors='single' (--vectors single)."
            )
        if self._setting.pipeline:
            return
        readable = set(self.encoder(task).mteb_model_meta.modalities)
        for side in (PromptType.query, PromptType.document) if search else (None,):
            has: Set[str] = set(task.metadata.get_modalities(side))
            if not (has & readable if search else has <= readable):
                raise InvalidInputError(
                    f"{self._embedder.identity.name} reads {_join(readable)}, but the task has {_join(has)}. "
                    "Pass another model (--embedder)."
                )

    def encoder(self, task: Any) -> JinaRagEncoder:  # noqa: ANN401
        """Return the encoder for a task.

        Args:
            task: An mteb task.
        """
        kind = self.vectors(task)
        if kind not in self._encoders:
            self._encoders[kind] = JinaRagEncoder(
                self._embedder, vectors=kind, parts=self._setting.parts, cache=self._cache
            )
        return self._encoders[kind]

    def first_stage(self, task: Any) -> Any:  # noqa: ANN401
        """Return the encoder for mteb's retrieval; for multi-vectors, with smaller corpus chunks to limit memory use.

        Args:
            task: An mteb task.
        """
        encoder = self.encoder(task)
        return SearchEncoderWrapper(encoder, corpus_chunk_size=_CHUNK) if self.vectors(task) == "multi" else encoder

    def model(self, task: Any) -> Any:  # noqa: ANN401
        """Return the model that mteb evaluates on a task: the search pipeline, the reranker or the encoder.

        Args:
            task: An mteb task.
        """
        if self._setting.pipeline:
            return self._pipeline
        return self._cross_encoder(task) if self.reranks else self.first_stage(task)

    def meta(self, task: Any) -> Any:  # noqa: ANN401
        """Return the metadata under which mteb stores the result of a task.

        Args:
            task: An mteb task.
        """
        if self._setting.pipeline:
            return self._pipeline.mteb_model_meta
        return (self._cross_encoder(task) if self.reranks else self.encoder(task)).mteb_model_meta

    @cached_property
    def _pipeline(self) -> JinaRagSearch:
        return JinaRagSearch(
            self._output / "indexes",
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
                cache=self._cache,
                experiment={
                    "first": f"{first.name}@{first.revision[:8]}-{kind}",
                    "top": self._setting.rerank_top,
                    **{f"first_{name}": value for name, value in self._embedder.options.changed().items()},
                },
            )
        return self._cross_encoders[kind]


def _options(model: object, setting: BenchmarkSetting) -> ModelOptions:
    """Return the loading options of `setting` for `model`.

    In a setting with a reranker, options that `model` does not support are meant for the other model and are reset:
    `max_pixels` for a text model, and also `device` and `dtype` for a lite model.
    """
    description = catalogue.MODELS.get(str(model))
    if setting.reranker is None or description is None or description.modality != "text":
        return setting.options
    if description.family == "lite":
        return replace(setting.options, device="auto", dtype="auto", max_pixels=None)
    return replace(setting.options, max_pixels=None)


def _is_search(task: Any) -> bool:  # noqa: ANN401
    parts = task.metadata.tasks if isinstance(task, AbsTaskAggregate) else [task]
    return all(isinstance(part, AbsTaskRetrieval) for part in parts)


def _join(names: Set[str]) -> str:
    return " and ".join(sorted(names))
