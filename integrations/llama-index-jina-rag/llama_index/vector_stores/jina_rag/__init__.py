"""Vector store over a jina_rag index for LlamaIndex: `JinaVectorStore`."""

import llama_index.embeddings.jina_rag  # noqa: F401  # imported first: raises the error if LlamaIndex is missing
from llama_index.vector_stores.jina_rag.base import JinaVectorStore

__all__ = ["JinaVectorStore"]
