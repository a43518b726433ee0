"""Dense vectors of texts and images for whatever in LangChain asks for an `Embeddings`."""

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
"""A path, the bytes of a file, a base64 data URI, PIL; an address where those are allowed."""


class JinaLocalEmbeddings(EmbedderOptions, Serializable, Embeddings):
    """Embeddings of texts and of images by a model on this machine: one dense vector each.

    An `Embeddings` has room for one vector per text. Late interaction, which compares a question with each place on a
    page, needs one per token: that is what `JinaPageRetriever` and `JinaVectorStore` search with.

    Setup:
        The default model, ``"lite"``, comes with jina_rag: nothing is downloaded. It reads words, those of images by
        OCR. The models of Jina AI (``"jinaai/jina-embeddings-v4"`` looks at pixels) need the extra ``models``; they
        are downloaded once.

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
            pictures = embeddings.embed_images(["chart.png"])

    Async:
        The model runs in a thread, never on that of the event loop.

        .. code-block:: python

            vector = await embeddings.aembed_query("Which region grew fastest?")
            pictures = await embeddings.aembed_images(["chart.png"])

    The model is loaded at its first use. It is in no pickle, dump or repr: these carry its name and load it again.
    """

    model_config = ConfigDict(extra="forbid")

    model: EmbedderSource = Field(
        default="lite",
        description="Name, id on the Hugging Face hub, or folder of a model; or a loaded model (`jina_rag.Embedder`).",
    )
    allow_urls: bool = Field(
        default=False, description="Fetch images from http and https addresses, for models that look at pixels."
    )

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Its fields say all; the model is loaded again by its name."""
        return True

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts to be found.

        Args:
            texts: Any number; an empty one gives zeros where the model has no vector for that.

        Returns:
            A list of floats, L2-normalised, for each text.
        """
        return self.dense_vectors("document", list(texts))

    def embed_query(self, text: str) -> list[float]:
        """Embed a question.

        Raises:
            InvalidInputError: If it is empty.
        """
        return self.dense_vectors("query", [text])[0]

    def embed_images(self, images: Sequence[ImageInput]) -> list[list[float]]:
        """Embed pictures to be found by questions; their vectors lie in the same space as those of texts.

        Args:
            images: Paths, bytes of files, PIL images, base64 data URIs.

        Raises:
            InvalidInputError: If one cannot be read, or is an address and the model was not loaded with `allow_urls`.
        """
        if isinstance(images, str | bytes | Path):
            raise InvalidInputError(f"Pass a list of images, not a single {type(images).__name__}.")
        return self.dense_vectors("document", [{"image": image} for image in images])

    aembed_images = coroutine_of(embed_images)
