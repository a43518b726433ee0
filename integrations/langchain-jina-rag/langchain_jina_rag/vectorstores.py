"""Vector store of texts and pages that wraps a `jina_rag.DocumentIndex`."""

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
from langchain_jina_rag._documents import existing_image
from langchain_jina_rag._vectorstore_search import StoreSearch
from langchain_jina_rag.document_compressors import JinaLocalRerank
from langchain_jina_rag.embeddings import JinaLocalEmbeddings


class JinaVectorStore(StoreSearch):
    """Vector store of texts and page images, searched by late interaction.

    The store wraps a `jina_rag.DocumentIndex`. ``jina-rag ingest`` can fill the index, and `JinaPageRetriever` can
    search the index. The store and the retriever find added documents and pages of ingested files.

    Setup:
        .. code-block:: bash

            pip install ".[langchain]"            # in a clone of jina_rag

    Instantiate:
        .. code-block:: python

            from langchain_jina_rag import JinaVectorStore

            store = JinaVectorStore("kb/")

        `index` can also be the URL of a collection on a Qdrant server, or a `jina_rag.DocumentIndex`. An existing index
        always uses the model with which the index was built. For a new index, pass a `JinaLocalEmbeddings` as
        `embedding`. Other `Embeddings` raise an error, because late interaction requires one vector per token and an
        `Embeddings` returns one vector per text.

    Add:
        A document whose ``metadata["image"]`` is the path of an image, for example a document of `JinaPageLoader`, is
        added as a page with this image; other documents are added as texts. A document with an existing id replaces
        the previous one.

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

        A score is the mean similarity per query token and is not bounded. Relevance scores are clipped to the range
        from 0 to 1.

    Async:
        Encoding and searching run in a thread, never in the event loop's thread.

        .. code-block:: python

            docs = await store.asimilarity_search("Which region grew fastest?", k=2)
            await store.adelete(["authors"])

    A text is returned with the content, metadata and id that were added. A page is also returned with the metadata of
    the search (``score``, ``snippet``, ``region``), as by `JinaPageRetriever`.
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
        """Create the vector store; the index is opened at first use.

        Args:
            index: Folder of an index, URL of a collection on a Qdrant server, or an open index.
            embedding: Embedder as a `JinaLocalEmbeddings`; None for the embedder of the index, ``"lite"`` for a new
                index.
            reranker: Model that reranks the best hits of each search; None for no reranking.
            image_key: Metadata key of the image path.
            create: Whether to create a missing index at first use. An index that is missing at a later use, or after
                unpickling, raises an error.
            storage: Storage format of a new index, see `jina_rag.Storage`; None for the default.
            assets_dir: For a server: folder of the page images and the manifest; None for a folder in the user's data
                directory.
            api_key: API key of a server; None for the environment variable QDRANT_API_KEY.

        Raises:
            InvalidInputError: If `embedding` is not a `JinaLocalEmbeddings`, or a path or name is empty.
            ValueError: If `index` is open and was built with a model other than `embedding`.
        """
        if embedding is not None and not isinstance(embedding, JinaLocalEmbeddings):
            raise InvalidInputError(
                f"embedding is a {type(embedding).__name__}, which returns one vector per text; late interaction "
                "requires one vector per token. Pass a JinaLocalEmbeddings, or embedding=None for the embedder of the "
                "index."
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
                    f"{embedding.embedder.name!r}. Omit embedding, or create a new index."
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
        **kwargs: Any,  # noqa: ANN401  # arguments of the class
    ) -> Self:
        """Create a vector store and add texts.

        Args:
            texts: Texts to add.
            embedding: Embedder as a `JinaLocalEmbeddings`; None for the embedder of the index.
            metadatas: One mapping per text.
            ids: One id per text; None for random ids.
            index: Folder of an index, URL of a collection on a Qdrant server, or an open index. Required.
            kwargs: Further arguments of the class.

        Raises:
            InvalidInputError: If `index` is None.
        """
        if index is None:
            raise InvalidInputError('index is missing. Pass index="kb/" or an open DocumentIndex.')
        store = cls(index, embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    def from_documents(cls, documents: list[Document], embedding: Embeddings | None = None, **kwargs: Any) -> Self:  # noqa: ANN401
        """Create a vector store and add documents.

        Args:
            documents: Documents to add.
            embedding: Embedder as a `JinaLocalEmbeddings`; None for the embedder of the index.
            kwargs: Further arguments of `from_texts`.
        """
        return super().from_documents(documents, embedding, **kwargs)  # type: ignore[arg-type]  # embedding may be None

    @classmethod
    async def afrom_documents(
        cls,
        documents: list[Document],
        embedding: Embeddings | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Self:
        """Create a vector store and add documents, as a coroutine (see `from_documents`).

        Args:
            documents: Documents to add.
            embedding: Embedder as a `JinaLocalEmbeddings`; None for the embedder of the index.
            kwargs: Further arguments of `from_texts`.
        """
        return await super().afrom_documents(documents, embedding, **kwargs)  # type: ignore[arg-type]

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,  # noqa: ANN401  # required by the base class
    ) -> list[str]:
        """Add texts, and pages for texts whose metadata contains an image path; replace entries with existing ids.

        Args:
            texts: Texts. For a page, the text of the page, or "" to read the text from the image by OCR.
            metadatas: One mapping of JSON values per text.
            ids: One id per text; None for random ids.
            batch_size: Unused; passed by `langchain_core.indexing.index`. The index determines the size of batches.
            kwargs: Not supported.

        Returns:
            The ids of the added entries.

        Raises:
            InvalidInputError: If `texts`, `metadatas` and `ids` differ in length, metadata is not JSON, an id belongs
                to an ingested file, or `kwargs` are passed.
        """
        if kwargs:
            raise InvalidInputError(
                f"add_texts does not support {', '.join(kwargs)}. Pass only texts, metadatas and ids."
            )
        return self.index.add(**_add_arguments(list(texts), metadatas, ids, self.image_key))

    aadd_texts = coroutine_of(add_texts, pool="ingest")  # type: ignore[arg-type]  # mypy wants `self` to be positional-only

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:  # noqa: ANN401  # required by the base class
        """Delete added texts and pages by id; unknown ids are ignored.

        Args:
            ids: Ids to delete. Required.
            kwargs: Not supported.

        Returns:
            True, because no entry with these ids remains.

        Raises:
            InvalidInputError: If `ids` is None, an id belongs to a page of an ingested file, or `kwargs` are passed.
        """
        if kwargs:
            raise InvalidInputError(f"delete does not support {', '.join(kwargs)}. Pass only ids.")
        if ids is None:
            raise InvalidInputError("ids is missing. Pass the ids to delete: ids=[…].")
        hits = self.index.get(ids)
        file_pages = [hit for hit in hits if not hit.added]
        if file_pages:
            raise InvalidInputError(
                f"{file_pages[0].page_id} is a page of the ingested file {file_pages[0].path}. Delete the file with "
                "DocumentIndex.delete."
            )
        if hits:
            self.index.delete(filter={"doc_id": [hit.doc_id for hit in hits]})
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return documents by id, in the order of the ids; unknown ids are skipped.

        Args:
            ids: Document ids.
        """
        return [self._document(hit) for hit in self.index.get(ids)]

    def __repr__(self) -> str:
        return f"JinaVectorStore({self._opening.location!r})"


