"""Command line: ``jina-rag delete`` by name and by filter."""

from __future__ import annotations

from helpers.command_line import NO_OCR


def test_delete_by_name_removes_documents_and_images(cli, docs, tmp_path):
    kb = tmp_path / "kb"
    cli("ingest", docs, "--index", kb, "--ocr", "never")
    images = list((kb / "images").rglob("*.jpg"))
    result = cli("delete", docs / "animals.pdf", "-i", kb)
    assert (result.code, result.out, result.err) == (0, "", "Deleted 1 document.\n")
    assert len(list((kb / "images").rglob("*.jpg"))) == len(images) - 2
    result = cli("delete", "reports/*", "no\nsuch[bold].pdf", "-i", kb)
    assert (result.code, result.out) == (1, "")
    assert result.err.splitlines()[0] == "Deleted 1 document."
    assert r"no\nsuch[bold].pdf" in result.err.splitlines()[1]
    second = cli("delete", "reports/*", "-i", kb, "--json")
    assert (second.code, second.err) == (1, "")
    assert second.json == {"removed": 0, "failed": [{"path": "reports/*", "reason": "No such document in the index."}]}
    assert cli("search", "whales", "-i", kb).out == "No hits.\n"


def test_delete_by_filter_removes_matching_documents(cli, docs, tmp_path):
    kb = tmp_path / "kb"
    cli("ingest", docs / "animals.pdf", "-i", kb, *NO_OCR, "--metadata", "year=2024")
    cli("ingest", docs / "reports", "-i", kb, *NO_OCR, "--metadata", "year=2025")
    cli("delete", "-i", kb).assert_usage_error("Pass a PATH or a --filter")
    assert cli("delete", "-i", kb, "--filter", "year=1999").code == 1
    result = cli("delete", "-i", kb, "--filter", "year=2024", "--json")
    assert (result.code, result.json["removed"]) == (0, 1)
    assert cli("delete", "-i", kb, "--filter", "path=*.pdf").code == 0
