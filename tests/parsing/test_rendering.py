"""Rendering of many documents: order, look-ahead across documents, requests to the workers, and failures."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from contextlib import closing
from dataclasses import replace

import pymupdf
import pytest
from helpers.hostile_documents import slow_pdf

from jina_rag.config import IngestSettings, Limits
from jina_rag.errors import DocumentError
from jina_rag.parsing import rendering
from jina_rag.parsing.pages import DocumentEnd, DocumentStart, read_pages
from jina_rag.parsing.preparation import prepare
from jina_rag.parsing.rendering import DocumentRendering
from jina_rag.parsing.sources import SourceFile, source_file
from jina_rag.parsing.workers import pool
from jina_rag.parsing.workers.cancellation import Stop
from jina_rag.testing import sample_pdf
from jina_rag.types import Failure, Page

SETTINGS = IngestSettings(dpi=40, ocr="never", processes=2)


@pytest.fixture(autouse=True)
def _fresh_workers(monkeypatch):
    idle = pool._IdleWorkers()
    monkeypatch.setattr(pool, "_IDLE_WORKERS", idle)
    yield
    idle.close()


@pytest.fixture
def requests(monkeypatch):
    """Return the requests to all workers, in order. Each element contains the requests of one message."""
    sent, send = [], pool.Worker.send

    def record(self, *messages, seconds):
        sent.append(messages)
        send(self, *messages, seconds=seconds)

    monkeypatch.setattr(pool.Worker, "send", record)
    return sent


def documents(folder, page_counts):
    return [
        source_file(sample_pdf(folder / f"{name:02}.pdf", [f"document{name} page{n}" for n in range(1, count + 1)]))
        for name, count in enumerate(page_counts)
    ]


def summarize(events):
    kinds = {DocumentStart: "start", DocumentEnd: "end"}
    return [
        (event.doc_id, event.number)
        if isinstance(event, Page)
        else (event.path.name, f"failure {event.page}")
        if isinstance(event, Failure)
        else (event.source.doc_id, kinds[type(event)])
        for event in events
    ]


def expected_events(page_counts):
    return [
        (f"{name:02}.pdf", step)
        for name, count in enumerate(page_counts)
        for step in ("start", *range(1, count + 1), "end")
    ]


@pytest.mark.parametrize("page_counts", [[1] * 9, [7, 1, 1, 12, 1], [25]])
def test_events_keep_the_order_of_documents_and_pages(tmp_path, page_counts):
    settings = replace(SETTINGS, processes=3, look_ahead=2)
    events = list(read_pages(documents(tmp_path, page_counts), settings))
    assert summarize(events) == expected_events(page_counts)
    for event in events:
        if isinstance(event, Page):
            assert event.text == f"document{int(event.path.stem)} page{event.number}"


def test_a_document_of_one_page_takes_one_message(tmp_path, requests):
    list(read_pages(documents(tmp_path, [1] * 6), replace(SETTINGS, processes=1)))
    pages = [message for message in requests if any(request["op"] == "page" for request in message)]
    assert [[request["op"] for request in message] for message in pages] == [["open", "page"]] * 6
    others = [message for message in requests if message not in pages]
    assert [[request["op"] for request in message] for message in others] == [["close"]] * len(others)
    assert len(others) <= 6, "one message before each reuse of the worker, and one that closes documents at the end"


def test_a_worker_opens_a_document_once(tmp_path, requests):
    list(read_pages(documents(tmp_path, [8, 8]), replace(SETTINGS, processes=1)))
    operations = Counter(request["op"] for message in requests for request in message)
    assert (operations["open"], operations["page"]) == (2, 16)


def test_pages_of_later_documents_are_rendered_while_an_earlier_page_is_rendered(tmp_path):
    """The first page of the first document ends only after pages of three later documents were rendered."""
    rendered, condition = [], threading.Condition()

    def finish(source, page, images):
        with condition:
            if source.doc_id == "00.pdf":
                assert condition.wait_for(lambda: len(rendered) >= 3, 60)
            rendered.append(source.doc_id)
            condition.notify_all()
        return page

    stop = Stop()
    stream = DocumentRendering(documents(tmp_path, [1] * 4), SETTINGS, stop, finish, prepared=False)
    with closing(stream):
        order = [stream.take(document, 1, lambda: None).doc_id for document in stream.documents(lambda: None)]
    assert order == ["00.pdf", "01.pdf", "02.pdf", "03.pdf"]
    assert set(rendered[:3]) == {"01.pdf", "02.pdf", "03.pdf"}


@pytest.mark.parametrize(("page_counts", "windows"), [([1] * 30, 1), ([30], 1), ([3] * 10, 2)])
def test_look_ahead_bounds_the_pages_of_all_documents(tmp_path, page_counts, windows):
    """A document that is being opened counts as one page, so the first pages of later documents may be in addition."""
    rendered, taken, ahead = 0, 0, []
    lock = threading.Lock()

    def finish(source, page, images):
        nonlocal rendered
        with lock:
            rendered += 1
            ahead.append(rendered - taken)
        return page

    settings = replace(SETTINGS, look_ahead=3)
    stream = DocumentRendering(documents(tmp_path, page_counts), settings, Stop(), finish, prepared=False)
    with closing(stream):
        for document in stream.documents(lambda: None):
            for number in document.numbers:
                stream.take(document, number, lambda: None)
                with lock:
                    taken += 1
    assert rendered == 30
    # A window has three pages and one for each process. One page is between `take` and the count.
    assert max(ahead) <= windows * (3 + 2) + 1


def test_look_ahead_is_bounded_by_bytes(tmp_path, monkeypatch):
    """With pages as large as the limit, no page is rendered before the caller has taken the previous page."""
    monkeypatch.setattr(rendering, "WINDOW_PAGE_BYTES", 1)
    active, maximum = 0, 0
    lock = threading.Lock()

    def finish(source, page, images):
        nonlocal active, maximum
        with lock:
            active += 1
            maximum = max(maximum, active)
        return page

    stream = DocumentRendering(documents(tmp_path, [6]), SETTINGS, Stop(), finish, prepared=False)
    with closing(stream):
        for document in stream.documents(lambda: None):
            for number in document.numbers:
                stream.take(document, number, lambda: None)
                with lock:
                    active -= 1
    assert maximum <= 2, "one page, and one between `take` and the count"


def test_sources_are_read_only_as_far_as_the_window_requires(tmp_path):
    sources = documents(tmp_path, [40, 1, 1, 1, 1, 1, 1, 1])
    requested = []

    def iterate():
        for source in sources:
            requested.append(source.doc_id)
            yield source

    with closing(read_pages(iterate(), replace(SETTINGS, processes=1, look_ahead=4))) as events:
        for event in events:
            if isinstance(event, Page) and event.number == 30:
                break
    assert requested == ["00.pdf"]


def test_a_document_that_crashes_fails_alone(tmp_path):
    """A worker process with several open documents is lost; the other documents are opened again."""
    sources = [*documents(tmp_path, [2, 2, 2]), source_file(slow_pdf(tmp_path / "99.pdf")), *documents(tmp_path, [2])]
    settings = replace(SETTINGS, limits=Limits(max_seconds=3))
    events = summarize(read_pages(sources, settings))
    middle = [("99.pdf", "start"), ("99.pdf", "failure 1"), ("99.pdf", 2), ("99.pdf", "end")]
    assert events == [*expected_events([2, 2, 2]), *middle, *expected_events([2])]


def test_documents_that_cannot_be_opened_keep_their_place(tmp_path):
    good = documents(tmp_path, [1, 1])
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(b"%PDF-1.4 nothing")
    bad = SourceFile(broken, tmp_path, "broken.pdf", "pdf")
    events = summarize(read_pages([bad, good[0], bad, bad, good[1], bad], SETTINGS))
    failure = [("broken.pdf", "failure None")]
    first, second = expected_events([1]), [("01.pdf", step) for step in ("start", 1, "end")]
    assert events == failure + first + failure * 2 + second + failure


def test_worker_closes_documents_that_are_no_longer_needed(tmp_path, requests):
    list(read_pages(documents(tmp_path, [3] * 8), replace(SETTINGS, processes=1)))
    opened = [request["document"] for message in requests for request in message if request["op"] == "open"]
    assert len(opened) == 8
    (worker,) = pool._IDLE_WORKERS._workers
    assert not worker.has_documents_to_close
    assert not any(worker.holds(document) for document in opened)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists open files")
def test_no_document_stays_open_after_the_stream(tmp_path):
    list(read_pages(documents(tmp_path, [3, 1, 5]), SETTINGS))
    from pathlib import Path

    for worker in pool._IDLE_WORKERS._workers:
        links = Path(f"/proc/{worker._process.pid}/fd").iterdir()
        assert not [link for link in links if link.readlink().suffix == ".pdf"]


@pytest.mark.parametrize("isolate", [True, False])
def test_prepared_pages_equal_pages_prepared_by_the_caller(tmp_path, isolate):
    with pymupdf.open() as document:
        page = document.new_page(width=400, height=500)
        page.insert_text((40, 40), "Revenue by quarter, part AB-12", fontsize=12)
        for bar in range(12):
            page.draw_rect(pymupdf.Rect(80 + bar * 20, 300 - bar * 9, 95 + bar * 20, 300), fill=(0.2, 0.4, 0.8))
        document.new_page(width=300, height=200)
        document.save(tmp_path / "chart.pdf")
    settings = IngestSettings(dpi=72, ocr="never", isolate=isolate, jpeg_quality=70)
    pages = [event for event in read_pages([source_file(tmp_path / "chart.pdf")], settings, prepare=True)
             if isinstance(event, Page)]  # fmt: skip
    assert len(pages[0].regions) == 1
    for page in pages:
        expected = prepare(page, 70)
        assert (page.prepared.screenshot, page.prepared.crops) == (expected.screenshot, expected.crops)
        vectors = zip(
            [page.prepared.lexical, *page.prepared.region_lexical],
            [expected.lexical, *expected.region_lexical],
            strict=True,
        )
        for actual, vector in vectors:
            assert actual.indices.tolist() == vector.indices.tolist()
            assert actual.values.tolist() == vector.values.tolist()
    plain = [event for event in read_pages([source_file(tmp_path / "chart.pdf")], settings) if isinstance(event, Page)]
    assert [page.prepared for page in plain] == [None, None]
    assert [page.screenshot.image.tobytes() for page in plain] == [page.screenshot.image.tobytes() for page in pages]


def test_exception_of_the_result_is_raised_by_take(tmp_path):
    def fail(source, page, images):
        raise DocumentError("No result.")

    stream = DocumentRendering(documents(tmp_path, [1]), SETTINGS, Stop(), fail, prepared=False)
    with closing(stream):
        document = next(stream.documents(lambda: None))
        with pytest.raises(DocumentError, match="No result"):
            stream.take(document, 1, lambda: None)
