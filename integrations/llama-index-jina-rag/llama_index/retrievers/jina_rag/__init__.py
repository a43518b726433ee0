"""Page retrieval for LlamaIndex: `JinaPageRetriever`."""

import llama_index.embeddings.jina_rag  # noqa: F401  # imported first: raises the error if LlamaIndex is missing
from llama_index.retrievers.jina_rag.base import JinaPageRetriever

__all__ = ["JinaPageRetriever"]
