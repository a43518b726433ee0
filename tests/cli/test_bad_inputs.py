"""Command line: damaged and unusual files, one at a time and in one run.

`data/bad/manifest.json` describes each file and its expected result. Most files contain the word "juniper": a search
for this word must find every file that can be indexed, and no other.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from helpers.command_line import Result
from helpers.paths import DATA
from PIL import Image

from jina_rag import DocumentIndex, load_embedder
from jina_rag.cli import main

BAD = DATA / "bad"
FILES = {entry["file"]: entry for entry in json.loads((BAD / "manifest.json").read_text("utf-8"))["files"]}
WORD = "juniper"


@pytest.fixture(scope="module", autouse=True)
def model():
    """The default model, kept loaded so that all commands share its weights."""
    return load_embedder("lite")


@pytest.fixture
def cli(cli):
    """The command line, with a check that no file causes a traceback or an internal error."""

    def run(*args: object) -> Result:
        result = cli(*args)
        assert "Traceback" not in result.err + result.out
        assert "Internal error" not in result.err
        return result

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the files, with the unusual names that the file system supports."""
    target = tmp_path_factory.mktemp("bad") / "set"
    target.mkdir()
    for path in BAD.iterdir():
        if path.name not in ("manifest.json", "odd_names.zip"):
            shutil.copy(path, target)
    with zipfile.ZipFile(BAD / "odd_names.zip") as archive:
        for name in archive.namelist():
            try:
                (target / name).write_bytes(archive.read(name))
            except OSError:  # Windows forbids < > " | in names
                continue
    return target


def status(entry: dict) -> set[int]:
    """Return the exit statuses that the manifest allows for the file alone."""
    return {True: {0}, False: {1}, "only with password": {1}}.get(entry["should_index"], {0, 1})


def pages_of(index: Path) -> list[tuple[str, int]]:
    with DocumentIndex.open(index, create=False) as document_index:
        hits = document_index._session.resources.store.scroll({"kind": "page"})
        return sorted((*hit.payload["doc_id"], hit.payload["page"]) for hit in hits)


def hit_file_names(hits: list[dict]) -> set[str]:
    """Return all files of the hits, including the copies of each page."""
    return {Path(path).name for hit in hits for path in (hit["path"], *hit["copies"])}


@pytest.mark.parametrize("name", sorted(FILES), ids=lambda name: name.encode("ascii", "replace").decode())
def test_ingest_of_one_file_matches_the_manifest(cli, folder, tmp_path, name):
    """Runs without OCR to save time; the run over all files tests OCR."""
    if not (folder / name).exists():
        pytest.skip("this system does not allow the name")
    entry, kb = FILES[name], tmp_path / "kb"
    options = ("--index", kb, "--ocr", "never", "--json")
    result = cli("ingest", *options, folder / name)
    assert result.code in status(entry)
    report = result.json
    assert report["documents"] + len(report["failed"]) >= 1, "lost silently"
    assert report["skipped"] == []
    if result.code == 1:
        for failure in report["failed"]:
            assert Path(failure["path"]).name == name
            assert failure["reason"].endswith(".")
            assert len(failure["reason"]) > 15
    if entry["should_index"] is True:
        pages = entry["indexable_pages"]
        assert report["pages"] == {"1 or 4": 1, "1 or 2": 2}.get(pages, pages)
    if entry["should_index"] in (False, "only with password"):
        assert pages_of(kb) == []
    # A second run adds no duplicates and reports the same failures.
    first = pages_of(kb)
    second = cli("ingest", *options, folder / name)
    assert (second.code, second.json["documents"], second.json["pages"]) == (result.code, 0, 0)
    assert [f["reason"] for f in second.json["failed"]] == [f["reason"] for f in report["failed"]]
    assert pages_of(kb) == first


def test_encrypted_file_is_indexed_with_its_password(cli, folder, tmp_path):
    kb = tmp_path / "kb"
    name = "encrypted_known_password.pdf"
    without = cli("ingest", folder / name, "-i", kb, "--json")
    assert without.code == 1
    assert "encrypted" in without.json["failed"][0]["reason"]
    wrong = cli("ingest", folder / name, "-i", kb, "--password", "wrong", "--json")
    assert wrong.code == 1
    both = cli("ingest", folder / name, "-i", kb, "--password", "wrong", "--password", "secret123", "--json")
    assert (both.code, both.json["pages"], both.json["failed"]) == (0, 2, [])
    assert pages_of(kb) == [(name, 1), (name, 2)]
    assert cli("search", WORD, "-i", kb, "--json").json["hits"]
    assert "secret123" not in "".join(
        path.read_bytes().decode("latin-1") for path in kb.rglob("*") if path.is_file() and path.stat().st_size < 1e6
    )


