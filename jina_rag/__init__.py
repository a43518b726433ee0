"""Visual document retrieval over PDF pages and images, with late interaction and reranking.

``import jina_rag`` is fast: the module of a public name is imported at first access (PEP 562).
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from jina_rag._version import __version__

# Since 1.32, onnxruntime also sends telemetry to Microsoft on Linux and macOS unless this variable is set before the
# import. Calling onnxruntime.disable_telemetry_events() after the import is too late for the first report. Set the
# variable to 0 to allow the telemetry.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from jina_rag.config import IngestSettings, Storage
    from jina_rag.context.builder import build_context
    from jina_rag.errors import InvalidInputError, JinaRagError, MissingDependencyError
    from jina_rag.index.document_index import DocumentIndex
    from jina_rag.indexing.page_files import load_pages, open_page, save_page
    from jina_rag.models.registry import load_embedder, load_reranker
    from jina_rag.models.runtime.prefix_cache import PrefixCache
    from jina_rag.protocols import Embedder, Reranker
    from jina_rag.search.calibration import Calibration, fit_calibration
    from jina_rag.search.fusion import Rescore
    from jina_rag.search.reranking import Rerank
    from jina_rag.search.results import SearchResults
    from jina_rag.types import (
        Embeddings,
        Failure,
        IngestReport,
        Page,
        PageScreenshot,
        Prefetch,
        Range,
        Region,
        ScoredPage,
        Word,
    )

_MODULES = {
    name: f"jina_rag.{module}"
    for module, names in {
        "config": "IngestSettings Storage",
        "context.builder": "build_context",
        "errors": "InvalidInputError JinaRagError MissingDependencyError",
        "index.document_index": "DocumentIndex",
        "indexing.page_files": "load_pages open_page save_page",
        "models.registry": "load_embedder load_reranker",
        "models.runtime.prefix_cache": "PrefixCache",
        "protocols": "Embedder Reranker",
        "search.calibration": "Calibration fit_calibration",
        "search.fusion": "Rescore",
        "search.reranking": "Rerank",
        "search.results": "SearchResults",
        "types": "Embeddings Failure IngestReport Page PageScreenshot Prefetch Range Region ScoredPage Word",
    }.items()
    for name in names.split()
}

__all__ = [
    "Calibration", "DocumentIndex", "Embedder", "Embeddings", "Failure", "IngestReport", "IngestSettings",
    "InvalidInputError", "JinaRagError", "MissingDependencyError", "Page", "PageScreenshot", "Prefetch",
    "PrefixCache", "Range", "Region", "Rerank", "Reranker", "Rescore", "ScoredPage", "SearchResults", "Storage",
    "Word", "__version__", "build_context", "fit_calibration", "load_embedder", "load_pages", "load_reranker",
    "open_page", "save_page",
]  # fmt: skip


def __getattr__(name: str) -> Any:  # noqa: ANN401  # the type depends on the name
    if name not in _MODULES:
        raise AttributeError(f"module 'jina_rag' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
