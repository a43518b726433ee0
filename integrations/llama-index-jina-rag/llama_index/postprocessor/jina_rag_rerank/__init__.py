"""Local reranking of texts and pictures for LlamaIndex: `JinaLocalRerank`."""

import llama_index.embeddings.jina_rag  # noqa: F401  # first: it says what to install where LlamaIndex is missing
from llama_index.postprocessor.jina_rag_rerank.base import JinaLocalRerank

__all__ = ["JinaLocalRerank"]
