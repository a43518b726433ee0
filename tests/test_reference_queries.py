"""Reference queries: the hubness bias of pages, and the subtraction of the bias in search."""

from __future__ import annotations

import pytest

from jina_rag import DocumentIndex
from jina_rag.config import IngestSettings
from jina_rag.reference_queries import ReferenceQueries
from jina_rag.testing import FakeEmbedder, sample_pdf


class HubnessEmbedder(FakeEmbedder):
    """A fake embedder with hubness correction."""

    hubness = 0.5


def test_bias_is_higher_for_page_similar_to_reference_queries():
    embedder = FakeEmbedder()
    reference_queries = ReferenceQueries(embedder)
    [page] = embedder.encode_document(["what is the total amount of the invoice"]).multi
    [other] = embedder.encode_document(["zyx wvu tsr"]).multi
    assert reference_queries.bias(page) > reference_queries.bias(other)
    assert reference_queries.bias(page[:0]) == 0


def test_hubness_lowers_score_of_hub_page(tmp_path):
    # hub.pdf shares one word with the query and many words with the reference queries. ice.pdf shares one word with the
    # query and no word with the reference queries.
    sample_pdf(tmp_path / "hub.pdf", ["what is the total amount of who wrote this document when does it end ice"])
    sample_pdf(tmp_path / "ice.pdf", ["ice glacier"])
    scores = []
    for embedder in (FakeEmbedder(), HubnessEmbedder()):
        with DocumentIndex.open(tmp_path / f"kb{embedder.hubness}", embedder=embedder) as index:
            index.ingest([tmp_path / "hub.pdf", tmp_path / "ice.pdf"], settings=IngestSettings(ocr="never"))
            scores.append({hit.doc_id: hit.score for hit in index.search("ice", k=2)})
    plain_scores, corrected_scores = scores
    assert plain_scores["hub.pdf"] == pytest.approx(plain_scores["ice.pdf"], abs=1e-3)
    assert corrected_scores["ice.pdf"] - corrected_scores["hub.pdf"] > 0.05
    assert list(corrected_scores) == ["ice.pdf", "hub.pdf"]


def test_reference_queries_are_encoded_once_for_an_embedder_and_each_time_for_an_unhashable_one():
    class CountingEmbedder(FakeEmbedder):
        calls = 0

        def encode_query(self, queries, **options):
            self.calls += 1
            return super().encode_query(queries, **options)

    class UnhashableEmbedder(CountingEmbedder):
        __hash__ = None

    for embedder, calls in ((CountingEmbedder(), 1), (UnhashableEmbedder(), 2)):
        biases = [ReferenceQueries.of(embedder).bias(embedder.encode_document(["a word"]).multi[0]) for _ in range(2)]
        assert biases[0] == biases[1]
        assert embedder.calls == calls
