"""Jina's models: jina-embeddings-v4, jina-reranker-m0, jina-colbert-v2, Jina Embeddings v1."""
