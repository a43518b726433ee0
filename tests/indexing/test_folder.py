"""Ingestion of a changing folder: moved, copied, changed and deleted files, sidecars, dry runs, and recovery."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace

import pytest
from PIL import Image

from jina_rag import DocumentIndex
from jina_rag.config import IngestSettings, Limits
from jina_rag.errors import IndexMismatchError, IndexStateError, InvalidInputError
from jina_rag.indexing import ingest
from jina_rag.indexing.planner import Planner
from jina_rag.testing import FakeEmbedder, sample_pdf

NO_OCR = IngestSettings(ocr="never", isolate=False, dpi=60)


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


def embedded_count(embedder):
    return sum(len(inputs) for side, inputs in embedder.history if side == "document")


def index_contents(index):
    """Return the payloads of all points and the names of all image files of an index, for comparison."""
    points = {hit.id: hit.payload for hit in index._session.resources.store.scroll()}
    return points, set(index._session.resources.images.names())


def document_ids(index):
    return [record.doc_id for record in index.documents()]


def test_renamed_file_is_not_re_embedded(index, docs, embedder):
    index.ingest(docs, settings=NO_OCR)
    count_before = embedded_count(embedder)
    (docs / "animals.pdf").rename(docs / "reports" / "beasts.pdf")
    report = index.ingest(docs, settings=NO_OCR)
    assert (report.documents, report.unchanged, report.moved, report.removed) == (0, 2, 1, 0)
    assert embedded_count(embedder) == count_before
    assert document_ids(index) == ["reports/beasts.pdf", "reports/energy.pdf"]
    hit = index.search("whales", k=1)[0]
    assert (hit.doc_id, hit.path, hit.page) == ("reports/beasts.pdf", docs / "reports" / "beasts.pdf", 2)
    assert index.search("whales", filter={"path": "reports/bea*"})
    assert not index.search("whales", filter={"doc_id": "animals.pdf"})
    assert index.verify() == []


def test_renamed_image_without_words_is_indexed_under_its_new_name(index, tmp_path, embedder):
    Image.new("RGB", (60, 40), "yellow").save(tmp_path / "img_001.png")
    index.ingest(tmp_path / "img_001.png", settings=NO_OCR)
    (tmp_path / "img_001.png").rename(tmp_path / "flower.png")
    report = index.ingest(tmp_path / "flower.png", settings=NO_OCR)
    assert (report.documents, report.failed) == (1, ())
    assert document_ids(index) == ["flower.png"]
    assert index.search("flower", k=1)[0].score > 0.5
    assert index.verify() == []


def test_copies_are_stored_once_and_cited_with_all_paths(index, docs, embedder):
    shutil.copy(docs / "animals.pdf", docs / "reports" / "copy.pdf")
    report = index.ingest(docs, settings=NO_OCR)
    assert (report.documents, report.pages) == (3, 4)
    assert [entry.path.name for entry in report.duplicates] == ["copy.pdf"]
    assert "animals.pdf" in report.duplicates[0].reason
    assert embedded_count(embedder) == 4
    assert index.info().documents == 3
    assert index.info().pages == 4
    hits = index.search("whales", k=5)
    assert [hit.doc_id for hit in hits].count("animals.pdf") == 2, "each page is one hit"
    assert [location.doc_id for location in hits[0].copies] == ["reports/copy.pdf"]
    # A filter on the copy returns the copy.
    (hit,) = index.search("whales", k=1, filter={"path": "**/*copy*"})
    assert (hit.doc_id, [location.doc_id for location in hit.copies]) == ("reports/copy.pdf", ["animals.pdf"])
    second_report = index.ingest(docs, settings=NO_OCR)
    assert (second_report.documents, second_report.unchanged, second_report.duplicates) == (0, 3, ())
    # Copy an indexed file.
    shutil.copy(docs / "animals.pdf", docs / "third.pdf")
    report = index.ingest(docs, settings=NO_OCR)
    assert (report.documents, report.unchanged, len(report.duplicates)) == (1, 3, 1)
    assert index.delete("animals.pdf") == 1
    hit = index.search("whales", k=1)[0]
    assert hit.doc_id == "reports/copy.pdf"
    assert [location.doc_id for location in hit.copies] == ["third.pdf"]
    assert hit.image_path.is_file()
    assert index.verify() == []
    assert index.delete("reports/copy.pdf") + index.delete("third.pdf") == 2
    assert not index.search("whales", filter={"path": "**/*copy*"})
    assert {name for hit in index._session.resources.store.scroll() for name in hit.payload["doc_id"]} == {
        "reports/energy.pdf"
    }


def test_copies_keep_their_own_metadata(index, docs):
    shutil.copy(docs / "animals.pdf", docs / "copy.pdf")
    index.ingest(docs, settings=NO_OCR, metadata=lambda path: {"file": path.name, "n": len(path.name)})
    for name in ("animals.pdf", "copy.pdf"):
        (hit,) = index.search("whales", k=1, filter={"file": name})
        assert (hit.doc_id, hit.metadata["file"]) == (name, name)
    assert index.search("whales", filter={"n": len("copy.pdf")})[0].doc_id == "copy.pdf"


def test_change_of_one_copy_keeps_the_other(index, docs):
    shutil.copy(docs / "animals.pdf", docs / "copy.pdf")
    index.ingest(docs, settings=NO_OCR)
    sample_pdf(docs / "copy.pdf", ["penguins walk on ice"])
    report = index.ingest(docs, settings=NO_OCR)
    assert (report.documents, report.unchanged) == (1, 2)
    assert index.search("whales", k=1)[0].copies == ()
    assert index.search("penguins", k=1)[0].doc_id == "copy.pdf"
    assert not index.search("whales", filter={"doc_id": "copy.pdf"})[0].page == 2
    assert index.verify() == []


def test_changed_metadata_is_stored_without_embedding(index, docs, embedder):
    index.ingest(docs, settings=NO_OCR, metadata={"year": 2024})
    count_before = embedded_count(embedder)
    report = index.ingest(docs, settings=NO_OCR, metadata={"year": 2025})
    assert (report.documents, report.unchanged) == (0, 2)
    assert embedded_count(embedder) == count_before
    assert index.search("whales", filter={"year": 2025})
    assert not index.search("whales", filter={"year": 2024})


def test_sync_deletes_missing_files_of_the_ingested_folder_only(index, docs, tmp_path):
    other = sample_pdf(tmp_path / "other.pdf", ["penguins"])
    index.ingest([docs, other], settings=NO_OCR)
    other.unlink()
    (docs / "animals.pdf").unlink()
    assert index.ingest(docs, settings=NO_OCR).removed == 0
    assert index.ingest(docs, settings=NO_OCR, dry_run=True, sync=True).removed == 1
    report = index.ingest(docs, settings=NO_OCR, sync=True)
    assert (report.removed, report.unchanged) == (1, 1)
    assert document_ids(index) == ["other.pdf", "reports/energy.pdf"]
    assert index.verify() == []


def test_sync_keeps_documents_of_an_emptied_folder(index, docs):
    index.ingest(docs, settings=NO_OCR)
    shutil.rmtree(docs)
    docs.mkdir()
    report = index.ingest(docs, settings=NO_OCR, sync=True)
    assert report.removed == 0
    assert "not mounted" in report.warnings[0].reason
    assert len(index.documents()) == 2


def test_old_pages_stay_until_the_new_pages_are_complete(tmp_path, docs):
    class InterruptingEmbedder(FakeEmbedder):
        remaining = 10**9

        def encode_document(self, documents, **options):
            if self.remaining <= 0:
                raise KeyboardInterrupt
            self.remaining -= len(documents)
            return super().encode_document(documents, **options)

    embedder = InterruptingEmbedder()
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        index.ingest(docs, settings=NO_OCR)
        sample_pdf(docs / "animals.pdf", [f"penguins walk on ice floe{n}" for n in range(20)])
        embedder.remaining = ingest.BATCH_PAGES
        report = index.ingest(docs, settings=NO_OCR)
        assert report.interrupted
        hits = index.search("whales penguins", k=50)
        assert [(hit.doc_id, hit.page, hit.page_count) for hit in hits if hit.doc_id == "animals.pdf"] == [
            ("animals.pdf", 2, 2),
            ("animals.pdf", 1, 2),
        ], "only the old pages"
        assert index.info().pending == 1
        assert [problem.doc_id for problem in index.verify()] == ["animals.pdf"]
        embedder.remaining = 10**9
        report = index.ingest(docs, settings=NO_OCR)
        assert (report.documents, report.pages) == (1, 20 - ingest.BATCH_PAGES)
        assert not any("whales" in hit.snippet for hit in index.search("whales", k=50))
        assert len(index.search("penguins", k=50, filter={"doc_id": "animals.pdf"})) == 20
        assert index.verify() == []


def test_reverted_change_leaves_the_index_unchanged(tmp_path, docs):
    class InterruptingEmbedder(FakeEmbedder):
        is_interrupting = False

        def encode_document(self, documents, **options):
            if self.is_interrupting:
                raise KeyboardInterrupt
            return super().encode_document(documents, **options)

    embedder = InterruptingEmbedder()
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        index.ingest(docs, settings=NO_OCR)
        contents_before = index_contents(index)
        original_bytes = (docs / "animals.pdf").read_bytes()
        sample_pdf(docs / "animals.pdf", ["penguins"])
        embedder.is_interrupting = True
        assert index.ingest(docs, settings=NO_OCR).interrupted
        (docs / "animals.pdf").write_bytes(original_bytes)
        embedder.is_interrupting = False
        report = index.ingest(docs, settings=NO_OCR)
        assert (report.documents, report.unchanged) == (0, 2)
        assert index_contents(index) == contents_before
        assert index.verify() == []


def test_force_re_embeds_and_leaves_the_same_contents(index, docs, embedder):
    index.ingest(docs, settings=NO_OCR)
    contents_before, count = index_contents(index), embedded_count(embedder)
    report = index.ingest(docs, settings=NO_OCR, force=True)
    assert (report.documents, report.pages) == (2, 4)
    assert embedded_count(embedder) == 2 * count
    assert index_contents(index) == contents_before


def test_sidecars_add_metadata(index, docs):
    (docs / "animals.pdf.json").write_text('{"year": 2024, "tags": ["pets", "sea"]}')
    (docs / "reports" / "energy.json").write_text('\ufeff{"year": 2025}', encoding="utf-8")
    report = index.ingest(docs, settings=NO_OCR, metadata={"year": 1999, "by": "Ann"})
    assert report.skipped == ()
    assert index.search("whales", filter={"tags": "sea", "by": "Ann"})[0].metadata == {
        "year": 2024,
        "tags": ["pets", "sea"],
        "by": "Ann",
    }
    assert {hit.doc_id for hit in index.search("power", filter={"year": 2025})} == {"reports/energy.pdf"}
    # The metadata of a changed sidecar are applied, although the document is unchanged.
    (docs / "animals.pdf.json").write_text('{"year": 2026}')
    assert index.ingest(docs, settings=NO_OCR).unchanged == 2
    assert index.search("whales", filter={"year": 2026})
    assert index.ingest(docs, settings=IngestSettings(ocr="never", isolate=False, sidecars=False)).skipped


@pytest.mark.parametrize("text", ["[1, 2]", "{broken"])
def test_invalid_sidecar_adds_a_warning_and_is_ignored(index, docs, text):
    (docs / "animals.json").write_text(text)
    report = index.ingest(docs, settings=NO_OCR)
    assert report.documents == 2
    (warning,) = report.warnings
    assert warning.path.name == "animals.json"
    assert "Ignored as metadata of animals.pdf" in warning.reason
    (docs / "animals.json").write_text(json.dumps({"x": "y" * 100_000}))
    assert index.ingest(docs, settings=NO_OCR).warnings == (), "a large JSON file is not a sidecar"


def test_ingest_accepts_globs_and_rejects_globs_without_match(index, docs):
    report = index.ingest(str(docs / "**" / "*.pdf"), settings=NO_OCR)
    assert report.documents == 2
    with pytest.raises(InvalidInputError, match="No file or folder matches"):
        index.ingest(str(docs / "*.tiff"))


def test_dry_run_reports_changes_and_changes_nothing(index, docs, embedder):
    (docs / "broken.pdf").write_bytes(b"%PDF-1.4 nothing else")
    (docs / "notes.log").write_text("x")
    shutil.copy(docs / "animals.pdf", docs / "copy.pdf")
    plan = index.ingest(docs, settings=NO_OCR, dry_run=True)
    assert (plan.new, plan.changed, plan.unchanged, plan.duplicates, plan.pages) == (2, 0, 0, 1, 4)
    assert [entry.path.name for entry in plan.failed] == ["broken.pdf"]
    assert [entry.path.name for entry in plan.skipped] == ["notes.log"]
    assert plan.seconds > 0
    assert plan.bytes > 4 * 1000
    assert "4 sample pages" in plan.basis
    assert index_contents(index) == ({}, set())
    assert index.documents() == []
    (docs / "broken.pdf").unlink()
    index.ingest(docs, settings=NO_OCR)
    count_before = embedded_count(embedder)
    sample_pdf(docs / "animals.pdf", ["one", "two", "three"])
    (docs / "reports" / "energy.pdf").rename(docs / "power.pdf")
    plan = index.ingest(docs, settings=NO_OCR, dry_run=True)
    # The copy of animals.pdf still has the previous content, so only the three new pages are embedded.
    assert (plan.new, plan.changed, plan.unchanged, plan.moved, plan.pages) == (0, 1, 2, 1, 3)
    assert embedded_count(embedder) > count_before, "sample pages were embedded"
    empty_plan = index.ingest(docs / "copy.pdf", settings=NO_OCR, dry_run=True)
    assert (empty_plan.pages, empty_plan.seconds, empty_plan.basis) == (0, 0, "nothing to do")


def test_dry_run_estimates_from_earlier_runs(index, tmp_path, embedder):
    for n in range(3):
        sample_pdf(tmp_path / f"{n}.pdf", [f"document {n} page {p}" for p in range(20)])
    index.ingest([tmp_path / "0.pdf", tmp_path / "1.pdf", tmp_path / "2.pdf"], settings=NO_OCR)
    sample_pdf(tmp_path / "new.pdf", ["a", "b"])
    count_before = embedded_count(embedder)
    plan = index.ingest(tmp_path / "new.pdf", settings=NO_OCR, dry_run=True)
    assert "60 pages of earlier runs" in plan.basis
    assert plan.seconds > 0
    assert embedded_count(embedder) == count_before


def test_near_duplicate_pages_are_marked(index, tmp_path):
    words = " ".join(f"word{n}" for n in range(40))
    sample_pdf(tmp_path / "v1.pdf", [f"{words} draft", "something else entirely " * 8])
    sample_pdf(tmp_path / "v2.pdf", [f"{words} final", "and another thing " * 12, f"{words} final again"])
    report = index.ingest([tmp_path / "v1.pdf", tmp_path / "v2.pdf"], settings=NO_OCR)
    assert (report.pages, report.repeated) == (5, 2)
    near_duplicates = {(hit.doc_id, hit.page): hit.near_duplicate_of for hit in index.search("word3 thing", k=9)}
    assert near_duplicates[("v2.pdf", 1)] == near_duplicates[("v2.pdf", 3)] == ("v1.pdf", 1)
    assert near_duplicates[("v1.pdf", 1)] is near_duplicates[("v2.pdf", 2)] is None
    index.delete("v1.pdf")
    assert all(hit.near_duplicate_of is None for hit in index.search("word3", k=9))


def test_images_without_words_are_near_duplicates_by_content(index, tmp_path):
    gradient = Image.linear_gradient("L").resize((300, 200))
    gradient.save(tmp_path / "a.png")
    gradient.resize((290, 195)).save(tmp_path / "b.jpg", quality=70)
    Image.radial_gradient("L").resize((300, 200)).save(tmp_path / "c.png")
    for name in ("a.png", "b.jpg", "c.png"):  # the files get equal names, because the vectors depend on the file names
        (tmp_path / name[0]).mkdir()
        (tmp_path / name).rename(tmp_path / name[0] / f"scan{name[1:]}")
    report = index.ingest([tmp_path / "a", tmp_path / "b", tmp_path / "c"], settings=NO_OCR)
    assert (report.pages, report.repeated) == (3, 1)


def test_delete_by_filter_accepts_document_conditions_only(index, docs):
    index.ingest(docs, settings=NO_OCR, metadata=lambda path: {"year": 2024 + path.name.startswith("e")})
    with pytest.raises(InvalidInputError, match="page"):
        index.delete(filter={"page": 1})
    with pytest.raises(InvalidInputError, match="No documents selected"):
        index.delete()
    assert index.delete("animals.pdf", filter={"year": 2025}) == 0
    assert index.delete(filter={"year": [2025, 2026]}) == 1
    assert index.delete(filter={"path": "*.pdf"}) == 1
    assert index.documents() == []
    assert index_contents(index) == ({}, set())


def test_verify_reports_missing_images_and_vectors(index, docs):
    index.ingest(docs, settings=NO_OCR)
    resources = index._session.resources
    hit = index.search("whales", k=1)[0]
    hit.image_path.unlink()
    (energy,) = [record for record in index.documents() if record.doc_id.startswith("reports")]
    resources.store.delete([resources.manifest.points(energy.sha256)[0].point_id])
    resources.images.put(Image.new("RGB", (3, 3)))
    problems = [(problem.doc_id, problem.message) for problem in index.verify()]
    assert ("animals.pdf", "The image of page 2 is missing.") in problems
    assert ("reports/energy.pdf", "The vectors of page 1 are missing.") in problems
    assert (None, "1 image file(s) of the index belong to no page.") in problems
    assert len(problems) == 3
    index.ingest(docs, settings=NO_OCR, force=True)
    assert [problem.message for problem in index.verify()] == ["1 image file(s) of the index belong to no page."]


def test_verify_reports_a_damaged_image_and_force_restores_it(index, docs):
    index.ingest(docs, settings=NO_OCR)
    image = index.search("whales", k=1)[0].image_path
    original_bytes = image.read_bytes()
    image.write_bytes(original_bytes[: len(original_bytes) // 2])
    problems = [(problem.doc_id, problem.message) for problem in index.verify()]
    assert problems == [("animals.pdf", "The image of page 2 is damaged.")]
    index.ingest(docs, settings=NO_OCR, force=True)
    assert image.read_bytes() == original_bytes
    assert index.verify() == []


def test_stopped_copy_resumes_and_equals_the_original(index, docs, tmp_path, embedder):
    shutil.copy(docs / "animals.pdf", docs / "copy.pdf")
    index.ingest(docs, settings=NO_OCR, metadata={"year": 2024})
    calls = []

    def stop(done, total):
        calls.append((done, total))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index.copy(tmp_path / "other", progress=stop)
    assert calls == [(2, 4)]
    assert index.copy(tmp_path / "other") == 2, "only the missing points"
    assert index.copy(tmp_path / "other") == 0
    with DocumentIndex.open(tmp_path / "other", embedder=embedder, create=False) as other:
        assert index_contents(other) == index_contents(index)
        assert other.documents() == index.documents()
        assert other.verify() == []
        hits, copied_hits = index.search("whales", k=4), other.search("whales", k=4)
        assert [(h.doc_id, h.page, h.score) for h in hits] == [(h.doc_id, h.page, h.score) for h in copied_hits]
        assert copied_hits[0].image_path.is_file()
    with pytest.raises(InvalidInputError, match="onto itself"):
        index.copy(tmp_path / "kb")
    with DocumentIndex.open(tmp_path / "foreign", embedder=FakeEmbedder(name="other")):
        pass
    with pytest.raises(IndexMismatchError, match="built with"):
        index.copy(tmp_path / "foreign")


def test_low_disk_space_stops_the_run_and_the_next_run_resumes(index, docs, monkeypatch):
    monkeypatch.setattr("jina_rag.stores.disk_space.RESERVE", 10**18)
    with pytest.raises(IndexStateError, match=r"disk of the index is full.*rerun the command to resume"):
        index.ingest(docs, settings=NO_OCR)
    monkeypatch.undo()
    assert index.search("whales") == []
    report = index.ingest(docs, settings=NO_OCR)
    assert (report.documents, report.pages) == (2, 4)
    assert index.verify() == []


def test_other_index_inside_the_folder_is_skipped(index, docs, tmp_path):
    index.ingest(docs, settings=NO_OCR)
    shutil.copytree(tmp_path / "kb", docs / "old-index")
    report = index.ingest(docs, settings=NO_OCR)
    assert (report.documents, report.unchanged) == (0, 2)
    assert [entry.path.name for entry in report.skipped] == ["old-index"]


@pytest.fixture
def small_disk(tmp_path):
    """Yield a folder on a separate disk of 76 MB, and a function that enlarges the disk to 600 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    process = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=76m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if not process or process.returncode:
        pytest.skip("this user may not mount a disk")
    yield folder, lambda: subprocess.run([mount, "-o", "remount,size=600m", str(folder)], check=True)
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_leaves_a_usable_index(small_disk, docs, embedder):
    folder, grow = small_disk
    for n in range(6):
        sample_pdf(docs / f"{n}.pdf", [f"document {n} page {p} " + f"word{n * 9 + p} " * 40 for p in range(9)])
    with pytest.raises(IndexStateError, match="full"):
        with DocumentIndex.open(folder / "kb", embedder=embedder) as index:
            index.ingest(docs, settings=IngestSettings(ocr="never", isolate=False, dpi=300, jpeg_quality=95))
    with DocumentIndex.open(folder / "kb", embedder=embedder) as index:
        page_count = index.info().pages
        assert page_count < 58
        index.search("whales")
        grow()
        report = index.ingest(docs, settings=IngestSettings(ocr="never", isolate=False, dpi=300, jpeg_quality=95))
        assert report.failed == ()
        assert index.info().pages == 58
        assert index.verify() == []


