"""Adapters that let mteb use the rerankers of jina_rag as cross-encoders for text and image documents."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

import numpy as np

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.cleaning.pairs import batches
from jina_rag.evaluation.mteb.cache import VectorCache, Vectors, key_of
from jina_rag.evaluation.mteb.contents import ContentParts, content_key, inputs_of, is_blank
from jina_rag.evaluation.mteb.loading import RerankerSource, precision_of
from jina_rag.evaluation.mteb.model_meta import model_meta
from jina_rag.evaluation.mteb.settings import ModelOptions
from jina_rag.protocols import Input, Reranker
from jina_rag.types import Float32

_BATCH = 32
"""Maximum number of documents per reranker call; limits the number of images in memory."""


class JinaRagReranker:
    """An mteb cross-encoder (`CrossEncoderProtocol`) for jina-reranker-m0 and the lite reranker.

    mteb passes the candidates that ``task.convert_to_reranking(predictions, top_k=…)`` selects from a first stage.

    Attributes:
        mteb_model_meta: Model name, revision and options under which mteb stores results.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Reranker | RerankerSource,
        *,
        options: ModelOptions | None = None,
        parts: ContentParts = "auto",
        cache: VectorCache | None = None,
        experiment: Mapping[str, str | int] | None = None,
    ) -> None:
        """Resolve the model; the weights are loaded on the first call of `predict`.

        Args:
            model: A reranker, a model name or folder for `jina_rag.load_reranker`, or a `RerankerSource`.
            options: Loading options, ignored for a `RerankerSource`; None for the defaults.
            parts: Parts to read of a document with a text and an image, see `ContentParts`.
            cache: Cache for the scores; None for no cache.
            experiment: Additional options under which mteb stores results, for example the first stage.

        Raises:
            ModelNotFoundError: If the model does not exist.
        """
        options = options or ModelOptions()
        self._source = model if isinstance(model, RerankerSource) else RerankerSource(model, options, cache=cache)
        self._parts, self._cache = parts, cache
        changed_parts = {} if parts == "auto" else {"parts": parts}
        self.mteb_model_meta: Any = model_meta(
            self._source.identity,
            "cross-encoder",
            modalities=["text", "image"],
            experiment={**self._source.options.changed(), **changed_parts, **(experiment or {})},
        )

    def predict(
        self,
        inputs1: Iterable[Mapping[str, Any]],
        inputs2: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,  # noqa: ANN401  # mteb.TaskMetadata
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Float32:
        """Return the relevance score of each pair of a query and a document.

        Args:
            inputs1: Data loader of the queries, one per pair.
            inputs2: Data loader of the documents, one per pair.
            task_metadata: Ignored.
            hf_split: Ignored.
            hf_subset: Ignored.
            prompt_type: Ignored.
            kwargs: Ignored.

        Returns:
            Scores in the order of the pairs, shape (pairs,), float32.
        """
        pairs = zip(self._items(inputs1), self._items(inputs2), strict=True)
        scores: list[float] = []
        for query_key, group in groupby(pairs, key=lambda pair: pair[0][1]):
            for batch in batches(group, _BATCH):
                scores += self._cached_scores(batch[0][0][0], query_key, [document for _, document in batch])
        return np.array(scores, np.float32)

    def _items(self, batches: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Input, bytes]]:
        for batch in batches:
            for item in inputs_of(batch, modality=self._source.identity.modality, parts=self._parts):
                yield item, content_key(item)

    def _cached_scores(self, query: Input, query_key: bytes, documents: list[tuple[Input, bytes]]) -> list[float]:
        reranker = self._source.load()
        items = [item for item, _ in documents]
        if self._cache is None:
            return self._score(reranker, query, items)
        precision = precision_of(reranker)
        keys = [key_of("score", query_key, key, reranker.fingerprint, precision) for _, key in documents]
        vectors = self._cache.get_or_make(
            keys,
            items,
            lambda missing: [Vectors(np.array([s], np.float32)) for s in self._score(reranker, query, missing)],
        )
        return [float(vector.single[0]) for vector in vectors if vector.single is not None]

    def _score(self, reranker: Reranker, query: Input, documents: list[Input]) -> list[float]:
        try:
            return [float(score) for score in reranker.score(query, documents)]
        except InvalidInputError:
            if not is_blank(query):
                raise
            return [0.0] * len(documents)  # an empty query that the model rejects scores 0
