"""`DocumentIndex` end to end, on real files with a fake embedder that ranks by shared words."""

from __future__ import annotations

import os
import pickle
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jina_rag import DocumentIndex, load_embedder
from jina_rag.catalog.manifest import Manifest, peek_settings
from jina_rag.config import IngestSettings
from jina_rag.errors import (
    IndexCorruptError,
    IndexLockedError,
    IndexMismatchError,
    IndexNotFoundError,
    IndexStateError,
    InvalidInputError,
)
from jina_rag.models.tiny_checkpoints import unpack_tiny
from jina_rag.testing import FakeEmbedder, FakeReranker, sample_pdf

NO_OCR = IngestSettings(ocr="never")


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    (folder / "reports").mkdir(parents=True)
    sample_pdf(folder / "animals.pdf", ["cats and dogs sleep all day", "whales sing in the deep sea"])
    sample_pdf(folder / "reports" / "energy.pdf", ["solar power grew in Spain", "order number KX-4471-B was shipped"])
    return folder


@pytest.fixture
def embedder():
    return FakeEmbedder()


@pytest.fixture
def index(tmp_path, embedder):
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as document_index:
        yield document_index


def embedded_count(embedder: FakeEmbedder) -> int:
    return sum(len(inputs) for side, inputs in embedder.history if side == "document")


def pages_of(index: DocumentIndex) -> list[tuple[str, int]]:
    """Return the stored pages as (document, page); a page of several copies occurs once per copy."""
    hits = index._session.resources.store.scroll({"kind": "page"})
    return sorted((doc_id, hit.payload["page"]) for hit in hits for doc_id in hit.payload["doc_id"])


def image_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_hits_have_document_page_path_snippet_score_and_image(index, docs):
    report = index.ingest([docs], settings=NO_OCR)
    assert (report.documents, report.pages, report.failed, report.unchanged) == (2, 4, (), 0)
    hits = index.search("where do whales sing?", k=3)
    assert (hits[0].doc_id, hits[0].page, hits[0].page_count) == ("animals.pdf", 2, 2)
    assert hits[0].path == docs / "animals.pdf"
    assert "whales sing" in hits[0].snippet
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert image_size(hits[0].image_path)[1] > 500


def test_search_finds_an_order_number(index, docs):
    index.ingest(docs, settings=NO_OCR)
    assert index.search("KX-4471-B", k=1)[0].page == 2


def test_second_run_embeds_nothing(index, docs, embedder):
    index.ingest(docs, settings=NO_OCR)
    count_before = embedded_count(embedder)
    os.utime(docs / "animals.pdf", (1, 1))  # touched, same content
    report = index.ingest(docs, settings=NO_OCR)
    assert (report.documents, report.pages, report.unchanged) == (0, 0, 2)
    assert embedded_count(embedder) == count_before


def test_changed_document_replaces_its_pages_and_images(index, docs):
    index.ingest(docs, settings=NO_OCR)
    old_images = set(index._session.resources.images.names())
    sample_pdf(docs / "animals.pdf", ["penguins walk on ice"])
    report = index.ingest(docs, settings=NO_OCR)
    assert (report.documents, report.unchanged) == (1, 1)
    assert pages_of(index) == [("animals.pdf", 1), ("reports/energy.pdf", 1), ("reports/energy.pdf", 2)]
    assert index.search("penguins", k=1)[0].page == 1
    assert len(old_images - set(index._session.resources.images.names())) == 2
    assert set(index._session.resources.images.names()) == index._session.resources.manifest.images()


def test_moved_document_keeps_one_entry(index, docs):
    index.ingest(docs, settings=NO_OCR)
    new_folder = docs.parent / "elsewhere"
    new_folder.mkdir()
    (docs / "animals.pdf").rename(new_folder / "animals.pdf")
    report = index.ingest(new_folder, settings=NO_OCR)
    assert (report.documents, report.unchanged) == (0, 1)
    assert index.search("whales", k=1)[0].path == new_folder / "animals.pdf"