def test_metadata_follows_a_renamed_file(index, docs):
    index.ingest(docs, settings=NO_OCR, metadata={"year": 2025})
    (docs / "animals.pdf").rename(docs / "beasts.pdf")
    index.ingest(docs, settings=NO_OCR)
    assert index.search("whales", filter={"year": 2025}, k=1)[0].doc_id == "beasts.pdf"


def test_deleted_sidecar_removes_only_its_own_metadata(index, docs):
    sidecar = docs / "animals.pdf.json"
    sidecar.write_text('{"beside": 1}')
    index.ingest(docs, settings=NO_OCR, metadata={"year": 2025})
    index.ingest(docs, settings=NO_OCR)
    assert index.search("whales", k=1)[0].metadata == {"year": 2025, "beside": 1}
    sidecar.unlink()
    index.ingest(docs, settings=NO_OCR)
    assert index.search("whales", k=1)[0].metadata == {"year": 2025}


@pytest.mark.skipif(os.name == "nt", reason="needs links and pipes")
def test_linked_piped_and_malformed_sidecars_are_ignored(index, docs, tmp_path):
    (tmp_path / "secret.json").write_text('{"secret": 1}')
    (docs / "animals.json").symlink_to(tmp_path / "secret.json")
    os.mkfifo(docs / "reports" / "energy.json")
    report = index.ingest(docs, settings=NO_OCR)
    assert report.documents == 2
    assert index.search("whales", k=1)[0].metadata == {}
    # Deep nesting and huge numbers add a warning.
    (docs / "animals.pdf.json").write_text("[" * 200 + "]" * 200)
    (docs / "reports" / "energy.pdf.json").write_text('{"n": ' + "9" * 400 + "}")
    report = index.ingest(docs, settings=NO_OCR)
    assert (report.unchanged, len(report.warnings)) == (2, 2)
    assert index.verify() == []


