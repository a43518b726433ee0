"""Fakes: FakeEmbedder and FakeReranker meet the contracts of models; sample pages and PDFs."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import contracts
from PIL import Image

from jina_rag.errors import InvalidInputError
from jina_rag.protocols import ExplainingReranker, PairReranker, PlacedModel
from jina_rag.testing import FakeEmbedder, FakeReranker, make_page, sample_pdf


def test_fake_embedder_meets_embedder_contract():
    contracts.check_embedder(FakeEmbedder())


def test_fake_reranker_meets_reranker_contract():
    contracts.check_reranker(FakeReranker())


def test_fake_reranker_implements_only_reranker_protocol():
    assert FakeReranker(name="judge").fingerprint == "judge"
    assert not isinstance(FakeReranker(), ExplainingReranker | PairReranker | PlacedModel)


def test_unknown_encode_option_raises_type_error():
    with pytest.raises(TypeError, match="max_tokens"):
        FakeEmbedder().encode_query(["a"], max_tokens=3)


def test_fakes_record_call_history():
    embedder, reranker = FakeEmbedder(), FakeReranker()
    embedder.encode_document(["a", "b"])
    embedder.encode_query(["c"])
    reranker.score("a", ["b"])
    assert embedder.history == [("document", ("a", "b")), ("query", ("c",))]
    assert reranker.history == [("a", ("b",))]


def test_fake_embedder_is_deterministic_with_fingerprint_by_dims():
    first, second = FakeEmbedder().encode_query(["Ærø 東京"]), FakeEmbedder().encode_query(["ærØ 東京"])
    np.testing.assert_array_equal(first.single, second.single)
    assert FakeEmbedder().fingerprint == FakeEmbedder().fingerprint != FakeEmbedder(dim=8).fingerprint


def test_fake_embedder_raises_invalid_input_error():
    embedder = FakeEmbedder()
    with pytest.raises(InvalidInputError, match="no words"):
        embedder.encode_query([Image.new("RGB", (8, 8))])
    with pytest.raises(InvalidInputError, match="list"):
        embedder.encode_query("one query")
    with pytest.raises(InvalidInputError, match="list"):
        embedder.encode_document("one document")
    with pytest.raises(InvalidInputError, match="truncate"):
        embedder.encode_query(["a"], truncate_dim=0)


def test_make_page_draws_words_within_page():
    page, blank_page = make_page("one two three " * 60), make_page("")
    assert page.screenshot.image.tobytes() != blank_page.screenshot.image.tobytes()
    assert page.text.split() == ["one", "two", "three"] * 60
    assert all(0 <= x <= 1 for word in page.words for x in word.box)


def test_sample_pdf_contains_texts(tmp_path):
    pymupdf = pytest.importorskip("pymupdf")
    path = sample_pdf(tmp_path / "a.pdf", ["growth & <loss>", "", "日本語"])
    with pymupdf.open(path) as document:
        assert [page.get_text().strip() for page in document] == ["growth & <loss>", "", "日本語"]
    with pytest.raises(InvalidInputError):
        sample_pdf(path, [])
