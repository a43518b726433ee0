"""Our embedders as mteb's encoders: dense vectors with cosine, or multi-vectors with a MaxSim that pads nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.mteb.cache import VectorCache, Vectors, key_of
from jina_rag.evaluation.mteb.contents import ContentParts, content_key, inputs_of, is_blank
from jina_rag.evaluation.mteb.loading import EmbedderSource
from jina_rag.evaluation.mteb.model_meta import encoder_meta
from jina_rag.evaluation.mteb.settings import ModelOptions, VectorKind
from jina_rag.evaluation.mteb.similarity import Many, dense_scores, maxsim_scores, ragged
from jina_rag.protocols import Embedder, Input, PlacedModel
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
        embedded: Inputs that went through the model; what was known from the cache is not among them.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Embedder | EmbedderSource,
        revision: str | None = None,
        *,
        vectors: VectorKind = "single",
        device: str = "auto",
        dtype: str = "auto",
        max_pixels: int | None = None,
        max_length: int | None = None,
        truncate_dim: int | None = None,
        local_files_only: bool = False,
        parts: ContentParts = "auto",
        cache: VectorCache | None = None,
    ) -> None:
        """Look at the model; it is loaded when the first thing is embedded.

        Args:
            model: An embedder, or what `jina_rag.load_embedder` takes, whose arguments are the same here; or a source,
                which has its own.
            revision: Branch, tag or commit on the hub.
            vectors: Which of its vectors are measured.
            device: See `load_embedder`, also for the others.
            dtype: Of the weights.
            max_pixels: What images are scaled down to.
            max_length: Tokens that are read of each input.
            truncate_dim: Length of the dense vectors (of the rows, for jina-colbert-v2).
            local_files_only: Download nothing.
            parts: What is read of an input that has a text and an image.
            cache: Where vectors are kept.

        Raises:
            ModelNotFoundError: If there is no such model.
        """
        options = ModelOptions(
            device=device or "auto",
            dtype=dtype,
            max_pixels=max_pixels,
            max_length=max_length,
            truncate_dim=truncate_dim,
            revision=revision,
            local_files_only=local_files_only,
        )
        self._source = model if isinstance(model, EmbedderSource) else EmbedderSource(model, options, cache=cache)
        self._vectors, self._parts, self._cache = vectors, parts, cache
        self.embedded = 0
        own = self._source.identity
        self.mteb_model_meta: Any = encoder_meta(
            own,
            vectors=vectors,
            modalities=_MODALITIES.get(own.family, ["text"]),
            options=self._source.options.changed() | ({} if parts == "auto" else {"parts": parts}),
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
        found: list[Vectors] = []
        for batch in inputs:
            items = inputs_of(batch, modality=self._source.identity.modality, parts=self._parts)
            found += self._encoded(items, side, task)
        if self._vectors == "multi":
            return [_there(vectors.multi) for vectors in found]
        dim = self._source.load(task).dim if not found else len(_there(found[0].single))
        return np.array([_there(vectors.single) for vectors in found], np.float32).reshape(-1, dim)

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
        """Vectors of the items; what is known is not embedded again, and what occurs twice is embedded once."""
        if self._cache is None:
            return self._made(items, side, task)
        options = self._options(side, task)
        keys = [key_of(content_key(item), *options) for item in items]
        known = self._cache.get(keys)
        new = {key: item for key, item in zip(keys, items, strict=True) if key not in known}
        if new:
            made = dict(zip(new, self._made(list(new.values()), side, task), strict=True))
            self._cache.put(made)
            known |= made
        return [known[key] for key in keys]

    def _options(self, side: Side, task: str) -> list[str]:
        """All that vectors of one content depend on."""
        embedder = self._source.load(task)
        precision = embedder.placement.dtype if isinstance(embedder, PlacedModel) else "float32"
        dims = f"{embedder.dim if self._vectors == 'single' else embedder.multi_dim}"
        length = str(self._source.options.max_length)
        return [embedder.fingerprint, side, task, self._vectors, str(precision), dims, length]

    def _made(self, items: Sequence[Input], side: Side, task: str) -> list[Vectors]:
        embedder = self._source.load(task)
        encode = embedder.encode_query if side == "query" else embedder.encode_document
        wanted = {"single": self._vectors == "single", "multi": self._vectors == "multi"}
        arguments = wanted | self._source.arguments(task)
        self.embedded += len(items)
        made: dict[int, Vectors] = {}
        full = [index for index, item in enumerate(items) if not is_blank(item)]
        groups = ([full] if full else []) + [[index] for index, item in enumerate(items) if is_blank(item)]
        for group in groups:
            try:
                found = encode([items[index] for index in group], **arguments)
            except InvalidInputError:
                if not is_blank(items[group[0]]):
                    raise
                made[group[0]] = _nothing(embedder)  # some models have no vector for an empty text; data sets have such
                continue
            for place, index in enumerate(group):
                made[index] = Vectors(
                    single=None if found.single is None else found.single[place],
                    multi=None if found.multi is None else found.multi[place],
                )
        return [made[index] for index in range(len(items))]


def task_of(task_metadata: Any) -> str:  # noqa: ANN401
    """Which adapter of jina-embeddings-v4 a task is for."""
    languages = [str(language) for language in task_metadata.bcp47_codes]
    if "Programming" in (task_metadata.domains or ()) or any(language.endswith("-Code") for language in languages):
        return "code"
    return "text-matching" if task_metadata.type in _MATCHING else "retrieval"


def _nothing(embedder: Embedder) -> Vectors:
    return Vectors(np.zeros(embedder.dim, np.float32), np.zeros((0, embedder.multi_dim), np.float32))


def _there(part: Float32 | None) -> Float32:
    assert part is not None
    return part