def test_swapped_files_are_not_re_embedded(index, docs, embedder):
    a, b = docs / "animals.pdf", docs / "reports" / "energy.pdf"
    index.ingest(docs, settings=NO_OCR)
    count_before = embedded_count(embedder)
    a.rename(docs / "x")
    b.rename(a)
    (docs / "x").rename(b)
    plan = index.ingest(docs, settings=NO_OCR, dry_run=True)
    assert (plan.unchanged, plan.duplicates, plan.pages) == (2, 0, 0)
    report = index.ingest(docs, settings=NO_OCR)
    assert (report.unchanged, report.duplicates, report.documents) == (2, (), 0)
    assert embedded_count(embedder) == count_before
    assert index.search("whales", k=1)[0].doc_id == "reports/energy.pdf"
    assert index.search("whales", k=1, filter={"doc_id": "reports/energy.pdf"})
    index.ingest(docs, settings=NO_OCR, force=True)
    assert index.search("solar", k=1, filter={"doc_id": "animals.pdf"})[0].page == 1
    assert index.verify() == []


def interrupt_store_method(monkeypatch, index, method, after=0):
    """Make a method of the store raise KeyboardInterrupt after `after` successful calls."""
    original_method, calls = getattr(type(index._session.resources.store), method), []

    def call(self, *args, **options):
        calls.append(1)
        if len(calls) > after:
            raise KeyboardInterrupt
        return original_method(self, *args, **options)

    monkeypatch.setattr(type(index._session.resources.store), method, call)


