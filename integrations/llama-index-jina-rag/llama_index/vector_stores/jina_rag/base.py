"""`JinaVectorStore`: vector store over a jina_rag index, searched by late interaction."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llama_index.core.bridge.pydantic import BaseModel, ConfigDict, Field, PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)
from llama_index.embeddings.jina_rag.node_inputs import cache_key, index_input
from llama_index.embeddings.jina_rag.vector_cache import VECTOR_CACHE, concatenate
from llama_index.retrievers.jina_rag.filters import to_where
from llama_index.retrievers.jina_rag.nodes import NODE_CONTENT, REF_DOC_ID, entry_metadata, hit_to_node
from llama_index.vector_stores.jina_rag.store_query import metadata_key, run_query

from jina_rag import DocumentIndex, Embedder, Embeddings, InvalidInputError, Storage
from jina_rag.adapters import IndexOpening, IndexOwner, LazyIndex, coroutine_of, metadata_matches


class JinaVectorStore(IndexOwner, BasePydanticVectorStore):
    """Vector store of texts and page images in a jina_rag index, searched by late interaction, with pre-filtering.

    The index embeds nodes and queries, and ignores ``node.embedding``. `query` compares every token of ``query_str``
    with every token of a page. If a query contains only a vector, the vector is compared with the dense vectors of the
    pages. Nodes that `JinaPageEmbedding` embedded in the same process are not re-embedded.

    Setup:
        ``pip install ".[llama-index]"`` in a clone.

    Instantiate:
        ::

            from llama_index.vector_stores.jina_rag import JinaVectorStore

            vector_store = JinaVectorStore("kb/")  # or a Qdrant server: JinaVectorStore("http://host:6333/kb")

    Use:
        ::

            vector_store.add(JinaPageReader().load_data("reports/"))
            index = VectorStoreIndex.from_vector_store(
                vector_store, embed_model=JinaLocalEmbedding(embedder=vector_store.client.embedder)
            )
            engine = index.as_query_engine(llm=llm, multimodal=True, similarity_top_k=3)
            print(engine.query("Which region grew fastest?"))

        `VectorStoreIndex` requires an ``embed_model``, but does not use the ``embed_model`` for queries. Add nodes with
        `add`, or with an `IngestionPipeline` to track changes (see `JinaPageEmbedding`). A
        ``VectorStoreIndex(nodes=…)`` of texts and images retrieves only images. A retriever passes
        ``vector_store_kwargs={"score_threshold": 0.4}`` to `jina_rag.DocumentIndex.search`; other settings, for example
        ``stages`` and ``dedup``, are also supported.

    Async:
        ``async_add``, ``aquery``, ``adelete``, ``adelete_nodes``, ``aget_nodes`` and ``aclear`` run in a thread, never
        in the event loop's thread.

    Args:
        index: Folder of an index, created if missing; URL of a collection on a Qdrant server; or an open
            `jina_rag.DocumentIndex`.
        embedder: Name, folder or object of the embedder of a new index; None for the default.
        storage: Storage format of a new index, see `jina_rag.Storage`; None for the default.
        assets_dir: For a server: folder of the page images and the manifest; None for a folder in the user's data
            directory.
        api_key: API key of a server; None for the environment variable QDRANT_API_KEY. Excluded from reprs, dumps and
            pickles; a restored store reads the environment variable.
        stores_text: Must be True, because the index stores texts.
        is_embedding_query: Must be False, because the index embeds queries.

    Nodes are returned as added, except that a `Document` with an image becomes an `ImageNode`, and a `Document` without
    an image becomes a `TextNode`, as in LlamaIndex's own vector stores. Pages of files that were ingested into the
    index are also searched, and are returned as by `JinaPageRetriever`. The store never deletes pages of ingested
    files.

    Filters apply to the metadata of nodes and to ``ref_doc_id``. The operators ``==``, ``in``, ``any``, ``contains``,
    ``>``, ``>=``, ``<`` and ``<=`` can be joined by "and", and by "or" over values of one key. Other filters raise an
    error. The query modes are ``DEFAULT`` and ``MMR`` (maximal marginal relevance over dense vectors, with
    ``mmr_threshold`` and the query argument ``mmr_prefetch_k``).

    Raises:
        InvalidInputError: If an argument is invalid.
        IndexMismatchError: If the index was built with another model.
    """

    model_config = ConfigDict(extra="forbid")

    stores_text: bool = True
    is_embedding_query: bool = False
    index: str = Field(description="Folder or URL of the index.")
    assets_dir: str | None = Field(default=None, description="Folder for images of an index on a server.")

    _index: LazyIndex = PrivateAttr()
    _opening: IndexOpening = PrivateAttr()

    def __init__(
        self,
        index: str | os.PathLike[str] | DocumentIndex,
        *,
        embedder: str | os.PathLike[str] | Embedder | None = None,
        storage: str | Storage | None = None,
        assets_dir: str | os.PathLike[str] | None = None,
        api_key: str | None = None,
        stores_text: bool = True,
        is_embedding_query: bool = False,
    ) -> None:
        if not stores_text or is_embedding_query:
            raise InvalidInputError(
                "JinaVectorStore always stores texts and embeds queries. Omit stores_text and is_embedding_query."
            )
        opening, lazy_index = LazyIndex.of(
            index, embedder=embedder, storage=storage, create=True, assets_dir=assets_dir, api_key=api_key
        )
        super().__init__(index=opening.location, assets_dir=opening.assets_dir)  # type: ignore[call-arg]
        self._index, self._opening = lazy_index, opening
        lazy_index.get(opening)

    @classmethod
    def class_name(cls) -> str:
        """Return the class name for serialization."""
        return "JinaVectorStore"

    @property
    def client(self) -> DocumentIndex:
        """The index; a closed index is reopened.

        Raises:
            IndexNotFoundError: If the index of a closed or unpickled store no longer exists on this machine.
        """
        return self._index.get(replace(self._opening, location=self.index, assets_dir=self.assets_dir))

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:  # noqa: ANN401
        """Add nodes to the index; a node with an existing id replaces the previous one.

        Args:
            nodes: Nodes to add.
            kwargs: Ignored.

        Returns:
            The ids of the nodes.

        Raises:
            InvalidInputError: If an image is a URL or cannot be read. Nodes before the node with the error can already
                be in the index.
        """
        index = self.client
        nodes_by_id = {node.node_id: node for node in nodes}  # if an id occurs twice, the last node wins
        # `info()` also computes the size on disk, so `info()` is skipped if the cache is empty.
        fingerprint = index.info().fingerprint if len(VECTOR_CACHE) else ""
        keys = {node_id: (fingerprint, cache_key(node)) for node_id, node in nodes_by_id.items()}
        cached_embeddings = {node_id: VECTOR_CACHE.get(key, index.dim) for node_id, key in keys.items()}
        embeddings = {node_id: encoded for node_id, encoded in cached_embeddings.items() if encoded is not None}
        if embeddings:
            self._add([nodes_by_id[node_id] for node_id in embeddings], concatenate([*embeddings.values()], index.dim))
            for node_id in embeddings:
                VECTOR_CACHE.drop(keys[node_id])
        if uncached_nodes := [node for node_id, node in nodes_by_id.items() if node_id not in embeddings]:
            self._add(uncached_nodes, None)
        return [node.node_id for node in nodes]

    async_add = coroutine_of(add, pool="ingest")  # type: ignore[arg-type]  # mypy requires `self` to be positional-only

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:  # noqa: ANN401
        """Delete all nodes of a document, including the document if the document was added as a node.

        Args:
            ref_doc_id: Id of the document.
            delete_kwargs: Ignored.
        """
        self.client.delete(filter={f"meta.{REF_DOC_ID}": ref_doc_id})

    adelete = coroutine_of(delete, pool="ingest")  # type: ignore[arg-type]  # mypy requires `self` to be positional-only

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Delete nodes that match ids and filters; without ids and filters, no node is deleted.

        Args:
            node_ids: Ids of the nodes; None for all ids.
            filters: Metadata filters that the nodes must match; None for no condition.
            delete_kwargs: Ignored.

        Raises:
            InvalidInputError: If the filters cannot be translated.
        """
        if node_ids is None and filters is None:
            return
        self._delete_ids(self._matching_ids(node_ids, filters))

    adelete_nodes = coroutine_of(delete_nodes, pool="ingest")  # type: ignore[arg-type]  # mypy requires `self` to be positional-only

    def clear(self) -> None:
        """Delete all nodes; pages of ingested files stay in the index."""
        self._delete_ids(self._matching_ids(None, None))

    aclear = coroutine_of(clear, pool="ingest")

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Return nodes that match ids and filters, in the order of `node_ids`; without ids and filters, all nodes.

        Args:
            node_ids: Ids of the nodes; None for all ids.
            filters: Metadata filters that the nodes must match; None for no condition.

        Raises:
            InvalidInputError: If the filters cannot be translated.
        """
        ids = node_ids if node_ids is not None and filters is None else self._matching_ids(node_ids, filters)
        return [hit_to_node(hit) for hit in self.client.get(ids)]

    aget_nodes = coroutine_of(get_nodes)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:  # noqa: ANN401
        """Return the best nodes for a query, with scores.

        Args:
            query: Query with ``query_str``, which the index embeds, or with only ``query_embedding``, a dense vector of
                the embedder of the index.
            kwargs: ``mmr_prefetch_k``, the number of candidates for MMR; other arguments are passed to
                `jina_rag.DocumentIndex.search`.

        Raises:
            InvalidInputError: If the query is empty, or a filter, mode or argument is not supported.
        """
        return run_query(self.client, query, kwargs)

    aquery = coroutine_of(query)  # type: ignore[arg-type]  # mypy requires `self` to be positional-only

    def _add(self, nodes: Sequence[BaseNode], vectors: Embeddings | None) -> None:
        self.client.add(
            [index_input(node) for node in nodes],
            ids=[node.node_id for node in nodes],
            metadata=[entry_metadata(node) for node in nodes],
            vectors=vectors,
        )

    def _matching_ids(self, node_ids: list[str] | None, filters: MetadataFilters | None) -> list[str]:
        """Return the ids of matching nodes; if `node_ids` is passed, in the order of `node_ids`."""
        where = to_where(filters, metadata_key)
        entries = self.client.documents() if node_ids is None else self.client.get(node_ids)
        return [
            entry.doc_id
            for entry in entries
            if entry.added and NODE_CONTENT in entry.metadata and metadata_matches(entry.metadata, where)
        ]

    def _delete_ids(self, ids: list[str]) -> None:
        if ids:
            self.client.delete(filter={"doc_id": ids})

    def __getstate__(self) -> dict[str, Any]:
        private = {"_index": LazyIndex(), "_opening": self._opening}
        return {**BaseModel.__getstate__(self), "__pydantic_private__": private}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # LlamaIndex calls __init__ here, which would open the index. The index is opened at first use instead, because
        # only one process can open an index folder.
        BaseModel.__setstate__(self, state)
