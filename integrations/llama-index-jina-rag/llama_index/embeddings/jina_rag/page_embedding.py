"""`JinaPageEmbedding`: embedding step of an ingestion pipeline for page images and texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import llama_index.core.instrumentation as instrument
from llama_index.core.bridge.pydantic import ConfigDict, Field
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.schema import BaseNode, MetadataMode, TransformComponent
from llama_index.embeddings.jina_rag.base import JinaLocalEmbedding
from llama_index.embeddings.jina_rag.node_inputs import cache_key, model_input, node_image
from llama_index.embeddings.jina_rag.vector_cache import DEFAULT_BYTES, VECTOR_CACHE, take_row

from jina_rag import Embedder, InvalidInputError
from jina_rag.adapters import coroutine_of

dispatcher = instrument.get_dispatcher(__name__)  # type: ignore[attr-defined]  # public, but not exported explicitly


class JinaPageEmbedding(TransformComponent):
    """Pipeline transformation that embeds page images and texts.

    An ``embed_model`` in an `IngestionPipeline` embeds the text of each node and ignores the image of an `ImageNode`.
    `JinaPageEmbedding` embeds the image and sets ``node.embedding`` to the dense vector. The forward pass also returns
    the multi-vectors for late interaction. The multi-vectors stay in memory until `JinaVectorStore` stores the node, so
    that each page is encoded only once.

    Setup:
        As for `JinaLocalEmbedding`.

    Instantiate:
        >>> from llama_index.embeddings.jina_rag import JinaPageEmbedding
        >>> step = JinaPageEmbedding()  # or JinaPageEmbedding("jinaai/jina-embeddings-v4")

        To share the model of a vector store: ``JinaPageEmbedding(embedder=vector_store.client.embedder)``.

    Use:
        >>> from llama_index.core.schema import TextNode
        >>> nodes = step([TextNode(text="Sales grew by 4 %.")])
        >>> len(nodes[0].embedding)
        384

        In a pipeline::

            pipeline = IngestionPipeline(
                transformations=[JinaPageEmbedding(embedder=vector_store.client.embedder)],
                vector_store=vector_store,
                docstore=SimpleDocumentStore(),
                docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
            )
            pipeline.run(documents=JinaPageReader().load_data("reports/"))

        Do not put a text splitter before this step, because splitters drop images. With ``num_workers``, the
        multi-vectors stay in the worker processes, and the vector store re-encodes the nodes.

    Async:
        ``await step.acall(nodes)``, called by ``pipeline.arun``, encodes in a thread.

    Args:
        model_name: Model name of `JinaLocalEmbedding`; None for ``"lite"``.
        embedder: Loaded embedder instead of a name.
        embed_model: A `JinaLocalEmbedding`, instead of `model_name`, `embedder` and settings.
        batch_size: Number of nodes encoded per batch. All images of one batch are open at the same time.
        keep_bytes: Maximum size in bytes of the multi-vectors kept in memory for the vector store; 0 keeps no
            multi-vectors. The vector store re-encodes nodes whose multi-vectors were not kept. All `JinaPageEmbedding`
            objects of a process share one cache, whose limit is the greatest `keep_bytes`.
        settings: Further settings of `JinaLocalEmbedding`.

    Raises:
        InvalidInputError: If `embed_model` is combined with `model_name`, `embedder` or settings.
    """

    model_config = ConfigDict(extra="forbid")

    embed_model: JinaLocalEmbedding = Field(description="Embedding model.")
    batch_size: int = Field(default=8, gt=0, description="Number of nodes encoded per batch.")
    keep_bytes: int = Field(
        default=DEFAULT_BYTES, ge=0, description="Maximum size in bytes of the multi-vectors kept for the vector store."
    )

    def __init__(
        self,
        model_name: str | None = None,
        *,
        embedder: Embedder | None = None,
        embed_model: JinaLocalEmbedding | Mapping[str, Any] | None = None,
        batch_size: int = 8,
        keep_bytes: int = DEFAULT_BYTES,
        **settings: Any,  # noqa: ANN401  # settings of JinaLocalEmbedding, which checks them
    ) -> None:
        if isinstance(embed_model, Mapping):
            embed_model = JinaLocalEmbedding.from_dict(dict(embed_model))
        if embed_model is None:
            embed_model = JinaLocalEmbedding(model_name, embedder=embedder, **settings)
        elif model_name is not None or embedder is not None or settings:
            raise InvalidInputError(
                "embed_model cannot be combined with model_name, embedder or settings. Pass only embed_model, or omit "
                "embed_model."
            )
        super().__init__(embed_model=embed_model, batch_size=batch_size, keep_bytes=keep_bytes)  # type: ignore[call-arg]
        VECTOR_CACHE.max_bytes = max(VECTOR_CACHE.max_bytes, keep_bytes)

    @classmethod
    def class_name(cls) -> str:
        """Return the class name for serialization."""
        return "JinaPageEmbedding"

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:  # noqa: ANN401
        """Set the embedding of each node and return the nodes.

        Args:
            nodes: Nodes to embed, modified in place.
            kwargs: Ignored.

        Raises:
            InvalidInputError: If an image is a URL, invalid base64, missing or unreadable.
        """
        for start in range(0, len(nodes), self.batch_size):
            self._embed_batch(nodes[start : start + self.batch_size])
        return nodes

    acall = coroutine_of(__call__, pool="ingest")  # type: ignore[arg-type]  # mypy wants `self` to be positional-only

    def _embed_batch(self, nodes: Sequence[BaseNode]) -> None:
        """Embed nodes and dispatch LlamaIndex's embedding events and callbacks."""
        model = self.embed_model
        payload = model.to_payload()
        dispatcher.event(EmbeddingStartEvent(model_dict=payload))
        with model.callback_manager.event(CBEventType.EMBEDDING, payload={EventPayload.SERIALIZED: payload}) as event:
            inputs = [model_input(node, model.embedder.modality) for node in nodes]
            encoded = model.encode("document", inputs, multi=bool(self.keep_bytes))
            embeddings = encoded.require_single().tolist()
            for row, node in enumerate(nodes):
                node.embedding = embeddings[row]
                key = cache_key(node) if self.keep_bytes and model.matches_fingerprint else None
                if key is not None:
                    VECTOR_CACHE.put((model.embedder.fingerprint, key), take_row(encoded, row))
            chunks = [_event_text(node) for node in nodes]
            event.on_end(payload={EventPayload.CHUNKS: chunks, EventPayload.EMBEDDINGS: embeddings})
        dispatcher.event(EmbeddingEndEvent(chunks=chunks, embeddings=embeddings))


def _event_text(node: BaseNode) -> str:
    """Return the text of a node for an event: the path of the image, or the text of a node without an image path."""
    image = node_image(node)
    if image is None:
        return node.get_content(metadata_mode=MetadataMode.EMBED)
    return str(image) if isinstance(image, Path) else "<image>"