def test_interrupted_location_update_is_completed_by_the_next_change(index, docs, monkeypatch):
    shutil.copy(docs / "animals.pdf", docs / "copy.pdf")
    index.ingest(docs, settings=NO_OCR, metadata=lambda path: {"name": path.stem})
    (docs / "animals.pdf").rename(docs / "beasts.pdf")
    with monkeypatch.context() as patch:
        interrupt_store_method(patch, index, "update_payload")
        with pytest.raises(KeyboardInterrupt):
            index.ingest(docs, settings=NO_OCR)
    assert any("File locations are stale" in problem.message for problem in index.verify())
    index.ingest(docs, settings=NO_OCR)
    assert index.search("whales", k=1, filter={"path": "**/beasts.pdf"})
    with monkeypatch.context() as patch:
        interrupt_store_method(patch, index, "update_payload")
        with pytest.raises(KeyboardInterrupt):
            index.delete("copy.pdf")
    (docs / "copy.pdf").unlink()
    index.ingest(docs, settings=NO_OCR)
    assert not index.search("whales", filter={"name": "copy"})
    assert index.verify() == []


def test_resumed_run_follows_a_renamed_file_and_new_metadata(index, tmp_path, monkeypatch):
    folder = tmp_path / "many"
    folder.mkdir()
    sample_pdf(folder / "a.pdf", [f"cats sleep page{n}" for n in range(20)])
    with monkeypatch.context() as patch:
        interrupt_store_method(patch, index, "upsert", after=1)
        assert index.ingest(folder, settings=NO_OCR, metadata={"year": 2024}).interrupted
    (folder / "a.pdf").rename(folder / "b.pdf")
    assert index.ingest(folder, settings=NO_OCR, metadata={"year": 2025}).pages == 12
    assert document_ids(index) == ["b.pdf"]
    assert len(index.search("cats", k=50, filter={"year": 2025, "doc_id": "b.pdf"})) == 20
    assert not index.search("cats", k=50, filter={"year": 2024})
    assert index.verify() == []


