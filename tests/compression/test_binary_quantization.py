"""Binary quantization: sign codes round-trip, correlate with exact similarities and detect damage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jina_rag.compression import decode_signs, encode_signs
from jina_rag.errors import IndexCorruptError
from jina_rag.scoring import normalise, token_similarity


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_sign_codes_round_trip_signs_around_mean(tokens, dim, seed):
    rows = np.random.default_rng(seed).normal(size=(tokens, dim)).astype(np.float32)
    decoded = decode_signs(encode_signs(rows), dim)
    assert decoded.shape == rows.shape
    assert ((decoded > 0) == (rows > rows.mean(axis=0))).all()
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), 1, rtol=1e-5)


def test_sign_codes_correlate_with_exact_token_similarity():
    rng = np.random.default_rng(0)
    rows, query = normalise(rng.normal(size=(200, 384))), normalise(rng.normal(size=(8, 384)))
    exact, approximate = token_similarity(query, rows), token_similarity(query, decode_signs(encode_signs(rows), 384))
    assert np.corrcoef(exact, approximate)[0, 1] > 0.75


def test_damaged_sign_codes_raise_index_corrupt_error():
    assert encode_signs(np.zeros((0, 8), dtype=np.float32)) == ""
    with pytest.raises(IndexCorruptError, match="Ingest the document again"):
        decode_signs("AAA", 64)
