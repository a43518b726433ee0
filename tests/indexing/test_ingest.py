"""Ingestion runs: planning runs in parallel to embedding, each file is opened once, and stops take effect quickly."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections import Counter

import pytest
from helpers.costs import count_costs

from jina_rag import DocumentIndex, load_pages
from jina_rag.catalog.manifest import Manifest
from jina_rag.catalog.missing_files import missing_documents
from jina_rag.config import IngestSettings
from jina_rag.errors import DeviceLostError, DocumentError, InvalidInputError, ModelError
from jina_rag.indexing import dry_run, ingest, plan_stream, planner
from jina_rag.indexing.planner import Planner
from jina_rag.indexing.point_builder import IndexTarget, PointBuilder
from jina_rag.parsing import rendering, sources
from jina_rag.stores.images import ImageFiles
from jina_rag.testing import FakeEmbedder, make_page, sample_pdf
from jina_rag.types import Failure, Page, Region

NO_OCR = IngestSettings(ocr="never", isolate=False, dpi=40)


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    for n in range(4):
        sample_pdf(folder / f"{n}.pdf", [f"whales animal{n} sing song{p}" for p in range(2)])
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


@pytest.mark.parametrize("relative", [False, True])
def test_copy_of_a_failed_file_names_the_first_file_and_the_reason(index, tmp_path, monkeypatch, relative):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "broken"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.pdf", "b.pdf", "sub/c.pdf"):
        (folder / name).write_bytes(b"%PDF-1.7\nnothing else")
    report = index.ingest(folder.relative_to(tmp_path) if relative else folder, settings=NO_OCR)
    root = folder.relative_to(tmp_path) if relative else folder
    first, *copies = sorted(report.failed, key=lambda failure: failure.path)
    assert (first.path, [copy.path for copy in copies]) == (root / "a.pdf", [root / "b.pdf", root / "sub" / "c.pdf"])
    assert "damaged" in first.reason
    for copy in copies:
        assert copy.reason == f"Same content as {root / 'a.pdf'}, which could not be indexed: {first.reason}"


@pytest.mark.parametrize("paths", ["", "  ", ["docs", ""], [" \n"], []])
@pytest.mark.parametrize("dry_run", [False, True])
def test_empty_path_raises(index, docs, monkeypatch, paths, dry_run):
    monkeypatch.chdir(docs.parent)
    with pytest.raises(InvalidInputError, match=r"empty|No path"):
        index.ingest(paths, settings=NO_OCR, dry_run=dry_run)
    with pytest.raises(InvalidInputError, match=r"empty|No path"):
        index.ingest(paths, settings=NO_OCR, sync=True)
    with pytest.raises(InvalidInputError, match=r"empty|No path"):
        load_pages(paths)
    assert index.documents() == []
    assert index.ingest(".", settings=NO_OCR, dry_run=True).new == 4, "a dot names the current folder"


@pytest.mark.parametrize("location", ["", " "])
def test_empty_index_location_raises(tmp_path, monkeypatch, location):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match="empty"):
        DocumentIndex.open(location, embedder=FakeEmbedder())
    assert list(tmp_path.iterdir()) == []


def test_empty_path_in_a_filter_raises(index, docs):
    index.ingest(docs / "0.pdf", settings=NO_OCR)
    for value in ("", " ", ["*.pdf", ""]):
        with pytest.raises(InvalidInputError, match="path"):
            index.delete(filter={"path": value})
        with pytest.raises(InvalidInputError, match="path"):
            index.search("whales", filter={"path": value})


def test_each_file_is_hashed_once_and_opened_once(index, docs, monkeypatch):
    hash_counts, open_counts, progress_states = Counter(), Counter(), []
    real_hash, real_open = Planner._hash, rendering.open_isolated

    def count_hash(self, path):
        hash_counts[path.name] += 1
        return real_hash(self, path)

    def count_open(source, *args, **options):
        open_counts[source.path.name] += 1
        return real_open(source, *args, **options)

    monkeypatch.setattr(Planner, "_hash", count_hash)
    monkeypatch.setattr(rendering, "open_isolated", count_open)
    shutil.copy(docs / "0.pdf", docs / "copy.pdf")
    report = index.ingest(docs, settings=NO_OCR, progress=progress_states.append)
    assert (report.documents, report.pages, len(report.duplicates)) == (5, 8, 1)
    assert hash_counts == Counter({f"{n}.pdf": 1 for n in range(4)}) + Counter({"copy.pdf": 1})
    assert open_counts == Counter({f"{n}.pdf": 1 for n in range(4)})
    last = progress_states[-1]
    assert (last.documents, last.documents_total, last.pages, last.pages_total) == (4, 4, 8, 8)
    assert all(
        state.pages <= state.pages_total and state.documents <= state.documents_total for state in progress_states
    )
    assert index.ingest(docs, settings=NO_OCR, progress=progress_states.append).unchanged == 5
    assert sum(hash_counts.values()) == 5, "unchanged files are not hashed"


def test_hashing_overlaps_with_embedding(index, docs, embedder, monkeypatch):
    first_is_embedded = threading.Event()
    real_hash, real_encode = Planner._hash, embedder.encode_document

    def delayed_hash(self, path):
        assert path.name == "0.pdf" or first_is_embedded.wait(30), "the run waits for all hashes"
        return real_hash(self, path)

    def encode(documents, **options):
        result = real_encode(documents, **options)
        first_is_embedded.set()
        return result

    monkeypatch.setattr(ingest, "BATCH_PAGES", 1)
    monkeypatch.setattr(Planner, "_hash", delayed_hash)
    monkeypatch.setattr(embedder, "encode_document", encode)
    assert index.ingest(docs, settings=NO_OCR).documents == 4


def test_metadata_function_runs_in_the_callers_thread(index, docs):
    threads = set()

    def metadata(path):
        threads.add(threading.current_thread())
        return {"name": path.name}

    for _ in range(2):
        index.ingest(docs, settings=NO_OCR, metadata=metadata)
    assert threads == {threading.current_thread()}


def test_planning_error_is_raised(index, docs, monkeypatch):
    def decide(self, source):
        raise RuntimeError("planning is broken")

    monkeypatch.setattr(Planner, "_decide", decide)
    with pytest.raises(RuntimeError, match="planning is broken"):
        index.ingest(docs, settings=NO_OCR)


def test_rotated_files_are_not_re_embedded(index, docs, embedder, monkeypatch):
    """Like rotated log files, 0.pdf is new, and every later file has the content of the previous file."""
    index.ingest(docs, settings=NO_OCR)
    count_before = embedded_count(embedder)
    for n in range(3, 0, -1):
        shutil.copy(docs / f"{n - 1}.pdf", docs / f"{n}.pdf")
        os.utime(docs / f"{n}.pdf", ns=(10**18, 10**18 + n))
    sample_pdf(docs / "0.pdf", ["penguins walk"])
    # Checkpoint as often as possible, also during planning.
    monkeypatch.setattr(ingest, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(ingest, "BATCH_PAGES", 1)
    first_has_ended = threading.Event()
    real_hash, real_checkpoint = Planner._hash, ingest.Ingestion._checkpoint

    def delayed_hash(self, path):
        assert path.name == "0.pdf" or first_has_ended.wait(30)
        return real_hash(self, path)

    def checkpoint(self, **options):
        has_ended = any(document.ended for document in self._open_documents.values())
        real_checkpoint(self, **options)
        if has_ended:
            first_has_ended.set()

    monkeypatch.setattr(Planner, "_hash", delayed_hash)
    monkeypatch.setattr(ingest.Ingestion, "_checkpoint", checkpoint)
    report = index.ingest(docs, settings=NO_OCR)
    assert (report.documents, report.pages, report.unchanged, report.failed) == (1, 1, 3, ())
    assert embedded_count(embedder) == count_before + 1
    assert index.search("animal0", k=1)[0].doc_id == "1.pdf"
    assert index.search("penguins", k=1)[0].doc_id == "0.pdf"
    assert index.verify() == []


def test_one_run_indexes_a_moved_file_and_its_replacement(index, docs, embedder):
    index.ingest(docs, settings=NO_OCR)
    count_before = embedded_count(embedder)
    (docs / "0.pdf").rename(docs / "9.pdf")
    (docs / "1.pdf").rename(docs / "sub.pdf")
    sample_pdf(docs / "0.pdf", ["penguins walk"])
    report = index.ingest(docs, settings=NO_OCR, sync=True)
    assert (report.documents, report.moved, report.removed) == (1, 2, 0)
    assert embedded_count(embedder) == count_before + 1
    assert {record.doc_id for record in index.documents()} == {"0.pdf", "2.pdf", "3.pdf", "9.pdf", "sub.pdf"}
    assert index.verify() == []


def test_planning_is_a_bounded_number_of_files_ahead(monkeypatch):
    monkeypatch.setattr(plan_stream, "_QUEUE_SIZE", 3)
    planned_items = []

    def items():
        while True:
            planned_items.append(len(planned_items))
            yield planner.IndexTask(None, None) if len(planned_items) % 2 else Failure(None, "")

    with plan_stream.PlanStream(items(), threading.Event()) as stream:
        tasks = stream.tasks()
        for task_count in range(1, 50):
            next(tasks)
            list(stream.outcomes())
            assert len(planned_items) <= 2 * task_count + 3 + 3 + 2


class StoppingDigest:
    """A hash that sets the stop event at the first block and counts the blocks."""

    def __init__(self, stop):
        self.stop = stop
        self.blocks = 0

    def __call__(self):
        return self

    def update(self, block):
        self.blocks += 1
        self.stop.set()

    def hexdigest(self):
        return "0" * 64


@pytest.mark.parametrize("dry_run", [False, True])
def test_stop_ends_hashing_between_two_blocks(index, docs, embedder, monkeypatch, dry_run):
    stop = threading.Event()
    digest = StoppingDigest(stop)
    monkeypatch.setattr(planner, "_HASH_BLOCK", 16)
    monkeypatch.setattr(planner.hashlib, "sha256", lambda *args: digest if not args else real_sha256(*args))
    result = index.ingest(docs, settings=NO_OCR, stop=stop, dry_run=dry_run)
    assert result.interrupted
    assert digest.blocks == 1
    assert embedded_count(embedder) == 0


real_sha256 = planner.hashlib.sha256


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("pattern", ["", "**/*.pdf"])
def test_stop_ends_the_search_for_files(index, tmp_path, monkeypatch, dry_run, pattern):
    for n in range(50):
        (tmp_path / "tree" / f"{n:02}").mkdir(parents=True)
        (tmp_path / "tree" / f"{n:02}" / "a.txt").write_text("x")
    sample_pdf(tmp_path / "tree" / "00" / "a.pdf", ["whales"])
    stop, listed_folders, real_scandir = threading.Event(), [], os.scandir

    def scandir(path):
        if "tree" in str(path):
            listed_folders.append(path)
            if len(listed_folders) == 3:
                stop.set()
        return real_scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert index.ingest(tmp_path / "tree" / pattern, settings=NO_OCR, stop=stop, dry_run=dry_run).interrupted
    assert len(listed_folders) <= 4


def test_stop_ends_the_listing_of_a_large_folder(tmp_path, monkeypatch):
    for n in range(100):
        (tmp_path / f"{n}.txt").write_text("x")
    calls = []

    def check():
        calls.append(1)
        if len(calls) == 10:
            raise KeyboardInterrupt

    monkeypatch.setattr(sources, "_classify", lambda *args, **options: pytest.fail("no file was listed yet"))
    with pytest.raises(KeyboardInterrupt):
        list(sources.find_sources(tmp_path, check=check))
    assert len(calls) == 10


def test_cancelling_aingest_ends_the_hashing(index, docs, monkeypatch):
    hashing_started = threading.Event()

    def hash_forever(self, path):
        while True:
            hashing_started.set()
            self._check()

    monkeypatch.setattr(Planner, "_hash", hash_forever)

    async def run():
        task = asyncio.create_task(index.aingest(docs, settings=NO_OCR))
        assert await asyncio.to_thread(hashing_started.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert index.documents() == []
    monkeypatch.undo()
    assert index.ingest(docs, settings=NO_OCR).documents == 4


def test_stop_does_not_wait_for_a_loading_model(docs, index):
    stop, may_continue = threading.Event(), threading.Event()

    def load():
        stop.set()
        may_continue.wait(30)
        return FakeEmbedder()

    session = index._session
    target = IndexTarget(session.resources, load, 64, session.settings.storage)
    run = ingest.Ingestion(target, NO_OCR, stop=stop)
    with session.write_session():
        report = run.run([docs])
    assert report.interrupted
    assert not may_continue.is_set()
    may_continue.set()
    assert report.pages == 0


def test_stop_stores_the_pages_of_completed_forward_passes_and_the_next_run_resumes(index, docs, embedder, monkeypatch):
    monkeypatch.setattr(ingest, "BATCH_PAGES", 1)
    stop, real_encode = threading.Event(), embedder.encode_document

    def encode(documents, **options):
        if embedded_count(embedder) >= 2:
            stop.set()
        return real_encode(documents, **options)

    monkeypatch.setattr(embedder, "encode_document", encode)
    report = index.ingest(docs, settings=NO_OCR, stop=stop)
    assert report.interrupted
    assert 3 <= report.pages == embedded_count(embedder) <= 4, "the running forward passes end, and no other starts"
    assert index.search("whales", k=9)
    report = index.ingest(docs, settings=NO_OCR)
    assert not report.interrupted
    assert embedded_count(embedder) == 8, "no page is embedded twice"
    assert [record.pages for record in index.documents()] == [2, 2, 2, 2]
    assert index.verify() == []


class StageRecorder:
    """Records the pages that the run received from rendering and the pages that it stored, in order."""

    def __init__(self, index, monkeypatch):
        self.received, self.stored, self.max_pending = [], [], 0
        self.condition = threading.Condition()
        store, real_read, real_upsert = index._session.resources.store, ingest.read_pages, None
        real_upsert = store.upsert

        def read(*args, **options):
            for event in real_read(*args, **options):
                if isinstance(event, Page):
                    with self.condition:
                        self.received.append((event.doc_id, event.number))
                        self.max_pending = max(self.max_pending, len(self.received) - len(self.stored))
                        self.condition.notify_all()
                yield event

        def upsert(points):
            real_upsert(points)
            self.stored += [(p.payload["doc_id"][0], p.payload["page"]) for p in points if p.payload["kind"] == "page"]

        monkeypatch.setattr(ingest, "read_pages", read)
        monkeypatch.setattr(store, "upsert", upsert)

    def wait_for_pages(self, count):
        with self.condition:
            return self.condition.wait_for(lambda: len(self.received) >= count, 30)


def test_later_pages_are_rendered_and_a_second_batch_is_encoded_while_a_batch_is_encoded(
    index, docs, embedder, monkeypatch
):
    monkeypatch.setattr(ingest, "BATCH_PAGES", 1)
    recorder, both_run, calls = StageRecorder(index, monkeypatch), threading.Barrier(2, timeout=30), []
    real_encode = embedder.encode_document

    def encode(documents, **options):
        calls.append(documents)
        if len(calls) <= 2:
            both_run.wait()  # raises BrokenBarrierError unless two calls run at the same time
            assert recorder.wait_for_pages(ingest.MAX_BATCHES + 1), "rendering waits for the embedder"
        return real_encode(documents, **options)

    monkeypatch.setattr(embedder, "encode_document", encode)
    assert index.ingest(docs, settings=NO_OCR).pages == 8
    assert len(calls) == 8
    assert recorder.max_pending <= ingest.MAX_BATCHES + 1, "the pages in memory are bounded"
    assert recorder.stored == recorder.received


def test_pages_are_stored_in_order_if_a_later_batch_is_encoded_first(index, docs, embedder, monkeypatch):
    monkeypatch.setattr(ingest, "BATCH_PAGES", 1)
    recorder, second_is_encoded, real_encode = StageRecorder(index, monkeypatch), threading.Event(), None
    real_encode = embedder.encode_document

    def encode(documents, **options):
        is_first = (documents[0].doc_id, documents[0].number) == ("0.pdf", 1)
        assert not is_first or second_is_encoded.wait(30)
        result = real_encode(documents, **options)
        second_is_encoded.set()
        return result

    monkeypatch.setattr(embedder, "encode_document", encode)
    assert index.ingest(docs, settings=NO_OCR).pages == 8
    assert recorder.stored == [(f"{d}.pdf", p) for d in range(4) for p in (1, 2)]


def test_only_the_failing_page_of_a_batch_fails_while_the_next_batch_is_encoded(index, docs, embedder, monkeypatch):
    monkeypatch.setattr(ingest, "BATCH_PAGES", 4)
    next_is_running, real_encode = threading.Event(), embedder.encode_document

    def encode(documents, **options):
        if any(page.doc_id == "2.pdf" for page in documents):
            next_is_running.set()
        if any((page.doc_id, page.number) == ("1.pdf", 1) for page in documents):
            assert next_is_running.wait(30)
            raise ModelError("The vectors are not finite.")
        return real_encode(documents, **options)

    monkeypatch.setattr(embedder, "encode_document", encode)
    report = index.ingest(docs, settings=NO_OCR)
    assert (report.documents, report.pages) == (4, 7)
    assert [(failure.path.name, failure.page) for failure in report.failed] == [("1.pdf", 1)]
    assert "The page cannot be embedded: The vectors are not finite." in report.failed[0].reason
    assert {record.doc_id: record.pages for record in index.documents()}["1.pdf"] == 1
    assert index.verify() == []


def test_earlier_batches_are_stored_before_an_error_of_the_embedder_is_raised(index, docs, embedder, monkeypatch):
    monkeypatch.setattr(ingest, "BATCH_PAGES", 2)
    recorder, real_encode = StageRecorder(index, monkeypatch), embedder.encode_document

    def encode(documents, **options):
        if documents[0].doc_id == "2.pdf":
            raise RuntimeError("broken embedder")
        return real_encode(documents, **options)

    monkeypatch.setattr(embedder, "encode_document", encode)
    with pytest.raises(RuntimeError, match="broken embedder"):
        index.ingest(docs, settings=NO_OCR)
    assert recorder.stored == [("0.pdf", 1), ("0.pdf", 2), ("1.pdf", 1), ("1.pdf", 2)]
    monkeypatch.undo()
    assert index.ingest(docs, settings=NO_OCR).pages == 4
    assert index.verify() == []


def test_plan_and_checkpoints_are_processed_while_a_batch_is_encoded(index, docs, embedder, monkeypatch):
    """Encoding waits for the metadata of an unchanged file, and for the completion of an earlier document."""
    (docs / "3.pdf").rename(docs / "unchanged.pdf")
    index.ingest(docs / "unchanged.pdf", settings=NO_OCR)
    monkeypatch.setattr(ingest, "BATCH_PAGES", 2)
    monkeypatch.setattr(ingest, "CHECKPOINT_SECONDS", -1.0)
    encoding_started, outcome_processed, first_completed = threading.Event(), threading.Event(), threading.Event()
    real_decide, real_finish, real_encode = Planner._decide, Manifest.finish, embedder.encode_document

    def decide(self, source):
        assert source.path.name != "unchanged.pdf" or encoding_started.wait(30)
        return real_decide(self, source)

    def finish(self, record, **options):
        real_finish(self, record, **options)
        if record.doc_id == "0.pdf":
            first_completed.set()

    def metadata(path):
        if path.name == "unchanged.pdf":
            outcome_processed.set()
        return {}

    def encode(documents, **options):
        if documents[0].doc_id == "2.pdf":
            encoding_started.set()
            assert outcome_processed.wait(30), "the plan waits for the embedder"
            assert first_completed.wait(30), "the checkpoint waits for the embedder"
        return real_encode(documents, **options)

    monkeypatch.setattr(Planner, "_decide", decide)
    monkeypatch.setattr(Manifest, "finish", finish)
    monkeypatch.setattr(embedder, "encode_document", encode)
    report = index.ingest(docs, settings=NO_OCR, metadata=metadata)
    assert (report.documents, report.unchanged, report.failed) == (3, 1, ())


def test_number_of_transactions_of_a_batch_is_independent_of_the_number_of_documents(index, tmp_path, monkeypatch):
    """The documents of a batch begin, are recorded and finish together."""

    def run(name: str, count: int) -> Counter[str]:
        folder = tmp_path / name
        folder.mkdir()
        for n in range(count):
            sample_pdf(folder / f"{n}.pdf", [f"{name} animal{n} " * 3])
        return count_costs(index, monkeypatch, lambda: index.ingest(folder, settings=NO_OCR))

    few, many = run("few", 2), run("many", 8)
    assert many["commits"] <= few["commits"] + 2 <= 10, "the moment of a checkpoint may add a commit"


def test_image_embedder_receives_pages_and_crops_of_a_batch_in_one_call(index, monkeypatch, tmp_path):
    class ImageEmbedder(FakeEmbedder):
        modality = "image"

    page = make_page("whales sing", regions=[Region("table", (0.0, 0.0, 0.5, 0.5)), Region("chart", (0.5, 0.5, 1, 1))])
    embedder = ImageEmbedder()
    builder = PointBuilder(embedder, ImageFiles(tmp_path / "images"), dim=128, quality=80)
    points = builder.page_points([("1" * 64, page), ("2" * 64, make_page("other"))])
    [(_, inputs)] = embedder.history
    assert [type(item).__name__ for item in inputs] == ["Page", "Page", "Image", "Image"]
    assert [[record.kind for _, record in page_points.points] for page_points in points] == [
        ["table", "chart", "page"],
        ["page"],
    ]


def test_stop_ends_the_processing_of_unchanged_files(index, docs, monkeypatch):
    """The stop is requested while outcomes are queued and the metadata function of the caller is slow."""
    index.ingest(docs, settings=NO_OCR)
    stop, calls = threading.Event(), []
    real_process_plan = ingest.Ingestion._process_plan

    def process_plan(self, plan):
        plan._thread.join(30)  # wait until all outcomes are queued
        real_process_plan(self, plan)

    def metadata(path):
        calls.append(path)
        stop.set()
        return {"year": 2024}

    monkeypatch.setattr(ingest.Ingestion, "_process_plan", process_plan)
    assert index.ingest(docs, settings=NO_OCR, metadata=metadata, stop=stop).interrupted
    assert len(calls) == 1


def test_stop_while_placing_moved_files_leaves_a_valid_index(index, docs, embedder, monkeypatch):
    index.ingest(docs, settings=NO_OCR)
    count_before = embedded_count(embedder)
    (docs / "sub").mkdir()
    for n in range(4):
        (docs / f"{n}.pdf").rename(docs / "sub" / f"{n}.pdf")
    stop, real_place, commits = threading.Event(), Manifest.put_document, []

    def place(self, record, **options):
        stop.set()
        commits.append(self._db.in_transaction)
        real_place(self, record, **options)

    monkeypatch.setattr(Manifest, "put_document", place)
    report = index.ingest(docs, settings=NO_OCR, stop=stop)
    assert (report.moved, commits) == (4, [True] * 4)
    assert index.verify() == []
    monkeypatch.undo()
    assert index.ingest(docs, settings=NO_OCR, sync=True).unchanged == 4
    assert {hit.doc_id for hit in index.search("whales", k=9)} == {f"sub/{n}.pdf" for n in range(4)}
    assert embedded_count(embedder) == count_before


@pytest.mark.parametrize("metadata", [None, {"year": 2024}])
@pytest.mark.parametrize("is_moved", [False, True])
def test_cost_of_unchanged_files_is_independent_of_their_number(index, tmp_path, monkeypatch, is_moved, metadata):
    def run(name: str, count: int) -> Counter[str]:
        folder = tmp_path / name
        folder.mkdir()
        for n in range(count):
            sample_pdf(folder / f"{n}.pdf", [f"whales {name} animal{n}"])
        index.ingest(folder, settings=NO_OCR)
        if is_moved:
            folder = folder.rename(tmp_path / f"{name} moved")
        return count_costs(index, monkeypatch, lambda: index.ingest(folder, settings=NO_OCR, metadata=metadata))

    few, many = run("few", 2), run("many", 9)
    assert few == many
    assert many["update_payload"] == (is_moved or metadata is not None)
    assert many["commits"] <= 6
    assert index.verify() == []


def test_cost_of_new_metadata_is_independent_of_the_number_of_entries(index, monkeypatch):
    ids = [f"id{n}" for n in range(40)]
    index.add(ids, ids=ids)

    def add(count: int) -> Counter[str]:
        metadata = [{"year": count}] * count
        return count_costs(index, monkeypatch, lambda: index.add(ids[:count], ids=ids[:count], metadata=metadata))

    assert add(2) == add(40)
    assert {hit.metadata["year"] for hit in index.search("id7", k=40)} == {40}


@pytest.mark.parametrize("step", ["as_pdf", "open_isolated"])
def test_stop_ends_a_dry_run_that_opens_a_document(index, docs, monkeypatch, step):
    """The dry run ends the step that hangs by setting the `Stop` object that was passed to the step."""
    stop, step_ended = threading.Event(), threading.Event()

    def hang(source, settings, own_stop):
        with own_stop.kill_on_stop(step_ended.set):
            stop.set()
            assert step_ended.wait(30)
        raise DocumentError("It was ended.")

    monkeypatch.setattr(dry_run, step, hang)
    report = index.ingest(docs, settings=NO_OCR, dry_run=True, stop=stop)
    assert (report.interrupted, report.new) == (True, 0)
    assert step_ended.wait(30)


def test_stop_ends_the_search_for_missing_files(index, docs):
    index.ingest(docs, settings=NO_OCR)

    def check():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        missing_documents(index._session.resources.manifest, [docs], check=check)


def test_stop_ends_the_wait_for_another_run(index, docs, embedder, monkeypatch):
    embedding_started, may_continue, stop = threading.Event(), threading.Event(), threading.Event()
    real_encode = embedder.encode_document

    def encode(documents, **options):
        embedding_started.set()
        assert may_continue.wait(30)
        return real_encode(documents, **options)

    monkeypatch.setattr(embedder, "encode_document", encode)
    other = threading.Thread(target=index.ingest, args=(docs,), kwargs={"settings": NO_OCR})
    other.start()
    assert embedding_started.wait(30)
    stop.set()
    report = index.ingest(docs, settings=NO_OCR, stop=stop)
    assert (report.interrupted, report.documents, may_continue.is_set()) == (True, 0, False)
    may_continue.set()
    other.join()
    assert index.info().documents == 4


@pytest.mark.parametrize(("texts", "lost_text"), [(["tea", "rain", "snow"], ""), (["tea"], "tea")])
def test_lost_device_ends_the_run_and_the_next_run_embeds_every_page(tmp_path, texts, lost_text):
    embedder = EmbedderOnALostDevice(lost_text)
    sample_pdf(tmp_path / "notes.pdf", texts)
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        with pytest.raises(DeviceLostError, match="lost"):
            index.ingest(tmp_path / "notes.pdf", settings=NO_OCR)
        embedder.lost_text = None
        report = index.ingest(tmp_path / "notes.pdf", settings=NO_OCR)
        assert (report.pages, report.failed) == (len(texts), ())
        assert index.verify() == []


def test_page_that_ends_the_process_of_the_device_fails_alone(tmp_path):
    sample_pdf(tmp_path / "notes.pdf", ["tea", "rain", "snow"])
    with DocumentIndex.open(tmp_path / "kb", embedder=EmbedderOnALostDevice("rain")) as index:
        report = index.ingest(tmp_path / "notes.pdf", settings=NO_OCR)
    assert report.pages == 2
    assert [failure.page for failure in report.failed] == [2]


class EmbedderOnALostDevice(FakeEmbedder):
    """An embedder that loses its device for each page with a text; "" for every page, None for no page."""

    def __init__(self, lost_text):
        super().__init__()
        self.lost_text = lost_text

    def encode_document(self, documents, **options):
        texts = [document.text for document in documents if isinstance(document, Page)]
        if self.lost_text is not None and any(self.lost_text in text for text in texts):
            raise DeviceLostError("The device is lost.")
        return super().encode_document(documents, **options)
