"""Local reranking of texts and page images for LlamaIndex: `JinaLocalRerank`."""

import llama_index.embeddings.jina_rag  # noqa: F401  # imported first: raises the error if LlamaIndex is missing
from llama_index.postprocessor.jina_rag_rerank.base import JinaLocalRerank

__all__ = ["JinaLocalRerank"]
