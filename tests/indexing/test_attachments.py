"""Attachments in an index (room `indexing`): unchanged, changed, moved, deleted, resumed, and reported."""

from __future__ import annotations

import json

import pytest
from helpers.portfolios import pdf_content, portfolio

from jina_rag import DocumentIndex
from jina_rag.config import IngestSettings, Limits
from jina_rag.indexing import ingest
from jina_rag.testing import FakeEmbedder, sample_pdf

NO_OCR = IngestSettings(ocr="never", isolate=False, dpi=40)


@pytest.fixture
def embedder():
    return FakeEmbedder()


@pytest.fixture
def index(tmp_path, embedder):
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as document_index:
        yield document_index


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    return folder


@pytest.fixture
def pdf(tmp_path):
    """Return a function that returns the content of a PDF of one page with a text."""
    return lambda text: pdf_content(tmp_path / "attached.pdf", text)


def ids(index):
    return [record.doc_id for record in index.documents()]


def embedded_count(embedder):
    return sum(len(inputs) for side, inputs in embedder.history if side == "document")


def test_attachments_are_documents_and_unchanged_on_a_second_run(index, embedder, docs, pdf):
    portfolio(docs / "report.pdf", [("whales.pdf", pdf("whales sing")), ("b/cats.pdf", pdf("cats sleep"))])
    plan = index.ingest(docs, settings=NO_OCR, dry_run=True)
    assert (plan.new, plan.pages) == (3, 3)
    report = index.ingest(docs, settings=NO_OCR)
    assert (report.documents, report.pages, report.failed) == (3, 3, ())
    assert ids(index) == ["report.pdf", "report.pdf#cats.pdf", "report.pdf#whales.pdf"]
    hit = index.search("whales sing", k=1)[0]
    assert (hit.doc_id, hit.path, hit.page) == ("report.pdf#whales.pdf", docs / "report.pdf#whales.pdf", 1)
    for where in ({"path": "report.pdf#cats.pdf"}, {"path": "*#cats*"}, {"doc_id": "report.pdf#cats.pdf"}):
        assert {hit.doc_id for hit in index.search("whales", k=9, filter=where)} == {"report.pdf#cats.pdf"}
    count = embedded_count(embedder)
    report = index.ingest(docs, settings=NO_OCR, sync=True)
    assert (report.documents, report.unchanged, report.removed) == (0, 3, 0)
    assert embedded_count(embedder) == count
    assert index.ingest(docs, settings=NO_OCR, dry_run=True).unchanged == 3
    assert index.verify() == []


def test_unchanged_file_is_not_opened_again(index, docs, pdf, monkeypatch):
    portfolio(docs / "report.pdf", [("a.pdf", pdf("whales"))])
    sample_pdf(docs / "plain.pdf", ["cats"])
    index.ingest(docs, settings=NO_OCR)
    monkeypatch.setattr("jina_rag.indexing.planner.read_attachments", None)
    monkeypatch.setattr("jina_rag.indexing.planner.may_have_attachments", None)
    assert index.ingest(docs, settings=NO_OCR).unchanged == 3


def test_attachments_change_with_the_file(index, embedder, docs, pdf):
    path = docs / "report.pdf"
    portfolio(path, [("a.pdf", pdf("whales")), ("b.pdf", pdf("cats")), ("c.pdf", pdf("dogs"))])
    index.ingest(docs, settings=NO_OCR)
    portfolio(path, [("a.pdf", pdf("whales")), ("b.pdf", pdf("lions")), ("new.pdf", pdf("birds"))], text="New cover")
    plan = index.ingest(docs, settings=NO_OCR, dry_run=True)
    assert (plan.new, plan.changed, plan.unchanged) == (1, 2, 1)
    count = embedded_count(embedder)
    report = index.ingest(docs, settings=NO_OCR)
    assert (report.documents, report.unchanged) == (3, 1)
    assert embedded_count(embedder) == count + 3
    assert ids(index) == ["report.pdf", "report.pdf#a.pdf", "report.pdf#b.pdf", "report.pdf#new.pdf"]
    assert not any("dogs" in hit.text or "cats" in hit.text for hit in index.search("dogs cats", k=9))
    portfolio(path, [])
    index.ingest(docs, settings=NO_OCR)
    assert ids(index) == ["report.pdf"]
    assert index.verify() == []


