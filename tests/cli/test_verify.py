"""Command line: ``jina-rag verify``."""

from __future__ import annotations

from helpers.command_line import NO_OCR, write_docs

from jina_rag import DocumentIndex
from jina_rag.catalog.maintenance import Problem
from jina_rag.config import IngestSettings


def test_verify_reports_missing_images_and_vectors(cli, docs, tmp_path):
    kb = tmp_path / "kb"
    cli("ingest", docs, "-i", kb, *NO_OCR)
    clean = cli("verify", "-i", kb)
    assert (clean.code, clean.err) == (0, "")
    assert "No problems found in 2 documents with 4 pages" in clean.out
    next((kb / "images").rglob("*.jpg")).unlink()
    content = cli("verify", "-i", kb, "--json")
    assert content.code == 1
    (problem,) = content.json["problems"]
    assert problem["doc_id"] in ("animals.pdf", "reports/energy.pdf")
    assert "image of page" in problem["reason"]
    message = cli("verify", "-i", kb)
    assert "--force" in message.out
    assert cli("ingest", docs, "-i", kb, *NO_OCR, "--force").code == 0
    assert cli("verify", "-i", kb).code == 0


def test_verify_advises_to_resume_an_interrupted_ingestion_without_force(cli, tmp_path, monkeypatch):
    """With --force, the pages that are already indexed would be embedded again."""
    docs, kb = write_docs(tmp_path / "docs"), tmp_path / "kb"
    with DocumentIndex.open(kb) as index:
        store = index._session.resources.store
        upsert, calls = store.upsert, []

        def interrupted_upsert(points):
            upsert(points)
            calls.append(points)
            raise KeyboardInterrupt

        monkeypatch.setattr(store, "upsert", interrupted_upsert)
        assert index.ingest(docs, settings=IngestSettings(ocr="never")).interrupted
    assert calls
    message = cli("verify", "-i", kb)
    assert (message.code, "Indexing was interrupted" in message.out) == (1, True)
    assert f"Run `jina-rag ingest PATH --index {kb}` with" in message.out
    (problem, *_) = cli("verify", "-i", kb, "--json").json["problems"]
    assert problem.keys() == {"doc_id", "reason"}
    assert cli("ingest", docs, "-i", kb, *NO_OCR).code == 0
    assert cli("verify", "-i", kb).code == 0


def test_verify_advises_force_if_one_problem_needs_it(cli, tmp_path, monkeypatch):
    problems = [Problem("Indexing was interrupted.", "a.pdf", needs_force=False)]
    monkeypatch.setattr(DocumentIndex, "verify", lambda _: problems)
    DocumentIndex.open(tmp_path / "kb").close()
    assert "--force" not in cli("verify", "-i", tmp_path / "kb").out
    problems.append(Problem("The image of page 1 is missing.", "b.pdf"))
    assert "--force` with" in cli("verify", "-i", tmp_path / "kb").out