def test_file_changed_while_read_is_not_indexed(index, docs, monkeypatch):
    original_bytes = (docs / "animals.pdf").read_bytes()
    original_start = ingest.Ingestion._start

    def change(self, event):
        if event.source.doc_id == "animals.pdf":
            sample_pdf(docs / "animals.pdf", ["penguins walk on ice"])
        return original_start(self, event)

    with monkeypatch.context() as patch:
        patch.setattr(ingest.Ingestion, "_start", change)
        report = index.ingest(docs, settings=NO_OCR)
    assert [failure.path.name for failure in report.failed] == ["animals.pdf"]
    assert "changed while it was read" in report.failed[0].reason
    assert report.documents == 1
    assert document_ids(index) == ["reports/energy.pdf"]
    assert index.verify() == []
    (docs / "animals.pdf").write_bytes(original_bytes)
    assert index.ingest(docs, settings=NO_OCR).documents == 1
    assert index.search("whales", k=1)[0].page == 2


def test_filter_requires_one_copy_that_matches_all_conditions(index, docs):
    shutil.copy(docs / "animals.pdf", docs / "copy.pdf")
    index.ingest(docs, settings=NO_OCR, metadata=lambda path: {"year": 2024 + ("copy" in path.name), "n": path.name})
    assert index.search("whales", k=1, filter={"year": 2025, "n": "copy.pdf"})
    assert all("energy" in hit.doc_id for hit in index.search("whales", filter={"year": 2024, "n": "copy.pdf"}))


