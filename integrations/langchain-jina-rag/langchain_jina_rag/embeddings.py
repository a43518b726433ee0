"""Dense embeddings of texts and images for LangChain components that require an `Embeddings`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from langchain_core.embeddings import Embeddings
from langchain_core.load.serializable import Serializable
from pydantic import ConfigDict, Field

from jina_rag import InvalidInputError
from jina_rag.adapters import EmbedderOptions, EmbedderSource, coroutine_of

if TYPE_CHECKING:
    from PIL.Image import Image

ImageInput: TypeAlias = "str | bytes | Path | Image"
"""An image: a path, the bytes of a file, a base64 data URI, a PIL image, or, with ``allow_urls=True``, a URL."""


class JinaLocalEmbeddings(EmbedderOptions, Serializable, Embeddings):
    """Dense embeddings of texts and images by a local model.

    An `Embeddings` returns one vector per text. Late interaction compares the query with every token of a page and
    requires one vector per token. For late interaction, use `JinaPageRetriever` or `JinaVectorStore`.

    Setup:
        The default model, ``"lite"``, is installed with jina_rag and requires no download. ``"lite"`` reads text, and
        reads the text of images by OCR. The models of Jina AI, for example the vision model
        ``"jinaai/jina-embeddings-v4"``, require the extra ``models`` and are downloaded once.

        .. code-block:: bash

            pip install ".[langchain]"            # in a clone of jina_rag
            pip install ".[langchain,models]"     # for the models of Jina AI

    Instantiate:
        .. code-block:: python

            from langchain_jina_rag import JinaLocalEmbeddings

            embeddings = JinaLocalEmbeddings()
            # or, on a GPU:
            # JinaLocalEmbeddings(model="jinaai/jina-embeddings-v4", device="cuda", dtype="bfloat16", truncate_dim=512)

    Use:
        .. code-block:: python

            vector = embeddings.embed_query("Which region grew fastest?")
            vectors = embeddings.embed_documents(["Growth by region", "List of authors"])
            image_vectors = embeddings.embed_images(["chart.png"])

    Async:
        The model runs in a thread, never in the event loop's thread.

        .. code-block:: python

            vector = await embeddings.aembed_query("Which region grew fastest?")
            image_vectors = await embeddings.aembed_images(["chart.png"])

    The model is loaded at first use. Pickles, dumps and reprs contain the name of the model, not the weights.
    """

    model_config = ConfigDict(extra="forbid")

    model: EmbedderSource = Field(
        default="lite",
        description="Name, Hugging Face id or folder of a model, or a loaded model (`jina_rag.Embedder`).",
    )
    allow_urls: bool = Field(default=False, description="Fetch images from http and https URLs, for vision models.")

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return True, because the fields define the embeddings, and the model is reloaded by name."""
        return True

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts as documents.

        Args:
            texts: Texts. The vector of an empty text is zero if the model produces no tokens for the text.

        Returns:
            One L2-normalized vector per text, of length `truncate_dim` or the model's dimension.
        """
        return self.dense_vectors("document", list(texts))

    def embed_query(self, text: str) -> list[float]:
        """Embed a query.

        Args:
            text: Query text.

        Returns:
            An L2-normalized vector of length `truncate_dim` or the model's dimension.

        Raises:
            InvalidInputError: If `text` is empty.
        """
        return self.dense_vectors("query", [text])[0]

    def embed_images(self, images: Sequence[ImageInput]) -> list[list[float]]:
        """Embed images as documents, in the same vector space as texts.

        Args:
            images: Paths, bytes of files, PIL images, base64 data URIs, or, with ``allow_urls=True``, URLs.

        Returns:
            One L2-normalized vector per image.

        Raises:
            InvalidInputError: If an image cannot be read, or is a URL without ``allow_urls=True``.
        """
        if isinstance(images, str | bytes | Path):
            raise InvalidInputError(f"images is a {type(images).__name__}; expected a list of images.")
        return self.dense_vectors("document", [{"image": image} for image in images])

    aembed_images = coroutine_of(embed_images)