def test_file_name_with_a_leading_dash_follows_a_double_dash(cli, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    kb = tmp_path / "kb"
    assert cli("ingest", "--index", kb, "--ocr", "never", "--", "-dash-first.pdf").code == 0
    (hit,) = cli("search", WORD, "-i", kb, "--json").json["hits"]
    assert hit["doc_id"] == "-dash-first.pdf"


def create_more_files(folder: Path) -> dict[str, bool]:
    """Create files that an archive cannot hold; return file name → whether the file can be indexed."""
    twin = folder / "duplicate_a.pdf"
    created_files = {"n" * 240 + ".pdf": True, "big.jpg": False}
    Image.new("L", (16, 16), 200).save(folder / "big.jpg")
    # The header alone claims 200 megapixels: the limit must apply before decoding.
    data = bytearray((folder / "big.jpg").read_bytes())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = (10000).to_bytes(2, "big") + (20000).to_bytes(2, "big")
    (folder / "big.jpg").write_bytes(bytes(data))
    if os.name == "posix":
        created_files |= {"line\nbreak.pdf": True, "dangling.pdf": False, "pipe.pdf": False}
        (folder / "loop").mkdir()
        (folder / "loop" / "up").symlink_to("..")
        (folder / "dangling.pdf").symlink_to("/nonexistent/file.pdf")
        os.mkfifo(folder / "pipe.pdf")
        if os.geteuid() != 0:
            shutil.copy(twin, folder / "noperm.pdf")
            (folder / "noperm.pdf").chmod(0)
            created_files["noperm.pdf"] = False
    if sys.platform == "linux":
        created_files[os.fsdecode(b"bad\xff.pdf")] = True
    for name, indexable in created_files.items():
        if indexable:
            shutil.copy(twin, folder / name)
    return created_files


@pytest.fixture(scope="module")
def full_run(folder, tmp_path_factory):
    """One ingestion of all files with OCR: the report, the index and the created files."""
    root = tmp_path_factory.mktemp("full_run")
    all_files = root / "all_files"
    shutil.copytree(folder, all_files)
    created_files = create_more_files(all_files)
    patch, out = pytest.MonkeyPatch(), root / "report.json"
    with patch.context() as scoped_patch, out.open("w", encoding="utf-8", errors="backslashreplace") as stdout:
        scoped_patch.setattr(sys, "argv", ["jina-rag", "ingest", str(all_files), "--index", str(root / "kb"), "--json"])
        scoped_patch.setattr(sys, "stdout", stdout)
        with pytest.raises(SystemExit) as exit_info:
            main()
    assert exit_info.value.code == 1
    return json.loads(out.read_text("utf-8")), root / "kb", created_files, all_files


def expected_names(created_files: dict[str, bool], all_files: Path) -> tuple[set[str], set[str]]:
    """Return the names that a search must find, and the names that a search must not find."""
    present = {name: entry for name, entry in FILES.items() if (all_files / name).exists()}
    indexed_names = {name for name, entry in present.items() if entry["should_index"] is True}
    unindexed_names = {
        name for name, entry in present.items() if entry["should_index"] in (False, "only with password")
    }
    return indexed_names | {name for name, indexable in created_files.items() if indexable}, unindexed_names | {
        name for name, indexable in created_files.items() if not indexable
    }


def test_every_file_is_indexed_failed_or_skipped(full_run):
    report, _, created_files, all_files = full_run
    indexed_names, unindexed_names = expected_names(created_files, all_files)
    failed = {Path(entry["path"]).name: entry["reason"] for entry in report["failed"]}
    skipped = {Path(entry["path"]).name: entry["reason"] for entry in report["skipped"]}
    assert unindexed_names <= set(failed) | set(skipped)
    assert not indexed_names & (set(failed) | set(skipped))
    assert set(skipped) <= {"pipe.pdf", "pdf_without_extension", "loop", "up"}
    assert all(reason.endswith(".") and "\n" not in reason for reason in (*failed.values(), *skipped.values()))
    assert "more than the limit" in failed["big.jpg"]
    assert "encrypted" in failed["encrypted_unknown_password.pdf"]
    if "dangling.pdf" in created_files:
        assert "target of the link" in failed["dangling.pdf"]
        assert "named pipe" in skipped["pipe.pdf"]


def test_search_finds_only_the_indexed_files(cli, full_run):
    _, kb, created_files, all_files = full_run
    indexed_names, unindexed_names = expected_names(created_files, all_files)
    hits = cli("search", WORD, "-i", kb, "-k", "200", "--json").json["hits"]
    names = hit_file_names(hits)
    assert indexed_names <= names
    assert not unindexed_names & names
    assert len({(hit["path"], hit["page"]) for hit in hits}) == len(hits)
    # Files whose text contains the search word rank above files without the word.
    best = hit_file_names([hit for hit in hits if WORD in hit["snippet"].lower()])
    assert {"duplicate_a.pdf", "UPPER.PDF", "rotated_90.pdf", "multipage.tiff", "rgba_transparent.png"} <= best


def test_file_names_are_unchanged_in_json(cli, full_run):
    _, kb, _, all_files = full_run
    paths = {hit["path"] for hit in cli("search", WORD, "-i", kb, "-k", "200", "--json").json["hits"]}
    names = [name for name, entry in FILES.items() if "packed_in" in entry and (all_files / name).exists()]
    assert names
    assert {str(all_files / name) for name in names} <= paths
    table = cli("search", WORD, "-i", kb, "-k", "200")
    assert (table.code, table.err) == (0, "")


def test_second_run_adds_no_duplicates(cli, full_run):
    report, kb, _, all_files = full_run
    first = pages_of(kb)
    assert len(first) == len(set(first)) == report["pages"]
    second = cli("ingest", all_files, "--index", kb, "--json")
    assert second.code == 1
    assert (second.json["documents"], second.json["pages"]) == (0, 0)
    assert second.json["unchanged"] == report["documents"]
    assert sorted(f["path"] for f in second.json["failed"]) == sorted(f["path"] for f in report["failed"])
    assert pages_of(kb) == first
    listing = cli("ingest", all_files, "--index", kb)
    assert listing.err.startswith(f"Nothing to index: {report['documents']} documents unchanged.\n")
    assert f"Failed ({len(report['failed'])}):" in listing.err
