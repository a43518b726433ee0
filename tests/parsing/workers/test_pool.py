"""Worker processes: isolated rendering equals local rendering, and crashes fail single pages only."""

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
from collections import defaultdict, deque
from contextlib import closing

import pytest
from helpers.hostile_documents import slow_pdf
from PIL import Image

from jina_rag.config import IngestSettings, Limits
from jina_rag.errors import DocumentError, LimitExceededError, MissingDependencyError, PasswordRequiredError
from jina_rag.indexing.page_files import load_pages
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.pages import DocumentStart, read_pages
from jina_rag.parsing.sources import source_file
from jina_rag.parsing.workers import ipc, pool, process, worker
from jina_rag.parsing.workers.cancellation import Stop
from jina_rag.parsing.workers.pool import IsolatedDocument, open_isolated
from jina_rag.testing import sample_pdf
from jina_rag.types import Failure, Page

QUICK = IngestSettings(dpi=60, ocr="never")
TWO_SECOND_LIMIT = IngestSettings(dpi=60, ocr="never", limits=Limits(max_seconds=2))


@pytest.fixture
def document(tmp_path):
    return source_file(sample_pdf(tmp_path / "two.pdf", ["first page, naïve 東京", "second page"]))


def test_isolated_page_equals_local_page(document):
    with open_document(document, QUICK) as local, IsolatedDocument(document, QUICK) as renderer:
        assert renderer.page_count == local.page_count
        assert renderer.warnings == local.warnings
        for number in (2, 1):
            expected, images = local.render_with_images(number)
            page, isolated_images = renderer.render_with_images(number)
            assert (page.words, page.regions, page.warnings) == (expected.words, expected.regions, expected.warnings)
            assert page.screenshot.image.tobytes() == expected.screenshot.image.tobytes()
            assert (page.number, page.count, page.doc_id, page.path) == (number, 2, "two.pdf", document.path)
            assert images == isolated_images


def test_isolate_is_default_and_can_be_disabled(document):
    with open_isolated(document, QUICK) as renderer:
        assert isinstance(renderer._first, IsolatedDocument)
    with open_isolated(document, IngestSettings(isolate=False)) as renderer:
        assert not isinstance(renderer._first, IsolatedDocument)


def test_worker_errors_keep_their_class(tmp_path):
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    with pytest.raises(DocumentError, match="damaged"):
        IsolatedDocument(source_file(tmp_path / "broken.pdf"), QUICK)
    import pymupdf

    with pymupdf.open() as pdf_document:
        pdf_document.new_page()
        pdf_document.save(tmp_path / "locked.pdf", encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw="sesame")
    encrypted = source_file(tmp_path / "locked.pdf")
    with pytest.raises(PasswordRequiredError, match="no password is configured"):
        IsolatedDocument(encrypted, QUICK)
    for passwords in (("wrong", "sesame"), {"locked*": "sesame"}, {"*.pdf": ["no", "sesame"]}):
        with IsolatedDocument(encrypted, IngestSettings(passwords=passwords)) as renderer:
            assert renderer.page_count == 1
    with pytest.raises(PasswordRequiredError):
        IsolatedDocument(encrypted, IngestSettings(passwords={"other.pdf": "sesame"}))


def test_render_timeout_fails_only_that_page(tmp_path):
    source = source_file(slow_pdf(tmp_path / "slow.pdf"))
    next_document = source_file(sample_pdf(tmp_path / "after.pdf", ["second document"]))
    events = list(read_pages([source, next_document], TWO_SECOND_LIMIT))
    (failure,) = [event for event in events if isinstance(event, Failure)]
    assert failure.page == 1
    assert "time limit of 2 s" in failure.reason
    assert "Limits.max_seconds" in failure.reason
    pages = [event for event in events if isinstance(event, Page)]
    assert [(page.doc_id, page.number) for page in pages] == [("slow.pdf", 2), ("after.pdf", 1)]
    assert pages[0].screenshot.image.getpixel((80, 80)) == (0, 0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="memory limits are enforced on Linux only")
