"""Documents judged again, question and document together: texts and pictures of pages in one list."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Annotated, Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.load.serializable import Serializable
from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from jina_rag import Calibration
from jina_rag.adapters import RerankerOptions, RerankerSource
from langchain_jina_rag._documents import image_file


def _calibration(value: object) -> object:
    return Calibration.from_json(value) if isinstance(value, dict) else value


class JinaLocalRerank(RerankerOptions, BaseDocumentCompressor, Serializable):
    """Reranks documents with a model on this machine, which reads question and document together.

    Texts and pages may stand in one list: of a page whose ``metadata["image"]`` is the path of a picture, a reranker
    that looks at pixels (jina-reranker-m0) is shown the picture, one that reads words the text.

    Setup:
        The default model, jina-reranker-m0, needs the extra ``models`` and is downloaded once. ``"lite"`` comes with
        jina_rag, for pipelines without a download. It reads words only, and it costs quality: in a search it lowered
        nDCG@5 by 0.008 (5 pages reranked) to 0.032 (10 pages).

        .. code-block:: bash

            pip install ".[langchain]"            # in a clone of jina_rag
            pip install ".[langchain,models]"     # for jina-reranker-m0

    Instantiate:
        .. code-block:: python

            from langchain_jina_rag import JinaLocalRerank

            rerank = JinaLocalRerank(top_n=3)
            # on a GPU: JinaLocalRerank(device="cuda", dtype="bfloat16", top_n=3)
            # without a download: JinaLocalRerank(model="lite", top_n=3)

    Use:
        .. code-block:: python

            from langchain_core.documents import Document

            docs = [Document(page_content="A list of authors"), Document(page_content="Growth by region in 2024")]
            best = rerank.compress_documents(docs, "Which region grew fastest?")
            best[0].metadata["relevance_score"]

        Behind a retriever: `JinaCompressionRetriever`.

    Async:
        The model runs in a thread, never on that of the event loop.

        .. code-block:: python

            best = await rerank.acompress_documents(docs, "Which region grew fastest?")

    Documents are copied, never changed. The model is loaded at its first use; it is in no pickle, dump or repr.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    model: RerankerSource = Field(
        default="jinaai/jina-reranker-m0",
        description="Name, id on the Hugging Face hub, or folder of a model; or a loaded model (`jina_rag.Reranker`).",
    )
    top_n: int | None = Field(default=3, ge=1)
    """How many documents to return at most; None for all."""
    score_threshold: float | None = None
    """Documents of a lower score, 0 to 1, are left out."""
    image_key: str = "image"
    """The key of metadata that has the path of a page's picture."""
    calibration: Annotated[
        Calibration | None,
        BeforeValidator(_calibration),
        PlainSerializer(lambda value: None if value is None else value.to_json()),
        WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "null"}]}),
    ] = None
    """Makes scores of images and texts comparable, see `jina_rag.fit_calibration`; None leaves them as they are."""

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Its fields say all; the model is loaded again by its name."""
        return True

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """What is no JSON value as it is kept."""
        return {} if self.calibration is None else {"calibration": self.calibration.to_json()}

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Copies of the best documents, best first, with ``metadata["relevance_score"]``.

        Args:
            documents: Texts and pages. One without any words and without a picture scores 0 and is not judged.
            query: The question.
            callbacks: Not used: a compressor's work is part of its retriever's run.

        Raises:
            InvalidInputError: If the question is empty, or a picture cannot be read.
        """
        if not documents:
            return []
        scores = self._scores(documents, query)
        order = sorted(range(len(documents)), key=lambda row: -scores[row])
        if self.score_threshold is not None:
            order = [row for row in order if scores[row] >= self.score_threshold]
        return [_scored(documents[row], scores[row]) for row in order[: self.top_n]]

    def _scores(self, documents: Sequence[Document], query: str) -> list[float]:
        reranker = self.reranker
        inputs = [self._input(document, reranker.modality) for document in documents]
        rows = [row for row, content in enumerate(inputs) if content is not None]
        scores = [0.0] * len(documents)
        if rows:
            contents = [inputs[row] for row in rows]
            raw_scores = reranker.score(query, contents)
            if self.calibration is not None:
                kinds = ["text" if isinstance(content, str) else "image" for content in contents]
                raw_scores = self.calibration.apply(raw_scores, kinds)
            for row, score in zip(rows, raw_scores.tolist(), strict=True):
                scores[row] = score if math.isfinite(score) else 0.0
        return scores

    def _input(self, document: Document, modality: str) -> Any:  # noqa: ANN401  # an input of a reranker, or None
        """The image or the text of a document; None if it has neither."""
        words = document.page_content.strip()
        image = image_file(document.metadata.get(self.image_key))
        if image is not None and (modality == "image" or not words):
            return {"image": image}
        return document.page_content if words else None


def _scored(document: Document, score: float) -> Document:
    # Nested values too: whoever changes a copy must not change the original.
    metadata = {**copy.deepcopy(document.metadata), "relevance_score": score}
    return document.model_copy(update={"metadata": metadata})
