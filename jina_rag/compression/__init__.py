"""Compression of multi-vectors: binary quantization, token pooling and Matryoshka truncation."""

from jina_rag.compression.binary_quantization import decode_signs, encode_signs
from jina_rag.compression.pooling import decode_assignment, encode_assignment, expand, pool_tokens
from jina_rag.compression.truncation import cut_rows, row_dim

__all__ = [
    "cut_rows",
    "decode_assignment",
    "decode_signs",
    "encode_assignment",
    "encode_signs",
    "expand",
    "pool_tokens",
    "row_dim",
]
