"""`JinaPageRetriever`: retrieval of pages by late interaction."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.schema import IndexNode, NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters
from llama_index.embeddings.jina_rag.node_inputs import query_input
from llama_index.retrievers.jina_rag.filters import add_condition, to_page_where
from llama_index.retrievers.jina_rag.nodes import hit_to_node

from jina_rag import DocumentIndex, Embedder, InvalidInputError, Prefetch, Rerank, Reranker, Rescore, ScoredPage
from jina_rag.adapters import IndexOwner, LazyIndex, check_not_empty, coroutine_of, search_arguments

Stage = Prefetch | Rescore | Rerank


class JinaPageRetriever(IndexOwner, BaseRetriever):
    """Page retriever for PDFs, scans and office files that uses late interaction and local models.

    Each result is an `ImageNode` with the page screenshot and the text of the page. The metadata contains the location
    (``file_name``, ``page_label``, ``region_kind``, ``region_box``, ``region_caption``, …). A response synthesizer with
    ``multimodal=True`` sends the image and the citation to the chat model.

    Setup:
        ``pip install ".[llama-index]"`` in a clone, and an index::

            from jina_rag import DocumentIndex

            with DocumentIndex.open("kb/") as index:
                index.ingest("reports/")

    Instantiate:
        ::

            from llama_index.retrievers.jina_rag import JinaPageRetriever

            retriever = JinaPageRetriever("kb/", similarity_top_k=3)

    Use:
        ::

            for hit in retriever.retrieve("Which region grew fastest?"):
                print(hit.score, hit.metadata["file_name"], hit.metadata["page_label"], hit.node.image_path)

            engine = RetrieverQueryEngine(
                retriever, response_synthesizer=get_response_synthesizer(llm=llm, multimodal=True)
            )
            print(engine.query("Which region grew fastest?"))

        To search by image: ``retriever.retrieve(QueryBundle("", image_path="chart.png"))``. If a bundle contains only
        an ``embedding``, the embedding is compared with the dense vectors of the pages.

    Async:
        ``await retriever.aretrieve(…)`` encodes and searches in a thread, never in the event loop's thread.

    Args:
        index: Folder of an index, URL of a collection on a Qdrant server, or an open `jina_rag.DocumentIndex`.
        similarity_top_k: Maximum number of pages, ordered by descending score.
        filters: LlamaIndex metadata filters over document metadata, ``page_label``, ``file_name``, ``file_path``,
            ``doc_id`` and ``has`` (``"chart"``, ``"table"`` or ``"figure"``). Unsupported filters raise an error.
        filter: Filter of `jina_rag.DocumentIndex.search`; a page must match both `filters` and `filter`.
        stages: One or several of `jina_rag.Prefetch`, `Rescore` and `Rerank`; None for the stages of the index.
        reranker: Name, folder or object of a model that reranks the best pages; None for no reranking.
        group_by: ``"page"`` returns all matching pages; ``"document"`` returns only the best page of each document.
        dedup: Whether near-duplicate pages are folded into one node.
        score_threshold: Minimum score; pages with a lower score are dropped. None keeps all pages.
        show: Image of the node: ``"page"`` for the screenshot, ``"region"`` for the best chart, table or figure if any.
        cite: Whether to add ``citation_box``, the box that answers the query, to the metadata. A citation takes 40 to
            100 ms per page with "lite".
        embedder: Name, folder or object of the embedder; None for the embedder of the index.
        assets_dir: For a server: folder of the page images and the manifest; None for a folder in the user's data
            directory.
        api_key: API key of a server; None for the environment variable QDRANT_API_KEY. Excluded from reprs and pickles.
        callback_manager: Callback manager of LlamaIndex.
        object_map: `object_map` of LlamaIndex's `BaseRetriever`.
        objects: `objects` of LlamaIndex's `BaseRetriever`.
        verbose: `verbose` of LlamaIndex's `BaseRetriever`.

    Scores are comparable within one query. With a reranker, scores are from 0 to 1. Otherwise, a score is the mean
    cosine similarity per query token plus the bonus for identifiers of the query.

    Raises:
        IndexNotFoundError: If the index does not exist.
        InvalidInputError: If an argument is invalid.
    """

    def __init__(
        self,
        index: str | os.PathLike[str] | DocumentIndex,
        *,
        similarity_top_k: int = DEFAULT_SIMILARITY_TOP_K,
        filters: MetadataFilters | None = None,
        filter: Mapping[str, Any] | None = None,
        stages: Stage | Sequence[Stage] | None = None,
        reranker: str | os.PathLike[str] | Reranker | None = None,
        group_by: Literal["page", "document"] = "page",
        dedup: bool = False,
        score_threshold: float | None = None,
        show: Literal["page", "region"] = "page",
        cite: bool = False,
        embedder: str | os.PathLike[str] | Embedder | None = None,
        assets_dir: str | os.PathLike[str] | None = None,
        api_key: str | None = None,
        callback_manager: CallbackManager | None = None,
        object_map: dict[str, Any] | None = None,
        objects: list[IndexNode] | None = None,
        verbose: bool = False,
    ) -> None:
        if show not in ("page", "region"):
            raise InvalidInputError(f"show is {show!r}; expected one of page, region.")
        where = to_page_where(filters)
        for key, value in (filter or {}).items():
            add_condition(where, key, value)
        check_not_empty(reranker=reranker)
        self._opening, self._index = LazyIndex.of(index, embedder=embedder, assets_dir=assets_dir, api_key=api_key)
        self._index.get(self._opening)  # raises an error for a missing index now instead of at the first query
        self.similarity_top_k = similarity_top_k
        self._settings: dict[str, Any] = {
            "filter": where,
            "stages": _with_reranker(stages, reranker),
            "group_by": group_by,
            "dedup": dedup,
            "score_threshold": score_threshold,
        }
        self._show: Literal["page", "region"] = show
        self._cite = cite
        super().__init__(callback_manager=callback_manager, object_map=object_map, objects=objects, verbose=verbose)

    @property
    def index(self) -> DocumentIndex:
        """The index; a closed index is reopened."""
        return self._index.get(self._opening)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if vector := _vector_only(query_bundle):
            arguments = self._arguments()
            return self._to_nodes(None, self.index.nearest(vector, k=arguments["k"], filter=arguments["filter"]))
        query = query_input(query_bundle)
        return self._to_nodes(query, self.index.search(query, **self._arguments()))

    _aretrieve = coroutine_of(_retrieve)

    def _arguments(self) -> Any:  # noqa: ANN401  # arguments of DocumentIndex.search
        return search_arguments({"k": self.similarity_top_k, **self._settings})

    def _to_nodes(self, query: Any, hits: Sequence[ScoredPage]) -> list[NodeWithScore]:  # noqa: ANN401
        nodes = []
        for hit in hits:
            node = hit_to_node(hit, show=self._show)
            if self._cite and query is not None:
                box = self.index.cite(query, hit).box
                node.metadata["citation_box"] = [round(side, 5) for side in box]
                node.excluded_llm_metadata_keys.append("citation_box")
                node.excluded_embed_metadata_keys.append("citation_box")
            nodes.append(NodeWithScore(node=node, score=hit.score))
        return nodes

    def __repr__(self) -> str:
        return f"JinaPageRetriever({self._opening.location!r}, similarity_top_k={self.similarity_top_k})"


def _with_reranker(
    stages: Stage | Sequence[Stage] | None, reranker: str | os.PathLike[str] | Reranker | None
) -> list[Stage] | None:
    all_stages = [] if stages is None else [stages] if isinstance(stages, Stage) else list(stages)
    if reranker is not None:
        if any(isinstance(stage, Rerank) for stage in all_stages):
            raise InvalidInputError("stages contains a Rerank, which selects the reranker. Omit reranker.")
        all_stages.append(Rerank(model=reranker))
    return all_stages or None


def _vector_only(query: QueryBundle) -> list[float] | None:
    has_query = any(text.strip() for text in query.embedding_strs) or query.image_path is not None
    return None if has_query else query.embedding
