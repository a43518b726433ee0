"""Local Jina embeddings for LlamaIndex: `JinaLocalEmbedding`, and `JinaPageEmbedding` for ingestion pipelines."""

from jina_rag import MissingDependencyError

# The wheel of jina-rag contains this package even if LlamaIndex is not installed. All LlamaIndex packages of jina-rag
# import this package first, so that the error below names the command to run.
try:
    import llama_index.core  # noqa: F401
except ModuleNotFoundError as exc:
    if exc.name not in ("llama_index", "llama_index.core"):
        raise
    raise MissingDependencyError(
        "The package 'llama-index-core' is not installed. Run: "
        'pip install "jina-rag[llama-index]", or in a clone: pip install ".[llama-index]"'
    ) from exc

from llama_index.embeddings.jina_rag.base import JinaLocalEmbedding
from llama_index.embeddings.jina_rag.page_embedding import JinaPageEmbedding

__all__ = ["JinaLocalEmbedding", "JinaPageEmbedding"]
