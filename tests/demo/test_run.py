"""Demo: end to end with a fake model on two documents, and with the default model on the samples."""

from __future__ import annotations

import shutil

import pytest

from jina_rag.demo import run as demo_run
from jina_rag.demo.run import DemoAnswer, run_demo
from jina_rag.demo.samples import sample_documents, sample_folder, sample_queries
from jina_rag.testing import FakeEmbedder
from jina_rag.types import ScoredPage


class CountingEmbedder(FakeEmbedder):
    """Fake embedder that counts its pages."""

    pages_seen = 0

    def encode_document(self, documents, **options):
        self.pages_seen += len(documents)
        return super().encode_document(documents, **options)


@pytest.fixture
def two_documents(tmp_path, monkeypatch):
    folder = tmp_path / "with a space" / "samples"
    folder.mkdir(parents=True)
    for name in ("federal-student-loans.pdf", "latex-acordeon-es.pdf"):
        shutil.copy(sample_folder() / name, folder)
    monkeypatch.setattr(demo_run, "sample_folder", lambda: folder)
    return folder


def test_demo_writes_a_report_and_second_run_embeds_nothing(tmp_path, two_documents):
    model, calls = CountingEmbedder(), []
    first = run_demo(tmp_path / "out", embedder=model, progress=calls.append)
    assert first.ingest.documents == 2
    assert first.ingest.pages == 5
    assert not first.ingest.failed
    assert calls
    assert first.report == tmp_path / "out" / "report.html"
    html = first.report.read_text(encoding="utf-8")
    assert [answer.query for answer in first.answers] == [q.query for q in sample_queries()]
    assert all(answer.query in html for answer in first.answers)
    assert all(len(answer.hits) == 3 for answer in first.answers)
    assert html.count("data:image/jpeg;base64,") >= 15
    assert "federal-student-loans.pdf" in html

    page_count = model.pages_seen
    second = run_demo(tmp_path / "out", embedder=model)
    assert model.pages_seen == page_count
    assert second.ingest.documents == 0
    assert second.ingest.unchanged == 2
    assert second.index_info.pages == 5
    assert "to check for changes" in second.report.read_text(encoding="utf-8")


def test_rank_is_the_rank_of_the_relevant_page():
    sample = sample_queries()[0]
    right = ScoredPage(sample.doc_id, sample_folder() / sample.doc_id, sample.page, 0.5)
    wrong = ScoredPage(sample.doc_id, sample_folder() / sample.doc_id, sample.page + 1, 0.6)
    assert DemoAnswer(sample, 0.1, (wrong, right)).rank == 2
    assert DemoAnswer(sample, 0.1, (wrong,)).rank is None


def test_demo_with_the_default_model_ranks_every_answer_first(tmp_path):
    first = run_demo(tmp_path)
    assert first.index_info.documents == len(sample_documents())
    assert first.index_info.pages == sum(document.pages for document in sample_documents())
    assert not first.ingest.failed
    assert {answer.kind: answer.rank for answer in first.answers} == dict.fromkeys(
        ("text", "table", "chart", "scan", "code"), 1
    )
    assert first.report.stat().st_size < 3_000_000

    second = run_demo(tmp_path)
    assert second.ingest.pages == 0
    assert second.ingest.unchanged == first.index_info.documents
