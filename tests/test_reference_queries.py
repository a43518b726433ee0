"""The correction for pages that resemble every query."""

from __future__ import annotations

import pytest

from jina_rag import DocumentIndex
from jina_rag.config import IngestSettings
from jina_rag.reference_queries import ReferenceQueries
from jina_rag.testing import FakeEmbedder, sample_pdf


class Hub(FakeEmbedder):
    """An embedder with the correction switched on."""

    hubness = 0.5


def test_the_bias_of_a_page_is_its_mean_score_for_general_questions():
    embedder = FakeEmbedder()
    background = ReferenceQueries(embedder)
    [page] = embedder.encode_document(["what is the total amount of the invoice"]).multi
    [other] = embedder.encode_document(["zyx wvu tsr"]).multi
    assert background.bias(page) > background.bias(other)
    assert background.bias(page[:0]) == 0


def test_hubness_takes_a_page_that_resembles_everything_down(tmp_path):
    # The first page shares a word with the question and many with any question; the second only that one.
    sample_pdf(tmp_path / "hub.pdf", ["what is the total amount of who wrote this document when does it end ice"])
    sample_pdf(tmp_path / "ice.pdf", ["ice glacier"])
    scores = []
    for embedder in (FakeEmbedder(), Hub()):
        with DocumentIndex.open(tmp_path / f"kb{embedder.hubness}", embedder=embedder) as index:
            index.ingest([tmp_path / "hub.pdf", tmp_path / "ice.pdf"], settings=IngestSettings(ocr="never"))
            scores.append({hit.doc_id: hit.score for hit in index.search("ice", k=2)})
    plain, corrected = scores
    assert plain["hub.pdf"] == pytest.approx(plain["ice.pdf"], abs=1e-3)
    assert corrected["ice.pdf"] - corrected["hub.pdf"] > 0.05
    assert list(corrected) == ["ice.pdf", "hub.pdf"]
