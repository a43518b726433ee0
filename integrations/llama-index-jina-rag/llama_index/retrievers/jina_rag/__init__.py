"""Page retrieval for LlamaIndex: `JinaPageRetriever`."""

import llama_index.embeddings.jina_rag  # noqa: F401  # first: it says what to install where LlamaIndex is missing
from llama_index.retrievers.jina_rag.base import JinaPageRetriever

__all__ = ["JinaPageRetriever"]
