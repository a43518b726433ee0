"""Command line: ``jina-rag info``, text and JSON output."""

from __future__ import annotations

import pytest
from helpers.command_line import NO_OCR


def test_json_contains_counts_model_and_bytes(cli, corpus):
    kb = corpus / "kb"
    plain = cli("info", "-i", kb, "--json")
    assert (plain.code, plain.err) == (0, "")
    content = plain.json
    assert set(content) == {
        "location", "documents", "pages", "regions", "pending", "embedder", "fingerprint", "version", "storage",
        "bytes",
    }  # fmt: skip
    assert (content["documents"], content["pages"], content["pending"], content["embedder"]) == (2, 4, 0, "lite")
    assert {"images", "manifest", "ocr", "vectors: multi"} <= set(content["bytes"])
    assert all(0 <= size < 10_000_000 for size in content["bytes"].values())
    assert content["bytes"]["images"] > 1000
    result = cli("info", "-i", kb, "--documents", "--json").json["list"]
    assert [(entry["doc_id"], entry["pages"], entry["done"]) for entry in result] == [
        ("animals.pdf", 2, True),
        ("energy.pdf", 2, True),
    ]


@pytest.mark.parametrize("width", [80, 140])
def test_table_fits_the_terminal(cli, corpus, width):
    result = cli("info", "-i", corpus / "kb", "--documents", width=width)
    assert (result.code, result.err) == (0, "")
    assert "lite@" in result.out
    assert "animals.pdf" in result.out
    assert "unfinished" not in result.out
    assert max(map(len, result.out.splitlines())) <= width


def test_info_shows_storage_and_bytes_by_part(cli, docs, tmp_path):
    kb = tmp_path / "kb"
    cli("ingest", docs, "-i", kb, *NO_OCR, "--storage", "compact")
    result = cli("info", "-i", kb)
    assert "compact" in result.out
    assert "vectors: multi" in result.out
    assert "per page" in result.out
    cli("ingest", docs, "-i", kb, "--storage", "exact").assert_usage_error("storage compact, not exact")
