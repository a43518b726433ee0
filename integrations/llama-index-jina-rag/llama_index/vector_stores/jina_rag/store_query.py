"""Execution of queries of a LlamaIndex vector store on a jina_rag index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from llama_index.core.indices.query.embedding_utils import get_top_k_mmr_embeddings
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode, VectorStoreQueryResult
from llama_index.retrievers.jina_rag.filters import FilterValue, add_condition, to_where
from llama_index.retrievers.jina_rag.nodes import REF_DOC_ID, hit_to_node

from jina_rag import DocumentIndex, InvalidInputError, ScoredPage
from jina_rag.adapters import search_arguments

MMR_OVERSAMPLING = 4
"""Number of MMR candidates per returned node."""


def run_query(index: DocumentIndex, query: VectorStoreQuery, options: Mapping[str, Any]) -> VectorStoreQueryResult:
    """Return the best nodes for a query, with scores.

    Args:
        index: Index to search.
        query: Query with a text, which the index embeds, or with only a vector.
        options: ``mmr_prefetch_k``, the number of candidates for MMR; other arguments are passed to
            `jina_rag.DocumentIndex.search`.

    Raises:
        InvalidInputError: If the query is empty, or a filter, mode or argument is not supported.
    """
    if query.mode not in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR):
        raise InvalidInputError(
            f"mode is {query.mode.value!r}; expected DEFAULT (late interaction and lexical search) or MMR (diverse "
            "results)."
        )
    where = _where(query)
    search_options = search_arguments({name: value for name, value in options.items() if name != "mmr_prefetch_k"})
    top_k = query.similarity_top_k
    if query.mode == VectorStoreQueryMode.MMR:
        num_candidates = int(options.get("mmr_prefetch_k") or MMR_OVERSAMPLING * top_k)
        return _mmr_result(index, query, _search(index, query, max(num_candidates, top_k), where, search_options))
    hits = _search(index, query, top_k, where, search_options)
    return _to_result(hits, [hit.score for hit in hits])


def metadata_key(key: str) -> str:
    """Return the jina_rag filter key of a metadata key: the key with the prefix ``meta.``.

    Without the prefix, a metadata key like ``page`` would select pages of ingested files.

    Args:
        key: Metadata key of a node.
    """
    return f"meta.{key}"


def _where(query: VectorStoreQuery) -> dict[str, FilterValue]:
    where = to_where(query.filters, metadata_key)
    if query.doc_ids:
        add_condition(where, metadata_key(REF_DOC_ID), list(query.doc_ids))
    if query.node_ids:
        where["doc_id"] = list(query.node_ids)
    return where


def _search(
    index: DocumentIndex, query: VectorStoreQuery, k: int, where: dict[str, FilterValue], options: dict[str, Any]
) -> list[ScoredPage]:
    if query.query_str is not None and query.query_str.strip():
        return list(index.search(query.query_str, k=k, filter=where, **options))
    if query.query_embedding is None:
        raise InvalidInputError("The query is empty. Pass query_str or query_embedding.")
    return index.nearest(_truncate(index, query.query_embedding), k=k, filter=where)


def _mmr_result(index: DocumentIndex, query: VectorStoreQuery, hits: list[ScoredPage]) -> VectorStoreQueryResult:
    vectors = index.dense_vectors(hits)
    rows = [row for row in range(len(hits)) if vectors[row].any()]  # a page without text has a zero vector
    if not rows:
        return _to_result([], [])
    scores, best_rows = get_top_k_mmr_embeddings(
        _query_vector(index, query),
        [vectors[row].tolist() for row in rows],
        similarity_fn=lambda a, b: float(np.dot(a, b)),
        similarity_top_k=query.similarity_top_k,
        embedding_ids=rows,
        mmr_threshold=query.mmr_threshold,
    )
    return _to_result([hits[row] for row in best_rows], scores)


def _query_vector(index: DocumentIndex, query: VectorStoreQuery) -> list[float]:
    """Return the dense vector of a query, scaled to unit length."""
    vector: Any = query.query_embedding
    if query.query_str is not None and query.query_str.strip():
        vector = index.embedder.encode_query([query.query_str], multi=False).require_single()[0]
    vector = np.asarray(_truncate(index, vector), dtype=np.float32)
    unit: list[float] = (vector / max(float(np.linalg.norm(vector)), 1e-12)).tolist()
    return unit


def _truncate(index: DocumentIndex, vector: Any) -> Any:  # noqa: ANN401  # numbers
    """Truncate a vector of the model's full length to `index.dim`. Return other vectors unchanged.

    The index rejects vectors of a wrong length.
    """
    return vector[: index.dim] if len(vector) > index.dim and len(vector) == index.embedder.dim else vector


def _to_result(hits: Sequence[ScoredPage], scores: Sequence[float]) -> VectorStoreQueryResult:
    """Return the nodes of hits; a node of several pages (a tall or wide image) once, with its first score."""
    nodes: dict[str, tuple[BaseNode, float]] = {}
    for hit, score in zip(hits, scores, strict=True):
        node = hit_to_node(hit)
        nodes.setdefault(node.node_id, (node, score))
    return VectorStoreQueryResult(
        nodes=[node for node, _ in nodes.values()],
        similarities=[score for _, score in nodes.values()],
        ids=list(nodes),
    )
