"""Page reader with page images and text for LlamaIndex: `JinaPageReader`."""

import llama_index.embeddings.jina_rag  # noqa: F401  # imported first: raises the error if LlamaIndex is missing
from llama_index.readers.jina_rag.base import JinaPageReader

__all__ = ["JinaPageReader"]