def test_files_of_the_same_name_get_separate_ids(index, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        sample_pdf(tmp_path / name / "same.pdf", [f"this is number {name}"])
        index.ingest(tmp_path / name, settings=NO_OCR)
    assert [record.doc_id for record in index.documents()] == ["same.pdf", "two/same.pdf"]
    index.ingest([tmp_path / "one", tmp_path / "two"], settings=NO_OCR)
    assert len(index.documents()) == 2


def test_one_run_indexes_files_of_the_same_name_in_two_folders(index, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        sample_pdf(tmp_path / name / "same.pdf", [f"this is number {name}"])
    report = index.ingest([tmp_path / "one", tmp_path / "two"], settings=NO_OCR)
    assert (report.documents, report.failed) == (2, ())


def test_search_filters_by_metadata_path_id_and_page(index, docs):
    index.ingest(docs / "animals.pdf", settings=NO_OCR, metadata={"year": 2024, "draft": True})
    index.ingest(docs / "reports", settings=NO_OCR, metadata=lambda path: {"year": 2025, "file": path.name})

    def matching_ids(**where):
        return {hit.doc_id for hit in index.search("power whales", k=10, filter=where)}

    assert matching_ids() == {"animals.pdf", "energy.pdf"}
    assert matching_ids(year=2024) == {"animals.pdf"}
    assert matching_ids(year=[2024, 2025]) == {"animals.pdf", "energy.pdf"}
    assert matching_ids(draft=True) == {"animals.pdf"}
    assert matching_ids(file="energy.pdf") == {"energy.pdf"}
    assert matching_ids(path="ani*") == {"animals.pdf"}
    assert matching_ids(path=str(docs / "reports" / "*")) == {"energy.pdf"}
    assert matching_ids(path="nothing*") == set()
    assert matching_ids(path="*", doc_id="animals.pdf") == {"animals.pdf"}
    assert {hit.page for hit in index.search("power", k=10, filter={"page": 2})} == {2}
    assert index.search("whales", k=1)[0].metadata == {"year": 2024, "draft": True}
    with pytest.raises(InvalidInputError, match="glob"):
        index.search("x y", filter={"path": 3})


def test_new_metadata_replaces_old_and_none_keeps_it(index, docs):
    index.ingest(docs / "animals.pdf", settings=NO_OCR, metadata={"year": 2024})
    assert index.ingest(docs / "animals.pdf", settings=NO_OCR).unchanged == 1
    index.ingest(docs / "animals.pdf", settings=NO_OCR, metadata={"year": 2025})
    assert index.search("whales", filter={"year": 2025})
    assert not index.search("whales", filter={"year": 2024})
    assert len(pages_of(index)) == 2


@pytest.mark.parametrize("selector", ["id", "file", "folder", "glob"])
def test_delete_removes_pages_and_images(index, docs, selector):
    index.ingest(docs, settings=NO_OCR)
    name = {
        "id": "reports/energy.pdf",
        "file": docs / "reports" / "energy.pdf",
        "folder": docs / "reports",
        "glob": "reports/*",
    }[selector]
    assert index.delete(name) == 1
    assert index.delete(name) == 0
    assert {doc for doc, _ in pages_of(index)} == {"animals.pdf"}
    assert set(index._session.resources.images.names()) == index._session.resources.manifest.images()
    assert len(list(index._session.resources.images.names())) == 2


def test_delete_of_a_list_names_the_way_out(index, docs):
    index.ingest(docs, settings=NO_OCR)
    with pytest.raises(InvalidInputError, match=r"document is a list.*filter="):
        index.delete(["animals.pdf"])
    assert index.delete(filter={"path": ["animals.pdf", "reports/*"]}) == 2


def test_shared_image_survives_the_deletion_of_one_document(index, docs):
    (docs / "copy.pdf").write_bytes((docs / "animals.pdf").read_bytes())
    index.ingest(docs, settings=NO_OCR)
    index.delete("animals.pdf")
    hit = index.search("whales", k=1)[0]
    assert hit.doc_id == "copy.pdf"
    assert hit.image_path.is_file()


def test_bad_file_is_reported_and_the_run_continues(index, docs):
    (docs / "broken.pdf").write_bytes(b"%PDF-1.4 nothing else")
    (docs / "notes.log").write_text("not a document")
    report = index.ingest(docs, settings=NO_OCR)
    assert report.documents == 2
    assert [failure.path.name for failure in report.failed] == ["broken.pdf"]
    assert [entry.path.name for entry in report.skipped] == ["notes.log"]
    second_report = index.ingest(docs, settings=NO_OCR)
    assert [failure.path.name for failure in second_report.failed] == ["broken.pdf"]
    assert second_report.unchanged == 2


def test_embedding_failure_affects_only_that_page(tmp_path, docs):
    class WhaleRejectingEmbedder(FakeEmbedder):
        def encode_document(self, documents, **options):
            if any("whales" in getattr(page, "text", "") for page in documents):
                raise InvalidInputError("whales are not supported")
            return super().encode_document(documents, **options)

    with DocumentIndex.open(tmp_path / "kb", embedder=WhaleRejectingEmbedder()) as index:
        report = index.ingest(docs, settings=NO_OCR)
        assert [(f.path.name, f.page) for f in report.failed] == [("animals.pdf", 2)]
        assert "whales are not supported" in report.failed[0].reason
        assert report.pages == 3
        second_report = index.ingest(docs, settings=NO_OCR)
        assert [(f.path.name, f.page) for f in second_report.failed] == [("animals.pdf", 2)]


def test_image_without_words_is_found_by_its_file_name(index, tmp_path):
    Image.new("RGB", (60, 40), "yellow").save(tmp_path / "yellow_flower.png")
    index.ingest(tmp_path / "yellow_flower.png", settings=NO_OCR)
    assert index.search("flower", k=1)[0].score > 0.5
    assert index.explain("flower", index.search("flower", k=1)[0]).brightest is None


def test_explanation_is_brightest_at_the_matching_words(index, docs):
    index.ingest(docs, settings=NO_OCR)
    hit = index.search("whales sing", k=1)[0]
    explanation = index.explain("whales sing", hit)
    assert explanation.weights.max() == 1
    x0, _, x1, y1 = explanation.brightest
    assert 0 <= x0 < x1 <= 1
    assert y1 < 0.3
    image = explanation.image()
    assert image.size == image_size(hit.image_path)
    assert np.asarray(image).std(axis=2).max() > 30, "no color was drawn"
    assert max(explanation.image(max_side=300, frame=(0.1, 0.1, 0.5, 0.5), label="table").size) == 300


def test_explain_of_a_deleted_page_raises(index, docs):
    index.ingest(docs, settings=NO_OCR)
    hit = index.search("whales", k=1)[0]
    index.delete("animals.pdf")
    with pytest.raises(IndexStateError, match="no longer in this index"):
        index.explain("whales", hit)


def test_empty_query_and_invalid_k_raise(index, docs):
    index.ingest(docs, settings=NO_OCR)
    with pytest.raises(InvalidInputError):
        index.search("   ")
    with pytest.raises(InvalidInputError, match="k is 0"):
        index.search("whales", k=0)


def test_empty_index_returns_no_hits(index):
    assert index.search("anything") == []
    assert index.info().pages == 0


def test_info_reports_counts_and_bytes(index, docs):
    index.ingest(docs, settings=NO_OCR)
    index_info = index.info()
    assert (index_info.documents, index_info.pages, index_info.pending, index_info.embedder) == (2, 4, 0, "fake")
    assert index_info.bytes["images"] > 1000
    assert index_info.bytes["vectors: multi"] > 1000


def test_two_instances_share_one_session_until_both_close(tmp_path, docs, embedder):
    first = DocumentIndex.open(tmp_path / "kb", embedder=embedder)
    second = DocumentIndex.open(tmp_path / "sub" / ".." / "kb", embedder=embedder)
    first.ingest(docs, settings=NO_OCR)
    assert second.search("whales", k=1)[0].page == 2
    first.close()
    first.close()
    assert second.search("whales", k=1)[0].page == 2
    second.close()
    with pytest.raises(IndexStateError, match="closed"):
        second.search("whales")
    assert "closed" in repr(second)


def test_reopened_index_has_its_pages(tmp_path, docs, embedder):
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        index.ingest(docs, settings=NO_OCR)
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder, create=False) as index:
        assert index.search("whales", k=1)[0].page == 2


def test_other_embedder_raises_mismatch_error_with_a_remedy(tmp_path, docs, embedder):
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        index.ingest(docs, settings=NO_OCR)
    with pytest.raises(IndexMismatchError, match="new index"):
        DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder(name="other"))
    with pytest.raises(IndexMismatchError, match="'fake', not 'lite-en'"):
        DocumentIndex.open(tmp_path / "kb", embedder="lite-en")
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        assert index.search("whales")