def test_image_over_memory_limit_fails(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (9000, 9000), "white").save(buffer, "PNG")
    (tmp_path / "large.png").write_bytes(buffer.getvalue())
    low_memory_limit = IngestSettings(ocr="never", limits=Limits(max_memory=100_000_000))
    with IsolatedDocument(source_file(tmp_path / "large.png"), low_memory_limit) as renderer:
        with pytest.raises(LimitExceededError, match=r"100 MB of memory.*Limits\.max_memory"):
            renderer.render(1)
    with IsolatedDocument(source_file(tmp_path / "large.png"), QUICK) as renderer:
        assert renderer.render(1).screenshot.image.size == (2500, 2500)


def idle_workers_of(document: IsolatedDocument) -> list[pool.Worker]:
    """Return the idle workers in which a document is open."""
    return [idle for idle in pool._IDLE_WORKERS._workers if idle.holds(document._key)]


def kill_while_rendering(document: IsolatedDocument, number: int) -> str:
    """Kill the worker during rendering and return the reason of the failure."""
    (active_worker,) = idle_workers_of(document)
    threading.Timer(0.3, active_worker._process.kill).start()
    with pytest.raises(DocumentError) as caught:
        document.render(number)
    return str(caught.value)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals")
def test_crash_fails_page_and_three_crashes_fail_document(tmp_path):
    source = source_file(slow_pdf(tmp_path / "slow.pdf"))
    with IsolatedDocument(source, QUICK) as renderer:
        for _ in range(3):
            assert renderer.render(2).number == 2
            assert "worker process crashed (SIGKILL)" in kill_while_rendering(renderer, 1)
        with pytest.raises(DocumentError, match="caused 3 crashes"):
            renderer.render(2)


def test_invalid_answer_fails_page(document, monkeypatch):
    with IsolatedDocument(document, QUICK) as renderer:
        receive = pool.Worker.receive
        monkeypatch.setattr(
            pool.Worker, "receive", lambda self, seconds, **sizes: (receive(self, seconds, **sizes)[0], b"short")
        )
        with pytest.raises(DocumentError, match="invalid answer"):
            renderer.render(1)
        monkeypatch.undo()
        assert renderer.render(1).number == 1


def fake_answers(monkeypatch, op, header, body=b""):
    """Replace the answers to one kind of request, and return the list of workers that received such a request."""
    send, receive, asked_workers = pool.Worker.send, pool.Worker.receive, []
    operations = defaultdict(deque)

    def record(self, *requests, seconds):
        operations[self].extend(request["op"] for request in requests)
        send(self, *requests, seconds=seconds)

    def answer(self, seconds, **sizes):
        real = receive(self, seconds, **sizes)
        if operations[self].popleft() != op:
            return real
        asked_workers.append(self)
        return header, body

    monkeypatch.setattr(pool.Worker, "send", record)
    monkeypatch.setattr(pool.Worker, "receive", answer)
    return asked_workers


@pytest.mark.parametrize("op", ["open", "page"])
@pytest.mark.parametrize("header", [{}, {"error": "DocumentError"}, {"error": 5, "message": "x"}, {"count": 10**8}])
def test_worker_with_invalid_answer_is_killed(document, monkeypatch, op, header):
    asked_workers = fake_answers(monkeypatch, op, header)
    failures = [event for event in read_pages([document], QUICK) if isinstance(event, Failure)]
    assert [failure.page for failure in failures] == ([None] if op == "open" else [1, 2])
    assert all("invalid answer" in failure.reason for failure in failures)
    assert asked_workers
    assert not any(worker.is_usable for worker in asked_workers)


@pytest.mark.parametrize("name", ["CheckpointError", "JinaRagError", "annotations", "nothing"])
def test_unexpected_error_class_fails_only_the_page(document, monkeypatch, name):
    fake_answers(monkeypatch, "page", {"error": name, "message": "The page is damaged."})
    events = list(read_pages([document], QUICK))
    assert [event.reason for event in events if isinstance(event, Failure)] == ["The page is damaged."] * 2


def test_missing_dependency_error_is_raised(document, monkeypatch):
    fake_answers(monkeypatch, "open", {"error": "MissingDependencyError", "message": "pip install it"})
    with pytest.raises(MissingDependencyError, match="pip install it"):
        list(read_pages([document], QUICK))


