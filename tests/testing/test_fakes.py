"""The fakes keep the contracts that the real ones keep."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import contracts
from PIL import Image

from jina_rag.errors import InvalidInputError
from jina_rag.protocols import ExplainingReranker, PairReranker, PlacedModel
from jina_rag.testing import FakeEmbedder, FakeReranker, make_page, sample_pdf


def test_fake_embedder_keeps_the_contract():
    contracts.check_embedder(FakeEmbedder())


def test_fake_reranker_keeps_the_contract():
    contracts.check_reranker(FakeReranker())


def test_a_fake_reranker_can_do_what_each_reranker_can_and_no_more():
    assert FakeReranker(name="judge").fingerprint == "judge"
    assert not isinstance(FakeReranker(), ExplainingReranker | PairReranker | PlacedModel)


def test_fakes_refuse_options_that_no_model_has():
    with pytest.raises(TypeError, match="max_tokens"):
        FakeEmbedder().encode_query(["a"], max_tokens=3)


def test_fakes_count_their_calls():
    embedder, reranker = FakeEmbedder(), FakeReranker()
    embedder.encode_document(["a", "b"])
    embedder.encode_query(["c"])
    reranker.score("a", ["b"])
    assert embedder.history == [("document", ("a", "b")), ("query", ("c",))]
    assert reranker.history == [("a", ("b",))]


def test_fake_embedder_is_deterministic_and_known_by_its_shape():
    first, second = FakeEmbedder().encode_query(["Ærø 東京"]), FakeEmbedder().encode_query(["ærØ 東京"])
    np.testing.assert_array_equal(first.single, second.single)
    assert FakeEmbedder().fingerprint == FakeEmbedder().fingerprint != FakeEmbedder(dim=8).fingerprint


def test_fake_embedder_refuses_what_it_cannot_read():
    embedder = FakeEmbedder()
    with pytest.raises(InvalidInputError, match="no words"):
        embedder.encode_query([Image.new("RGB", (8, 8))])
    with pytest.raises(InvalidInputError, match="list"):
        embedder.encode_query("one question")
    with pytest.raises(InvalidInputError, match="list"):
        embedder.encode_document("one document")
    with pytest.raises(InvalidInputError, match="truncate"):
        embedder.encode_query(["a"], truncate_dim=0)


def test_pages_that_differ_look_different_and_keep_their_words_inside():
    one, other = make_page("one two three " * 60), make_page("")
    assert one.screenshot.image.tobytes() != other.screenshot.image.tobytes()
    assert one.text.split() == ["one", "two", "three"] * 60
    assert all(0 <= x <= 1 for word in one.words for x in word.box)


def test_sample_pdf_has_its_texts(tmp_path):
    pymupdf = pytest.importorskip("pymupdf")
    path = sample_pdf(tmp_path / "a.pdf", ["growth & <loss>", "", "日本語"])
    with pymupdf.open(path) as document:
        assert [page.get_text().strip() for page in document] == ["growth & <loss>", "", "日本語"]
    with pytest.raises(InvalidInputError):
        sample_pdf(path, [])
