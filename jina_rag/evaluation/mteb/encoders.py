"""mteb encoders for the embedders of jina_rag, with cosine similarity or MaxSim without padding."""

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
_TEXT_MATCHING_TYPES = ("STS", "PairClassification", "VisualSTS(eng)", "VisualSTS(multi)")
_MODALITIES = {family: ["text", "image"] for family in ("lite", "v4", "")}
"""Input modalities by model family. Families that are not listed read text only. The lite models read images with OCR.
An embedder object that the caller passes has an empty family name."""


class JinaRagEncoder:
    """An mteb encoder (`EncoderProtocol`) for any embedder: jina-embeddings-v4, jina-colbert-v2, v1, lite.

    Queries are encoded with `encode_query` and documents with `encode_document`. For tasks without queries and
    documents (STS, classification), all inputs are encoded as queries, except by jina-colbert-v2: its inputs are
    encoded as documents, because the model truncates queries to 32 tokens.

    jina-embeddings-v4 uses its code adapter for tasks about code, its text-matching adapter for STS and pair
    classification, and its retrieval adapter for all other tasks, like mteb's own wrapper. Unlike mteb's wrapper, this
    encoder encodes the documents of reranking tasks as documents.

    Attributes:
        mteb_model_meta: Model name, revision and options under which mteb stores results.
        embedded: Number of inputs that the model embedded; cached inputs do not count.
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
        """Resolve the model; the weights are loaded on the first call of `encode`.

        Args:
            model: An embedder, a model name or folder for `jina_rag.load_embedder`, or an `EmbedderSource`.
            vectors: Vectors to evaluate: ``"single"`` for dense vectors, ``"multi"`` for multi-vectors.
            options: Loading options, ignored for an `EmbedderSource`; None for the defaults.
            parts: Parts to read of an input with a text and an image, see `ContentParts`.
            cache: Cache for the vectors; None for no cache.

        Raises:
            ModelNotFoundError: If the model does not exist.
        """
        options = options or ModelOptions()
        self._source = model if isinstance(model, EmbedderSource) else EmbedderSource(model, options, cache=cache)
        self._vectors, self._parts, self._cache = vectors, parts, cache
        self.embedded = 0
        identity = self._source.identity
        # The kind of vectors is stored only if the model is mainly used with the other kind, as in mteb's own results.
        unusual = {} if vectors == ("multi" if identity.late else "single") else {"vectors": vectors}
        self.mteb_model_meta: Any = model_meta(
            identity,
            "late-interaction" if vectors == "multi" else "dense",
            modalities=_MODALITIES.get(identity.family, ["text"]),
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
        """Return the vectors of all inputs of a data loader.

        Args:
            inputs: mteb's data loader, an iterable of batches.
            task_metadata: Metadata of the task; selects the adapter.
            hf_split: Ignored.
            hf_subset: Ignored.
            prompt_type: Query or document; None for tasks without queries and documents.
            kwargs: Ignored.

        Returns:
            Dense vectors of shape (n, dim), float32, or n multi-vectors of shape (tokens_i, multi_dim), float32.
        """
        task = task_of(task_metadata)
        side = self._side(prompt_type)
        rows: list[Vectors] = []
        for batch in inputs:
            items = inputs_of(batch, modality=self._source.identity.modality, parts=self._parts)
            rows += self._cached_vectors(items, side, task)
        if self._vectors == "multi":
            return [_present(vectors.multi) for vectors in rows]
        dim = self._source.load(task).dim if not rows else len(_present(rows[0].single))
        return np.array([_present(vectors.single) for vectors in rows], np.float32).reshape(-1, dim)

    def similarity(self, embeddings1: Many, embeddings2: Many) -> Float32:
        """Return the cosine similarity or MaxSim of each query and document, shape (queries, documents), float32.

        Args:
            embeddings1: Vectors of the queries: shape (queries, dim), or a list of arrays of shape (tokens_i, dim).
            embeddings2: Vectors of the documents, in the form of `embeddings1`.
        """
        if self._vectors == "multi":
            return maxsim_scores(embeddings1, embeddings2)
        return dense_scores(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Many, embeddings2: Many) -> Float32:
        """Return the similarity of each pair of vectors, shape (n,), float32.

        Args:
            embeddings1: First vectors of the pairs: shape (n, dim), or a list of n arrays of shape (tokens_i, dim).
            embeddings2: Second vectors of the pairs, in the form of `embeddings1`.
        """
        if self._vectors == "multi":
            pairs = zip(ragged(embeddings1), ragged(embeddings2), strict=True)
            return np.array([maxsim_scores([a], [b])[0, 0] for a, b in pairs], np.float32)
        first, second = (np.atleast_2d(np.asarray(side, np.float32)) for side in (embeddings1, embeddings2))
        scores: Float32 = np.einsum("nd,nd->n", first, second)
        return scores

    def _side(self, prompt_type: Any) -> Side:  # noqa: ANN401
        if prompt_type is None:
            return "document" if self._source.identity.family == "colbert-v2" else "query"
        return "document" if str(getattr(prompt_type, "value", prompt_type)) == "document" else "query"

    def _cached_vectors(self, items: Sequence[Input], side: Side, task: str) -> list[Vectors]:
        """Return the vectors of `items`; cached vectors are not computed again."""
        if self._cache is None:
            return self._embed(items, side, task)
        options = self._options(side, task)
        keys = [key_of(content_key(item), *options) for item in items]
        return self._cache.get_or_make(keys, items, lambda missing: self._embed(missing, side, task))

    def _options(self, side: Side, task: str) -> list[str]:
        """Return all settings that affect the vectors, as parts of a cache key."""
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
                # Datasets can contain empty texts. If the model rejects an empty text, the text gets a zero vector.
                zeros = np.zeros(embedder.dim, np.float32), np.zeros((0, embedder.multi_dim), np.float32)
                vectors[group[0]] = Vectors(*zeros)
                continue
            for row, index in enumerate(group):
                vectors[index] = Vectors(
                    single=None if embeddings.single is None else embeddings.single[row],
                    multi=None if embeddings.multi is None else embeddings.multi[row],
                )
        return [vectors[index] for index in range(len(items))]


def task_of(task_metadata: Any) -> str:  # noqa: ANN401
    """Return the jina-embeddings-v4 adapter of a task: ``"code"``, ``"text-matching"`` or ``"retrieval"``."""
    languages = [str(language) for language in task_metadata.bcp47_codes]
    if "Programming" in (task_metadata.domains or ()) or any(language.endswith("-Code") for language in languages):
        return "code"
    return "text-matching" if task_metadata.type in _TEXT_MATCHING_TYPES else "retrieval"


def _present(part: Float32 | None) -> Float32:
    assert part is not None
    return part
