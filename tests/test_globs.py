"""One meaning of ``*``: what is ingested, what `sync` removes, what a filter means and what is deleted agree."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jina_rag import DocumentIndex, globs
from jina_rag.catalog.document_filter import matches_path, select_by_name
from jina_rag.catalog.manifest import DocumentRecord
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
        # What lies in a folder that matched belongs to it, hidden or not.
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
def test_what_a_pattern_matches(pattern, names):
    every = {"a.pdf", "b [1].pdf", "b 1.pdf", "sub/c.pdf", "sub/deep/d.pdf", "sub/.hidden/e.pdf", ".f.pdf"}
    matched = {name for name in every if globs.matches(name, pattern)}
    assert matched == names


def test_an_absolute_path_is_matched_from_its_root_or_by_two_stars():
    assert globs.matches("/docs/reports/a.pdf", "/docs/*")
    assert globs.matches("/docs/reports/a.pdf", "**/reports/*.pdf")
    assert not globs.matches("/docs/reports/a.pdf", "*/reports/*.pdf")
    assert not globs.matches("/docs/reports/a.pdf", "docs/*")


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_links_that_lead_back_do_not_go_on_forever(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "loop").symlink_to(".")
    (tmp_path / "a" / "itself").symlink_to("itself")
    (tmp_path / "a" / "c.pdf").write_bytes(PDF)
    assert list(globs.find(f"{tmp_path}/**/c.pdf")) == [tmp_path / "a" / "c.pdf"]


def test_a_folder_that_cannot_be_listed_is_no_obstacle_where_the_pattern_names_what_is_in_it(tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.pdf").write_bytes(PDF)
    real = os.scandir

    def scandir(path):
        assert Path(path) == tmp_path / "docs", "only the folder with a wildcard in it is listed"
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert list(globs.find(f"{tmp_path}/docs/*.pdf")) == [tmp_path / "docs" / "a.pdf"]


NAMES = st.sampled_from(["a", "b", "ab", "a.pdf", "b.pdf", "2019-a.pdf", "2020"])
TREES = st.sets(st.lists(NAMES, min_size=1, max_size=3).map(tuple), min_size=1, max_size=10)
PATTERNS = st.lists(
    st.sampled_from(["*", "**", "?", "a", "a*", "*.pdf", "[ab]", "[!a]*", "20??", "2019-*", "b.pdf", "*b*"]),
    min_size=1,
    max_size=3,
)


class Listed:
    """A manifest that lists some documents."""

    def __init__(self, records):
        self.records = records

    def documents(self):
        return self.records


@settings(max_examples=150, deadline=None)
@given(TREES, PATTERNS)
def test_ingestion_sync_filter_and_delete_mean_the_same_documents(tree, parts):
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root).resolve() / "docs"
        for names in tree:
            path = folder.joinpath(*names)
            if path.exists() or any(parent.is_file() for parent in path.parents):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / "note").touch()  # an empty folder looks like a disk that is away
            path.write_bytes(PDF)
        pattern = "/".join([folder.as_posix(), *parts])
        records = [
            DocumentRecord(source.doc_id, source.path, "", 1, 1)
            for source in find_sources(folder)
            if isinstance(source, SourceFile)
        ]
        try:
            ingested = {event.path for event in find_sources(pattern) if isinstance(event, SourceFile)}
        except InvalidInputError:  # nothing matches
            ingested = set()
        by_filter = {r.path for r in records if matches_path(r.doc_id, r.path, [pattern])}
        by_id = {r.path for r in records if globs.matches(r.doc_id, "/".join(parts))}
        deleted = {record.path for record in select_by_name(records, pattern)}
        for record in records:
            record.path.unlink()
        missing, _ = missing_documents(Listed(records), [pattern])
        synced = {record.path for record in missing}
    assert ingested == by_filter == by_id == deleted == synced


def test_sync_with_a_glob_leaves_other_folders_alone(tmp_path):
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


def test_a_name_that_holds_wildcards_means_the_file_of_that_name(tmp_path):
    for name in ("report [1].pdf", "report 1.pdf"):
        sample_pdf(tmp_path / name, [f"whales {name}"])
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(tmp_path / "report [1].pdf", settings=NO_OCR)
        assert [record.doc_id for record in index.documents()] == ["report [1].pdf"]
        index.ingest(tmp_path / "report 1.pdf", settings=NO_OCR)
        assert index.delete("report [1].pdf") == 1
        assert [record.doc_id for record in index.documents()] == ["report 1.pdf"]


def test_passwords_go_by_the_same_globs():
    settings = IngestSettings(passwords={"*.pdf": "a", "/docs/*/x.pdf": "b", "/docs/*.pdf": "c", "**/sub/*": "d"})
    assert settings.passwords_for(Path("/docs/sub/x.pdf")) == ("a", "b", "d")
