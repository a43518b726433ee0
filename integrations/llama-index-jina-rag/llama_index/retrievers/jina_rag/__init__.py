"""Page retrieval for LlamaIndex: `JinaPageRetriever`."""

import llama_index.embeddings.jina_rag  # noqa: F401  # first: raises the error for a missing LlamaIndex
from llama_index.retrievers.jina_rag.base import JinaPageRetriever

__all__ = ["JinaPageRetriever"]