def test_invalid_locations_raise(tmp_path, embedder):
    with pytest.raises(IndexNotFoundError, match="jina-rag ingest"):
        DocumentIndex.open(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidInputError, match="is a file"):
        DocumentIndex.open(tmp_path / "file", embedder=embedder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.doc").write_text("x")
    with pytest.raises(IndexStateError, match="other files"):
        DocumentIndex.open(tmp_path / "full", embedder=embedder)
    with pytest.raises(InvalidInputError, match="not an index URL"):
        DocumentIndex.open("ftp://localhost/pages", embedder=embedder)


@pytest.mark.skipif(os.name == "nt", reason="requires POSIX file modes")
def test_index_folder_is_readable_by_its_owner_only(index, docs):
    index.ingest(docs, settings=NO_OCR)
    assert stat.S_IMODE(index.location.stat().st_mode) == 0o700


def test_index_inside_the_ingested_folder_is_skipped(docs, embedder):
    with DocumentIndex.open(docs / "kb", embedder=embedder) as index:
        index.ingest(docs, settings=NO_OCR)
        assert index.ingest(docs, settings=NO_OCR).unchanged == 2
        assert len(index.documents()) == 2


def test_second_process_gets_index_locked_error(index, tmp_path):
    code = (
        "import sys\nfrom jina_rag import DocumentIndex\nfrom jina_rag.testing import FakeEmbedder\n"
        "DocumentIndex.open(sys.argv[1], embedder=FakeEmbedder())\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "kb")], capture_output=True, text=True, check=False
    )
    assert process.returncode != 0
    assert IndexLockedError.__name__ in process.stderr.splitlines()[-1]
    assert "WAL" not in process.stderr.splitlines()[-1]


def test_progress_counts_pages_and_documents(index, docs):
    states = []
    index.ingest(docs, settings=NO_OCR, progress=states.append)
    assert (states[-1].pages, states[-1].pages_total, states[-1].documents_total) == (4, 4, 2)
    assert states[-1].documents == 2


def test_ctrl_c_leaves_a_usable_index_and_the_next_run_resumes(tmp_path, docs):
    class InterruptingEmbedder(FakeEmbedder):
        calls = 0

        def encode_document(self, documents, **options):
            InterruptingEmbedder.calls += 1
            if InterruptingEmbedder.calls == 2:
                raise KeyboardInterrupt
            return super().encode_document(documents, **options)

    folder = tmp_path / "many"
    folder.mkdir()
    sample_pdf(folder / "long.pdf", [f"page number word{n}" for n in range(20)])
    embedder = InterruptingEmbedder()
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        report = index.ingest(folder, settings=NO_OCR)
        assert report.interrupted
        assert index.info().pending == 1
        assert index.search("word3", k=1)[0].page == 4
        stored_count = len(pages_of(index))
        assert 0 < stored_count < 20
        embedder.history.clear()
        report = index.ingest(folder, settings=NO_OCR)
        assert not report.interrupted
        assert embedded_count(embedder) == 20 - stored_count, "stored pages are not re-embedded"
        assert pages_of(index) == [("long.pdf", n) for n in range(1, 21)]
        assert index.info().pending == 0
        assert index.info().pages == 20


def test_ingest_of_a_missing_path_raises(index):
    with pytest.raises(InvalidInputError, match="does not exist"):
        index.ingest(Path("nowhere.pdf"))


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store", "Thumbs.db", "desktop.ini", "Desktop.ini", ".directory", "._kb", ".localized", "ehthumbs.db",
        "Icon\r", ".nfs00000000012a", "@eaDir/", "lost+found/", "$RECYCLE.BIN/", ".Trash-1000/", ".Spotlight-V100/",
        ".fseventsd/",
    ],
)  # fmt: skip
def test_folder_with_only_system_files_becomes_an_index(tmp_path, embedder, name):
    (tmp_path / "kb").mkdir()
    if name.endswith("/"):
        (tmp_path / "kb" / name).mkdir()
    else:
        (tmp_path / "kb" / name).write_bytes(b"x")
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        assert index.info().documents == 0
    assert (tmp_path / "kb" / name).exists()


