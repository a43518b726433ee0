"""Manifest: documents, contents, points, and errors of damaged, outdated or closed manifests."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from jina_rag import DocumentIndex
from jina_rag.catalog.manifest import DocumentRecord, Manifest, PointRecord
from jina_rag.errors import IndexCorruptError, IndexMismatchError, IndexStateError
from jina_rag.testing import FakeEmbedder
from jina_rag.types import Failure


def record(doc_id: str = "a.pdf", sha: str = "1") -> DocumentRecord:
    return DocumentRecord(doc_id, Path("/docs") / doc_id, sha, 10, 20, metadata={"year": 2024})


def test_document_keeps_its_content_until_finish(tmp_path):
    manifest = Manifest(tmp_path / "m.sqlite3")
    manifest.begin(record())
    manifest.add_points("1", [PointRecord("p1", 1, "page", "x"), PointRecord("r1", 1, "table", "y")])
    assert [d.is_complete for d in manifest.documents()] == [False]
    manifest.finish(record(), failures=[Failure(Path("/docs/a.pdf"), "torn", 2)])
    document = manifest.document("a.pdf")
    assert (document.pages, document.regions, document.is_complete, document.metadata) == (1, 1, True, {"year": 2024})
    assert document.failures == (Failure(Path("/docs/a.pdf"), "torn", 2),)
    manifest.begin(record(sha="2"))
    manifest.add_points("2", [PointRecord("p2", 1, "page", "x")])
    updating = manifest.document("a.pdf")
    assert (updating.sha256, updating.is_complete, updating.pages) == ("1", False, 1)
    assert manifest.documents_of("2") == []
    assert [d.doc_id for d in manifest.documents_of("2", include_pending=True)] == ["a.pdf"]
    assert manifest.orphans() == []
    manifest.finish(record(sha="2"))
    assert manifest.document("a.pdf").sha256 == "2"
    assert manifest.orphans() == ["1"]
    assert manifest.unreferenced_images(["x", "y"], except_contents=["1"]) == {"y"}
    assert manifest.totals() == {"documents": 1, "pages": 1, "regions": 0}
    manifest.remove_contents(["1"])
    assert manifest.unreferenced_images(["x", "y"]) == {"y"}
    assert manifest.contents() == [("2", True)]
    manifest.remove_documents(["a.pdf"])
    assert manifest.orphans() == ["2"]
    manifest.close()


def test_copies_share_one_content(tmp_path):
    manifest = Manifest(tmp_path / "m.sqlite3")
    manifest.begin(record())
    manifest.add_points("1", [PointRecord("p1", 1, "page", "x")])
    manifest.finish(record(), by_name=True)
    manifest.put_document(record("b.pdf"))
    assert [d.doc_id for d in manifest.documents_of("1")] == ["a.pdf", "b.pdf"]
    assert all(d.by_name for d in manifest.documents())
    assert manifest.totals() == {"documents": 2, "pages": 1, "regions": 0}
    manifest.put_document(record("c.pdf"), replacing="b.pdf")
    assert [d.doc_id for d in manifest.documents()] == ["a.pdf", "c.pdf"]
    manifest.remove_documents(["a.pdf"])
    assert manifest.orphans() == []
    manifest.close()


def test_add_points_returns_removed_regions(tmp_path):
    manifest = Manifest(tmp_path / "m.sqlite3")
    manifest.begin(record())
    manifest.add_points("1", [PointRecord("p1", 1, "page", "x"), PointRecord("r1", 1, "table", "y")])
    assert [part.point_id for part in manifest.add_points("1", [PointRecord("p1", 1, "page", "x")])] == ["r1"]
    assert [part.point_id for part in manifest.points("1")] == ["p1"]
    manifest.close()


def test_non_sqlite_manifest_raises_index_corrupt_error(tmp_path):
    (tmp_path / "m.sqlite3").write_bytes(b"not a database at all" * 100)
    with pytest.raises(IndexCorruptError, match="ingest again"):
        Manifest(tmp_path / "m.sqlite3")


def test_older_format_raises_index_mismatch_error_without_changes(tmp_path):
    with closing(sqlite3.connect(tmp_path / "manifest.sqlite3")) as db:
        db.execute("CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        db.execute("CREATE TABLE documents (doc_id TEXT PRIMARY KEY, path BLOB)")
        db.executemany("INSERT INTO settings VALUES (?, ?)", [("schema", "1"), ("version", '"0.0.9"')])
        db.commit()
    original_bytes = (tmp_path / "manifest.sqlite3").read_bytes()
    with pytest.raises(IndexMismatchError, match=r"format 1 \(jina-rag 0.0.9\).*Ingest the documents again"):
        DocumentIndex.open(tmp_path, embedder=FakeEmbedder())
    assert (tmp_path / "manifest.sqlite3").read_bytes() == original_bytes


def test_closed_manifest_raises_index_state_error(tmp_path):
    manifest = Manifest(tmp_path / "m.sqlite3")
    manifest.close()
    manifest.close()
    for call in (manifest.documents, lambda: manifest.begin(record()), lambda: manifest.write_settings({"a": 1})):
        with pytest.raises(IndexStateError, match=r"The index at .* is closed"):
            call()


def test_unwritable_manifest_raises_index_state_error(tmp_path):
    manifest = Manifest(tmp_path / "m.sqlite3")
    other = sqlite3.connect(tmp_path / "m.sqlite3", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    manifest._db.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(IndexStateError, match="cannot be written"):
        manifest.begin(record())
    other.execute("ROLLBACK")
    other.close()
    manifest.begin(record())
    manifest.close()


def test_points_are_counted_up_to_a_limit_and_found_by_id_and_image(tmp_path):
    manifest = Manifest(tmp_path / "m.sqlite3")
    assert manifest.count_points(9) == 0
    manifest.begin(record())
    manifest.add_points("1", [PointRecord(f"p{n}", n, "page", f"image{n}") for n in range(1, 6)])
    manifest.add_points("1", [PointRecord("p7", 7, "page", "image7"), PointRecord("r7", 7, "table", "crop")])
    assert (manifest.count_points(99), manifest.count_points(99, "page")) == (7, 6), "unfinished documents count"
    assert (manifest.count_points(4), manifest.count_points(4, "page")) == (4, 4)
    assert manifest.point("p3") == ("1", 3)
    assert manifest.point("missing") is None
    assert manifest.page_with_image("image4") == "p4"
    assert manifest.page_with_image("crop") is None, "the image of a region is not a page"
    assert manifest.page_with_image("missing") is None
    manifest.close()
