"""Our embedders as mteb's encoders: dense vectors with cosine, or multi-vectors with a MaxSim that pads nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.mteb.cache import VectorCache, Vectors, key_of
from jina_rag.evaluation.mteb.contents import ContentParts, content_key, inputs_of, is_blank
from jina_rag.evaluation.mteb.loading import EmbedderSource, precision_of
from jina_rag.evaluation.mteb.model_meta import model_meta
from jina_rag.evaluation.mteb.settings import ModelOptions, VectorKind
from jina_rag.evaluation.mteb.similarity import Many, dense_scores, maxsim_scores, ragged
from jina_rag.protocols import Embedder, Input
from jina_rag.types import Float32

Side = Literal["query", "document"]
_MATCHING = ("STS", "PairClassification", "VisualSTS(eng)", "VisualSTS(multi)")
_MODALITIES = {family: ["text", "image"] for family in ("lite", "v4", "")}
"""What a family reads; others read texts. The lite models read images by OCR; of models that were handed over, nobody
knows better than they do."""


class JinaRagEncoder:
    """Implements mteb's `EncoderProtocol` for every embedder of ours: jina-embeddings-v4, jina-colbert-v2, v1, lite.

    Questions go to `encode_query` and documents to `encode_document`; where a task has no sides (STS, classification),
    everything is a question, but for jina-colbert-v2, which cuts those to 32 tokens. jina-embeddings-v4 works with its
    adapter for code where the task is about code, for text-matching in STS and pair classification, else for
    retrieval, which is what mteb's own wrapper does; other than there, the documents of reranking tasks are passages.

    Attributes:
        mteb_model_meta: What mteb files results under.
        embedded: Inputs that went through the model; what came from the cache is not among them.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Embedder | EmbedderSource,
        *,
        vectors: VectorKind = "single",
        options: ModelOptions | None = None,
        parts: ContentParts = "auto",
        cache: VectorCache | None = None,
    ) -> None:
        """Look at the model; it is loaded when the first thing is embedded.

        Args:
            model: An embedder, or what `jina_rag.load_embedder` takes; or a source, which has its own options.
            vectors: Which of its vectors are measured.
            options: How it is loaded.
            parts: What is read of an input that has a text and an image.
            cache: Where vectors are kept.

        Raises:
            ModelNotFoundError: If there is no such model.
        """
        options = options or ModelOptions()
        self._source = model if isinstance(model, EmbedderSource) else EmbedderSource(model, options, cache=cache)
        self._vectors, self._parts, self._cache = vectors, parts, cache
        self.embedded = 0
        own = self._source.identity
        # Dense vectors are filed under the bare model, as mteb's own are, unless it is made for late interaction.
        unusual = {} if vectors == ("multi" if own.late else "single") else {"vectors": vectors}
        self.mteb_model_meta: Any = model_meta(
            own,
            "late-interaction" if vectors == "multi" else "dense",
            modalities=_MODALITIES.get(own.family, ["text"]),
            experiment={**unusual, **self._source.options.changed(), **({} if parts == "auto" else {"parts": parts})},
        )

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,  # noqa: ANN401  # mteb.TaskMetadata
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,  # noqa: ANN401  # mteb.types.PromptType
        **kwargs: Any,  # noqa: ANN401  # mteb's: batch size and progress, which are the loader's
    ) -> Float32 | list[Float32]:
        """Embed what a loader gives, batch after batch.

        Args:
            inputs: mteb's loader.
            task_metadata: Of the task.
            hf_split: Without effect.
            hf_subset: Without effect.
            prompt_type: Query or document; None where a task has no sides.
            kwargs: Without effect.

        Returns:
            Shape (n, dim) float32, or n arrays of shape (tokens_i, multi_dim).
        """
        task = task_of(task_metadata)
        side = self._side(prompt_type)
        rows: list[Vectors] = []
        for batch in inputs:
            items = inputs_of(batch, modality=self._source.identity.modality, parts=self._parts)
            rows += self._encoded(items, side, task)
        if self._vectors == "multi":
            return [_present(vectors.multi) for vectors in rows]
        dim = self._source.load(task).dim if not rows else len(_present(rows[0].single))
        return np.array([_present(vectors.single) for vectors in rows], np.float32).reshape(-1, dim)

    def similarity(self, embeddings1: Many, embeddings2: Many) -> Float32:
        """Every query against every document, shape (queries, documents): cosine, or MaxSim without padding."""
        if self._vectors == "multi":
            return maxsim_scores(embeddings1, embeddings2)
        return dense_scores(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Many, embeddings2: Many) -> Float32:
        """Each with its partner, shape (n,)."""
        if self._vectors == "multi":
            pairs = zip(ragged(embeddings1), ragged(embeddings2), strict=True)
            return np.array([maxsim_scores([a], [b])[0, 0] for a, b in pairs], np.float32)
        first, second = (np.atleast_2d(np.asarray(side, np.float32)) for side in (embeddings1, embeddings2))
        scores: Float32 = np.einsum("nd,nd->n", first, second)
        return scores

    # -- embedding -----------------------------------------------------------------------------------------

    def _side(self, prompt_type: Any) -> Side:  # noqa: ANN401
        if prompt_type is None:
            return "document" if self._source.identity.family == "colbert-v2" else "query"
        return "document" if str(getattr(prompt_type, "value", prompt_type)) == "document" else "query"

    def _encoded(self, items: Sequence[Input], side: Side, task: str) -> list[Vectors]:
        """Vectors of the items, from the cache where it has them."""
        if self._cache is None:
            return self._embed(items, side, task)
        options = self._options(side, task)
        keys = [key_of(content_key(item), *options) for item in items]
        return self._cache.get_or_make(keys, items, lambda missing: self._embed(missing, side, task))

    def _options(self, side: Side, task: str) -> list[str]:
        """All that vectors of one content depend on."""
        embedder = self._source.load(task)
        dims = f"{embedder.dim if self._vectors == 'single' else embedder.multi_dim}"
        length = str(self._source.options.max_length)
        return [embedder.fingerprint, side, task, self._vectors, precision_of(embedder), dims, length]

    def _embed(self, items: Sequence[Input], side: Side, task: str) -> list[Vectors]:
        embedder = self._source.load(task)
        encode = embedder.encode_query if side == "query" else embedder.encode_document
        arguments = {kind: self._vectors == kind for kind in ("single", "multi")} | self._source.arguments(task)
        self.embedded += len(items)
        vectors: dict[int, Vectors] = {}
        full = [index for index, item in enumerate(items) if not is_blank(item)]
        groups = ([full] if full else []) + [[index] for index, item in enumerate(items) if is_blank(item)]
        for group in groups:
            try:
                embeddings = encode([items[index] for index in group], **arguments)
            except InvalidInputError:
                if not is_blank(items[group[0]]):
                    raise
                # Some models have no vector for an empty text; data sets have such.
                zeros = np.zeros(embedder.dim, np.float32), np.zeros((0, embedder.multi_dim), np.float32)
                vectors[group[0]] = Vectors(*zeros)
                continue
            for place, index in enumerate(group):
                vectors[index] = Vectors(
                    single=None if embeddings.single is None else embeddings.single[place],
                    multi=None if embeddings.multi is None else embeddings.multi[place],
                )
        return [vectors[index] for index in range(len(items))]


def task_of(task_metadata: Any) -> str:  # noqa: ANN401
    """Which adapter of jina-embeddings-v4 a task is for."""
    languages = [str(language) for language in task_metadata.bcp47_codes]
    if "Programming" in (task_metadata.domains or ()) or any(language.endswith("-Code") for language in languages):
        return "code"
    return "text-matching" if task_metadata.type in _MATCHING else "retrieval"


def _present(part: Float32 | None) -> Float32:
    assert part is not None
    return part
