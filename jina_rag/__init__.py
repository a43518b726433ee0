"""Search PDFs the way a person reads them: by looking at the pages.

``import jina_rag`` imports nothing heavy; each public name is loaded when it is first used (PEP 562).
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from jina_rag._version import __version__ as __version__

# From 1.32 on, onnxruntime tells Microsoft of its runs on Linux and macOS, too, unless this is set before it is loaded;
# its Python switch comes too late for the first report. Whoever wants it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:  # "as" says that they are public
    from jina_rag.config import IngestSettings as IngestSettings
    from jina_rag.config import Storage as Storage
    from jina_rag.context.builder import build_context as build_context
    from jina_rag.errors import InvalidInputError as InvalidInputError
    from jina_rag.errors import JinaRagError as JinaRagError
    from jina_rag.errors import MissingDependencyError as MissingDependencyError
    from jina_rag.index.document_index import DocumentIndex as DocumentIndex
    from jina_rag.indexing.page_files import load_pages as load_pages
    from jina_rag.indexing.page_files import open_page as open_page
    from jina_rag.indexing.page_files import save_page as save_page
    from jina_rag.models.registry import load_embedder as load_embedder
    from jina_rag.models.registry import load_reranker as load_reranker
    from jina_rag.models.runtime.prefix_cache import PrefixCache as PrefixCache
    from jina_rag.protocols import Embedder as Embedder
    from jina_rag.protocols import Reranker as Reranker
    from jina_rag.search.calibration import Calibration as Calibration
    from jina_rag.search.calibration import fit_calibration as fit_calibration
    from jina_rag.search.fusion import Rescore as Rescore
    from jina_rag.search.reranking import Rerank as Rerank
    from jina_rag.search.results import SearchResults as SearchResults
    from jina_rag.types import Embeddings as Embeddings
    from jina_rag.types import Failure as Failure
    from jina_rag.types import IngestReport as IngestReport
    from jina_rag.types import Page as Page
    from jina_rag.types import PageScreenshot as PageScreenshot
    from jina_rag.types import Prefetch as Prefetch
    from jina_rag.types import Range as Range
    from jina_rag.types import Region as Region
    from jina_rag.types import ScoredPage as ScoredPage
    from jina_rag.types import Word as Word

_WHERE = {
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

__all__ = sorted(["__version__", *_WHERE])


def __getattr__(name: str) -> Any:  # noqa: ANN401  # the type depends on the name
    if name not in _WHERE:
        raise AttributeError(f"module 'jina_rag' has no attribute {name!r}")
    value = getattr(import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
