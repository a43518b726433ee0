"""Sign codes: one bit for each dimension, whether a row lies above the centre of its page there.

Dot products with a float question keep their order well (Charikar's hyperplane hashing; measured for late
interaction in PLAID and ColBERTv2's residual codes), at 1/16 of float16's bytes. They are for finding a *place* on a
page that is already ranked; ranking itself always uses the stored vectors.
"""

from __future__ import annotations

import base64

import numpy as np

from jina_rag.errors import IndexCorruptError
from jina_rag.types import Float32


def encode_signs(rows: Float32) -> str:
    """Pack the signs of `rows` around their mean into text: base64 of ceil(dim / 8) bytes a row.

    Args:
        rows: Shape (tokens, dim).
    """
    if not len(rows):
        return ""
    return base64.b64encode(np.packbits(rows > rows.mean(axis=0), axis=1).tobytes()).decode("ascii")


def decode_signs(text: str, dim: int) -> Float32:
    """Unpack sign codes to unit rows of ±1/√dim, shape (tokens, dim) float32.

    Raises:
        IndexCorruptError: If the text is not a whole number of packed rows.
    """
    width = -(-dim // 8)
    try:
        codes = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8).reshape(-1, width)
    except ValueError as exc:
        raise IndexCorruptError("Stored sign codes cannot be read: ingest the document again.") from exc
    bits = np.unpackbits(codes, axis=1, count=dim)
    rows: Float32 = (bits.astype(np.float32) * 2 - 1) / np.float32(np.sqrt(dim))
    return rows