def test_unchanged_page_of_a_changed_document_is_no_near_duplicate(index, tmp_path):
    words = [" ".join(f"w{p}x{n}" for n in range(40)) for p in range(3)]
    sample_pdf(tmp_path / "a.pdf", words)
    index.ingest(tmp_path / "a.pdf", settings=NO_OCR)
    sample_pdf(tmp_path / "a.pdf", [words[0], words[1], "something else " * 20])
    assert index.ingest(tmp_path / "a.pdf", settings=NO_OCR).repeated == 0
    sample_pdf(tmp_path / "b.pdf", words[:1])
    assert index.ingest(tmp_path / "b.pdf", settings=NO_OCR).repeated == 1
    index.ingest([tmp_path / "a.pdf", tmp_path / "b.pdf"], settings=NO_OCR, force=True)
    near_duplicates = {(hit.doc_id, hit.page): hit.near_duplicate_of for hit in index.search("w0x3", k=9)}
    assert near_duplicates[("b.pdf", 1)] == ("a.pdf", 1)
    assert near_duplicates[("a.pdf", 1)] is None


def test_delete_with_an_empty_name_raises(index, docs, monkeypatch):
    index.ingest(docs, settings=NO_OCR)
    monkeypatch.chdir(docs)
    with pytest.raises(InvalidInputError, match="is empty"):
        index.delete("")
    assert len(index.documents()) == 2


