"""Search PDFs the way a person reads them: by looking at the pages.

``import jina_rag`` imports nothing heavy; each public name is loaded when it is first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jina_rag._version import __version__

if TYPE_CHECKING:
    from jina_rag.errors import JinaRagError
    from jina_rag.models.page_memory import PageMemory
    from jina_rag.models.registry import load_embedder, load_reranker
    from jina_rag.retrieval.index import DocumentIndex
    from jina_rag.retrieval.ranking.calibration import Calibration, fit_calibration
    from jina_rag.retrieval.ranking.results import SearchResults
    from jina_rag.retrieval.ranking.stages import Rerank, Rescore
    from jina_rag.retrieval.telling.context import build_context
    from jina_rag.types import Embeddings, IngestReport, Page, Prefetch, Range, Region, ScoredPage

_WHERE = {
    "Calibration": "jina_rag.retrieval.ranking.calibration",
    "DocumentIndex": "jina_rag.retrieval.index",
    "Embeddings": "jina_rag.types",
    "IngestReport": "jina_rag.types",
    "JinaRagError": "jina_rag.errors",
    "Page": "jina_rag.types",
    "PageMemory": "jina_rag.models.page_memory",
    "Prefetch": "jina_rag.types",
    "Range": "jina_rag.types",
    "Region": "jina_rag.types",
    "Rerank": "jina_rag.retrieval.ranking.stages",
    "Rescore": "jina_rag.retrieval.ranking.stages",
    "ScoredPage": "jina_rag.types",
    "SearchResults": "jina_rag.retrieval.ranking.results",
    "build_context": "jina_rag.retrieval.telling.context",
    "fit_calibration": "jina_rag.retrieval.ranking.calibration",
    "load_embedder": "jina_rag.models.registry",
    "load_reranker": "jina_rag.models.registry",
}

__all__ = [
    "Calibration",
    "DocumentIndex",
    "Embeddings",
    "IngestReport",
    "JinaRagError",
    "Page",
    "PageMemory",
    "Prefetch",
    "Range",
    "Region",
    "Rerank",
    "Rescore",
    "ScoredPage",
    "SearchResults",
    "__version__",
    "build_context",
    "fit_calibration",
    "load_embedder",
    "load_reranker",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  # the type depends on the name
    if name not in _WHERE:
        raise AttributeError(f"module 'jina_rag' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
