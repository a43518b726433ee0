"""LangChain integration of jina_rag: visual page retriever, reranker, vector store, loader and embeddings.

``import langchain_jina_rag`` imports langchain-core, but loads no model. Each class is imported at first access (PEP
562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jina_rag import MissingDependencyError

try:
    import langchain_core  # noqa: F401  # required by every module of this package
except ModuleNotFoundError as exc:
    # If a dependency of an installed langchain-core is missing, re-raise: installing langchain-core does not help.
    if exc.name != "langchain_core":
        raise
    raise MissingDependencyError(
        "The package 'langchain-core' is not installed. Run: "
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

_MODULES = {
    "JinaCompressionRetriever": "langchain_jina_rag.compression",
    "JinaLocalEmbeddings": "langchain_jina_rag.embeddings",
    "JinaLocalRerank": "langchain_jina_rag.document_compressors",
    "JinaPageLoader": "langchain_jina_rag.document_loaders",
    "JinaPageRetriever": "langchain_jina_rag.retrievers",
    "JinaVectorStore": "langchain_jina_rag.vectorstores",
    "documents_to_content_blocks": "langchain_jina_rag.content_blocks",
}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:  # noqa: ANN401  # the type depends on the name
    if name not in _MODULES:
        raise AttributeError(f"module 'langchain_jina_rag' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
