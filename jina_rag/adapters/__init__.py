"""Code that the LangChain and LlamaIndex adapters share. Requires pydantic, which LangChain and LlamaIndex install."""

from jina_rag._display import displayed
from jina_rag.adapters.filters import (
    SEARCH_SETTINGS,
    intersect_ranges,
    metadata_matches,
    page_filter,
    search_arguments,
)
from jina_rag.adapters.indexes import IndexOpening, IndexOwner, LazyIndex
from jina_rag.adapters.lazy import check_not_empty
from jina_rag.adapters.models import EmbedderOptions, EmbedderSource, RerankerOptions, RerankerSource, model_argument
from jina_rag.adapters.pages import PageLoading
from jina_rag.index.coroutines import coroutine_of
from jina_rag.indexing.metadata import checked_metadata

__all__ = [
    "SEARCH_SETTINGS",
    "EmbedderOptions",
    "EmbedderSource",
    "IndexOpening",
    "IndexOwner",
    "LazyIndex",
    "PageLoading",
    "RerankerOptions",
    "RerankerSource",
    "check_not_empty",
    "checked_metadata",
    "coroutine_of",
    "displayed",
    "intersect_ranges",
    "metadata_matches",
    "model_argument",
    "page_filter",
    "search_arguments",
]
