"""`JinaPageEmbedding`: the step of an ingestion pipeline that looks at page images."""

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
from llama_index.embeddings.jina_rag.node_inputs import cache_key_of, image_of, input_of
from llama_index.embeddings.jina_rag.vector_cache import DEFAULT_BYTES, VECTOR_CACHE, take_row

from jina_rag import Embedder, InvalidInputError
from jina_rag.adapters import coroutine_of

dispatcher = instrument.get_dispatcher(__name__)  # type: ignore[attr-defined]  # public, but not said so


class JinaPageEmbedding(TransformComponent):
    """Embeds the pages and texts of an ingestion pipeline: pictures by what they show, texts by their words.

    An ``embed_model`` in an `IngestionPipeline` embeds the text of each node, also of an `ImageNode`, and never opens
    its picture. This component does, and sets ``node.embedding`` to the dense vector. The many vectors of late
    interaction, made in the same pass, are kept in memory until `JinaVectorStore` fetches them, so that each page goes
    through the model once.

    Setup:
        As for `JinaLocalEmbedding`.

    Instantiate:
        >>> from llama_index.embeddings.jina_rag import JinaPageEmbedding
        >>> step = JinaPageEmbedding()  # or JinaPageEmbedding("jinaai/jina-embeddings-v4")

        With a vector store, share its model, which is loaded once then:
        ``JinaPageEmbedding(embedder=vector_store.client.embedder)``.

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

        Put no text splitter before it: it would throw the pictures away. With ``num_workers`` the vectors of late
        interaction stay in the worker processes, and the store makes them once more.

    Async:
        ``await step.acall(nodes)``, as ``pipeline.arun`` does, encodes in a thread.

    Args:
        model_name: As in `JinaLocalEmbedding`; further settings of it may follow by name.
        embedder: A loaded model, in the place of a name.
        embed_model: A `JinaLocalEmbedding`, in the place of both.
        batch_size: Nodes whose pictures are open at the same time.
        keep_bytes: How much of what was embedded may wait in memory for the vector store; 0 keeps nothing. What does
            not fit is embedded once more by the store. All components of a process share the room, and the largest
            number counts.
    """

    model_config = ConfigDict(extra="forbid")

    embed_model: JinaLocalEmbedding = Field(description="The model.")
    batch_size: int = Field(default=8, gt=0, description="Nodes whose pictures are open at the same time.")
    keep_bytes: int = Field(default=DEFAULT_BYTES, ge=0, description="Room for vectors that wait for the store.")

    def __init__(
        self,
        model_name: str | None = None,
        *,
        embedder: Embedder | None = None,
        embed_model: JinaLocalEmbedding | Mapping[str, Any] | None = None,
        batch_size: int = 8,
        keep_bytes: int = DEFAULT_BYTES,
        **settings: Any,  # noqa: ANN401  # those of JinaLocalEmbedding, which checks them
    ) -> None:
        if isinstance(embed_model, Mapping):
            embed_model = JinaLocalEmbedding.from_dict(dict(embed_model))
        if embed_model is None:
            embed_model = JinaLocalEmbedding(model_name, embedder=embedder, **settings)
        elif model_name is not None or embedder is not None or settings:
            raise InvalidInputError("embed_model is complete: give no model_name, embedder or settings beside it.")
        super().__init__(embed_model=embed_model, batch_size=batch_size, keep_bytes=keep_bytes)  # type: ignore[call-arg]
        VECTOR_CACHE.max_bytes = max(VECTOR_CACHE.max_bytes, keep_bytes)

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised form."""
        return "JinaPageEmbedding"

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:  # noqa: ANN401
        """Set the embedding of each node, and return the nodes.

        Raises:
            InvalidInputError: If a picture is at an address, is not there, or cannot be read.
        """
        for start in range(0, len(nodes), self.batch_size):
            self._embed_batch(nodes[start : start + self.batch_size])
        return nodes

    acall = coroutine_of(__call__, pool="ingest")  # type: ignore[arg-type]  # mypy wants `self` to be positional-only

    def _embed_batch(self, nodes: Sequence[BaseNode]) -> None:
        """Embed nodes, and tell LlamaIndex's dispatcher and callbacks of it."""
        model = self.embed_model
        payload = model.to_payload()
        dispatcher.event(EmbeddingStartEvent(model_dict=payload))
        with model.callback_manager.event(CBEventType.EMBEDDING, payload={EventPayload.SERIALIZED: payload}) as event:
            inputs = [input_of(node, model.embedder.modality) for node in nodes]
            encoded = model.encode("document", inputs, multi=bool(self.keep_bytes))
            embeddings = encoded.require_single().tolist()
            for row, node in enumerate(nodes):
                node.embedding = embeddings[row]
                key = cache_key_of(node) if self.keep_bytes and model.matches_fingerprint else None
                if key is not None:
                    VECTOR_CACHE.put((model.embedder.fingerprint, key), take_row(encoded, row))
            chunks = [_event_text(node) for node in nodes]
            event.on_end(payload={EventPayload.CHUNKS: chunks, EventPayload.EMBEDDINGS: embeddings})
        dispatcher.event(EmbeddingEndEvent(chunks=chunks, embeddings=embeddings))


def _event_text(node: BaseNode) -> str:
    """A node in an event: the path of its picture, or its text."""
    image = image_of(node)
    if image is None:
        return node.get_content(metadata_mode=MetadataMode.EMBED)
    return str(image) if isinstance(image, Path) else "<image>"