def test_index_without_vectors_raises_index_not_found_error(tmp_path, embedder):
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        index.add(["whales"], ids=["a"])
    shutil.rmtree(tmp_path / "kb" / "vectors")
    for create in (False, True):
        with pytest.raises(IndexNotFoundError, match=r"has no vectors\. Restore .*, or ingest into a new folder"):
            DocumentIndex.open(tmp_path / "kb", embedder=embedder, create=create)
    assert not (tmp_path / "kb" / "vectors").exists()


@pytest.mark.parametrize("is_empty", [True, False])
def test_index_creation_killed_midway_is_completed_by_open(tmp_path, embedder, is_empty):
    (tmp_path / "manifest.sqlite3").touch()
    if not is_empty:
        Manifest(tmp_path / "manifest.sqlite3").close()
    assert peek_settings(tmp_path / "manifest.sqlite3") == {}
    with pytest.raises(IndexNotFoundError, match="No index at"):
        DocumentIndex.open(tmp_path, create=False)
    assert not (tmp_path / "vectors").exists()
    with DocumentIndex.open(tmp_path, embedder=embedder) as index:
        assert index.add(["whales"], ids=["a"]) == ["a"]


@pytest.mark.parametrize("name", ["storage", "embedder", "multi_dim"])
def test_missing_setting_raises_index_corrupt_error(tmp_path, embedder, name):
    DocumentIndex.open(tmp_path, embedder=embedder).close()
    with closing(sqlite3.connect(tmp_path / "manifest.sqlite3")) as db:
        db.execute("DELETE FROM settings WHERE key = ?", (name,))
        db.commit()
    with pytest.raises(
        IndexCorruptError, match=rf"missing settings: {name}\)\. Restore a backup, or ingest .* into a new index"
    ):
        DocumentIndex.open(tmp_path, embedder=embedder)


