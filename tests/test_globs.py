"""Globs: ingestion, sync, filters and deletion select the same documents for a pattern."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jina_rag import DocumentIndex, globs
from jina_rag.catalog.document_filter import resolve_names, select_by_filter, select_by_name
from jina_rag.catalog.manifest import DocumentRecord, Manifest
from jina_rag.catalog.missing_files import missing_documents
from jina_rag.config import IngestSettings
from jina_rag.errors import InvalidInputError
from jina_rag.parsing.sources import SourceFile, find_sources
from jina_rag.testing import FakeEmbedder, sample_pdf

NO_OCR = IngestSettings(ocr="never", isolate=False, dpi=60)
PDF = b"%PDF-1.4\n%%EOF\n"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        # All files in a matching folder match, hidden files included.
        ("*", {"a.pdf", "b [1].pdf", "b 1.pdf", "sub/c.pdf", "sub/deep/d.pdf", "sub/.hidden/e.pdf"}),
        ("*.pdf", {"a.pdf", "b [1].pdf", "b 1.pdf"}),
        ("?.pdf", {"a.pdf"}),
        ("b [1].pdf", {"b [1].pdf", "b 1.pdf"}),
        ("sub", {"sub/c.pdf", "sub/deep/d.pdf", "sub/.hidden/e.pdf"}),
        ("sub/", {"sub/c.pdf", "sub/deep/d.pdf", "sub/.hidden/e.pdf"}),
        ("sub/*", {"sub/c.pdf", "sub/deep/d.pdf"}),
        ("sub/*.pdf", {"sub/c.pdf"}),
        ("s*/[cx].pdf", {"sub/c.pdf"}),
        ("s*/[!c].pdf", set()),
        ("**", {"a.pdf", "b [1].pdf", "b 1.pdf", "sub/c.pdf", "sub/deep/d.pdf", "sub/.hidden/e.pdf", ".f.pdf"}),
        ("**/*.pdf", {"a.pdf", "b [1].pdf", "b 1.pdf", "sub/c.pdf", "sub/deep/d.pdf"}),
        ("**/deep/**", {"sub/deep/d.pdf"}),
        ("**/.f.pdf", {".f.pdf"}),
        (".*", {".f.pdf"}),
        ("A.PDF", set() if os.name != "nt" else {"a.pdf"}),
        ("/sub/c.pdf", set()),
    ],
)
def test_matches_of_patterns(pattern, names):
    files = {"a.pdf", "b [1].pdf", "b 1.pdf", "sub/c.pdf", "sub/deep/d.pdf", "sub/.hidden/e.pdf", ".f.pdf"}
    assert {name for name in files if globs.matches(name, pattern)} == names


def test_absolute_path_matches_from_root_or_with_two_stars():
    assert globs.matches("/docs/reports/a.pdf", "/docs/*")
    assert globs.matches("/docs/reports/a.pdf", "**/reports/*.pdf")
    assert not globs.matches("/docs/reports/a.pdf", "*/reports/*.pdf")
    assert not globs.matches("/docs/reports/a.pdf", "docs/*")


@pytest.mark.skipif(os.name == "nt", reason="requires symbolic links")
def test_find_ignores_symlink_loops(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "loop").symlink_to(".")
    (tmp_path / "a" / "itself").symlink_to("itself")
    (tmp_path / "a" / "c.pdf").write_bytes(PDF)
    assert list(globs.find(f"{tmp_path}/**/c.pdf")) == [tmp_path / "a" / "c.pdf"]


def test_find_lists_only_folders_of_wildcards(tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.pdf").write_bytes(PDF)
    original_scandir = os.scandir

    def scandir(path):
        assert Path(path) == tmp_path / "docs", "only the folder of the wildcard is listed"
        return original_scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert list(globs.find(f"{tmp_path}/docs/*.pdf")) == [tmp_path / "docs" / "a.pdf"]


NAMES = st.sampled_from(["a", "b", "ab", "a.pdf", "b.pdf", "2019-a.pdf", "2020", "[ab]", "a[b]", "[!a]*", "[b].pdf"])
TREES = st.sets(st.lists(NAMES, min_size=1, max_size=3).map(tuple), min_size=1, max_size=10)
PATTERNS = st.lists(
    st.sampled_from(
        ["*", "**", "?", "a", "a*", "*.pdf", "[ab]", "[!a]*", "20??", "2019-*", "b.pdf", "*b*", "a[b]", "[b].pdf"]
    ),
    min_size=1,
    max_size=3,
)


def manifest_of(folder: Path, records: list[DocumentRecord]) -> Manifest:
    """Return a manifest with these documents."""
    manifest = Manifest(folder / "manifest.sqlite3")
    with manifest.transaction():
        for record in records:
            manifest.begin(record)
            manifest.finish(record)
    return manifest


@settings(max_examples=150, deadline=None)
@given(TREES, PATTERNS)
def test_ingestion_sync_filter_and_delete_select_same_documents(tree, parts):
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root).resolve() / "docs"
        for names in tree:
            path = folder.joinpath(*names)
            if path.exists() or any(parent.is_file() for parent in path.parents):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / "note").touch()  # an empty folder counts as an unmounted disk
            path.write_bytes(PDF)
        relative = "/".join(parts)
        pattern = f"{folder.as_posix()}/{relative}"
        records = [
            DocumentRecord(source.doc_id, source.path, "", 1, 1)
            for source in find_sources(folder)
            if isinstance(source, SourceFile)
        ]
        try:
            ingested = {event.path for event in find_sources(pattern) if isinstance(event, SourceFile)}
        except InvalidInputError:  # nothing matches
            ingested = set()
        with closing(manifest_of(Path(root), records)) as manifest:
            filtered, filtered_by_relative = (
                {record.path for record in select_by_filter(records, resolve_names({"path": text}, manifest))}
                for text in (pattern, relative)
            )
            deleted, deleted_by_relative = (
                {record.path for record in select_by_name(manifest, text)} for text in (pattern, relative)
            )
            for record in records:
                record.path.unlink()
            missing, _ = missing_documents(manifest, [pattern])
            synced = {record.path for record in missing}
            # After the deletion, the same name selects no other document.
            manifest.remove_documents(record.doc_id for record in records if record.path in deleted)
            repeated_records = [*select_by_name(manifest, pattern), *select_by_name(manifest, relative)]
    assert ingested == filtered == filtered_by_relative == deleted == deleted_by_relative == synced
    assert repeated_records == []


def test_sync_with_glob_keeps_documents_of_other_folders(tmp_path):
    docs = tmp_path / "docs"
    (docs / "sub").mkdir(parents=True)
    for name in ("a.pdf", "gone.pdf", "sub/b.pdf"):
        sample_pdf(docs / name, [f"whales {name}"])
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(docs, settings=NO_OCR)
        (docs / "sub" / "b.pdf").unlink()
        (docs / "gone.pdf").unlink()
        assert index.ingest(str(docs / "*.pdf"), settings=NO_OCR, sync=True).removed == 1
        assert [record.doc_id for record in index.documents()] == ["a.pdf", "sub/b.pdf"]
        assert {hit.doc_id for hit in index.search("whales", filter={"path": "*.pdf"})} == {"a.pdf"}
        assert {hit.doc_id for hit in index.search("whales", filter={"path": "s*"})} == {"sub/b.pdf"}
        assert index.ingest(str(docs / "**/*.pdf"), settings=NO_OCR, sync=True).removed == 1


def test_file_name_with_wildcards_selects_that_file(tmp_path):
    for name in ("report [1].pdf", "report 1.pdf"):
        sample_pdf(tmp_path / name, [f"whales {name}"])
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(tmp_path / "report [1].pdf", settings=NO_OCR)
        assert [record.doc_id for record in index.documents()] == ["report [1].pdf"]
        index.ingest(tmp_path / "report 1.pdf", settings=NO_OCR)
        assert index.delete("report [1].pdf") == 1
        assert [record.doc_id for record in index.documents()] == ["report 1.pdf"]


@pytest.fixture
def bracketed_folder(tmp_path):
    """Return a folder with file names that, as globs, match other files of the folder."""
    docs = tmp_path / "docs"
    for number, name in enumerate(("r[1].png", "r1.png", "x[ab]/q.png", "xa/q.png", "xa/q2.png")):
        (docs / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (number * 50, 7, 7)).save(docs / name)
    return docs


@pytest.fixture
def index(tmp_path, bracketed_folder):
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        assert index.ingest(bracketed_folder, settings=NO_OCR).documents == 5
        yield index


def ids(index):
    return {record.doc_id for record in index.documents()}


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("is_folder_deleted", [False, True])
@pytest.mark.parametrize("name", ["r[1].png", "x[ab]", "x[ab]/", "x[ab]/q.png"])
def test_repeated_delete_removes_only_named_document(index, bracketed_folder, name, is_folder_deleted, absolute):
    document = f"{bracketed_folder}/{name}" if absolute else name
    assert index.delete(document) == 1
    if is_folder_deleted:
        shutil.rmtree(bracketed_folder)
    assert index.delete(document) == 0
    assert index.delete(filter={"path": document}) == 0
    assert {"r1.png", "xa/q.png", "xa/q2.png"} < ids(index)
    assert index.verify() == []


def test_filter_by_name_with_brackets_selects_that_document(index):
    assert {hit.doc_id for hit in index.search("r1", filter={"path": "r[1].png"}, k=9)} == {"r[1].png"}
    assert {hit.doc_id for hit in index.search("q", filter={"path": "x[ab]"}, k=9)} == {"x[ab]/q.png"}
    assert {hit.doc_id for hit in index.search("q", filter={"path": "x[a]"}, k=9)} == {"xa/q.png", "xa/q2.png"}
    assert index.delete(filter={"path": "r[1].png"}) == 1
    assert {"r1.png", "xa/q.png", "xa/q2.png"} < ids(index)


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("is_empty", [False, True])
def test_sync_of_folder_with_brackets_keeps_other_folders(index, bracketed_folder, is_empty, dry_run):
    (bracketed_folder / "xa" / "q2.png").unlink()
    (bracketed_folder / "x[ab]" / "note").touch()
    if is_empty:
        index.delete("x[ab]")
        (bracketed_folder / "x[ab]" / "q.png").unlink()
    report = index.ingest(f"{bracketed_folder}/x[ab]", settings=NO_OCR, sync=True, dry_run=dry_run)
    assert report.removed == 0
    assert {"xa/q.png", "xa/q2.png"} < ids(index)


def test_old_name_of_renamed_file_selects_no_document(index, bracketed_folder):
    (bracketed_folder / "x[ab]" / "q.png").rename(bracketed_folder / "s.png")
    assert index.ingest(bracketed_folder, settings=NO_OCR, sync=True).documents == 1
    assert index.delete("x[ab]/q.png") == 0
    assert index.delete("x[abc]/q.png") == 1


@pytest.mark.parametrize("pattern", ["*", "x*", "*/*.png", "x[ab]"])
@pytest.mark.parametrize("dry_run", [False, True])
def test_sync_with_glob_warns_about_emptied_folder(index, bracketed_folder, pattern, dry_run):
    (bracketed_folder / "x[ab]" / "q.png").unlink()
    (bracketed_folder / "xa" / "q2.png").unlink()
    report = index.ingest(f"{bracketed_folder}/{pattern}", settings=NO_OCR, sync=True, dry_run=dry_run)
    assert report.removed == (pattern != "x[ab]")
    if not dry_run:
        (warning,) = report.warnings
        assert warning.path.name == "x[ab]"
        assert "not mounted" in warning.reason
        assert "x[ab]/q.png" in ids(index)


def test_passwords_for_uses_same_globs():
    settings = IngestSettings(passwords={"*.pdf": "a", "/docs/*/x.pdf": "b", "/docs/*.pdf": "c", "**/sub/*": "d"})
    assert settings.passwords_for(Path("/docs/sub/x.pdf")) == ("a", "b", "d")
