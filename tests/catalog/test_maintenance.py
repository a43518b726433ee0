"""Maintenance: cost of deletions, location updates, and recovery after an interruption."""

from __future__ import annotations

import pytest
from helpers.costs import count_costs

from jina_rag import DocumentIndex
from jina_rag.testing import FakeEmbedder


@pytest.fixture
def index(tmp_path):
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as document_index:
        yield document_index


def add_entries(index: DocumentIndex, count: int) -> list[str]:
    return index.add([f"entry number {number}" for number in range(count)], ids=[f"id{n}" for n in range(count)])


@pytest.mark.parametrize("selection", ["ids", "glob"])
def test_bulk_delete_costs_as_much_as_a_single_delete(index, monkeypatch, selection):
    ids = add_entries(index, 61)
    single_costs = count_costs(index, monkeypatch, lambda: index.delete("id60"))
    bulk_costs = count_costs(
        index,
        monkeypatch,
        (lambda: index.delete(filter={"doc_id": ids[:60]})) if selection == "ids" else (lambda: index.delete("id*")),
    )
    assert index.documents() == []
    assert index._session.resources.store.count() == 0
    assert index.verify() == []
    assert bulk_costs == single_costs
    assert (bulk_costs["delete"], bulk_costs["flush"]) == (1, 1)
    assert bulk_costs["commits"] <= 6


def test_location_updates_share_one_flush(index, tmp_path, monkeypatch):
    from jina_rag.config import IngestSettings
    from jina_rag.testing import sample_pdf

    settings = IngestSettings(ocr="never", isolate=False, dpi=40)
    (tmp_path / "docs").mkdir()
    for number in range(4):
        pdf = sample_pdf(tmp_path / "docs" / f"{number}.pdf", [f"page of {number}"])
        (tmp_path / "docs" / f"copy{number}.pdf").write_bytes(pdf.read_bytes())
    index.ingest(tmp_path / "docs", settings=settings)
    counts = count_costs(index, monkeypatch, lambda: index.delete("copy*"))
    assert (counts["delete"], counts["flush"], counts["update_payload"]) == (0, 1, 1)
    assert counts["commits"] <= 6
    assert {hit.doc_id for hit in index.search("page", k=9)} == {f"{number}.pdf" for number in range(4)}
    assert index.verify() == []


@pytest.mark.parametrize("step", ["delete", "flush", "images", "remove_contents"])
def test_interrupted_delete_is_completed_by_the_next_change(index, tmp_path, monkeypatch, step):
    from jina_rag.config import IngestSettings
    from jina_rag.testing import sample_pdf

    pdf = sample_pdf(tmp_path / "a.pdf", ["whales sing"])
    index.ingest(pdf, settings=IngestSettings(ocr="never", isolate=False, dpi=40))
    add_entries(index, 3)
    resources = index._session.resources
    owner = {"images": resources.images, "remove_contents": resources.manifest}.get(step, resources.store)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(owner), "delete" if step == "images" else step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            index.delete("*")
    assert index.documents() == []
    index.add(["something else"])
    assert index.verify() == []
    assert index._session.resources.store.count() == 1
    assert list(resources.images.names()) == []


def test_recovery_keeps_an_incomplete_file_and_deletes_incomplete_entries(tmp_path, monkeypatch):
    from jina_rag.config import IngestSettings
    from jina_rag.testing import sample_pdf

    class InterruptingEmbedder(FakeEmbedder):
        calls = 0

        def encode_document(self, documents, **options):
            self.calls += 1
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().encode_document(documents, **options)

    def interrupt(*_):
        raise KeyboardInterrupt

    settings = IngestSettings(ocr="never", isolate=False, dpi=40)
    pdf = sample_pdf(tmp_path / "long.pdf", [f"page number word{n}" for n in range(20)])
    with DocumentIndex.open(tmp_path / "kb", embedder=InterruptingEmbedder()) as index:
        assert index.ingest(pdf, settings=settings).interrupted
        with monkeypatch.context() as patch:
            patch.setattr(type(index._session.resources.store), "flush", interrupt)
            with pytest.raises(KeyboardInterrupt):
                index.add(["page number entry"], ids=["entry"])
        index.add(["something else"], ids=["next"])
        assert [(record.doc_id, record.is_complete) for record in index.documents()] == [
            ("long.pdf", False), ("next", True),
        ]  # fmt: skip
        assert index.search("word3", k=1)[0].page == 4, "stored pages of a file stay searchable"
        assert [problem.doc_id for problem in index.verify()] == ["long.pdf"]
        index.ingest(pdf, settings=settings)
        assert index.info().pages == 21
        assert index.verify() == []
