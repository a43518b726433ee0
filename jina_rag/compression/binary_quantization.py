"""Binary quantization: sign codes with one bit per dimension, relative to the mean row of the page.

Dot products of sign codes with a float query approximately preserve the order of the tokens, at 1/16 of the bytes of
float16. Search uses sign codes only to locate the matching words on a page after the ranking. The ranking always uses
the stored vectors.

Source: Charikar, Similarity Estimation Techniques from Rounding Algorithms (STOC 2002); for late interaction, the
residual codes of ColBERTv2 (Santhanam et al., NAACL 2022) and PLAID (Santhanam et al., CIKM 2022).
"""

from __future__ import annotations

import base64

import numpy as np

from jina_rag.errors import IndexCorruptError
from jina_rag.types import Float32


def encode_signs(rows: Float32) -> str:
    """Return the sign codes of rows as base64 text of ceil(dim / 8) bytes per row.

    Args:
        rows: Multi-vector of a page, shape (tokens, dim), float32.
    """
    if not len(rows):
        return ""
    return base64.b64encode(np.packbits(rows > rows.mean(axis=0), axis=1).tobytes()).decode("ascii")


def decode_signs(text: str, dim: int) -> Float32:
    """Return the rows that sign codes encode: unit vectors with the values ±1/√dim.

    Args:
        text: Result of `encode_signs`.
        dim: Length of a row.

    Returns:
        Shape (tokens, dim), float32.

    Raises:
        IndexCorruptError: If the text is not base64 or not a whole number of packed rows.
    """
    width = -(-dim // 8)
    try:
        codes = np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8).reshape(-1, width)
    except ValueError as exc:
        raise IndexCorruptError(
            "Stored sign codes are unreadable. Ingest the document again with force=True (--force)."
        ) from exc
    bits = np.unpackbits(codes, axis=1, count=dim)
    rows: Float32 = (bits.astype(np.float32) * 2 - 1) / np.float32(np.sqrt(dim))
    return rows
