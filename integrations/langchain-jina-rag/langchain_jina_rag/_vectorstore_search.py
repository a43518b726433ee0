"""The half of a vector store that answers: by words, by a vector, by difference; also for event loops."""

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
from langchain_jina_rag._documents import LOCATION_KEYS, id_of, page_document
from langchain_jina_rag.embeddings import JinaLocalEmbeddings


class StoreSearch(IndexOwner, VectorStore):
    """What `JinaVectorStore` answers with. The coroutines are langchain-core's: they call these methods in a thread."""

    image_key: str
    _embedding: JinaLocalEmbeddings | None
    _opening: IndexOpening

    @property
    def index(self) -> DocumentIndex:
        """The index, opened when it is first needed."""
        return self._index.get(self._opening)

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:  # noqa: ANN401
        """The best documents for a question.

        Args:
            query: The question.
            k: Documents at most.
            kwargs: Those of `jina_rag.DocumentIndex.search`: ``filter``, ``stages``, …; its ``min_score`` is
                ``score_threshold`` here. A filter is over the metadata that documents were added with. (Pages of
                ingested files have no ``source`` and no ``page`` of that kind: `JinaPageRetriever` filters these.)
        """
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:  # noqa: ANN401
        """As `similarity_search`, with scores: per token of the question, or a reranker's; higher is better."""
        return [(self._document(hit), float(hit.score)) for hit in self.index.search(query, k=k, **_arguments(kwargs))]

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:  # noqa: ANN401
        """The nearest documents by the dense vector alone, such as `embeddings` gives.

        Args:
            embedding: Of the length of `jina_rag.DocumentIndex.dim`.
            k: Documents at most.
            kwargs: ``filter``, as in `similarity_search`.
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
        """Documents that answer the question and differ from each other (maximal marginal relevance).

        Late interaction finds `fetch_k` candidates; which of them are too alike, and how near each is to the question,
        the dense vectors say.

        Args:
            query: The question.
            k: Documents at most.
            fetch_k: Candidates.
            lambda_mult: 1 for the nearest documents, 0 for the most different ones.
            kwargs: Those of `similarity_search`.
        """
        hits = self.index.search(query, k=max(k, fetch_k), **_arguments(kwargs))
        return self._diverse(self.embeddings.embed_query(query), hits, k, lambda_mult) if hits else []

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,  # noqa: ANN401
    ) -> list[Document]:
        """As `max_marginal_relevance_search`, for the dense vector of a question."""
        hits = self.index.nearest(embedding, k=max(k, fetch_k), **_arguments(kwargs, ["filter"]))
        return self._diverse(embedding, hits, k, lambda_mult)

    def _diverse(self, query: list[float], hits: Sequence[ScoredPage], k: int, lambda_mult: float) -> list[Document]:
        vectors = list(self.index.dense_vectors(hits))
        rows = maximal_marginal_relevance(np.array(query, np.float32), vectors, lambda_mult=lambda_mult, k=k)
        return [self._document(hits[row]) for row in rows]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda score: min(1.0, max(0.0, score))

    @property
    def embeddings(self) -> JinaLocalEmbeddings:
        """The model of the index, for dense vectors as the index keeps them. Opens the index and loads the model."""
        index, own = self.index, self._embedding
        if own is not None and (own.truncate_dim or index.embedder.dim) == index.dim:
            return own
        return JinaLocalEmbeddings(model=index.embedder, truncate_dim=index.dim)

    def as_retriever(self, **kwargs: Any) -> VectorStoreRetriever:  # noqa: ANN401  # those of a retriever
        """A retriever over this store.

        Args:
            kwargs: ``search_type`` (``"similarity"``, ``"mmr"``, ``"similarity_score_threshold"``), ``search_kwargs``,
                ``tags``.
        """
        tags = kwargs.pop("tags", None) or [type(self).__name__, JinaLocalEmbeddings.__name__]
        return JinaVectorStoreRetriever(vectorstore=self, tags=tags, **kwargs)

    def _document(self, hit: ScoredPage) -> Document:
        if hit.is_text:
            return Document(page_content=hit.text, metadata=dict(hit.metadata), id=id_of(hit))
        return page_document(hit, self.image_key)


class JinaVectorStoreRetriever(VectorStoreRetriever):
    """What `JinaVectorStore.as_retriever` gives: a trace of it opens no index and loads no model."""

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:  # noqa: ANN401
        # The base class asks the store for its model, on the thread of the event loop.
        params = BaseRetriever._get_ls_params(self, **kwargs)
        params["ls_vector_store_provider"] = type(self.vectorstore).__name__
        params["ls_embedding_provider"] = JinaLocalEmbeddings.__name__
        return params


def _arguments(settings: dict[str, Any], allowed: Sequence[str] = SEARCH_SETTINGS) -> dict[str, Any]:
    """Those of `jina_rag.DocumentIndex.search`; a filter is over the metadata that documents were added with.

    These may have a ``page`` of their own, say, which is written ``meta.page`` in filters of the index.
    """
    arguments = search_arguments(settings, allowed)
    where = arguments.get("filter")
    if isinstance(where, Mapping):
        arguments["filter"] = {f"meta.{key}" if key in LOCATION_KEYS else key: value for key, value in where.items()}
    return arguments
