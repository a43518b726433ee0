"""Smaller forms of vectors, and the way back: sign codes, pooled rows, cut rows."""

from jina_rag.compression.pooling import pool_tokens
from jina_rag.compression.rows import cut_rows, decode_assignment, encode_assignment, expand, kept_dim
from jina_rag.compression.signs import decode_signs, encode_signs

__all__ = [
    "cut_rows",
    "decode_assignment",
    "decode_signs",
    "encode_assignment",
    "encode_signs",
    "expand",
    "kept_dim",
    "pool_tokens",
]