def test_unstartable_worker_fails_document(document, monkeypatch):
    def raise_no_process(*args, **kwargs):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(pool, "_IDLE_WORKERS", pool._IdleWorkers())
    monkeypatch.setattr(subprocess, "Popen", raise_no_process)
    (event,) = read_pages([document], QUICK)
    assert event.reason.startswith("The worker process for rendering cannot be started: ")


@pytest.mark.parametrize("processes", [1, 3])
def test_closing_stream_does_not_wait_for_slow_page(tmp_path, processes):
    source = source_file(slow_pdf(tmp_path / "slow.pdf"))
    settings = IngestSettings(dpi=60, ocr="never", processes=processes, limits=Limits(max_seconds=30))
    with closing(read_pages([source], settings)) as events:
        assert isinstance(next(events), DocumentStart)
        time.sleep(0.5)  # the first page is being rendered
        start = time.monotonic()
    assert time.monotonic() - start < 2


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot stop a process")
def test_stop_cancels_document_that_hangs_on_open(document, monkeypatch):
    class StoppedWorker(pool.Worker):
        def __init__(self, libraries):
            super().__init__(libraries)
            self._process.send_signal(signal.SIGSTOP)

    monkeypatch.setattr(pool, "_IDLE_WORKERS", pool._IdleWorkers())
    monkeypatch.setattr(pool, "Worker", StoppedWorker)
    stop = Stop()
    threading.Timer(0.3, stop.set).start()
    start = time.monotonic()
    with pytest.raises(DocumentError):
        open_isolated(document, QUICK, stop)
    assert time.monotonic() - start < 3
    with pytest.raises(DocumentError, match="the run was stopped"):
        open_isolated(document, QUICK, stop)


def test_kill_on_stop_runs_at_once_after_stop():
    stop, calls = Stop(), []
    with stop.kill_on_stop(lambda: calls.append("before")):
        pass
    with stop.kill_on_stop(lambda: calls.append("within")):
        stop.set()
        assert calls == ["within"]
    with stop.kill_on_stop(lambda: calls.append("after")):
        assert calls == ["within", "after"]
    stop.set()
    assert calls == ["within", "after"]


def test_idle_worker_is_reused(document):
    process_ids = set()
    for _ in range(3):
        with IsolatedDocument(document, QUICK) as renderer:
            (active_worker,) = idle_workers_of(renderer)
            process_ids.add(active_worker._process.pid)
    assert len(process_ids) == 1
    # A worker that died while idle is not reused.
    active_worker._process.kill()
    active_worker._process.wait()
    with IsolatedDocument(document, QUICK) as renderer:
        assert renderer.render(1).number == 1


@pytest.mark.parametrize("stop", ["kill", "close"])
def test_stopped_worker_is_not_reused_although_its_process_still_runs(monkeypatch, stop):
    """A process runs on for a moment after the signal that kills it."""
    idle = pool._IdleWorkers()
    stopped_worker = idle.take(0)
    with monkeypatch.context() as patch:
        patch.setattr(stopped_worker._process, "kill", lambda: None)
        patch.setattr(stopped_worker._process, "wait", lambda timeout=None: None)
        getattr(stopped_worker, stop)()
        assert stopped_worker._process.poll() is None
        idle.give(stopped_worker)
        other_worker = idle.take(0)
    assert other_worker is not stopped_worker
    for each in (stopped_worker, other_worker):
        each.close(kill=True)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])
def test_idle_worker_that_the_system_kills_or_stops_fails_no_document(document, monkeypatch, name):
    """A killed process looks like a running one for some milliseconds."""
    monkeypatch.setattr(pool, "_IDLE_WORKERS", pool._IdleWorkers())
    monkeypatch.setattr(process, "_ANSWER_SECONDS", 1)
    with IsolatedDocument(document, QUICK) as renderer:
        (idle,) = idle_workers_of(renderer)
        os.kill(idle._process.pid, getattr(signal, name))
        if name == "SIGKILL":
            os.waitid(os.P_PID, idle._process.pid, os.WEXITED | os.WNOWAIT)
        with monkeypatch.context() as patch:
            patch.setattr(pool.Worker, "is_usable", property(lambda self: not self._is_stopped))
            assert renderer.render(1).number == 1
        assert idle_workers_of(renderer) not in ([], [idle])
    pool._IDLE_WORKERS.close()


