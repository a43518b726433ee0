"""Demo: the sample documents match SOURCES.json and have free licenses."""

from __future__ import annotations

import hashlib
import json

import pymupdf
import pytest

from jina_rag.demo.samples import sample_documents, sample_folder, sample_queries

FREE = {"public domain", "CC-BY-SA-4.0", "CC-BY-4.0", "Apache-2.0", "MIT", "LPPL", "LPPL-1.3+"}
ROWS = json.loads((sample_folder().parent / "SOURCES.json").read_text(encoding="utf-8"))["documents"]


def test_sources_list_exactly_the_files():
    on_disk = sorted(path.name for path in sample_folder().iterdir())
    assert on_disk == [row["file"] for row in ROWS] == [document.file for document in sample_documents()]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_file_matches_its_checksum_and_page_count(row):
    content = (sample_folder() / row["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == row["sha256"]
    assert len(content) == row["bytes"]
    with pymupdf.open(sample_folder() / row["file"]) as document:
        assert len(document) == row["pages"]
        assert sum(not page.get_text().strip() for page in document) == row["pages_without_text"]
    assert row["licence"] in FREE
    assert row["source"]
    assert row["rights"]
    assert row["copied_from"]
    assert row["changes"]


def test_sources_md_lists_every_document_with_its_license():
    text = (sample_folder().parent / "SOURCES.md").read_text(encoding="utf-8")
    lines = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    assert set(lines) == {row["file"] for row in ROWS}
    for row in ROWS:
        cells = [cell.strip() for cell in lines[row["file"]].strip("|").split(" | ")]
        assert cells[1] == row["title"]
        assert cells[2] == str(row["pages"])
        assert cells[3] == f"{row['licence']}; {row['rights']}"
        assert row["copied_from"] in cells[4]
        assert cells[5] == row["changes"]


def test_samples_cover_every_kind_within_the_size_limit():
    assert len(ROWS) >= 8
    assert 30 <= sum(row["pages"] for row in ROWS) <= 45
    assert sum(row["bytes"] for row in ROWS) <= 6_000_000
    contents = {content for row in ROWS for content in row["contains"]}
    assert {"chart", "table", "figure", "scan", "image file", "codes"} <= contents
    assert {row["lang"] for row in ROWS} > {"en", "de", "ja"}
    assert any(row["pages_without_text"] for row in ROWS)


def test_queries_cover_five_kinds_and_name_existing_pages():
    pages = {row["file"]: row["pages"] for row in ROWS}
    queries = sample_queries()
    assert {query.kind for query in queries} == {"text", "table", "chart", "scan", "code"}
    assert len({query.doc_id for query in queries}) == 5
    for query in queries:
        assert 1 <= query.page <= pages[query.doc_id]
        assert query.query.endswith("?")
        assert query.answer