def _add_arguments(
    texts: Sequence[str],
    metadatas: Sequence[dict[str, Any]] | None,
    ids: Sequence[str | None] | None,
    image_key: str,
) -> dict[str, Any]:
    """Return the arguments of `DocumentIndex.add`; a missing id becomes a random id.

    Raises:
        InvalidInputError: If the number of metadatas or ids differs from the number of texts.
    """
    for name, values in (("metadatas", metadatas), ("ids", ids)):
        if values is not None and len(values) != len(texts):
            raise InvalidInputError(f"{name} has length {len(values)}; expected {len(texts)}, one per text.")
    metadata = [dict(entry or {}) for entry in metadatas or [{} for _ in texts]]
    return {
        "contents": [_content(text, entry, image_key) for text, entry in zip(texts, metadata, strict=True)],
        "ids": [str(uuid.uuid4()) if name is None else name for name in ids or [None for _ in texts]],
        "metadata": metadata,
    }


def _content(text: str, metadata: dict[str, Any], image_key: str) -> Any:  # noqa: ANN401  # index input
    """Return an input for `DocumentIndex.add`: a page if the metadata contains the path of an image, else a text."""
    image = existing_image(metadata.get(image_key))
    if image is None:
        # A string that looks like a data URI would be decoded as an image. A dict marks the input as text.
        return {"text": text}
    # The image file of a saved page contains words and boxes, which are used unless the text was changed.
    return image if not text.strip() or _saved_text(image) == text else {"image": image, "text": text}


def _saved_text(image: Path) -> str | None:
    try:
        return open_page(image).text
    except InvalidInputError:
        return None  # not an image file that `save_page` wrote