def test_attachment_renamed_within_its_file_is_not_embedded_again(index, embedder, docs, pdf):
    path = docs / "report.pdf"
    portfolio(path, [("a.pdf", pdf("whales")), ("b.pdf", pdf("cats"))])
    index.ingest(docs, settings=NO_OCR)
    count = embedded_count(embedder)
    portfolio(path, [("b.pdf", pdf("whales")), ("c.pdf", pdf("cats"))])
    report = index.ingest(docs, settings=NO_OCR)
    assert report.failed == ()
    assert embedded_count(embedder) == count + 1, "only the file itself has new content"
    assert {hit.doc_id: hit.text.split()[0] for hit in index.search("whales", k=9)} == {
        "report.pdf": "Cover", "report.pdf#b.pdf": "whales", "report.pdf#c.pdf": "cats",
    }  # fmt: skip
    assert index.verify() == []


def test_attachments_move_and_are_removed_with_the_file(index, embedder, docs, pdf):
    portfolio(docs / "report.pdf", [("a.pdf", pdf("whales"))])
    index.ingest(docs, settings=NO_OCR)
    count = embedded_count(embedder)
    (docs / "sub").mkdir()
    (docs / "report.pdf").rename(docs / "sub" / "moved.pdf")
    report = index.ingest(docs, settings=NO_OCR)
    assert (report.moved, embedded_count(embedder)) == (2, count)
    assert ids(index) == ["sub/moved.pdf", "sub/moved.pdf#a.pdf"]
    (docs / "copy.pdf").write_bytes((docs / "sub" / "moved.pdf").read_bytes())
    report = index.ingest(docs, settings=NO_OCR)
    assert [failure.path.name for failure in report.duplicates] == ["copy.pdf", "copy.pdf#a.pdf"]
    (docs / "sub" / "moved.pdf").unlink()
    assert index.ingest(docs, settings=NO_OCR, sync=True, dry_run=True).removed == 2
    assert index.ingest(docs, settings=NO_OCR, sync=True).removed == 2
    assert ids(index) == ["copy.pdf", "copy.pdf#a.pdf"]
    assert embedded_count(embedder) == count
    assert index.verify() == []


def test_attachments_are_deleted_by_path_and_with_the_file(index, docs, pdf):
    for name in ("one.pdf", "two.pdf"):
        portfolio(docs / name, [("a.pdf", pdf(f"whales {name}")), ("b.docx.pdf", pdf(f"cats {name}"))])
    index.ingest(docs, settings=NO_OCR)
    assert index.delete("one.pdf#a.pdf") == 1
    assert index.delete(str(docs / "one.pdf#b.docx.pdf")) == 1
    assert ids(index) == ["one.pdf", "two.pdf", "two.pdf#a.pdf", "two.pdf#b.docx.pdf"]
    assert index.ingest(docs, settings=NO_OCR).documents == 2, "a deleted attachment of an existing file is read again"
    assert index.delete(filter={"path": "one.pdf"}) == 3
    assert index.delete(docs / "two.pdf") == 3
    assert ids(index) == []
    assert index.verify() == []


def test_attachments_have_the_metadata_of_their_file(index, docs, pdf):
    portfolio(docs / "report.pdf", [("a.pdf", pdf("whales")), ("b.pdf", pdf("cats"))])
    sidecar = docs / "report.json"
    sidecar.write_text(json.dumps({"year": 2024}))
    paths = []

    def metadata(path):
        paths.append(path)
        return {"size": path.stat().st_size}

    index.ingest(docs, settings=NO_OCR, metadata=metadata)
    expected = {"size": (docs / "report.pdf").stat().st_size, "year": 2024}
    assert [record.metadata for record in index.documents()] == [expected] * 3
    assert paths == [docs / "report.pdf"]
    sidecar.write_text(json.dumps({"year": 2025}))
    assert index.ingest(docs, settings=NO_OCR).unchanged == 3
    assert {hit.doc_id for hit in index.search("whales", k=9, filter={"year": 2025})} == set(ids(index))


