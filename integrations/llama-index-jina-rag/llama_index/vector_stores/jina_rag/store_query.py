"""Queries of LlamaIndex, answered by an index of jina_rag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from llama_index.core.indices.query.embedding_utils import get_top_k_mmr_embeddings
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode, VectorStoreQueryResult
from llama_index.retrievers.jina_rag.filters import FilterValue, add_condition, where_of
from llama_index.retrievers.jina_rag.nodes import REF_DOC_ID, node_of

from jina_rag import DocumentIndex, InvalidInputError, ScoredPage
from jina_rag.adapters import search_arguments

MMR_FACTOR = 4
"""Candidates of a diverse result, as multiples of its length."""


def answer(index: DocumentIndex, query: VectorStoreQuery, options: Mapping[str, Any]) -> VectorStoreQueryResult:
    """The best nodes for a question.

    Args:
        index: Where to search.
        query: With a text, which the index embeds, or with a vector alone.
        options: ``mmr_prefetch_k``: candidates of a diverse result; others go to `jina_rag.DocumentIndex.search`.

    Raises:
        InvalidInputError: If there is nothing to search by, or a filter or mode is asked for that is not there.
    """
    if query.mode not in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR):
        raise InvalidInputError(
            f"The query mode {query.mode.value!r} is not there: DEFAULT compares words by meaning and by their "
            "letters, MMR gives diverse pages."
        )
    where = _where(query)
    search_options = search_arguments({name: value for name, value in options.items() if name != "mmr_prefetch_k"})
    top_k = query.similarity_top_k
    if query.mode == VectorStoreQueryMode.MMR:
        count = int(options.get("mmr_prefetch_k") or MMR_FACTOR * top_k)
        return _diverse(index, query, _ranked(index, query, max(count, top_k), where, search_options))
    hits = _ranked(index, query, top_k, where, search_options)
    return _result(hits, [hit.score for hit in hits])


def metadata_key(key: str) -> str:
    """A key of a node's metadata as jina_rag's filters have it; without this, ``page`` would be another thing."""
    return f"meta.{key}"


def _where(query: VectorStoreQuery) -> dict[str, FilterValue]:
    where = where_of(query.filters, metadata_key)
    if query.doc_ids:
        add_condition(where, metadata_key(REF_DOC_ID), list(query.doc_ids))
    if query.node_ids:
        where["doc_id"] = list(query.node_ids)
    return where


def _ranked(
    index: DocumentIndex, query: VectorStoreQuery, k: int, where: dict[str, FilterValue], options: dict[str, Any]
) -> list[ScoredPage]:
    if query.query_str is not None and query.query_str.strip():
        return list(index.search(query.query_str, k=k, filter=where, **options))
    if query.query_embedding is None:
        raise InvalidInputError("There is nothing to search by: give query_str, or query_embedding.")
    return index.nearest(_truncate(index, query.query_embedding), k=k, filter=where)


def _diverse(index: DocumentIndex, query: VectorStoreQuery, hits: list[ScoredPage]) -> VectorStoreQueryResult:
    vectors = index.dense_vectors(hits)
    rows = [row for row in range(len(hits)) if vectors[row].any()]  # a page without words has no vector
    if not rows:
        return _result([], [])
    scores, best_rows = get_top_k_mmr_embeddings(
        _query_vector(index, query),
        [vectors[row].tolist() for row in rows],
        similarity_fn=lambda a, b: float(np.dot(a, b)),
        similarity_top_k=query.similarity_top_k,
        embedding_ids=rows,
        mmr_threshold=query.mmr_threshold,
    )
    return _result([hits[row] for row in best_rows], scores)


def _query_vector(index: DocumentIndex, query: VectorStoreQuery) -> list[float]:
    """The question's dense vector, of length 1."""
    vector: Any = query.query_embedding
    if query.query_str is not None and query.query_str.strip():
        vector = index.embedder.encode_query([query.query_str], multi=False).require_single()[0]
    vector = np.asarray(_truncate(index, vector), dtype=np.float32)
    unit: list[float] = (vector / max(float(np.linalg.norm(vector)), 1e-12)).tolist()
    return unit


def _truncate(index: DocumentIndex, vector: Any) -> Any:  # noqa: ANN401  # numbers
    """A vector of the index's model at the length that the index keeps; others stay, and are refused."""
    return vector[: index.dim] if len(vector) > index.dim and len(vector) == index.embedder.dim else vector


def _result(hits: Sequence[ScoredPage], scores: Sequence[float]) -> VectorStoreQueryResult:
    nodes = [node_of(hit) for hit in hits]
    return VectorStoreQueryResult(nodes=nodes, similarities=list(scores), ids=[node.node_id for node in nodes])