def test_unrecorded_images_of_a_killed_run_are_deleted(index, docs):
    index.ingest(docs, settings=NO_OCR)
    resources = index._session.resources
    contents_before = index_contents(index)
    resources.manifest.begin(index.documents()[0])
    name = resources.images.put(Image.new("RGB", (5, 5), "red"))
    (resources.images.folder / name[:2] / "half.tmp").write_bytes(b"half")
    index.ingest(docs, settings=NO_OCR)
    assert index_contents(index) == contents_before
    assert not list(resources.images.folder.rglob("*.tmp"))


def test_ocr_cache_is_reused_and_deleted_with_its_document(index, tmp_path, monkeypatch):
    read_shapes = []

    def read(pixels, *args, **options):
        read_shapes.append(pixels.shape)
        return []

    monkeypatch.setattr("jina_rag.ocr.lines.read_lines", read)
    image = Image.effect_noise((80, 60), 90)
    image.save(tmp_path / "a.png")
    settings = IngestSettings(isolate=False)
    index.ingest(tmp_path / "a.png", settings=settings)
    assert len(read_shapes) == 1
    index.ingest(tmp_path / "a.png", settings=settings, force=True)
    assert len(read_shapes) == 1
    assert index.info().bytes["ocr"] > 0
    index.delete("a.png")
    index.ingest(tmp_path / "a.png", settings=settings)
    assert len(read_shapes) == 2


