"""A LlamaIndex vector store over an index of jina_rag: `JinaVectorStore`."""

import llama_index.embeddings.jina_rag  # noqa: F401  # first: it says what to install where LlamaIndex is missing
from llama_index.vector_stores.jina_rag.base import JinaVectorStore

__all__ = ["JinaVectorStore"]
