"""`JinaLocalRerank`: judges texts and page pictures together with the question, on this machine."""

from __future__ import annotations

import logging
import os
from typing import Any

import llama_index.core.instrumentation as instrument
from llama_index.core.bridge.pydantic import ConfigDict, Field
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
from llama_index.embeddings.jina_rag.node_inputs import image_of, input_of, is_local, query_of, text_of

from jina_rag import InvalidInputError, Reranker
from jina_rag.adapters import RerankerOptions, coroutine_of, model_argument

dispatcher = instrument.get_dispatcher(__name__)  # type: ignore[attr-defined]  # public, but not said so
_log = logging.getLogger("jina_rag")


class JinaLocalRerank(RerankerOptions, BaseNodePostprocessor):
    """Orders retrieved nodes anew by a model that looks at the question and each node together.

    Texts and pictures may stand in one list. A reranker that looks at pixels (jina-reranker-m0) is shown the picture of
    a node that has one, and the text of the others; one that reads (``"lite"``) gets the words of all of them. What
    was passed is not changed: new `NodeWithScore` objects hold the same nodes.

    Setup:
        ``pip install ".[llama-index,models]"`` in a clone. The default model, jina-reranker-m0, is downloaded once.
        ``"lite"`` comes with jina_rag, for pipelines without a download, and needs no extra ``models``. It reads words
        only, and it costs quality: in a search it lowered nDCG@5 by 0.008 (5 pages reranked) to 0.032 (10 pages).

    Instantiate:
        >>> from llama_index.postprocessor.jina_rag_rerank import JinaLocalRerank
        >>> rerank = JinaLocalRerank("lite", top_n=1)  # or JinaLocalRerank(device="cuda"), which looks at pixels

        The model is loaded when it is first needed. One that is at hand: ``JinaLocalRerank(reranker=…)``.

    Use:
        >>> from llama_index.core.schema import NodeWithScore, TextNode
        >>> nodes = [NodeWithScore(node=TextNode(text=t)) for t in ("The cat sat on the mat.", "Sales grew by 4 %.")]
        >>> rerank.postprocess_nodes(nodes, query_str="How did sales develop?")[0].text
        'Sales grew by 4 %.'

        In a query engine: ``RetrieverQueryEngine(retriever, synthesizer, node_postprocessors=[rerank])``.

    Async:
        ``await rerank.apostprocess_nodes(…)`` works in a thread, never on the thread of the event loop.

    Args:
        model: An id on the Hugging Face hub, the folder of a checkpoint, or ``"lite"``; None for jina-reranker-m0.
        top_n: Nodes that are returned at most.
        reranker: A loaded model, in the place of a name.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        dtype: Of the weights: ``"auto"``, ``"float32"``, ``"bfloat16"``, ``"float16"``.
        max_pixels: What pictures are scaled down to.
        max_length: Tokens that are read.
        revision: Branch, tag or commit on the hub.
        local_files_only: Download nothing.

    Scores are in [0, 1] and comparable within one query.
    """

    model_config = ConfigDict(extra="forbid")

    model: str = Field(default="jinaai/jina-reranker-m0", description="Name, hub id or folder of the model.")
    top_n: int = Field(default=5, gt=0, description="Nodes that are returned at most.")

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        reranker: Reranker | None = None,
        **settings: Any,  # noqa: ANN401  # the fields above, checked by pydantic
    ) -> None:
        super().__init__(**model_argument("model", model, reranker), **settings)

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised form."""
        return "JinaLocalRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InvalidInputError("There is no query to judge the nodes by: give query_bundle or query_str.")
        if not nodes:
            return []
        query = query_of(query_bundle)
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=self.top_n, model_name=self.model))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query_bundle.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            reranker = self.reranker
            scores = reranker.score(query, [_reranker_input(hit.node, reranker) for hit in nodes]).tolist()
            order = sorted(range(len(nodes)), key=lambda row: -scores[row])[: self.top_n]
            best = [NodeWithScore(node=nodes[row].node, score=scores[row]) for row in order]
            event.on_end(payload={EventPayload.NODES: best})
        dispatcher.event(ReRankEndEvent(nodes=best))
        return best

    _apostprocess_nodes = coroutine_of(_postprocess_nodes)


def _reranker_input(node: BaseNode, reranker: Reranker) -> Any:  # noqa: ANN401  # one of the forms that a reranker takes
    """What the reranker is given of a node: its picture for one that looks at pixels, its words for one that reads."""
    image = image_of(node)
    if image is not None and text_of(node).strip() and (reranker.modality == "text" or not is_local(image)):
        if reranker.modality == "image":
            _log.warning("The picture of node %s is not on this machine: it is judged by its words.", node.node_id)
        return {"text": node.get_content(metadata_mode=MetadataMode.EMBED)}
    return input_of(node, reranker.modality)
