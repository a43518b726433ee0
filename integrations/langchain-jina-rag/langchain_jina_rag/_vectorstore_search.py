"""Search methods of the vector store: search by query, by dense vector, and with maximal marginal relevance (MMR)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from jina_rag import DocumentIndex, ScoredPage
from jina_rag.adapters import SEARCH_SETTINGS, IndexOpening, IndexOwner, search_arguments
from langchain_jina_rag._documents import LOCATION_KEYS, hit_id, hit_to_document
from langchain_jina_rag.embeddings import JinaLocalEmbeddings


class StoreSearch(IndexOwner, VectorStore):
    """Search methods of `JinaVectorStore`. The coroutines of langchain-core run these methods in a thread."""

    image_key: str
    _embedding: JinaLocalEmbeddings | None
    _opening: IndexOpening

    @property
    def index(self) -> DocumentIndex:
        """The index, opened at first use."""
        return self._index.get(self._opening)

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:  # noqa: ANN401
        """Return the best documents for a query.

        Args:
            query: Query text.
            k: Maximum number of documents.
            kwargs: Arguments of `jina_rag.DocumentIndex.search`, for example ``filter`` and ``stages``, with the name
                ``score_threshold`` for ``min_score``. A filter applies to the metadata that was passed with added
                documents. To filter pages of ingested files by ``source`` or ``page``, use `JinaPageRetriever`.

        Raises:
            InvalidInputError: If `query` is empty or an argument is invalid.
        """
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:  # noqa: ANN401
        """Return the best documents for a query, each with a score.

        Args:
            query: Query text.
            k: Maximum number of documents.
            kwargs: Arguments of `similarity_search`.

        Returns:
            Documents with scores, best first. A score is the mean similarity per query token, or the score of the
            reranker.
        """
        return [(self._document(hit), float(hit.score)) for hit in self.index.search(query, k=k, **_arguments(kwargs))]

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:  # noqa: ANN401
        """Return the documents whose dense vectors are nearest to `embedding`, without late interaction.

        Args:
            embedding: Dense vector of `embeddings`, of length `jina_rag.DocumentIndex.dim`.
            k: Maximum number of documents.
            kwargs: ``filter``, as in `similarity_search`.

        Raises:
            InvalidInputError: If `embedding` has another length or an argument is invalid.
        """
        return [self._document(hit) for hit in self.index.nearest(embedding, k=k, **_arguments(kwargs, ["filter"]))]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,  # noqa: ANN401
    ) -> list[Document]:
        """Return relevant and diverse documents by maximal marginal relevance (MMR).

        Late interaction retrieves `fetch_k` candidates. MMR then selects `k` candidates by dense vectors.

        Args:
            query: Query text.
            k: Maximum number of documents.
            fetch_k: Number of candidates.
            lambda_mult: Weight of relevance against diversity, from 0 (most diverse) to 1 (most relevant).
            kwargs: Arguments of `similarity_search`.
        """
        hits = self.index.search(query, k=max(k, fetch_k), **_arguments(kwargs))
        return self._diversify(self.embeddings.embed_query(query), hits, k, lambda_mult) if hits else []

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,  # noqa: ANN401
    ) -> list[Document]:
        """Return relevant and diverse documents for a dense query vector by maximal marginal relevance (MMR).

        Args:
            embedding: Dense query vector of length `jina_rag.DocumentIndex.dim`.
            k: Maximum number of documents.
            fetch_k: Number of candidates.
            lambda_mult: Weight of relevance against diversity, from 0 (most diverse) to 1 (most relevant).
            kwargs: ``filter``, as in `similarity_search`.
        """
        hits = self.index.nearest(embedding, k=max(k, fetch_k), **_arguments(kwargs, ["filter"]))
        return self._diversify(embedding, hits, k, lambda_mult)

    def _diversify(self, query: list[float], hits: Sequence[ScoredPage], k: int, lambda_mult: float) -> list[Document]:
        vectors = list(self.index.dense_vectors(hits))
        rows = maximal_marginal_relevance(np.array(query, np.float32), vectors, lambda_mult=lambda_mult, k=k)
        return [self._document(hits[row]) for row in rows]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda score: min(1.0, max(0.0, score))

    @property
    def embeddings(self) -> JinaLocalEmbeddings:
        """Embedder of the index, with vectors of length `DocumentIndex.dim`. Opens the index and loads the model."""
        index, embedding = self.index, self._embedding
        if embedding is not None and (embedding.truncate_dim or index.embedder.dim) == index.dim:
            return embedding
        return JinaLocalEmbeddings(model=index.embedder, truncate_dim=index.dim)

    def as_retriever(self, **kwargs: Any) -> VectorStoreRetriever:  # noqa: ANN401  # arguments of the retriever
        """Return a retriever over this vector store.

        Args:
            kwargs: ``search_type`` (``"similarity"``, ``"mmr"`` or ``"similarity_score_threshold"``),
                ``search_kwargs`` and ``tags``.
        """
        tags = kwargs.pop("tags", None) or [type(self).__name__, JinaLocalEmbeddings.__name__]
        return JinaVectorStoreRetriever(vectorstore=self, tags=tags, **kwargs)

    def _document(self, hit: ScoredPage) -> Document:
        if hit.is_text:
            return Document(page_content=hit.text, metadata=dict(hit.metadata), id=hit_id(hit))
        return hit_to_document(hit, self.image_key)


class JinaVectorStoreRetriever(VectorStoreRetriever):
    """Retriever of `JinaVectorStore.as_retriever`. Tracing a run neither opens the index nor loads a model."""

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:  # noqa: ANN401
        # The method of `VectorStoreRetriever` reads `vectorstore.embeddings` on the event loop's thread, which would
        # load the model.
        params = BaseRetriever._get_ls_params(self, **kwargs)
        params["ls_vector_store_provider"] = type(self.vectorstore).__name__
        params["ls_embedding_provider"] = JinaLocalEmbeddings.__name__
        return params


def _arguments(settings: dict[str, Any], allowed: Sequence[str] = SEARCH_SETTINGS) -> dict[str, Any]:
    """Return arguments of `DocumentIndex.search`, with the prefix ``meta.`` before location keys of the filter.

    A filter applies to the metadata that was passed with added documents. This metadata can contain location keys, for
    example ``page``. Without the prefix, a location key would select pages of ingested files.
    """
    arguments = search_arguments(settings, allowed)
    where = arguments.get("filter")
    if isinstance(where, Mapping):
        arguments["filter"] = {f"meta.{key}" if key in LOCATION_KEYS else key: value for key, value in where.items()}
    return arguments
