"""Documents judged again, question and document together: texts and pictures of pages in one list."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.load.serializable import Serializable
from langchain_core.runnables.config import run_in_executor
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PlainSerializer,
    PrivateAttr,
    WithJsonSchema,
    model_validator,
)

from jina_rag import Calibration, Reranker, load_reranker
from langchain_jina_rag._documents import image_of
from langchain_jina_rag._lazy import Lazy

if TYPE_CHECKING:
    Model: TypeAlias = str | Path | Reranker
else:
    Model: TypeAlias = str | Path  # what is kept, and what a JSON schema tells

_OF_LOADING = {
    "device": "auto",
    "dtype": "auto",
    "max_pixels": None,
    "max_length": None,
    "revision": None,
}


def _calibration(value: object) -> object:
    return Calibration.from_json(value) if isinstance(value, dict) else value


class JinaLocalRerank(BaseDocumentCompressor, Serializable):
    """Reranks documents with a model on this machine, which reads question and document together.

    Texts and pages may stand in one list: of a page whose ``metadata["image"]`` is the path of a picture, a reranker
    that looks at pixels (jina-reranker-m0) is shown the picture, one that reads words the text.

    Setup:
        The default model, ``"lite"``, comes with jina_rag: nothing is downloaded. jina-reranker-m0 needs the extra
        ``models`` and is downloaded once.

        .. code-block:: bash

            pip install ".[langchain]"            # in a clone of jina_rag
            pip install ".[langchain,models]"     # for jina-reranker-m0

    Instantiate:
        .. code-block:: python

            from langchain_jina_rag import JinaLocalRerank

            rerank = JinaLocalRerank(top_n=3)
            # or, on a GPU:
            # JinaLocalRerank(model="jinaai/jina-reranker-m0", device="cuda", dtype="bfloat16", top_n=3)

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

    model: Model = "lite"
    """Name, id on the Hugging Face hub, or folder of a model; or a reranker (`jina_rag.Reranker`) that is there."""
    top_n: int | None = Field(default=3, ge=1)
    """How many documents to return at most; None for all."""
    score_threshold: float | None = None
    """Documents of a lower score, 0 to 1, are left out."""
    device: str = "auto"
    """``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``."""
    dtype: str = "auto"
    """Of the weights: ``"auto"``, ``"float32"``, ``"bfloat16"``, ``"float16"``."""
    max_pixels: int | None = None
    """Pixels that pictures are scaled down to, for models that look at them."""
    max_length: int | None = None
    """Tokens of a document that are read; None for the model's own limit."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    local_files_only: bool = False
    """Download nothing."""
    image_key: str = "image"
    """The key of metadata that has the path of a page's picture."""
    calibration: Annotated[
        Calibration | None,
        BeforeValidator(_calibration),
        PlainSerializer(lambda value: None if value is None else value.to_json()),
        WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "null"}]}),
    ] = None
    """Makes scores of images and texts comparable, see `jina_rag.fit_calibration`; None leaves them as they are."""

    _reranker: Lazy[Reranker] = PrivateAttr(default_factory=Lazy)

    @model_validator(mode="wrap")
    @classmethod
    def _keep_object(cls, data: Any, handler: ModelWrapValidatorHandler[JinaLocalRerank]) -> JinaLocalRerank:  # noqa: ANN401
        """Keep a reranker beside the fields, and its name in them."""
        given = data.get("model") if isinstance(data, dict) else None
        if given is None or isinstance(given, str | Path):
            made = handler(data)
            made.model = str(made.model)
            return made
        if not callable(getattr(given, "score", None)):
            raise ValueError(f"model is a {type(given).__name__}; it is the name or folder of a model, or a reranker.")
        made = handler({**data, "model": given.name})
        for name, usual in _OF_LOADING.items():
            if getattr(made, name) != usual:
                raise ValueError(f"{name} is for loading a model, and {given.name!r} is loaded: leave it out.")
        made._reranker.give(given)
        return made

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Its fields say all; the model is loaded again by its name."""
        return True

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """What is no JSON value as it is kept."""
        return {} if self.calibration is None else {"calibration": self.calibration.to_json()}

    @property
    def reranker(self) -> Reranker:
        """The model, loaded when it is first needed."""
        return self._reranker.get(self._load)

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
        order = sorted(range(len(documents)), key=lambda index: -scores[index])
        if self.score_threshold is not None:
            order = [index for index in order if scores[index] >= self.score_threshold]
        return [_scored(documents[index], scores[index]) for index in order[: self.top_n]]

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """As `compress_documents`, in a thread."""
        return await run_in_executor(None, self.compress_documents, documents, query, callbacks)

    def _scores(self, documents: Sequence[Document], query: str) -> list[float]:
        reranker = self.reranker
        inputs = [self._shown(document, reranker.modality) for document in documents]
        judged = [index for index, given in enumerate(inputs) if given is not None]
        found = [0.0] * len(documents)
        if not judged:
            return found
        given = [inputs[index] for index in judged]
        scores = reranker.score(query, given)
        if self.calibration is not None:
            kinds = ["text" if isinstance(entry, str) else "image" for entry in given]
            scores = self.calibration.apply(scores, kinds)
        for index, score in zip(judged, scores.tolist(), strict=True):
            found[index] = score if math.isfinite(score) else 0.0
        return found

    def _shown(self, document: Document, modality: str) -> Any:  # noqa: ANN401  # an input of a reranker, or None
        """What the reranker is given of a document; None if there is nothing."""
        words = document.page_content.strip()
        image = image_of(document, self.image_key)
        if image is not None and (modality == "image" or not words):
            return {"image": image}
        return document.page_content if words else None

    def _load(self) -> Reranker:
        return load_reranker(
            str(self.model),
            device=self.device,
            dtype=self.dtype,
            max_pixels=self.max_pixels,
            max_length=self.max_length,
            revision=self.revision,
            local_files_only=self.local_files_only,
        )


def _scored(document: Document, score: float) -> Document:
    # Nested values too: whoever changes a copy must not change the original.
    metadata = {**copy.deepcopy(document.metadata), "relevance_score": score}
    return document.model_copy(update={"metadata": metadata})
