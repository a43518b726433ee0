"""`JinaVectorStore`: an index of jina_rag as a vector store, with late interaction inside."""

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
from llama_index.embeddings.jina_rag.node_inputs import add_input_of, cache_key_of
from llama_index.embeddings.jina_rag.vector_cache import VECTOR_CACHE, concatenate
from llama_index.retrievers.jina_rag.filters import where_of
from llama_index.retrievers.jina_rag.nodes import CONTENT, REF_DOC_ID, entry_metadata, node_of
from llama_index.vector_stores.jina_rag.store_query import answer, metadata_key

from jina_rag import DocumentIndex, Embedder, Embeddings, InvalidInputError, Storage
from jina_rag.adapters import IndexOpening, IndexOwner, LazyIndex, coroutine_of, metadata_matches


class JinaVectorStore(IndexOwner, BasePydanticVectorStore):
    """Nodes in an index of jina_rag: texts and page pictures, found by late interaction, filtered before the ranking.

    The index embeds by itself, nodes as well as questions: `query` compares every word of ``query_str`` with every part
    of a page. ``node.embedding`` is not used, and a question that comes as a vector alone is compared with the dense
    vectors only. What was embedded by `JinaPageEmbedding` in the same process is not embedded again.

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

        LlamaIndex wants an ``embed_model`` here, but does not use it for questions. Fill the store by `add` or by an
        `IngestionPipeline`, which keeps track of changes (see `JinaPageEmbedding`): a ``VectorStoreIndex(nodes=…)`` of
        texts and pictures together asks for its pictures only. ``vector_store_kwargs={"score_threshold": 0.4}`` of a
        retriever, as ``stages`` and ``dedup``, go to `jina_rag.DocumentIndex.search`.

    Async:
        ``async_add``, ``aquery``, ``adelete``, ``adelete_nodes``, ``aget_nodes`` and ``aclear`` work in a thread, never
        on the thread of the event loop.

    Args:
        index: A folder, which is made if need be, the address of a collection on a Qdrant server, or an open
            `jina_rag.DocumentIndex`.
        embedder: Of a new index, as in `jina_rag.DocumentIndex.open`.
        storage: Of a new index, as there.
        assets_dir: As there.
        api_key: As there. It is never shown, dumped or pickled: where the store is loaded again, the key comes from the
            environment variable QDRANT_API_KEY.

    Nodes come back as they went in, except that a `Document` becomes a `TextNode` and one with a picture an
    `ImageNode`, as in LlamaIndex's own stores. Files that were ingested into the same index are found, too; their
    pages come as those of `JinaPageRetriever`, and nothing here deletes them.

    Filters are over the nodes' metadata, and ``ref_doc_id``. ``==``, ``in``, ``any``, ``contains``, ``>``, ``>=``,
    ``<``, ``<=`` joined by "and" are translated, and "or" over values of one key; others are refused. Query modes are
    ``DEFAULT`` and ``MMR`` (diverse pages by their dense vectors; ``mmr_threshold``, and ``mmr_prefetch_k`` as a query
    argument).

    Raises:
        InvalidInputError: If an argument makes no sense.
        IndexMismatchError: If the index was made with another model.
    """

    model_config = ConfigDict(extra="forbid")

    stores_text: bool = True
    is_embedding_query: bool = False
    index: str = Field(description="Folder or address of the index.")
    assets_dir: str | None = Field(default=None, description="Folder for pictures of an index on a server.")

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
                "This store keeps texts and embeds questions itself: leave both settings as they are."
            )
        opening, lazy_index = LazyIndex.of(
            index, embedder=embedder, storage=storage, create=True, assets_dir=assets_dir, api_key=api_key
        )
        super().__init__(index=opening.location, assets_dir=opening.assets_dir)  # type: ignore[call-arg]
        self._index, self._opening = lazy_index, opening
        lazy_index.get(opening)

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised form."""
        return "JinaVectorStore"

    @property
    def client(self) -> DocumentIndex:
        """The index.

        Raises:
            IndexNotFoundError: If the store was closed or unpickled, and the index is gone or on another machine.
        """
        return self._index.get(replace(self._opening, location=self.index, assets_dir=self.assets_dir))

    # -- filling -------------------------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:  # noqa: ANN401
        """Put nodes into the index; a node whose id is known is replaced.

        Returns:
            The nodes' ids.

        Raises:
            InvalidInputError: If a picture cannot be read; nodes before it may be in the index then.
        """
        index = self.client
        nodes_by_id = {node.node_id: node for node in nodes}  # of two of the same id the last counts
        # Not asked for in vain: what an index tells includes its size on disk.
        fingerprint = index.info().fingerprint if len(VECTOR_CACHE) else ""
        keys = {node_id: (fingerprint, cache_key_of(node)) for node_id, node in nodes_by_id.items()}
        cached = {node_id: VECTOR_CACHE.get(key, index.dim) for node_id, key in keys.items()}
        embeddings = {node_id: encoded for node_id, encoded in cached.items() if encoded is not None}
        if embeddings:
            self._put([nodes_by_id[node_id] for node_id in embeddings], concatenate([*embeddings.values()], index.dim))
            for node_id in embeddings:
                VECTOR_CACHE.drop(keys[node_id])
        if others := [node for node_id, node in nodes_by_id.items() if node_id not in embeddings]:
            self._put(others, None)
        return [node.node_id for node in nodes]

    async_add = coroutine_of(add, pool="ingest")  # type: ignore[arg-type]  # mypy wants `self` to be positional-only

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:  # noqa: ANN401
        """Remove the nodes of a document, and the document itself where it was added as a node."""
        self.client.delete(filter={f"meta.{REF_DOC_ID}": ref_doc_id})

    adelete = coroutine_of(delete, pool="ingest")  # type: ignore[arg-type]  # mypy wants `self` to be positional-only

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Remove nodes that have one of the ids and match the filters; without either none.

        Raises:
            InvalidInputError: If the filters cannot be translated.
        """
        if node_ids is None and filters is None:
            return
        self._remove(self._matching(node_ids, filters))

    adelete_nodes = coroutine_of(delete_nodes, pool="ingest")  # type: ignore[arg-type]  # mypy wants `self` to be positional-only

    def clear(self) -> None:
        """Remove all nodes. Files that were ingested into the index stay."""
        self._remove(self._matching(None, None))

    aclear = coroutine_of(clear, pool="ingest")

    # -- asking --------------------------------------------------------------------------------------------

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Nodes that have one of the ids and match the filters, in the order of the ids; without either all of them.

        Raises:
            InvalidInputError: If the filters cannot be translated.
        """
        ids = node_ids if node_ids is not None and filters is None else self._matching(node_ids, filters)
        return [node_of(hit) for hit in self.client.get(ids)]

    aget_nodes = coroutine_of(get_nodes)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:  # noqa: ANN401
        """The best nodes for a question.

        Args:
            query: With ``query_str``, which is embedded here; or with ``query_embedding`` alone, a vector of the
                index's model.
            kwargs: ``mmr_prefetch_k``: candidates of a diverse result; others go to `jina_rag.DocumentIndex.search`.

        Raises:
            InvalidInputError: If there is nothing to search by, or a filter or mode is asked for that is not there.
        """
        return answer(self.client, query, kwargs)

    aquery = coroutine_of(query)  # type: ignore[arg-type]  # mypy wants `self` to be positional-only

    # -- what the index knows ------------------------------------------------------------------------------

    def _put(self, nodes: Sequence[BaseNode], vectors: Embeddings | None) -> None:
        self.client.add(
            [add_input_of(node) for node in nodes],
            ids=[node.node_id for node in nodes],
            metadata=[entry_metadata(node) for node in nodes],
            vectors=vectors,
        )

    def _matching(self, node_ids: list[str] | None, filters: MetadataFilters | None) -> list[str]:
        """Ids of the nodes that are meant, in the order of `node_ids` where it is given."""
        where = where_of(filters, metadata_key)
        entries = self.client.documents() if node_ids is None else self.client.get(node_ids)
        return [
            entry.doc_id
            for entry in entries
            if entry.added and CONTENT in entry.metadata and metadata_matches(entry.metadata, where)
        ]

    def _remove(self, ids: list[str]) -> None:
        if ids:
            self.client.delete(filter={"doc_id": ids})

    def __getstate__(self) -> dict[str, Any]:
        private = {"_index": LazyIndex(), "_opening": self._opening}
        return {**BaseModel.__getstate__(self), "__pydantic_private__": private}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Not by __init__, as LlamaIndex does: a folder belongs to one process at a time, and whoever unpickles a store
        # need not use it.
        BaseModel.__setstate__(self, state)
