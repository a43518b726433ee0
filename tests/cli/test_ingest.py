"""Command line: ``jina-rag ingest``: reports, dry runs, metadata, passwords, limits, Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pymupdf
import pytest
from helpers.command_line import NO_OCR

from jina_rag import DocumentIndex
from jina_rag.cli.ingest import _metadata
from jina_rag.index import session
from jina_rag.indexing.dry_run import IngestPlan
from jina_rag.testing import sample_pdf


def test_json_of_first_and_second_run_contains_counts(cli, docs, tmp_path):
    (docs / "broken.pdf").write_text("this is no pdf")
    (docs / "notes.log").write_text("not a document")
    first = cli("ingest", docs, "--index", tmp_path / "kb", "--json")
    assert first.code == 1
    assert first.err == ""
    report = first.json
    assert set(report) == {
        "documents", "pages", "regions", "unchanged", "moved", "removed", "repeated", "duplicates", "failed", "skipped",
        "warnings", "interrupted", "seconds",
    }  # fmt: skip
    assert (report["documents"], report["pages"], report["unchanged"]) == (2, 4, 0)
    assert [(Path(f["path"]).name, "not a PDF" in f["reason"]) for f in report["failed"]] == [("broken.pdf", True)]
    assert [Path(f["path"]).name for f in report["skipped"]] == ["notes.log"]
    (docs / "broken.pdf").unlink()
    second = cli("ingest", docs, "--index", tmp_path / "kb", "--json")
    assert (second.code, second.json["documents"], second.json["unchanged"]) == (0, 0, 2)


def test_report_lists_counts_and_failures(cli, docs, tmp_path):
    (docs / "broken.pdf").write_text("this is no pdf")
    first = cli("ingest", docs, "--index", tmp_path / "kb", "--ocr", "never")
    assert (first.code, first.out) == (1, "")
    lines = first.err.splitlines()
    assert lines[0].startswith("Indexed 2 documents, 4 pages in ")
    assert lines[1] == "Failed (1):"
    assert "broken.pdf: The content is not a PDF" in lines[2]
    assert len(lines) == 3
    (docs / "broken.pdf").unlink()
    second = cli("ingest", docs, "--index", tmp_path / "kb", "--ocr", "never")
    assert (second.code, second.err) == (0, "Nothing to index: 2 documents unchanged.\n")


def test_report_uses_the_singular_for_one_document(cli, tmp_path):
    sample_pdf(tmp_path / "a.pdf", ["whales"])
    result = cli("ingest", tmp_path / "a.pdf", "--index", tmp_path / "kb", "--ocr", "never")
    assert "Indexed 1 document, 1 page in " in result.err


def test_metadata_is_filterable(cli, docs, tmp_path):
    kb = tmp_path / "kb"
    cli(
        "ingest", docs / "animals.pdf", "-i", kb, "--metadata", "year=2024", "--metadata", "by=me=you", "--ocr", "never"
    )
    cli("ingest", docs / "reports", "-i", kb, "--metadata", "year=2025", "--ocr", "never")

    def ids_of(*filters: str) -> set[str]:
        options = [part for entry in filters for part in ("--filter", entry)]
        return {hit["doc_id"] for hit in cli("search", "power", "-i", kb, "--json", *options).json["hits"]}

    assert ids_of() == {"animals.pdf", "energy.pdf"}
    assert ids_of("year=2024") == {"animals.pdf"}
    assert ids_of("year=2024", "year=2025") == {"animals.pdf", "energy.pdf"}
    assert ids_of("by=me=you") == {"animals.pdf"}
    assert ids_of("year=2025", "by=me=you") == set()
    assert ids_of("path=en*", "page=2") == {"energy.pdf"}
    assert ids_of("year>=2025") == {"energy.pdf"}
    assert ids_of("year>2023", "year<2025") == {"animals.pdf"}
    assert ids_of("year>2025") == set()
    for wrong, reason in (
        ("year>=new", "not a number and not a date"),
        ("year>=2025-02-30", "KEY>=2025-01-31"),
        ("year", "KEY>=NUMBER"),
        ("year!=2024", "KEY=VALUE"),
        ("has=photo", "chart, table, figure"),
    ):
        cli("search", "power", "-i", kb, "--filter", wrong).assert_usage_error(reason)
    cli("search", "power", "-i", kb, "--filter", "year=2024", "--filter", "year>2023").assert_usage_error(
        "both a value and a range"
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024", 2024),
        ("-1.5", -1.5),
        ("007", "007"),
        ("1e5", "1e5"),
        ("nan", "nan"),
        ("٣", "٣"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_numeric_metadata_becomes_a_number(text, value):
    (content,) = _metadata([f"key={text}"]).values()
    assert (content, type(content)) == (value, type(value))


def test_missing_path_creates_no_index(cli, tmp_path):
    cli("ingest", tmp_path / "dcos", "--index", tmp_path / "kb").assert_usage_error("does not exist", "dcos")
    assert not (tmp_path / "kb").exists()


@pytest.mark.parametrize(
    "content",
    ['{"*": 5}', "null", "5", '{"*": null}', '{"*": [["a"]]}', '[["a"]]', '{"*": {"a": 1}}', "[5]", "[" * 100_000],
    ids=lambda content: content[:20],
)
def test_invalid_passwords_file_prints_one_sentence(cli, docs, tmp_path, content):
    file = tmp_path / "words.json"
    file.write_text(content)
    result = cli("ingest", docs, "--index", tmp_path / "kb", "--passwords", file)
    result.assert_usage_error("words.json")
    assert "Internal error" not in result.err
    assert not (tmp_path / "kb").exists()


def test_unknown_model_creates_no_index(cli, docs, tmp_path):
    result = cli("ingest", docs, "--index", tmp_path / "kb", "--embedder", "lite-xl")
    result.assert_usage_error("No model 'lite-xl'", "`jina-rag models`")
    assert not (tmp_path / "kb").exists()


def test_model_other_than_that_of_the_index_is_rejected(cli, corpus):
    result = cli("ingest", corpus / "docs", "--index", corpus / "kb", "--embedder", "lite-en")
    result.assert_usage_error("was built with the embedder 'lite'", "new index")


def test_folder_with_other_files_is_rejected_as_index(cli, docs):
    cli("ingest", docs, "--index", docs).assert_usage_error("contains other files")
    assert sorted(path.name for path in docs.iterdir()) == ["animals.pdf", "reports"]
    cli("ingest", docs, "--index", docs / "animals.pdf").assert_usage_error("is a file")


@pytest.mark.skipif(os.name == "nt", reason="signals are different there")
def test_ctrl_c_during_ingest_leaves_a_usable_index(cli, tmp_path):
    folder, kb = tmp_path / "docs", tmp_path / "kb"
    folder.mkdir()
    for d in range(20):
        words = " and more words that take their time" * 25
        sample_pdf(folder / f"doc{d}.pdf", [f"juniper document {d} page {p}{words}" for p in range(6)])
    command = [sys.executable, "-m", "jina_rag", "ingest", folder, "--index", kb, "--ocr", "never", "--json"]
    # A background shell ignores SIGINT, and child processes inherit the ignored signal.
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not any((kb / "images").rglob("*.jpg")):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert b"Traceback" not in err
    report = json.loads(out)
    assert report["interrupted"] is True
    assert report["documents"] < 20
    assert cli("search", "juniper", "-i", kb).code == 0
    second_run = cli("ingest", folder, "--index", kb, "--ocr", "never", "--json")
    assert second_run.code == 0
    assert second_run.json["documents"] + second_run.json["unchanged"] == 20
    assert second_run.json["unchanged"] == report["documents"]
    info = cli("info", "-i", kb, "--json").json
    assert (info["documents"], info["pages"], info["pending"]) == (20, 120, 0)


def test_dry_run_creates_nothing(cli, docs, tmp_path):
    kb = tmp_path / "kb"
    (docs / "broken.pdf").write_text("no pdf")
    plan = cli("ingest", docs, "-i", kb, *NO_OCR, "--dry-run", "--json")
    assert (plan.code, plan.err) == (1, "")
    content = plan.json
    assert (content["new"], content["pages"], content["unchanged"]) == (2, 4, 0)
    assert content["estimate"]["seconds"] > 0
    assert content["estimate"]["bytes"] > 0
    assert "broken.pdf" in content["failed"][0]["path"]
    assert not kb.exists()
    (docs / "broken.pdf").unlink()
    message = cli("ingest", docs, "-i", kb, *NO_OCR, "--dry-run")
    assert message.code == 0
    assert "Would index 2 new documents and 0 changed documents, 4 pages" in message.out
    assert "About" in message.out
    assert not kb.exists()
    assert cli("ingest", docs, "-i", kb, *NO_OCR).code == 0
    second = cli("ingest", docs, "-i", kb, *NO_OCR, "--dry-run", "--json").json
    assert (second["new"], second["unchanged"], second["pages"], second["estimate"]["seconds"]) == (0, 2, 0, 0)


def test_interrupted_dry_run_is_reported(cli, docs, tmp_path, monkeypatch):
    monkeypatch.setattr(DocumentIndex, "ingest", lambda *_, **__: IngestPlan(new=1, pages=2, interrupted=True))
    result = cli("ingest", docs, "-i", tmp_path / "kb", "--dry-run")
    assert (result.code, "Interrupted" in result.err) == (130, True)


def test_report_counts_moved_deleted_and_duplicate_files(cli, docs, tmp_path):
    kb = tmp_path / "kb"
    shutil.copy(docs / "animals.pdf", docs / "copy.pdf")
    first = cli("ingest", docs, "-i", kb, *NO_OCR)
    assert "Duplicates (1)" in first.err
    assert "Same content as animals.pdf" in first.err
    (docs / "copy.pdf").unlink()
    (docs / "reports" / "energy.pdf").rename(docs / "power.pdf")
    second = cli("ingest", docs, "-i", kb, *NO_OCR, "--sync")
    assert "2 documents unchanged (1 moved)" in second.err
    assert "Deleted 1 document whose source file no longer exists" in second.err
    assert "power.pdf" in cli("search", "solar", "-i", kb).out


def write_encrypted_pdf(path, password):
    with pymupdf.open() as document:
        document.new_page().insert_text((50, 50), f"secret of {path.stem}")
        document.save(path, encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw=password)


def test_passwords_file_opens_encrypted_files(cli, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    write_encrypted_pdf(folder / "one.pdf", "alpha")
    write_encrypted_pdf(folder / "two.pdf", "beta")
    words = tmp_path / "words.json"
    for content, code, documents in [
        ({"one*": "alpha", "two*": ["no", "beta"]}, 0, 2),
        ({"one*": "alpha"}, 1, 1),
        (["alpha", "beta"], 0, 2),
    ]:
        words.write_text(json.dumps(content))
        kb = tmp_path / f"kb{documents}{code}{type(content).__name__}"
        report = cli("ingest", folder, "-i", kb, *NO_OCR, "--passwords", words, "--json")
        assert (report.code, report.json["documents"]) == (code, documents)
        assert "alpha" not in report.out + report.err
    words.write_text("not json")
    cli("ingest", folder, "-i", tmp_path / "kb", "--passwords", words).assert_usage_error(
        "words.json is not valid JSON"
    )
    words.write_text('"alpha"')
    cli("ingest", folder, "-i", tmp_path / "kb", "--passwords", words).assert_usage_error(
        "expected a list of passwords"
    )
    cli("ingest", folder, "-i", tmp_path / "kb", "--passwords", tmp_path / "none").assert_usage_error("cannot be read")


def test_limit_and_renderer_options_apply_to_ingest(cli, docs, tmp_path):
    report = cli("ingest", docs, "-i", tmp_path / "kb", *NO_OCR, "--limit", "max_pages=1", "--json")
    assert report.code == 1
    assert all("Limits.max_pages" in failure["reason"] for failure in report.json["failed"])
    report = cli("ingest", docs, "-i", tmp_path / "kb", *NO_OCR, "--renderer", "pypdfium2", "--json")
    assert (report.code, report.json["pages"]) == (0, 4)
    assert cli("search", "whales", "-i", tmp_path / "kb", "--json").json["hits"][0]["page"] == 2
    cli("ingest", docs, "-i", tmp_path / "x", "--limit", "max_colors=3").assert_usage_error(
        "expected one of max_pixels"
    )
    cli("ingest", docs, "-i", tmp_path / "x", "--limit", "max_pages=many").assert_usage_error("expected an integer")
    cli("ingest", docs, "-i", tmp_path / "x", "--limit", "max_pages=0").assert_usage_error("max_pages is 0")
    cli("ingest", docs, "-i", tmp_path / "x", "--renderer", "ghostscript").assert_usage_error("pymupdf, pypdfium2")
    cli("ingest", docs, "-i", tmp_path / "x", "--storage", "tiny").assert_usage_error("'tiny'")
    assert not (tmp_path / "x").exists()


def test_force_embeds_unchanged_documents(cli, docs, tmp_path):
    cli("ingest", docs, "-i", tmp_path / "kb", *NO_OCR)
    assert cli("ingest", docs, "-i", tmp_path / "kb", *NO_OCR, "--force", "--json").json["documents"] == 2


def test_office_file_without_libreoffice_prints_one_sentence(cli, tmp_path, monkeypatch):
    monkeypatch.setattr("jina_rag.parsing.office.find_libreoffice", lambda: None)
    (tmp_path / "a.rtf").write_bytes(rb"{\rtf1 hello}")
    sample_pdf(tmp_path / "b.pdf", ["hello"])
    report = cli("ingest", tmp_path, "-i", tmp_path / "kb", *NO_OCR, "--json")
    assert (report.code, report.json["documents"]) == (1, 1)
    assert "LibreOffice" in report.json["failed"][0]["reason"]


@pytest.mark.parametrize("path", ["", " "])
@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_empty_path_is_rejected_and_creates_no_index(cli, docs, tmp_path, monkeypatch, path, dry_run):
    monkeypatch.chdir(docs)
    cli("ingest", path, "--index", tmp_path / "kb", *dry_run).assert_usage_error("is empty")
    cli("ingest", docs, path, "--index", tmp_path / "kb", *dry_run).assert_usage_error("is empty")
    assert not (tmp_path / "kb").exists()


def test_devices_are_separated_by_commas(cli, docs, tmp_path, monkeypatch):
    devices = []
    load = session.load_embedder
    monkeypatch.setattr(session, "load_embedder", lambda *names, device, **_: devices.append(device) or load("lite-en"))
    index = tmp_path / "kb"
    assert (
        cli("ingest", docs, "--index", index, "--embedder", "lite-en", "--device", "cuda:0,cuda:1", *NO_OCR).code == 0
    )
    assert cli("search", "whales", "--index", index, "--device", "all").code == 0
    assert devices == ["cuda:0,cuda:1", "all"]
