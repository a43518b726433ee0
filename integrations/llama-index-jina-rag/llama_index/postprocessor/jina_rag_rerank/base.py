"""`JinaLocalRerank`: judges texts and page pictures together with the question, on this machine."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from typing import Any

import llama_index.core.instrumentation as instrument
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
from llama_index.embeddings.jina_rag.contents import image_of, input_of, text_of
from llama_index.retrievers.jina_rag.queries import query_of

from jina_rag import InvalidInputError, Reranker, load_reranker

dispatcher = instrument.get_dispatcher(__name__)  # type: ignore[attr-defined]  # public, but not said so
_log = logging.getLogger("jina_rag")
_LOADING = threading.RLock()


class JinaLocalRerank(BaseNodePostprocessor):
    """Orders retrieved nodes anew by a model that looks at the question and each node together.

    Texts and pictures may stand in one list. A reranker that looks at pixels (jina-reranker-m0) is shown the picture of
    a node that has one, and the text of the others; one that reads (``"lite"``) gets the words of all of them. What
    was passed is not changed: new `NodeWithScore` objects hold the same nodes.

    Setup:
        ``pip install ".[llama-index]"`` in a clone; the extra ``models`` for anything but ``"lite"``.

    Instantiate:
        >>> from llama_index.postprocessor.jina_rag_rerank import JinaLocalRerank
        >>> rerank = JinaLocalRerank(top_n=1)  # or JinaLocalRerank(model="jinaai/jina-reranker-m0", device="cuda")

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
        model: ``"lite"``, an id on the Hugging Face hub or the folder of a checkpoint.
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

    model: str = Field(default="lite", description="Name, hub id or folder of the model.")
    top_n: int = Field(default=5, gt=0, description="Nodes that are returned at most.")
    device: str = Field(default="auto", description="Where the model runs.")
    dtype: str = Field(default="auto", description="Of the weights.")
    max_pixels: int | None = Field(default=None, description="What pictures are scaled down to.")
    max_length: int | None = Field(default=None, description="Tokens that are read.")
    revision: str | None = Field(default=None, description="Branch, tag or commit on the hub.")
    local_files_only: bool = Field(default=False, description="Download nothing.")

    _reranker: Reranker | None = PrivateAttr(default=None)

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        reranker: Reranker | None = None,
        **settings: Any,  # noqa: ANN401  # the fields above, checked by pydantic
    ) -> None:
        if reranker is not None:
            told = [name for name in settings if name not in ("top_n", "callback_manager")]
            if model is not None or told:
                what = ", ".join(["model"] * (model is not None) + told)
                raise InvalidInputError(f"A reranker that is loaded already takes no {what}: leave one of them out.")
            model = reranker.name
        super().__init__(model="lite" if model is None else os.fspath(model), **settings)  # type: ignore[call-arg]
        self._reranker = reranker

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised form."""
        return "JinaLocalRerank"

    @property
    def reranker(self) -> Reranker:
        """The model, loaded when it is first needed.

        Raises:
            JinaRagError: If it cannot be loaded; see `jina_rag.load_reranker`.
        """
        with _LOADING:
            if self._reranker is None:
                self._reranker = load_reranker(
                    self.model,
                    device=self.device,
                    dtype=self.dtype,
                    max_pixels=self.max_pixels,
                    max_length=self.max_length,
                    revision=self.revision,
                    local_files_only=self.local_files_only,
                )
            return self._reranker

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
            scores = reranker.score(query, [_shown(hit.node, reranker) for hit in nodes]).tolist()
            order = sorted(range(len(nodes)), key=lambda place: -scores[place])[: self.top_n]
            found = [NodeWithScore(node=nodes[place].node, score=scores[place]) for place in order]
            event.on_end(payload={EventPayload.NODES: found})
        dispatcher.event(ReRankEndEvent(nodes=found))
        return found

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._postprocess_nodes, nodes, query_bundle)

    def __getstate__(self) -> dict[str, Any]:
        bare = self.model_copy()
        bare._reranker = None
        return super(JinaLocalRerank, bare).__getstate__()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> JinaLocalRerank:
        bare = self.model_copy()
        bare._reranker = None
        copied = super(JinaLocalRerank, bare).__deepcopy__(memo)
        copied._reranker = self._reranker  # one model serves any number of settings
        return copied


def _shown(node: BaseNode, reranker: Reranker) -> Any:  # noqa: ANN401  # one of the forms that a reranker takes
    """What the reranker is given of a node: its picture for one that looks at pixels, its words for one that reads."""
    image = image_of(node)
    if image is not None and text_of(node).strip() and (reranker.modality == "text" or not image.there):
        if reranker.modality == "image":
            _log.warning("The picture of node %s is not on this machine: it is judged by its words.", node.node_id)
        return {"text": node.get_content(metadata_mode=MetadataMode.EMBED)}
    return input_of(node, reranker.modality)
