"""Pages of documents as pictures with words for LlamaIndex: `JinaPageReader`."""

import llama_index.embeddings.jina_rag  # noqa: F401  # first: it says what to install where LlamaIndex is missing
from llama_index.readers.jina_rag.base import JinaPageReader

__all__ = ["JinaPageReader"]
