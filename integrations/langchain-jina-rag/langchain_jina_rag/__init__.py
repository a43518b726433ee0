"""Search pages by how they look, from LangChain: a retriever, a reranker, a vector store and what belongs to them.

``import langchain_jina_rag`` loads langchain-core and no model; each class is loaded when it is first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jina_rag import MissingDependencyError

try:
    import langchain_core  # noqa: F401  # every module here needs it; said once, before any of them is loaded
except ModuleNotFoundError as exc:
    # An installed langchain-core that lacks something of its own is another matter: installing would not mend it.
    if exc.name != "langchain_core":
        raise
    raise MissingDependencyError(
        "langchain_jina_rag needs the package 'langchain-core', which is not installed: "
        'pip install "jina-rag[langchain]", or in a clone: pip install ".[langchain]"'
    ) from exc

if TYPE_CHECKING:
    from langchain_jina_rag.compression import JinaCompressionRetriever as JinaCompressionRetriever
    from langchain_jina_rag.content_blocks import documents_to_content_blocks as documents_to_content_blocks
    from langchain_jina_rag.document_compressors import JinaLocalRerank as JinaLocalRerank
    from langchain_jina_rag.document_loaders import JinaPageLoader as JinaPageLoader
    from langchain_jina_rag.embeddings import JinaLocalEmbeddings as JinaLocalEmbeddings
    from langchain_jina_rag.retrievers import JinaPageRetriever as JinaPageRetriever
    from langchain_jina_rag.vectorstores import JinaVectorStore as JinaVectorStore

_WHERE = {
    "JinaCompressionRetriever": "langchain_jina_rag.compression",
    "JinaLocalEmbeddings": "langchain_jina_rag.embeddings",
    "JinaLocalRerank": "langchain_jina_rag.document_compressors",
    "JinaPageLoader": "langchain_jina_rag.document_loaders",
    "JinaPageRetriever": "langchain_jina_rag.retrievers",
    "JinaVectorStore": "langchain_jina_rag.vectorstores",
    "documents_to_content_blocks": "langchain_jina_rag.content_blocks",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:  # noqa: ANN401  # the type depends on the name
    if name not in _WHERE:
        raise AttributeError(f"module 'langchain_jina_rag' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
