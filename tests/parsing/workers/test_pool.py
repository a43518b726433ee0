"""Documents in worker processes: the same pages, and nothing that a document does ends the run."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
from helpers.hostile_documents import slow_pdf
from PIL import Image

from jina_rag.config import IngestSettings, Limits
from jina_rag.errors import DocumentError, LimitExceededError, MissingDependencyError, PasswordRequiredError
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.pages import DocumentStart, read_pages
from jina_rag.parsing.sources import source_file
from jina_rag.parsing.workers import ipc, pool, worker
from jina_rag.parsing.workers.cancellation import Stop
from jina_rag.parsing.workers.pool import IsolatedDocument, open_isolated
from jina_rag.testing import sample_pdf
from jina_rag.types import Failure, Page

QUICK = IngestSettings(dpi=60, ocr="never")
HASTY = IngestSettings(dpi=60, ocr="never", limits=Limits(max_seconds=2))


@pytest.fixture
def document(tmp_path):
    return source_file(sample_pdf(tmp_path / "two.pdf", ["first page, naïve 東京", "second page"]))


def test_a_worker_gives_the_page_that_this_process_gives(document):
    with open_document(document, QUICK) as here, IsolatedDocument(document, QUICK) as there:
        assert there.page_count == here.page_count
        assert there.warnings == here.warnings
        for number in (2, 1):
            mine, images = here.render_with_images(number)
            page, theirs = there.render_with_images(number)
            assert (page.words, page.regions, page.warnings) == (mine.words, mine.regions, mine.warnings)
            assert page.screenshot.image.tobytes() == mine.screenshot.image.tobytes()
            assert (page.number, page.count, page.doc_id, page.path) == (number, 2, "two.pdf", document.path)
            assert images == theirs


def test_isolate_is_the_default_and_can_be_switched_off(document):
    with open_isolated(document, QUICK) as opened:
        assert isinstance(opened, IsolatedDocument)
    with open_isolated(document, IngestSettings(isolate=False)) as opened:
        assert not isinstance(opened, IsolatedDocument)


def test_errors_come_back_as_what_they_are(tmp_path):
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    with pytest.raises(DocumentError, match="damaged"):
        IsolatedDocument(source_file(tmp_path / "broken.pdf"), QUICK)
    import pymupdf

    with pymupdf.open() as made:
        made.new_page()
        made.save(tmp_path / "locked.pdf", encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw="sesame")
    locked = source_file(tmp_path / "locked.pdf")
    with pytest.raises(PasswordRequiredError, match="no password was given"):
        IsolatedDocument(locked, QUICK)
    for passwords in (("wrong", "sesame"), {"locked*": "sesame"}, {"*.pdf": ["no", "sesame"]}):
        with IsolatedDocument(locked, IngestSettings(passwords=passwords)) as opened:
            assert opened.page_count == 1
    with pytest.raises(PasswordRequiredError):
        IsolatedDocument(locked, IngestSettings(passwords={"other.pdf": "sesame"}))


def test_a_page_that_takes_forever_costs_itself_only(tmp_path):
    source = source_file(slow_pdf(tmp_path / "slow.pdf"))
    after = source_file(sample_pdf(tmp_path / "after.pdf", ["all is well"]))
    events = list(read_pages([source, after], HASTY))
    (failure,) = [event for event in events if isinstance(event, Failure)]
    assert failure.page == 1
    assert "longer than 2 s" in failure.reason
    assert "limits.max_seconds" in failure.reason
    pages = [event for event in events if isinstance(event, Page)]
    assert [(page.doc_id, page.number) for page in pages] == [("slow.pdf", 2), ("after.pdf", 1)]
    assert pages[0].screenshot.image.getpixel((80, 80)) == (0, 0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to a limit of memory")
def test_a_picture_that_needs_too_much_memory_is_refused(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (9000, 9000), "white").save(buffer, "PNG")
    (tmp_path / "large.png").write_bytes(buffer.getvalue())
    tight = IngestSettings(ocr="never", limits=Limits(max_memory=100_000_000))
    with IsolatedDocument(source_file(tmp_path / "large.png"), tight) as opened:
        with pytest.raises(LimitExceededError, match=r"100 MB of memory.*limits\.max_memory"):
            opened.render(1)
    with IsolatedDocument(source_file(tmp_path / "large.png"), QUICK) as opened:
        assert opened.render(1).screenshot.image.size == (2500, 2500)


def kill_while_rendering(document: IsolatedDocument, number: int) -> str:
    """Kill the worker while it renders; returns the reason that is given."""
    (at_work,) = document._ready.queue
    threading.Timer(0.3, at_work._process.kill).start()
    with pytest.raises(DocumentError) as caught:
        document.render(number)
    return str(caught.value)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals")
def test_a_crash_costs_a_page_and_a_document_that_crashes_again_and_again_is_given_up(tmp_path):
    source = source_file(slow_pdf(tmp_path / "slow.pdf"))
    with IsolatedDocument(source, QUICK) as opened:
        for _ in range(3):
            assert opened.render(2).number == 2
            assert "crashed the renderer (SIGKILL)" in kill_while_rendering(opened, 1)
        with pytest.raises(DocumentError, match="3 pages of this document have ended the renderer"):
            opened.render(2)


def test_an_answer_that_makes_no_sense_fails_the_page(document, monkeypatch):
    with IsolatedDocument(document, QUICK) as opened:
        answer = pool.Worker.ask
        monkeypatch.setattr(pool.Worker, "ask", lambda self, *args: (answer(self, *args)[0], b"short"))
        with pytest.raises(DocumentError, match="makes no sense"):
            opened.render(1)
        monkeypatch.undo()
        assert opened.render(1).number == 1


def pretend(monkeypatch, op, header, body=b""):
    """Have workers give this answer to one kind of request; returns those that were asked."""
    answer, asked = pool.Worker.ask, []

    def ask(self, request, seconds):
        real = answer(self, request, seconds)
        if request["op"] != op:
            return real
        asked.append(self)
        return header, body

    monkeypatch.setattr(pool.Worker, "ask", ask)
    return asked


@pytest.mark.parametrize("op", ["open", "page"])
@pytest.mark.parametrize("header", [{}, {"error": "DocumentError"}, {"error": 5, "message": "x"}, {"count": 10**8}])
def test_a_worker_that_makes_no_sense_is_ended_and_not_used_again(document, monkeypatch, op, header):
    asked = pretend(monkeypatch, op, header)
    failures = [event for event in read_pages([document], QUICK) if isinstance(event, Failure)]
    assert [failure.page for failure in failures] == ([None] if op == "open" else [1, 2])
    assert all("makes no sense" in failure.reason for failure in failures)
    assert asked
    assert not any(worker.is_alive for worker in asked)


@pytest.mark.parametrize("name", ["CheckpointError", "JinaRagError", "annotations", "nothing"])
def test_a_worker_cannot_end_the_run_with_an_error_of_another_kind(document, monkeypatch, name):
    pretend(monkeypatch, "page", {"error": name, "message": "The page says so."})
    events = list(read_pages([document], QUICK))
    assert [event.reason for event in events if isinstance(event, Failure)] == ["The page says so."] * 2


def test_a_missing_package_is_still_said(document, monkeypatch):
    pretend(monkeypatch, "open", {"error": "MissingDependencyError", "message": "pip install it"})
    with pytest.raises(MissingDependencyError, match="pip install it"):
        list(read_pages([document], QUICK))


def test_a_worker_that_cannot_be_started_fails_the_document(document, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(pool, "_IDLE_WORKERS", pool._IdleWorkers())
    monkeypatch.setattr(subprocess, "Popen", refuse)
    (event,) = read_pages([document], QUICK)
    assert event.reason.startswith("The process that renders it cannot be started: ")


@pytest.mark.parametrize("processes", [1, 3])
def test_closing_the_stream_does_not_wait_for_a_page_that_hangs(tmp_path, processes):
    source = source_file(slow_pdf(tmp_path / "slow.pdf"))
    settings = IngestSettings(dpi=60, ocr="never", processes=processes, limits=Limits(max_seconds=30))
    with closing(read_pages([source], settings)) as events:
        assert isinstance(next(events), DocumentStart)
        time.sleep(0.5)  # the first page is in work
        start = time.monotonic()
    assert time.monotonic() - start < 2


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot halt a process")
def test_a_document_that_hangs_as_it_is_opened_is_given_up_when_the_run_is_stopped(document, monkeypatch):
    class Halted(pool.Worker):
        def __init__(self):
            super().__init__()
            self._process.send_signal(signal.SIGSTOP)

    monkeypatch.setattr(pool, "_IDLE_WORKERS", pool._IdleWorkers())
    monkeypatch.setattr(pool, "Worker", Halted)
    stop = Stop()
    threading.Timer(0.3, stop.set).start()
    start = time.monotonic()
    with pytest.raises(DocumentError):
        open_isolated(document, QUICK, stop)
    assert time.monotonic() - start < 3
    with pytest.raises(DocumentError, match="the run was stopped"):
        open_isolated(document, QUICK, stop)


def test_what_is_begun_after_the_stop_is_ended_at_once():
    stop, ended = Stop(), []
    with stop.kill_on_stop(lambda: ended.append("before")):
        pass
    with stop.kill_on_stop(lambda: ended.append("within")):
        stop.set()
        assert ended == ["within"]
    with stop.kill_on_stop(lambda: ended.append("after")):
        assert ended == ["within", "after"]
    stop.set()
    assert ended == ["within", "after"]


def test_workers_are_kept_for_the_next_document(document):
    seen = set()
    for _ in range(3):
        with IsolatedDocument(document, QUICK) as opened:
            (at_work,) = opened._ready.queue
            seen.add(at_work._process.pid)
    assert len(seen) == 1
    # One that died while it waited is not used again.
    at_work._process.kill()
    at_work._process.wait()
    with IsolatedDocument(document, QUICK) as opened:
        assert opened.render(1).number == 1


def test_workers_that_wait_too_long_are_ended(document, monkeypatch):
    monkeypatch.setattr(pool, "_IDLE_SECONDS", 0.2)
    idle = pool._IdleWorkers()
    made = idle.take()
    idle.give(made)
    deadline = time.monotonic() + 10
    while made.is_alive and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not made.is_alive


def test_several_processes_keep_the_order(tmp_path):
    source = source_file(sample_pdf(tmp_path / "many.pdf", [f"page word{n}" for n in range(12)]))
    settings = IngestSettings(dpi=40, ocr="never", processes=3)
    with closing(read_pages([source], settings)) as events:
        pages = [event for event in events if isinstance(event, Page)]
    assert [(page.number, page.words[1].text) for page in pages] == [(n + 1, f"word{n}") for n in range(12)]


def test_a_script_without_a_guard_can_ingest(tmp_path):
    """Its main part must not run again in every worker."""
    sample_pdf(tmp_path / "a.pdf", ["hello"])
    script = tmp_path / "script.py"
    script.write_text(
        "from jina_rag.config import IngestSettings\n"
        "from jina_rag.parsing.pages import read_pages\n"
        "from jina_rag.parsing.sources import source_file\n"
        "print('once')\n"
        "print(len(list(read_pages([source_file('a.pdf')], IngestSettings(ocr='never')))))\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["once", "3"]


def test_modules_that_lie_beside_the_documents_are_not_run(tmp_path):
    sample_pdf(tmp_path / "a.pdf", ["hello"])
    for name in ("json", "struct", "numpy", "contextlib"):
        (tmp_path / f"{name}.py").write_text("open('PWNED', 'w').close()\n")
    code = (
        "from jina_rag.config import IngestSettings\n"
        "from jina_rag.parsing.pages import read_pages\n"
        "from jina_rag.parsing.sources import source_file\n"
        "print(len(list(read_pages([source_file('a.pdf')], IngestSettings(ocr='never')))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["3"]
    assert not (tmp_path / "PWNED").exists()


def test_messages_survive_odd_names_and_the_end_of_the_stream():
    stream = io.BytesIO()
    ipc.send(stream, {"path": "bad\udcff\nname"}, b"body")
    written = stream.getvalue()
    assert ipc.receive(io.BytesIO(written)) == ({"path": "bad\udcff\nname"}, b"body")
    assert ipc.receive(io.BytesIO(b"")) is None
    for cut in (3, len(written) - 1):
        with pytest.raises(EOFError):
            ipc.receive(io.BytesIO(written[:cut]))


def test_the_worker_answers_in_this_process_too(document, tmp_path, monkeypatch):
    """The desk by itself, so that its branches are seen."""
    held = []
    monkeypatch.setattr(worker, "_limit_memory", held.append)  # it would hold this process to it for good
    desk = worker._DocumentServer()
    request = ipc.pack_request(document, QUICK)
    assert "passwords" in request["settings"]
    opened, _ = desk.answer({**request, "settings": {**request["settings"], "isolate": False}})
    assert opened["count"] == 2
    assert held == [QUICK.limits.max_memory]
    header, body = desk.answer({"op": "page", "number": 1})
    # As it comes through the pipe: tuples are lists then.
    page, _ = ipc.unpack_page(document, 1, 2, json.loads(json.dumps(header)), body, Limits())
    assert "東京" in page.text
    assert desk.answer({"op": "page", "number": 9})[0]["error"] == "DocumentError"
    assert "error" in desk.answer({"op": "nonsense"})[0]
    assert desk.answer({"op": "close"}) == ({}, b"")
