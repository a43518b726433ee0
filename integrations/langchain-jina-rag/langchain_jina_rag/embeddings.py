"""Dense vectors of texts and images for whatever in LangChain asks for an `Embeddings`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from langchain_core.embeddings import Embeddings
from langchain_core.load.serializable import Serializable
from langchain_core.runnables.config import run_in_executor
from pydantic import ConfigDict, ModelWrapValidatorHandler, PrivateAttr, model_validator

from jina_rag import Embedder, InvalidInputError, load_embedder
from langchain_jina_rag._lazy import Lazy

if TYPE_CHECKING:
    from PIL.Image import Image

    Model: TypeAlias = str | Path | Embedder
else:
    Model: TypeAlias = str | Path  # what is kept, and what a JSON schema tells

ImageInput: TypeAlias = "str | bytes | Path | Image"
"""A path, the bytes of a file, a base64 data URI, PIL; an address where those are allowed."""
_URL = re.compile(r"https?://", re.IGNORECASE)
_OF_LOADING = {"device": "auto", "dtype": "auto", "task": "retrieval", "revision": None, "allow_urls": False}


class JinaLocalEmbeddings(Serializable, Embeddings):
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

    model: Model = "lite"
    """Name, id on the Hugging Face hub, or folder of a model; or an embedder (`jina_rag.Embedder`) that is there."""
    device: str = "auto"
    """``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``."""
    dtype: str = "auto"
    """Of the weights: ``"auto"``, ``"float32"``, ``"bfloat16"``, ``"float16"``."""
    task: str = "retrieval"
    """For jina-embeddings-v4 also ``"text-matching"`` or ``"code"``."""
    truncate_dim: int | None = None
    """Length of the vectors, for models whose vectors can be cut; None for all of it."""
    max_pixels: int | None = None
    """Pixels that images are scaled down to, for models that look at them; None for the model's own limit."""
    max_length: int | None = None
    """Tokens of an input that are read; None for the model's own limit."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    local_files_only: bool = False
    """Download nothing."""
    allow_urls: bool = False
    """Fetch images from http and https addresses, for models that look at pixels."""

    _embedder: Lazy[Embedder] = PrivateAttr(default_factory=Lazy)

    @model_validator(mode="wrap")
    @classmethod
    def _keep_object(cls, data: Any, handler: ModelWrapValidatorHandler[JinaLocalEmbeddings]) -> JinaLocalEmbeddings:  # noqa: ANN401
        """Keep an embedder beside the fields, and its name in them."""
        given = data.get("model") if isinstance(data, dict) else None
        if given is None or isinstance(given, str | Path):
            made = handler(data)
            made.model = str(made.model)
            return made
        # Not by isinstance: before Python 3.12 that asks for the fingerprint, too, which may have to be computed.
        if not callable(getattr(given, "encode_document", None)):
            raise ValueError(f"model is a {type(given).__name__}; it is the name or folder of a model, or an embedder.")
        made = handler({**data, "model": given.name})
        for name, usual in _OF_LOADING.items():
            if getattr(made, name) != usual:
                raise ValueError(f"{name} is for loading a model, and {given.name!r} is loaded: leave it out.")
        made._embedder.give(given)
        return made

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Its fields say all; the model is loaded again by its name."""
        return True

    @property
    def embedder(self) -> Embedder:
        """The model, loaded when it is first needed."""
        return self._embedder.get(self._load)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts to be found.

        Args:
            texts: Any number; an empty one gives zeros where the model has no vector for that.

        Returns:
            A list of floats, L2-normalised, for each text.
        """
        return self._encoded("document", list(texts))

    def embed_query(self, text: str) -> list[float]:
        """Embed a question.

        Raises:
            InvalidInputError: If it is empty.
        """
        return self._encoded("query", [text])[0]

    def embed_images(self, images: Sequence[ImageInput]) -> list[list[float]]:
        """Embed pictures to be found by questions; their vectors lie in the same space as those of texts.

        Args:
            images: Paths, bytes of files, PIL images, base64 data URIs.

        Raises:
            InvalidInputError: If one cannot be read, or is an address and `allow_urls` is False.
        """
        if isinstance(images, str | bytes | Path):
            raise InvalidInputError(f"Pass a list of images, not a single {type(images).__name__}.")
        for image in images:
            if isinstance(image, str) and _URL.match(image) and not self.allow_urls:
                raise InvalidInputError(
                    f"{image[:200]} is an address, and addresses are not fetched without allow_urls=True; pass the "
                    "bytes or the path of the image instead."
                )
        return self._encoded("document", [{"image": image} for image in images])

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """As `embed_documents`, in a thread."""
        return await run_in_executor(None, self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """As `embed_query`, in a thread."""
        return await run_in_executor(None, self.embed_query, text)

    async def aembed_images(self, images: Sequence[ImageInput]) -> list[list[float]]:
        """As `embed_images`, in a thread."""
        return await run_in_executor(None, self.embed_images, images)

    def _encoded(self, side: str, inputs: Sequence[Any]) -> list[list[float]]:
        if not inputs:
            return []
        embedder = self.embedder
        encode = embedder.encode_query if side == "query" else embedder.encode_document
        single = encode(
            inputs,
            multi=False,
            truncate_dim=self.truncate_dim,
            max_length=self.max_length,
            max_pixels=self.max_pixels,
        ).single
        assert single is not None
        vectors: list[list[float]] = single.tolist()
        return vectors

    def _load(self) -> Embedder:
        return load_embedder(
            str(self.model),
            device=self.device,
            dtype=self.dtype,
            task=self.task,
            truncate_dim=self.truncate_dim,
            max_pixels=self.max_pixels,
            max_length=self.max_length,
            revision=self.revision,
            local_files_only=self.local_files_only,
            allow_urls=self.allow_urls,
        )
