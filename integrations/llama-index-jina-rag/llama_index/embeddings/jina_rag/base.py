"""`JinaLocalEmbedding`: dense embeddings of texts and images by a local model."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import llama_index.core.instrumentation as instrument
from llama_index.core.base.embeddings.base import Embedding
from llama_index.core.bridge.pydantic import ConfigDict, Field
from llama_index.core.embeddings import MultiModalEmbedding
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.schema import ImageType
from llama_index.embeddings.jina_rag.node_inputs import image_input

from jina_rag import Embedder, InvalidInputError
from jina_rag.adapters import EmbedderOptions, coroutine_of, model_argument

dispatcher = instrument.get_dispatcher(__name__)  # type: ignore[attr-defined]  # public, but not exported explicitly


class JinaLocalEmbedding(EmbedderOptions, MultiModalEmbedding):
    """Dense embeddings of texts and images by a Jina model on this machine.

    LlamaIndex stores one vector per node, but late interaction requires one vector per token. To search pages, use
    `JinaPageRetriever` or `JinaVectorStore`. `JinaLocalEmbedding` is for all other components that require an
    ``embed_model``. Queries and documents are encoded differently, because the models were trained in this way.

    Setup:
        ``pip install ".[llama-index]"`` in a clone. The weights of ``"lite"`` are included; other models require the
        extra ``models``.

    Instantiate:
        >>> from llama_index.embeddings.jina_rag import JinaLocalEmbedding
        >>> embed_model = JinaLocalEmbedding()  # or JinaLocalEmbedding("jinaai/jina-embeddings-v4", device="cuda")

        The model is loaded at first use. To share a loaded model: ``JinaLocalEmbedding(embedder=index.embedder)``.

    Use:
        >>> documents = embed_model.get_text_embedding_batch(["Sales grew by 4 %.", "The cat sat on the mat."])
        >>> query = embed_model.get_query_embedding("How did sales develop?")
        >>> max(range(2), key=lambda i: embed_model.similarity(query, documents[i]))
        0

        ``get_image_embedding("chart.png")`` and ``get_image_embedding_batch`` accept paths and `io.BytesIO`. A text
        model reads the text of an image by OCR.

    Async:
        The coroutines, for example ``aget_query_embedding`` and ``aget_text_embedding_batch``, encode in a thread,
        never in the event loop's thread.

    Args:
        model_name: ``"lite"``, ``"lite-en"``, a Hugging Face id or the folder of a checkpoint.
        embedder: Loaded embedder instead of a name; cannot be combined with options for loading a model.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``; or several devices, with one process for
            each device: ``["cuda:0", "cuda:1"]`` or ``"all"`` for all CUDA devices.
        dtype: Type of the weights: ``"auto"``, ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        task: ``"retrieval"``; jina-embeddings-v4 also supports ``"text-matching"`` and ``"code"``.
        truncate_dim: Length of the vectors after Matryoshka truncation; None for the model's full length.
        max_pixels: Maximum number of pixels of an image, for vision models; larger images are scaled down.
        max_length: Maximum number of tokens of an input; longer inputs are truncated.
        revision: Branch, tag or commit on the Hugging Face hub.
        local_files_only: Whether to use downloaded files only.
        settings: Further fields of LlamaIndex's `BaseEmbedding`, for example ``embed_batch_size``.

    Dumps and pickles contain these settings, never the weights. A model that was passed as an object is reloaded by
    name.

    Raises:
        InvalidInputError: If ``embeddings_cache`` is passed. LlamaIndex keys this cache by text, so that a query would
            get the cached vector of a document with equal text.
    """

    model_config = ConfigDict(extra="forbid")

    model_name: str = Field(default="lite", description="Name, hub id or folder of the model.")

    _model_field: ClassVar[str] = "model_name"

    def __init__(
        self,
        model_name: str | os.PathLike[str] | None = None,
        *,
        embedder: Embedder | None = None,
        **settings: Any,  # noqa: ANN401  # the fields above and those of BaseEmbedding, checked by pydantic
    ) -> None:
        _reject_cache(settings.get("embeddings_cache"))
        super().__init__(**model_argument("model_name", model_name, embedder), **settings)

    @classmethod
    def class_name(cls) -> str:
        """Return the class name for serialization."""
        return "JinaLocalEmbedding"

    def _get_query_embedding(self, query: str) -> Embedding:
        return self.dense_vectors("query", [{"text": query}])[0]

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self.dense_vectors("document", [{"text": text} for text in texts])

    _aget_query_embedding = coroutine_of(_get_query_embedding)
    _aget_text_embedding = coroutine_of(_get_text_embedding)
    _aget_text_embeddings = coroutine_of(_get_text_embeddings)

    def _get_image_embedding(self, img_file_path: ImageType) -> Embedding:
        return self._get_image_embeddings([img_file_path])[0]

    def _get_image_embeddings(self, img_file_paths: list[ImageType]) -> list[Embedding]:
        # LlamaIndex dispatches embedding events for texts only, not for images.
        dispatcher.event(EmbeddingStartEvent(model_dict=self.to_payload()))
        embeddings = self.dense_vectors("document", [image_input(image) for image in img_file_paths])
        chunks = [image if isinstance(image, str) else "<image>" for image in img_file_paths]
        dispatcher.event(EmbeddingEndEvent(chunks=chunks, embeddings=embeddings))
        return embeddings

    _aget_image_embedding = coroutine_of(_get_image_embedding)
    _aget_image_embeddings = coroutine_of(_get_image_embeddings)

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401
        if name == "embeddings_cache":
            _reject_cache(value)
        super().__setattr__(name, value)


def _reject_cache(cache: object) -> None:
    if cache is not None:
        raise InvalidInputError(
            "embeddings_cache is keyed by text, but a query and a document with equal text have different vectors. "
            "Omit embeddings_cache."
        )
