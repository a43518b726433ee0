"""Our rerankers as mteb's cross-encoders: they judge pairs of a question and a document, texts and images."""

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

_AT_ONCE = 32
"""Documents of one question that go to the reranker together: as images they are held in memory."""


class JinaRagReranker:
    """Implements mteb's `CrossEncoderProtocol` for jina-reranker-m0, and for the lite reranker.

    mteb has it judge what a first stage found: ``task.convert_to_reranking(predictions, top_k=…)``.

    Attributes:
        mteb_model_meta: What mteb files results under.
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
        """Look at the model; it is loaded when the first pair is judged.

        Args:
            model: A reranker, or what `jina_rag.load_reranker` takes; or a source, which has its own options.
            options: How it is loaded.
            parts: What is read of a document that has a text and an image.
            cache: Where scores are kept.
            experiment: What results are filed under besides the model: the first stage.

        Raises:
            ModelNotFoundError: If there is no such model.
        """
        options = options or ModelOptions()
        self._source = model if isinstance(model, RerankerSource) else RerankerSource(model, options, cache=cache)
        self._parts, self._cache = parts, cache
        own_parts = {} if parts == "auto" else {"parts": parts}
        self.mteb_model_meta: Any = model_meta(
            self._source.identity,
            "cross-encoder",
            modalities=["text", "image"],
            experiment={**self._source.options.changed(), **own_parts, **(experiment or {})},
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
        """Score pairs: the first question with the first document, and so on.

        Args:
            inputs1: Loader of the questions, one for each pair.
            inputs2: Loader of the documents.
            task_metadata: Without effect, as are the others.
            hf_split: See there.
            hf_subset: See there.
            prompt_type: See there.
            kwargs: See there.

        Returns:
            Shape (pairs,) float32.
        """
        pairs = zip(self._items(inputs1), self._items(inputs2), strict=True)
        scores: list[float] = []
        for query_key, group in groupby(pairs, key=lambda pair: pair[0][1]):
            for some in batches(group, _AT_ONCE):
                scores += self._scores(some[0][0][0], query_key, [document for _, document in some])
        return np.array(scores, np.float32)

    def _items(self, batches: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Input, bytes]]:
        for batch in batches:
            for item in inputs_of(batch, modality=self._source.identity.modality, parts=self._parts):
                yield item, content_key(item)

    def _scores(self, query: Input, query_key: bytes, documents: list[tuple[Input, bytes]]) -> list[float]:
        reranker = self._source.load()
        items = [item for item, _ in documents]
        if self._cache is None:
            return self._judge(reranker, query, items)
        precision = precision_of(reranker)
        keys = [key_of("score", query_key, key, reranker.fingerprint, precision) for _, key in documents]
        vectors = self._cache.get_or_make(
            keys,
            items,
            lambda missing: [Vectors(np.array([s], np.float32)) for s in self._judge(reranker, query, missing)],
        )
        return [float(vector.single[0]) for vector in vectors if vector.single is not None]

    def _judge(self, reranker: Reranker, query: Input, documents: list[Input]) -> list[float]:
        try:
            return [float(score) for score in reranker.score(query, documents)]
        except InvalidInputError:
            if not is_blank(query):
                raise
            return [0.0] * len(documents)  # some models refuse an empty question; data sets have such