def test_sync_keeps_documents_of_unreadable_folders(index, docs, tmp_path, monkeypatch):
    index.ingest(docs, settings=NO_OCR)
    shutil.move(docs / "reports" / "energy.pdf", tmp_path / "away.pdf")
    original_scandir = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("reports"):
            raise PermissionError(13, "Permission denied")
        return original_scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        report = index.ingest(docs, settings=NO_OCR, sync=True)
    assert [failure.path.name for failure in report.failed] == ["reports"]
    assert report.removed == 0
    assert index.ingest(docs, settings=NO_OCR, sync=True).removed == 1


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_sync_keeps_documents_of_a_broken_link(index, docs, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(docs)
    index.ingest(link, settings=NO_OCR)
    docs.rename(tmp_path / "elsewhere")
    report = index.ingest(link, settings=NO_OCR, sync=True)
    assert report.removed == 0
    assert len(index.documents()) == 2


def test_sync_with_a_glob_deletes_only_matching_documents(index, docs):
    index.ingest(docs, settings=NO_OCR)
    sample_pdf(docs / "new.pdf", ["penguins"])
    (docs / "animals.pdf").unlink()
    (docs / "reports" / "energy.pdf").unlink()
    assert index.ingest(str(docs / "[an]*.pdf"), settings=NO_OCR, sync=True).removed == 1
    assert document_ids(index) == ["new.pdf", "reports/energy.pdf"]


def test_copy_sends_re_indexed_points_and_rejects_conflicting_ids(index, docs, tmp_path, embedder):
    index.ingest(docs, settings=NO_OCR)
    assert index.copy(tmp_path / "other") == 4
    index.ingest(docs / "animals.pdf", settings=NO_OCR, force=True)
    assert index.copy(tmp_path / "other") == 2, "only the re-indexed points"
    (tmp_path / "foreign").mkdir()
    sample_pdf(tmp_path / "foreign" / "animals.pdf", ["penguins"])
    with DocumentIndex.open(tmp_path / "third", embedder=embedder) as third:
        third.ingest(tmp_path / "foreign", settings=NO_OCR)
    with pytest.raises(IndexMismatchError, match=r"another document with the id animals\.pdf"):
        index.copy(tmp_path / "third")


def test_unrecorded_points_of_a_killed_run_are_deleted(index, docs, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_store_method(patch, index, "flush")
        with pytest.raises(KeyboardInterrupt):
            index.ingest(docs / "animals.pdf", settings=NO_OCR)
    resources = index._session.resources
    ((sha256, is_complete),) = resources.manifest.contents()
    assert not is_complete
    (stored_point, *_) = resources.store.fetch([resources.manifest.points(sha256)[0].point_id])
    stray_id = "00000000-0000-4000-8000-000000000001"
    resources.store.upsert([replace(stored_point, id=stray_id)])
    index.ingest(docs, settings=NO_OCR)
    assert resources.store.fetch([stray_id]) == []
    assert index.verify() == []


@pytest.mark.parametrize("dry_run", [False, True])
def test_file_above_the_size_limit_is_refused_unread(index, docs, monkeypatch, dry_run):
    def fail(*_):
        raise AssertionError("the file was read")

    monkeypatch.setattr(Planner, "_hash", fail)
    path = docs.parent / "large.pdf"
    with path.open("wb") as file:
        file.write(b"%PDF-1.7\n")
        file.truncate(10**12)  # a sparse file, which takes no space
    settings = IngestSettings(ocr="never", limits=Limits(max_bytes=10**6))
    (failure,) = index.ingest(path, settings=settings, dry_run=dry_run).failed
    assert "1,000,000,000,000 bytes (limit 1,000,000)" in failure.reason
