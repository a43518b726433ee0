"""The command line on indexes that live: plans, folders that change, passwords, limits, checks, copies, servers."""

from __future__ import annotations

import json
import shutil

import pymupdf
import pytest
from cli.test_commands import cli, docs, write_docs  # noqa: F401  # fixtures, and what they need

from jina_rag import DocumentIndex
from jina_rag.cli.output import console
from jina_rag.index import qdrant_server
from jina_rag.indexing.dry_run import IngestPlan
from jina_rag.testing import sample_pdf

QUICK = ("--ocr", "never")


def test_a_dry_run_makes_nothing(cli, docs, tmp_path):  # noqa: F811
    kb = tmp_path / "kb"
    (docs / "broken.pdf").write_text("no pdf")
    plan = cli("ingest", docs, "-i", kb, *QUICK, "--dry-run", "--json")
    assert (plan.code, plan.err) == (1, "")
    found = plan.json
    assert (found["new"], found["pages"], found["unchanged"]) == (2, 4, 0)
    assert found["estimate"]["seconds"] > 0
    assert found["estimate"]["bytes"] > 0
    assert "broken.pdf" in found["failed"][0]["path"]
    assert not kb.exists()
    (docs / "broken.pdf").unlink()
    said = cli("ingest", docs, "-i", kb, *QUICK, "--dry-run")
    assert said.code == 0
    assert "Would index 2 new documents and 0 changed documents, 4 pages" in said.out
    assert "About" in said.out
    assert not kb.exists()
    assert cli("ingest", docs, "-i", kb, *QUICK).code == 0
    again = cli("ingest", docs, "-i", kb, *QUICK, "--dry-run", "--json").json
    assert (again["new"], again["unchanged"], again["pages"], again["estimate"]["seconds"]) == (0, 2, 0, 0)


def test_sync_moved_and_copies_for_a_person(cli, docs, tmp_path):  # noqa: F811
    kb = tmp_path / "kb"
    shutil.copy(docs / "animals.pdf", docs / "copy.pdf")
    first = cli("ingest", docs, "-i", kb, *QUICK)
    assert "Duplicates (1)" in first.err
    assert "same content as animals.pdf" in first.err
    (docs / "copy.pdf").unlink()
    (docs / "reports" / "energy.pdf").rename(docs / "power.pdf")
    second = cli("ingest", docs, "-i", kb, *QUICK, "--sync")
    assert "2 documents unchanged (1 moved)" in second.err
    assert "Removed 1 document whose file is gone" in second.err
    assert "power.pdf" in cli("search", "solar", "-i", kb).out


def test_copies_are_shown_with_a_hit(cli, docs, tmp_path):  # noqa: F811
    kb = tmp_path / "kb"
    shutil.copy(docs / "animals.pdf", docs / "copy.pdf")
    cli("ingest", docs, "-i", kb, *QUICK)
    found = cli("search", "whales", "-i", kb, "-k", 1, "--json").json["hits"][0]
    assert found["copies"] == [str(docs / "copy.pdf")]
    assert "and in 1 copy" in cli("search", "whales", "-i", kb, "-k", 1).out


def locked(path, password):
    with pymupdf.open() as document:
        document.new_page().insert_text((50, 50), f"secret of {path.stem}")
        document.save(path, encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw=password)


def test_passwords_from_a_file(cli, tmp_path):  # noqa: F811
    folder = tmp_path / "locked"
    folder.mkdir()
    locked(folder / "one.pdf", "alpha")
    locked(folder / "two.pdf", "beta")
    words = tmp_path / "words.json"
    for content, code, documents in [
        ({"one*": "alpha", "two*": ["no", "beta"]}, 0, 2),
        ({"one*": "alpha"}, 1, 1),
        (["alpha", "beta"], 0, 2),
    ]:
        words.write_text(json.dumps(content))
        kb = tmp_path / f"kb{documents}{code}{type(content).__name__}"
        report = cli("ingest", folder, "-i", kb, *QUICK, "--passwords", words, "--json")
        assert (report.code, report.json["documents"]) == (code, documents)
        assert "alpha" not in report.out + report.err
    words.write_text("not json")
    cli("ingest", folder, "-i", tmp_path / "kb", "--passwords", words).refused("words.json is not JSON")
    words.write_text('"alpha"')
    cli("ingest", folder, "-i", tmp_path / "kb", "--passwords", words).refused("list of passwords")
    cli("ingest", folder, "-i", tmp_path / "kb", "--passwords", tmp_path / "none").refused("cannot be read")


def test_limits_and_renderers(cli, docs, tmp_path):  # noqa: F811
    report = cli("ingest", docs, "-i", tmp_path / "kb", *QUICK, "--limit", "max_pages=1", "--json")
    assert report.code == 1
    assert all("limits.max_pages" in failure["reason"] for failure in report.json["failed"])
    report = cli("ingest", docs, "-i", tmp_path / "kb", *QUICK, "--renderer", "pypdfium2", "--json")
    assert (report.code, report.json["pages"]) == (0, 4)
    assert cli("search", "whales", "-i", tmp_path / "kb", "--json").json["hits"][0]["page"] == 2
    cli("ingest", docs, "-i", tmp_path / "x", "--limit", "max_colours=3").refused("the limits are max_pixels")
    cli("ingest", docs, "-i", tmp_path / "x", "--limit", "max_pages=many").refused("whole number")
    cli("ingest", docs, "-i", tmp_path / "x", "--limit", "max_pages=0").refused("max_pages is 0")
    cli("ingest", docs, "-i", tmp_path / "x", "--renderer", "ghostscript").refused("pymupdf, pypdfium2")
    cli("ingest", docs, "-i", tmp_path / "x", "--storage", "tiny").refused("'tiny'")
    assert not (tmp_path / "x").exists()


