"""An index of pages and texts as a vector store."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from pydantic import SecretStr

from jina_rag import DocumentIndex, InvalidInputError, Storage, open_page
from jina_rag.adapters import LazyIndex, coroutine_of
from langchain_jina_rag._documents import image_file
from langchain_jina_rag._vectorstore_search import StoreSearch
from langchain_jina_rag.document_compressors import JinaLocalRerank
from langchain_jina_rag.embeddings import JinaLocalEmbeddings


class JinaVectorStore(StoreSearch):
    """A vector store of texts and of pages with their pictures, searched by late interaction.

    It stands over a `jina_rag.DocumentIndex`, the same that ``jina-rag ingest`` fills and `JinaPageRetriever` searches:
    what is added here is found there, and the pages of ingested files are found here.

    Setup:
        .. code-block:: bash

            pip install ".[langchain]"            # in a clone of jina_rag

    Instantiate:
        .. code-block:: python

            from langchain_jina_rag import JinaVectorStore

            store = JinaVectorStore("kb/")

        `index` may also be the address of a collection on a Qdrant server, or a `jina_rag.DocumentIndex`. The model is
        that of the index; for a new index it may be given as `embedding`, a `JinaLocalEmbeddings`. Other embeddings are
        refused: late interaction needs one vector per token, and an `Embeddings` gives one per text.

    Add:
        A document whose ``metadata["image"]`` is the path of a picture becomes a page with that picture (the documents
        of `JinaPageLoader` are such); any other one stays the text it is. What has an id that is known is replaced.

        .. code-block:: python

            from langchain_core.documents import Document

            store.add_documents(
                [
                    Document(page_content="Growth by region in 2024", metadata={"year": 2024}, id="growth"),
                    Document(page_content="A list of authors", metadata={"year": 2023}, id="authors"),
                ]
            )
            store.add_texts(["Sales by month"], ids=["sales"])

    Delete:
        .. code-block:: python

            store.delete(["sales"])

    Use:
        .. code-block:: python

            docs = store.similarity_search("Which region grew fastest?", k=2, filter={"year": 2024})
            docs_and_scores = store.similarity_search_with_score("Which region grew fastest?", k=2)
            docs = store.max_marginal_relevance_search("growth", k=2, fetch_k=10)
            retriever = store.as_retriever(search_type="mmr", search_kwargs={"k": 2})

        Scores are per token of the question and have no bounds; as relevance they are cut to 0 to 1.

    Async:
        Everything that embeds or searches works in a thread, never on that of the event loop.

        .. code-block:: python

            docs = await store.asimilarity_search("Which region grew fastest?", k=2)
            await store.adelete(["authors"])

    A text comes back as it was added: content, metadata and id. A page comes with what the search found out about it
    in its metadata (``score``, ``snippet``, ``region``), see `JinaPageRetriever`.
    """

    def __init__(
        self,
        index: str | Path | DocumentIndex,
        embedding: Embeddings | None = None,
        *,
        reranker: str | JinaLocalRerank | None = None,
        image_key: str = "image",
        create: bool = True,
        storage: str | Storage | None = None,
        assets_dir: str | None = None,
        api_key: str | SecretStr | None = None,
    ) -> None:
        """Say where the index is; it is opened at its first use.

        Args:
            index: A folder, the address of a collection, or an index that is open.
            embedding: The model, as a `JinaLocalEmbeddings`; None for that of the index, or for a new one ``"lite"``.
            reranker: A model that judges the best hits of each search; None for none.
            image_key: The key of metadata that has the path of a picture.
            create: Whether to make an index where there is none, at the first use. What is gone later on, or where this
                is unpickled, is told of and not made.
            storage: How a new index keeps its vectors; see `jina_rag.Storage`.
            assets_dir: With a server: folder of the pages' images.
            api_key: With a server; None for the environment variable QDRANT_API_KEY.

        Raises:
            InvalidInputError: If `embedding` is of another kind, or a path or a name is empty.
            ValueError: If `index` is open, and was built with another model than `embedding`.
        """
        if embedding is not None and not isinstance(embedding, JinaLocalEmbeddings):
            raise InvalidInputError(
                "A JinaVectorStore needs one vector per token (late interaction), and "
                f"{type(embedding).__name__} gives one per text: pass a JinaLocalEmbeddings, or none for the model of "
                "the index."
            )
        self._opening, self._index = LazyIndex.of(
            index,
            embedder=None if isinstance(index, DocumentIndex) else embedding,
            reranker=reranker,
            storage=storage,
            create=create,
            assets_dir=assets_dir,
            api_key=api_key,
        )
        self.image_key = image_key
        self._embedding = embedding
        if embedding is not None and isinstance(index, DocumentIndex):
            index_info = index.info()
            if index_info.fingerprint != embedding.embedder.fingerprint:
                raise ValueError(
                    f"The index at {index_info.location} was built with the model {index_info.embedder!r}, not with "
                    f"{embedding.embedder.name!r}: leave the embedding out, or index into a new folder."
                )

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        index: str | Path | DocumentIndex | None = None,
        **kwargs: Any,  # noqa: ANN401  # those of the class
    ) -> Self:
        """A store with these texts in it.

        Args:
            texts: The texts.
            embedding: As in the class.
            metadatas: One for each text.
            ids: One for each text; random ones if None.
            index: Where the index is, or is to be.
            kwargs: Those of the class.

        Raises:
            InvalidInputError: If no index is named.
        """
        if index is None:
            raise InvalidInputError('Say where the index is to be: index="kb/", or an open DocumentIndex.')
        store = cls(index, embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    def from_documents(cls, documents: list[Document], embedding: Embeddings | None = None, **kwargs: Any) -> Self:  # noqa: ANN401
        """A store with these documents in it; other arguments are those of `from_texts`."""
        return super().from_documents(documents, embedding, **kwargs)  # type: ignore[arg-type]  # None is the index's

    @classmethod
    async def afrom_documents(
        cls,
        documents: list[Document],
        embedding: Embeddings | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Self:
        """As `from_documents`, in a thread."""
        return await super().afrom_documents(documents, embedding, **kwargs)  # type: ignore[arg-type]

    # -- filling -------------------------------------------------------------------------------------------

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,  # noqa: ANN401  # of the interface; there are none
    ) -> list[str]:
        """Add texts, or pages where the metadata name a picture; what has an id that is known is replaced.

        Args:
            texts: The texts; the words of a page, or "" for OCR to read them.
            metadatas: JSON values, one mapping for each text.
            ids: One for each text; None for a random one.
            batch_size: Not used; `langchain_core.indexing.index` gives it, and the index fills batches as they fit.
            kwargs: None are known.

        Returns:
            The ids.

        Raises:
            InvalidInputError: If the lengths differ, metadata are no JSON, or an id is that of an ingested file.
        """
        if kwargs:
            raise InvalidInputError(f"Adding knows texts, metadatas and ids, not {', '.join(kwargs)}.")
        return self.index.add(**_add_arguments(list(texts), metadatas, ids, self.image_key))

    aadd_texts = coroutine_of(add_texts, pool="ingest")  # type: ignore[arg-type]  # mypy wants `self` to be positional-only

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:  # noqa: ANN401  # of the interface
        """Take out what was added under these very ids; unknown ones are ignored.

        Returns:
            True: nothing of these ids is left.

        Raises:
            InvalidInputError: If no ids are given, or one is that of a page of an ingested file.
        """
        if kwargs:
            raise InvalidInputError(f"delete knows ids only, not {', '.join(kwargs)}.")
        if ids is None:
            raise InvalidInputError("Say what to delete: ids=[…].")
        hits = self.index.get(ids)
        ingested = [hit for hit in hits if not hit.added]
        if ingested:
            raise InvalidInputError(
                f"{ingested[0].page_id} is a page of the ingested file {ingested[0].path}: remove the file with "
                "DocumentIndex.delete."
            )
        if hits:
            self.index.delete(filter={"doc_id": [hit.doc_id for hit in hits]})
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents by their ids, in their order; unknown ones are left out."""
        return [self._document(hit) for hit in self.index.get(ids)]

    def __repr__(self) -> str:
        return f"JinaVectorStore({self._opening.location!r})"