def test_attachment_that_cannot_be_read_is_reported_in_every_run(index, docs, pdf):
    portfolio(docs / "report.pdf", [("bad.pdf", b"text"), ("a.pdf", pdf("whales")), ("cut.pdf", pdf("cats")[:40])])
    for _ in range(2):
        report = index.ingest(docs, settings=NO_OCR)
        assert sorted(failure.path.name for failure in report.failed) == ["report.pdf#bad.pdf", "report.pdf#cut.pdf"]
        assert ids(index) == ["report.pdf", "report.pdf#a.pdf"]
    portfolio(docs / "report.pdf", [("bad.pdf", pdf("dogs")), ("a.pdf", pdf("whales"))])
    assert index.ingest(docs, settings=NO_OCR).failed == ()
    assert ids(index) == ["report.pdf", "report.pdf#a.pdf", "report.pdf#bad.pdf"]


def test_attachments_beyond_the_limit_are_read_after_raising_it(index, docs, pdf):
    portfolio(docs / "report.pdf", [(f"{n}.pdf", pdf(f"text {n}")) for n in range(3)])
    limited = IngestSettings(ocr="never", isolate=False, dpi=40, limits=Limits(max_attachments=1))
    for _ in range(2):
        assert "max_attachments" in index.ingest(docs, settings=limited).failed[0].reason
        assert ids(index) == ["report.pdf", "report.pdf#0.pdf"]
    assert index.ingest(docs, settings=NO_OCR).documents == 2


def test_other_attachments_are_named_in_a_warning(index, docs, pdf):
    portfolio(docs / "invoice.pdf", [("factur-x.xml", b"<invoice/>")], collection=False)
    inner = portfolio(docs / "inner.pdf", [("deep.pdf", pdf("whales"))]).read_bytes()
    (docs / "inner.pdf").unlink()
    portfolio(docs / "outer.pdf", [("inner.pdf", inner)])
    plan = index.ingest(docs, settings=NO_OCR, dry_run=True)
    assert {warning.path.name for warning in plan.warnings} == {"invoice.pdf", "outer.pdf#inner.pdf"}
    report = index.ingest(docs, settings=NO_OCR)
    warnings = {warning.path.name: warning.reason for warning in report.warnings}
    assert "'factur-x.xml'" in warnings["invoice.pdf"]
    assert "'deep.pdf'" in warnings["outer.pdf#inner.pdf"]
    assert ids(index) == ["invoice.pdf", "outer.pdf", "outer.pdf#inner.pdf"]


def test_interrupted_run_is_completed_by_the_next_run(tmp_path, docs, pdf, monkeypatch):
    class InterruptingEmbedder(FakeEmbedder):
        calls = 0

        def encode_document(self, documents, **options):
            InterruptingEmbedder.calls += 1
            if InterruptingEmbedder.calls == 3:
                raise KeyboardInterrupt
            return super().encode_document(documents, **options)

    monkeypatch.setattr(ingest, "BATCH_PAGES", 1)
    portfolio(docs / "report.pdf", [(f"{n}.pdf", pdf(f"whales {n}")) for n in range(4)])
    with DocumentIndex.open(tmp_path / "kb", embedder=InterruptingEmbedder()) as index:
        assert index.ingest(docs, settings=NO_OCR).interrupted
        assert sum(record.is_complete for record in index.documents()) < 5
        report = index.ingest(docs, settings=NO_OCR)
        assert not report.interrupted
        assert len(ids(index)) == 5
        assert InterruptingEmbedder.calls <= 8, "pages stored before the interruption are not embedded again"
        assert index.verify() == []
        assert index.ingest(docs, settings=NO_OCR).unchanged == 5


def test_file_with_the_path_of_an_attachment_is_another_document(index, docs, pdf):
    portfolio(docs / "report.pdf", [("a.pdf", pdf("whales"))])
    index.ingest(docs, settings=NO_OCR)
    sample_pdf(docs / "report.pdf#a.pdf", ["cats sleep"])
    for force in (False, True):
        report = index.ingest(docs, settings=NO_OCR, force=force)
        assert report.failed == ()
        texts = {hit.text.split()[0] for hit in index.search("whales cats", k=9)}
        assert texts == {"Cover", "whales", "cats"}
    assert index.verify() == []


def test_copy_of_an_index_keeps_attachments(index, docs, pdf, tmp_path):
    portfolio(docs / "report.pdf", [("a.pdf", pdf("whales"))])
    index.ingest(docs, settings=NO_OCR)
    index.copy(tmp_path / "copy")
    with DocumentIndex.open(tmp_path / "copy", embedder=FakeEmbedder()) as copy:
        assert copy.ingest(docs, settings=NO_OCR).unchanged == 2
        assert copy.delete("report.pdf") == 2