def test_again(cli, docs, tmp_path):  # noqa: F811
    cli("ingest", docs, "-i", tmp_path / "kb", *QUICK)
    assert cli("ingest", docs, "-i", tmp_path / "kb", *QUICK, "--force", "--json").json["documents"] == 2


def test_remove_by_filter(cli, docs, tmp_path):  # noqa: F811
    kb = tmp_path / "kb"
    cli("ingest", docs / "animals.pdf", "-i", kb, *QUICK, "--meta", "year=2024")
    cli("ingest", docs / "reports", "-i", kb, *QUICK, "--meta", "year=2025")
    cli("remove", "-i", kb).refused("Name documents, or give a --filter")
    assert cli("remove", "-i", kb, "--filter", "year=1999").code == 1
    result = cli("remove", "-i", kb, "--filter", "year=2024", "--json")
    assert (result.code, result.json["removed"]) == (0, 1)
    assert cli("remove", "-i", kb, "--filter", "path=*.pdf").code == 0


def test_verify(cli, docs, tmp_path):  # noqa: F811
    kb = tmp_path / "kb"
    cli("ingest", docs, "-i", kb, *QUICK)
    clean = cli("verify", "-i", kb)
    assert (clean.code, clean.err) == (0, "")
    assert "In order: 2 documents, 4 pages" in clean.out
    next((kb / "images").rglob("*.jpg")).unlink()
    found = cli("verify", "-i", kb, "--json")
    assert found.code == 1
    (problem,) = found.json["problems"]
    assert problem["doc_id"] in ("animals.pdf", "reports/energy.pdf")
    assert "image of page" in problem["reason"]
    said = cli("verify", "-i", kb)
    assert "--force" in said.out
    assert cli("ingest", docs, "-i", kb, *QUICK, "--force").code == 0
    assert cli("verify", "-i", kb).code == 0


def test_info_says_how_and_where_the_bytes_are(cli, docs, tmp_path):  # noqa: F811
    kb = tmp_path / "kb"
    cli("ingest", docs, "-i", kb, *QUICK, "--storage", "compact")
    result = cli("info", "-i", kb)
    assert "compact" in result.out
    assert "vectors: multi" in result.out
    assert "a page" in result.out
    cli("ingest", docs, "-i", kb, "--storage", "exact").refused("as compact, not as exact")


@pytest.fixture
def address(monkeypatch):
    from qdrant_client import QdrantClient

    client = QdrantClient(location=":memory:")
    monkeypatch.setattr(qdrant_server, "_client", client)
    yield "http://localhost:6333/docs"
    client.close()


def test_every_command_on_a_server(cli, docs, tmp_path, address):  # noqa: F811
    there = ("-i", address, "--assets-dir", tmp_path / "files")
    assert cli("ingest", docs, *there, *QUICK, "--json").json["pages"] == 4
    hit = cli("search", "whales", *there, "--json").json["hits"][0]
    assert (hit["doc_id"], hit["page"]) == ("animals.pdf", 2)
    assert cli("info", *there, "--json").json["location"] == address
    assert cli("verify", *there).code == 0
    assert cli("remove", "animals.pdf", *there).code == 0
    assert cli("ingest", docs, *there, *QUICK, "--dry-run", "--json").json["new"] == 1


def test_copy_to_a_server_and_back(cli, docs, tmp_path, address):  # noqa: F811
    kb = tmp_path / "kb"
    cli("ingest", docs, "-i", kb, *QUICK)
    result = cli("copy", kb, address, "--assets-dir", tmp_path / "files", "--json")
    assert (result.code, result.json["points_sent"]) == (0, 4)
    assert cli("copy", address, tmp_path / "back", "--from-assets-dir", tmp_path / "files").code == 0
    with DocumentIndex.open(tmp_path / "back", create=False) as index:
        assert index.info().pages == 4
        assert index.verify() == []
    cli("copy", tmp_path / "none", tmp_path / "other").refused("There is no index")
    cli("copy", kb, kb).refused("onto itself")


def test_a_server_that_is_not_there_is_one_sentence(cli, docs, tmp_path):  # noqa: F811
    missing = "http://127.0.0.1:9/docs?retries=0&timeout=1"
    for command in (("ingest", docs), ("search", "whales"), ("info",), ("verify",)):
        cli(*command, "-i", missing, "--assets-dir", tmp_path / "files").refused("No Qdrant server answers")
    cli("search", "x", "-i", "http://127.0.0.1:6333").refused("names no collection")
    cli("search", "x", "-i", tmp_path / "kb", "--assets-dir", tmp_path).refused("go with the address")


def test_an_office_file_without_libreoffice_is_one_sentence(cli, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr("jina_rag.parsing.office.find_libreoffice", lambda: None)
    (tmp_path / "a.rtf").write_bytes(rb"{\rtf1 hello}")
    sample_pdf(tmp_path / "b.pdf", ["hello"])
    report = cli("ingest", tmp_path, "-i", tmp_path / "kb", *QUICK, "--json")
    assert (report.code, report.json["documents"]) == (1, 1)
    assert "install LibreOffice" in report.json["failed"][0]["reason"]


def test_durations_and_sizes_for_a_person():
    assert [console.duration(s) for s in (3.4, 200, 3600 * 5)] == ["3 s", "3 min", "5.0 h"]
    assert console.size(3_200_000_000) == "3.2 GB"
    assert console.plan_json(IngestPlan())["estimate"]["basis"] == "nothing to do"
