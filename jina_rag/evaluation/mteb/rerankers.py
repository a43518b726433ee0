"""Our rerankers as mteb's cross-encoders: they judge pairs of a question and a document, texts and images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

import numpy as np

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.mteb.cache import VectorCache, Vectors, key_of
from jina_rag.evaluation.mteb.contents import ContentParts, content_key, inputs_of, is_blank
from jina_rag.evaluation.mteb.loading import RerankerSource
from jina_rag.evaluation.mteb.model_meta import reranker_meta
from jina_rag.evaluation.mteb.settings import ModelOptions
from jina_rag.protocols import Input, PlacedModel, Reranker
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
        revision: str | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        max_pixels: int | None = None,
        local_files_only: bool = False,
        parts: ContentParts = "auto",
        cache: VectorCache | None = None,
        experiment: Mapping[str, str | int] | None = None,
    ) -> None:
        """Look at the model; it is loaded when the first pair is judged.

        Args:
            model: A reranker, or what `jina_rag.load_reranker` takes, whose arguments are the same here; or a source,
                which has its own.
            revision: Branch, tag or commit on the hub.
            device: See `load_reranker`, also for the others.
            dtype: Of the weights.
            max_pixels: What images are scaled down to.
            local_files_only: Download nothing.
            parts: What is read of a document that has a text and an image.
            cache: Where scores are kept.
            experiment: What results are filed under besides the model: the first stage.

        Raises:
            ModelNotFoundError: If there is no such model.
        """
        options = ModelOptions(
            device=device or "auto", dtype=dtype, max_pixels=max_pixels, local_files_only=local_files_only
        )
        self._source = (
            model
            if isinstance(model, RerankerSource)
            else RerankerSource(model, options, revision=revision, cache=cache)
        )
        self._parts, self._cache = parts, cache
        self.mteb_model_meta: Any = reranker_meta(
            self._source.identity,
            modalities=["text", "image"],
            experiment={
                **self._source.options.changed(),
                **({} if parts == "auto" else {"parts": parts}),
                **(experiment or {}),
            },
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
            query: Input = ""
            documents: list[tuple[Input, bytes]] = []
            for (query, _), document in group:
                documents.append(document)
                if len(documents) == _AT_ONCE:
                    scores += self._scores(query, query_key, documents)
                    documents = []
            if documents:
                scores += self._scores(query, query_key, documents)
        return np.array(scores, np.float32)

    def _items(self, batches: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Input, bytes]]:
        for batch in batches:
            for item in inputs_of(batch, modality=self._source.identity.modality, parts=self._parts):
                yield item, content_key(item)

    def _scores(self, query: Input, query_key: bytes, documents: list[tuple[Input, bytes]]) -> list[float]:
        reranker = self._source.load()
        made_of = reranker.fingerprint
        precision = str(reranker.placement.dtype) if isinstance(reranker, PlacedModel) else "float32"
        keys = [key_of("score", query_key, key, made_of, precision) for _, key in documents]
        known = {} if self._cache is None else self._cache.get(keys)
        new = {key: item for key, (item, _) in zip(keys, documents, strict=True) if key not in known}
        if new:
            made = {
                key: Vectors(single=np.array([score], np.float32))
                for key, score in zip(new, self._judged(reranker, query, list(new.values())), strict=True)
            }
            if self._cache is not None:
                self._cache.put(made)
            known |= made
        found = [known[key].single for key in keys]
        return [float(score[0]) for score in found if score is not None]

    def _judged(self, reranker: Reranker, query: Input, documents: list[Input]) -> list[float]:
        try:
            return [float(score) for score in reranker.score(query, documents)]
        except InvalidInputError:
            if not is_blank(query):
                raise
            return [0.0] * len(documents)  # some models refuse an empty question; data sets have such
