"""`JinaPageRetriever`: pages of documents by late interaction."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.schema import IndexNode, NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters
from llama_index.embeddings.jina_rag.node_inputs import query_of
from llama_index.retrievers.jina_rag.filters import add_condition, page_where
from llama_index.retrievers.jina_rag.nodes import node_of

from jina_rag import DocumentIndex, Embedder, InvalidInputError, Prefetch, Rerank, Reranker, Rescore, ScoredPage
from jina_rag.adapters import IndexOwner, LazyIndex, check_not_empty, coroutine_of, search_arguments

Stage = Prefetch | Rescore | Rerank


class JinaPageRetriever(IndexOwner, BaseRetriever):
    """Finds pages of PDFs, scans and office files by looking at them: page images and late interaction, locally.

    Each node is an `ImageNode`: its picture is the page's screenshot, its text the words of the page, and its metadata
    say where to look (``file_name``, ``page_label``, ``region_kind``, ``region_box``, ``region_caption``, …). A
    response synthesizer with ``multimodal=True`` sends the picture and its citation to the chat model.

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

        A picture is asked with as well: ``retriever.retrieve(QueryBundle("", image_path="chart.png"))``. A bundle with
        nothing but an ``embedding`` is compared with the pages' dense vectors.

    Async:
        ``await retriever.aretrieve(…)`` encodes and searches in a thread, never on the thread of the event loop.

    Args:
        index: A folder, the address of a collection on a Qdrant server, or an open `jina_rag.DocumentIndex`.
        similarity_top_k: Pages at most.
        filters: LlamaIndex's metadata filters, over the documents' metadata, ``page_label``, ``file_name``,
            ``file_path``, ``doc_id``, and ``has`` (``"chart"``, ``"table"``, ``"figure"``). What cannot be translated
            is refused.
        filter: A filter of jina_rag, see `jina_rag.DocumentIndex.search`; both must match where both are given.
        stages: A `jina_rag.Prefetch`, `Rescore` or `Rerank`, or several.
        reranker: Name or folder of a model, or a reranker, that judges the best pages of each search.
        group_by: ``"document"`` for the best page of each document.
        dedup: Whether pages that show nearly the same become one.
        score_threshold: Pages of a lower score are left out.
        show: ``"region"`` gives the node the crop of the chart, table or figure that answers best, where there is one,
            in the place of the page.
        cite: Whether ``citation_box`` says where on the page the answer stands; 40 to 100 ms a page with "lite".
        embedder: As in `jina_rag.DocumentIndex.open`, where `index` is a place.
        assets_dir: As there.
        api_key: As there. It is never shown, and not pickled.
        callback_manager: Of LlamaIndex.
        object_map: As in LlamaIndex's retrievers.
        objects: As in LlamaIndex's retrievers.
        verbose: As in LlamaIndex's retrievers.

    Scores are comparable within one query: with a reranker 0 to 1, else the mean cosine per word of the question and
    what identifiers add to it.

    Raises:
        IndexNotFoundError: If there is no index at that place.
        InvalidInputError: If an argument makes no sense.
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
            raise InvalidInputError(f"show is {show!r}; it is 'page' or 'region'.")
        where = page_where(filters)
        for key, value in (filter or {}).items():
            add_condition(where, key, value)
        check_not_empty(reranker=reranker)
        self._opening, self._index = LazyIndex.of(index, embedder=embedder, assets_dir=assets_dir, api_key=api_key)
        self._index.get(self._opening)  # an index that is not there is told of at once
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
        """The open index."""
        return self._index.get(self._opening)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if vector := _only_vector(query_bundle):
            arguments = self._arguments()
            return self._nodes(None, self.index.nearest(vector, k=arguments["k"], filter=arguments["filter"]))
        query = query_of(query_bundle)
        return self._nodes(query, self.index.search(query, **self._arguments()))

    _aretrieve = coroutine_of(_retrieve)

    def _arguments(self) -> Any:  # noqa: ANN401  # of DocumentIndex.search
        return search_arguments({"k": self.similarity_top_k, **self._settings})

    def _nodes(self, query: Any, hits: Sequence[ScoredPage]) -> list[NodeWithScore]:  # noqa: ANN401
        nodes = []
        for hit in hits:
            node = node_of(hit, show=self._show)
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
            raise InvalidInputError("A Rerank among the stages names its model itself: leave reranker out.")
        all_stages.append(Rerank(model=reranker))
    return all_stages or None


def _only_vector(query: QueryBundle) -> list[float] | None:
    has_query = any(text.strip() for text in query.embedding_strs) or query.image_path is not None
    return None if has_query else query.embedding
