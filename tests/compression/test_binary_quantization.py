"""Sign codes: one bit for each dimension of a vector."""

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
def test_sign_codes_keep_the_side_of_the_centre(tokens, dim, seed):
    rows = np.random.default_rng(seed).normal(size=(tokens, dim)).astype(np.float32)
    back = decode_signs(encode_signs(rows), dim)
    assert back.shape == rows.shape
    assert ((back > 0) == (rows > rows.mean(axis=0))).all()
    np.testing.assert_allclose(np.linalg.norm(back, axis=1), 1, rtol=1e-5)


def test_sign_codes_rank_tokens_as_the_vectors_do():
    rng = np.random.default_rng(0)
    rows, query = normalise(rng.normal(size=(200, 384))), normalise(rng.normal(size=(8, 384)))
    exact, coded = token_similarity(query, rows), token_similarity(query, decode_signs(encode_signs(rows), 384))
    assert np.corrcoef(exact, coded)[0, 1] > 0.75


def test_broken_sign_codes_are_told():
    assert encode_signs(np.zeros((0, 8), dtype=np.float32)) == ""
    with pytest.raises(IndexCorruptError, match="ingest the document again"):
        decode_signs("AAA", 64)
