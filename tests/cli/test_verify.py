"""Command line: ``jina-rag verify``."""

from __future__ import annotations

from helpers.command_line import NO_OCR


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
