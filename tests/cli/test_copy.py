"""Command line: ``jina-rag copy`` to a server and back."""

from __future__ import annotations

from helpers.command_line import NO_OCR

from jina_rag import DocumentIndex


def test_copy_to_a_server_and_back_preserves_the_index(cli, docs, tmp_path, address):
    kb = tmp_path / "kb"
    cli("ingest", docs, "-i", kb, *NO_OCR)
    result = cli("copy", kb, address, "--assets-dir", tmp_path / "files", "--json")
    assert (result.code, result.json["points_sent"]) == (0, 4)
    assert cli("copy", address, tmp_path / "back", "--from-assets-dir", tmp_path / "files").code == 0
    with DocumentIndex.open(tmp_path / "back", create=False) as index:
        assert index.info().pages == 4
        assert index.verify() == []
    cli("copy", tmp_path / "none", tmp_path / "other").assert_usage_error("No index at")
    cli("copy", kb, kb).assert_usage_error("onto itself")
