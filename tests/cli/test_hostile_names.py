"""Names and texts of documents with terminal codes: no output contains a character that a terminal obeys."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from pathlib import Path

import pytest
from helpers.command_line import NO_OCR

from jina_rag import DocumentIndex, load_pages
from jina_rag.testing import sample_pdf

CODES = "\x1b]52;c;cm0gLXJmIH4K\x07\x1b[31m\x9b1m\u202egpj\u2066\x85\r\nerror: disk full"
BODY = "The annual report of the harbour lists cranes, tugs and ferries"


def obeyed(text: str, line_breaks: str = "\n") -> set[str]:
    """Return the characters of a text that change the display."""
    return {c for c in text if not c.isprintable() and c not in line_breaks}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    if sys.platform != "linux":
        pytest.skip("other systems refuse such names")
    folder = tmp_path_factory.mktemp("hostile") / "docs"
    folder.mkdir()
    sample_pdf(folder / "a.pdf", [f"{BODY} {number}" for number in range(3)])
    sample_pdf(folder / "b.pdf", [f"{BODY} of {number}" for number in range(3)])
    shutil.copy(folder / "a.pdf", folder / "c.pdf")
    for name in ("a", "b", "c"):
        os.rename(folder / f"{name}.pdf", folder / f"{name}{CODES}.pdf")
    (folder / f"damaged{CODES}.pdf").write_bytes(b"%PDF-1.4 nothing")
    (folder / f"note{CODES}.zip").write_bytes(b"PK nothing")
    (folder / f"b{CODES}.pdf.json").write_text(json.dumps({f"key{CODES}": float("nan"), "when": CODES}))
    return folder


def test_no_command_prints_terminal_codes(cli, hostile, tmp_path):
    kb = tmp_path / "kb"
    with DocumentIndex.open(tmp_path / "added", embedder="lite-en") as added:
        added.add([f"zebras live in {CODES} the savanna"], ids=[f"t{CODES}"])
    kinds = (
        ("ingest", hostile, "-i", kb, *NO_OCR, "--dry-run"),
        ("ingest", hostile, "-i", kb, *NO_OCR),
        ("ingest", hostile, "-i", kb, *NO_OCR),
        ("search", "cranes and tugs", "-i", kb, "-k", "9"),
        ("search", f"cranes {CODES}", "-i", kb, "--dedup", "--explain"),
        ("search", "cranes and tugs", "-i", kb, "--group-by", "document"),
        ("search", "cranes", "-i", kb, "--filter", f"path={CODES}"),
        ("search", "cranes", "-i", tmp_path / f"x{CODES}"),
        ("search", "zebras", "-i", tmp_path / "added"),
        ("info", "-i", kb, "--documents"),
        ("verify", "-i", kb),
        ("delete", f"nothing{CODES}", "-i", kb),
        ("models", f"x{CODES}"),
    )
    for arguments in kinds:
        for form in ((), ("--json",)):
            result = cli(*arguments, *form)
            assert not obeyed(result.out + result.err), (arguments[0], form)
            assert "error: disk full" not in (result.out + result.err).splitlines()
    hits = cli("search", "cranes and tugs", "-i", kb, "-k", "9", "--json").json["hits"]
    assert {hit["path"] for hit in hits} <= {str(path) for path in hostile.iterdir()}
    assert "cranes" in hits[0]["snippet"]


def test_no_log_record_contains_line_breaks_or_terminal_codes(hostile, caplog):
    with caplog.at_level(logging.DEBUG, logger="jina_rag"):
        assert len(list(load_pages(hostile))) == 9
    messages = [record.getMessage() for record in caplog.records]
    assert any("damaged" in message for message in messages)
    assert not obeyed("".join(messages), line_breaks="")
