"""`JinaVectorStore`: an index of jina_rag as a vector store, with late interaction inside."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from llama_index.core.bridge.pydantic import BaseModel, ConfigDict, Field, PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)
from llama_index.embeddings.jina_rag.contents import entry_of, key_of
from llama_index.embeddings.jina_rag.recent import RECENT, fits, joined
from llama_index.retrievers.jina_rag.filters import meets, where_of
from llama_index.retrievers.jina_rag.nodes import CONTENT, REF_DOC_ID, entry_metadata, node_of
from llama_index.vector_stores.jina_rag.queries import answer, metadata_key

from jina_rag import DocumentIndex, Embedder, Embeddings, InvalidInputError, Storage


class JinaVectorStore(BasePydanticVectorStore):
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
        texts and pictures together asks for its pictures only. ``vector_store_kwargs={"min_score": 0.4}`` of a
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
        api_key: As there. It is never shown, dumped or pickled: later on it comes from the environment variable
            QDRANT_API_KEY.

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

    _opened: DocumentIndex | None = PrivateAttr(default=None)
    _ours: bool = PrivateAttr(default=True)
    _fingerprint: str | None = PrivateAttr(default=None)

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
        if isinstance(index, DocumentIndex):
            if any(option is not None for option in (embedder, storage, assets_dir, api_key)):
                raise InvalidInputError(
                    "The index is open already: embedder, storage, assets_dir and api_key go with a place."
                )
            opened = index
        else:
            opened = DocumentIndex.open(
                index, embedder=embedder, storage=storage, assets_dir=assets_dir, api_key=api_key
            )
        index_info = opened.info()
        place = index_info.location if isinstance(index, DocumentIndex) else os.fspath(index)
        kept = None if assets_dir is None else os.path.abspath(assets_dir)
        super().__init__(  # type: ignore[call-arg]  # pydantic's fields
            stores_text=True,
            is_embedding_query=False,
            index=place if "://" in place else os.path.abspath(place),
            assets_dir=kept,
        )
        self._opened = opened
        self._ours = not isinstance(index, DocumentIndex)
        self._fingerprint = index_info.fingerprint

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised form."""
        return "JinaVectorStore"

    @property
    def client(self) -> DocumentIndex:
        """The index."""
        if self._opened is None:  # it was unpickled
            self._opened = DocumentIndex.open(self.index, assets_dir=self.assets_dir)
        return self._opened

    def close(self) -> None:
        """Release the index, unless it was given open; the next call opens it again."""
        if self._opened is not None and self._ours:
            self._opened.close()
            self._opened = None

    # -- filling -------------------------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:  # noqa: ANN401
        """Put nodes into the index; a node whose id is known is replaced.

        Returns:
            The nodes' ids.

        Raises:
            InvalidInputError: If a picture cannot be read; nodes before it may be in the index then.
        """
        kept: list[tuple[BaseNode, str, Embeddings]] = []
        bare: list[BaseNode] = []
        for node in {node.node_id: node for node in nodes}.values():  # of two of the same id the last counts
            key = key_of(node)
            encoded = None if key is None else RECENT.get((self._model, key))
            if key is None or encoded is None or not fits(encoded, self.client.dim):
                bare.append(node)
            else:
                kept.append((node, key, encoded))
        if kept:
            self._put([node for node, _, _ in kept], joined([encoded for _, _, encoded in kept], self.client.dim))
            for _, key, _ in kept:
                RECENT.drop((self._model, key))
        if bare:
            self._put(bare, None)
        return [node.node_id for node in nodes]

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:  # noqa: ANN401
        """As `add`, in a thread."""
        return await asyncio.to_thread(self.add, nodes, **kwargs)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:  # noqa: ANN401
        """Remove the nodes of a document, and the document itself where it was added as a node."""
        self.client.delete(filter={f"meta.{REF_DOC_ID}": ref_doc_id})

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:  # noqa: ANN401
        """As `delete`, in a thread."""
        await asyncio.to_thread(self.delete, ref_doc_id, **delete_kwargs)

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

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,  # noqa: ANN401
    ) -> None:
        """As `delete_nodes`, in a thread."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters, **delete_kwargs)

    def clear(self) -> None:
        """Remove all nodes. Files that were ingested into the index stay."""
        self._remove(self._matching(None, None))

    async def aclear(self) -> None:
        """As `clear`, in a thread."""
        await asyncio.to_thread(self.clear)

    # -- asking --------------------------------------------------------------------------------------------

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Nodes that have one of the ids and match the filters, in the order of the ids; without either all of them.

        Raises:
            InvalidInputError: If the filters cannot be translated.
        """
        if node_ids is not None and filters is None:
            return [node_of(hit) for hit in self.client.get(node_ids)]
        found = self._matching(node_ids, filters)
        return [node_of(hit) for hit in self.client.get(found)]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """As `get_nodes`, in a thread."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

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

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:  # noqa: ANN401
        """As `query`, in a thread."""
        return await asyncio.to_thread(self.query, query, **kwargs)

    # -- what the index knows ------------------------------------------------------------------------------

    @property
    def _model(self) -> str:
        if self._fingerprint is None:
            self._fingerprint = self.client.info().fingerprint
        return self._fingerprint

    def _put(self, nodes: Sequence[BaseNode], vectors: Embeddings | None) -> None:
        self.client.add(
            [entry_of(node) for node in nodes],
            ids=[node.node_id for node in nodes],
            metadata=[entry_metadata(node) for node in nodes],
            vectors=vectors,
        )

    def _matching(self, node_ids: list[str] | None, filters: MetadataFilters | None) -> list[str]:
        """Ids of the nodes that are meant, in the order of `node_ids` where it is given."""
        where = where_of(filters, metadata_key)
        if node_ids is not None:
            found = [(hit.doc_id, hit.added, hit.metadata) for hit in self.client.get(node_ids)]
        else:
            found = [(record.doc_id, record.added, record.metadata) for record in self.client.documents()]
        return [name for name, added, own in found if added and CONTENT in own and meets(own, where)]

    def _remove(self, ids: list[str]) -> None:
        if ids:
            self.client.delete(filter={"doc_id": ids})

    def __getstate__(self) -> dict[str, Any]:
        state = dict(BaseModel.__getstate__(self))
        return state | {"__pydantic_private__": {"_opened": None, "_ours": True, "_fingerprint": None}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Not by __init__, as LlamaIndex does: a folder belongs to one process at a time, and whoever unpickles a store
        # need not use it.
        BaseModel.__setstate__(self, state)