@pytest.mark.parametrize("models", [{"embedder": ""}, {"reranker": ""}, {"embedder": " "}])
def test_empty_model_name_raises_before_anything_is_created(tmp_path, models):
    with pytest.raises(InvalidInputError, match="model name is empty"):
        DocumentIndex.open(tmp_path / "kb", **models)
    assert not (tmp_path / "kb").exists()


@pytest.mark.parametrize("paths", [None, b"docs", 5, [None], [b"docs"]])
def test_ingest_rejects_values_that_are_not_paths(index, paths):
    for dry_run in (False, True):
        with pytest.raises(InvalidInputError, match="A path is "):
            index.ingest(paths, dry_run=dry_run)


def test_close_during_ingest_raises_index_state_error(tmp_path, docs):
    index = DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder())
    with pytest.raises(IndexStateError, match="closed"):
        index.ingest(docs, settings=NO_OCR, progress=lambda _: index.close())


def test_dry_run_returns_the_plan_and_changes_nothing(index, docs):
    plan = index.ingest(docs, settings=NO_OCR, dry_run=True)
    assert (plan.new, plan.pages) == (2, 4)
    assert index.info().documents == 0
    index.ingest(docs, settings=NO_OCR, dry_run=False)
    assert index.ingest(docs, settings=NO_OCR, dry_run=True).unchanged == 2


def test_index_with_a_model_object_cannot_be_pickled(tmp_path, embedder):
    with (
        DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index,
        pytest.raises(InvalidInputError, match=r"embedder is an object\. Pass embedder as a name"),
    ):
        pickle.dumps(index)
    with (
        DocumentIndex.open(tmp_path / "lite", reranker=FakeReranker()) as index,
        pytest.raises(InvalidInputError, match="Pass reranker as a name"),
    ):
        pickle.dumps(index)


def test_index_with_a_custom_embedder_cannot_be_pickled(tmp_path, embedder):
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder), DocumentIndex.open(tmp_path / "kb") as second:
        with pytest.raises(InvalidInputError, match=r"embedder \('fake'\) is a custom object"):
            pickle.dumps(second)
    for name in (None, "fake"):
        with (
            DocumentIndex.open(tmp_path / "kb", embedder=name) as index,
            pytest.raises(InvalidInputError, match="cannot be pickled"),
        ):
            pickle.dumps(index)


def test_index_with_a_loaded_named_model_can_be_pickled(tmp_path):
    unpack_tiny("colbert-v2", tmp_path / "model")
    for name, model in (("lite", load_embedder("lite")), ("folder", load_embedder(tmp_path / "model"))):
        with DocumentIndex.open(tmp_path / name, embedder=model), DocumentIndex.open(tmp_path / name) as second:
            with pickle.loads(pickle.dumps(second)) as other:
                assert other._session is second._session


def test_pickled_index_holds_location_and_model_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with DocumentIndex.open("kb", embedder="lite", reranker="lite") as index:
        index.add(["growth"], ids=["a"])
        monkeypatch.chdir("/")
        assert len(pickle.dumps(index)) < 500
        with pickle.loads(pickle.dumps(index)) as other:
            assert other._session is index._session
            assert (other._arguments["embedder"], other._arguments["reranker"]) == ("lite", "lite")
            assert other.get(["a"])[0].text == "growth"