def test_files_are_read_after_loops_that_end_early(tmp_path):
    sample_pdf(tmp_path / "one.pdf", ["one"])
    failures = []
    for _ in range(30):
        for _page in load_pages(tmp_path, settings=QUICK, on_failure=failures.append):
            break
    assert not failures


def test_idle_worker_exits_after_timeout(document, monkeypatch):
    monkeypatch.setattr(pool, "_IDLE_SECONDS", 0.2)
    idle = pool._IdleWorkers()
    idle_worker = idle.take(0)
    idle.give(idle_worker)
    deadline = time.monotonic() + 10
    while idle_worker.is_usable and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not idle_worker.is_usable


def test_several_processes_keep_page_order(tmp_path):
    source = source_file(sample_pdf(tmp_path / "many.pdf", [f"page word{n}" for n in range(12)]))
    settings = IngestSettings(dpi=40, ocr="never", processes=3)
    with closing(read_pages([source], settings)) as events:
        pages = [event for event in events if isinstance(event, Page)]
    assert [(page.number, page.words[1].text) for page in pages] == [(n + 1, f"word{n}") for n in range(12)]


def test_script_without_main_guard_can_ingest(tmp_path):
    """Workers do not import the main module of a script."""
    sample_pdf(tmp_path / "a.pdf", ["hello"])
    script = tmp_path / "script.py"
    script.write_text(
        "from jina_rag.config import IngestSettings\n"
        "from jina_rag.parsing.pages import read_pages\n"
        "from jina_rag.parsing.sources import source_file\n"
        "print('once')\n"
        "print(len(list(read_pages([source_file('a.pdf')], IngestSettings(ocr='never')))))\n"
    )
    completed = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert completed.stdout.split() == ["once", "3"]


def test_modules_next_to_documents_are_not_imported(tmp_path):
    sample_pdf(tmp_path / "a.pdf", ["hello"])
    for name in ("json", "struct", "numpy", "contextlib"):
        (tmp_path / f"{name}.py").write_text("open('PWNED', 'w').close()\n")
    code = (
        "from jina_rag.config import IngestSettings\n"
        "from jina_rag.parsing.pages import read_pages\n"
        "from jina_rag.parsing.sources import source_file\n"
        "print(len(list(read_pages([source_file('a.pdf')], IngestSettings(ocr='never')))))\n"
    )
    completed = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert completed.stdout.split() == ["3"]
    assert not (tmp_path / "PWNED").exists()


def test_messages_preserve_surrogates_and_report_end_of_stream():
    stream = io.BytesIO()
    ipc.write(stream, {"path": "bad\udcff\nname"}, [b"bo", b"dy"])
    data = stream.getvalue()
    assert ipc.receive(io.BytesIO(data), max_body=4) == ({"path": "bad\udcff\nname"}, b"body")
    assert ipc.receive(io.BytesIO(b"")) is None
    for cut in (3, len(data) - 1):
        with pytest.raises(EOFError):
            ipc.receive(io.BytesIO(data[:cut]), max_body=4)


def test_document_server_answers_all_requests(document, tmp_path, monkeypatch):
    memory_limits = []
    monkeypatch.setattr(worker, "_limit_memory", memory_limits.append)  # the limit would apply to the test process
    server = worker._DocumentServer()
    request = ipc.pack_request(document, QUICK, 7)
    assert "passwords" in request["settings"]
    header, _ = server.answer({**request, "settings": {**request["settings"], "isolate": False}})
    assert header["count"] == 2
    assert memory_limits == [QUICK.limits.max_memory]
    page_request = {"op": "page", "document": 7, "prepared": False}
    header, body = server.answer({**page_request, "number": 1})
    # The pipe converts tuples to lists.
    page, _ = ipc.unpack_page(document, 1, 2, json.loads(json.dumps(header)), b"".join(body), QUICK)
    assert "東京" in page.text
    assert server.answer({**page_request, "number": 9})[0]["error"] == "DocumentError"
    assert "error" in server.answer({"op": "nonsense"})[0]
    assert server.answer({"op": "close", "close": [7, 8]}) == ({}, [])
    assert "error" in server.answer({**page_request, "number": 1})[0]