def _add_arguments(
    texts: Sequence[str],
    metadatas: Sequence[dict[str, Any]] | None,
    ids: Sequence[str | None] | None,
    image_key: str,
) -> dict[str, Any]:
    """The arguments of `DocumentIndex.add`; what has no id gets a random one.

    Raises:
        InvalidInputError: If there are more or fewer metadatas or ids than texts.
    """
    for name, values in (("metadatas", metadatas), ("ids", ids)):
        if values is not None and len(values) != len(texts):
            raise InvalidInputError(f"There are {len(texts)} texts and {len(values)} {name}: give one of each.")
    metadata = [dict(entry or {}) for entry in metadatas or [{} for _ in texts]]
    return {
        "contents": [_content(text, entry, image_key) for text, entry in zip(texts, metadata, strict=True)],
        "ids": [str(uuid.uuid4()) if name is None else name for name in ids or [None for _ in texts]],
        "metadata": metadata,
    }


def _content(text: str, metadata: dict[str, Any], image_key: str) -> Any:  # noqa: ANN401  # an input of an index
    """A text to be kept to the letter, or a page where the metadata name a picture that is there."""
    image = image_file(metadata.get(image_key))
    if image is None:
        # Said outright: a text that reads as a data URI is a text all the same.
        return {"text": text}
    # A page that was saved brings its words with their places, unless somebody has changed the words since.
    return image if not text.strip() or _saved_text(image) == text else {"image": image, "text": text}


def _saved_text(image: Path) -> str | None:
    try:
        return open_page(image).text
    except InvalidInputError:
        return None  # a picture that no loader has saved
