"""Documents opened in worker processes: one that crashes, hangs or eats memory costs a page, not the run.

A worker is an interpreter of its own that imports nothing of the caller's program, so that scripts need no guard
around their main part. Workers are kept for the next document for a while, since starting one takes half a second.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from jina_rag import errors
from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError, JinaRagError, LimitExceededError
from jina_rag.ingestion import messages
from jina_rag.ingestion.documents import open_document
from jina_rag.ingestion.renderer import Renderer
from jina_rag.ingestion.sources import SourceFile
from jina_rag.types import Box, Page

_BOOT = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from jina_rag.ingestion.worker import main; main()"
_IDLE_SECONDS = 30.0
# A document that has ended so many workers is given up: each may have cost the whole time limit.
_MOST_LOST = 3


class WorkerLostError(Exception):
    """The process is gone; the message is the reason, as a clause.

    Attributes:
        late: Whether it was ended because of the time limit.
    """

    def __init__(self, reason: str, *, late: bool) -> None:
        super().__init__(reason)
        self.late = late


class Worker:
    """One worker process; used by one thread at a time."""

    def __init__(self) -> None:
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        # The command is our own interpreter and our own module; documents' names go through the pipe.
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", _BOOT, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("JINA_RAG_DEBUG") else subprocess.DEVNULL,
            start_new_session=True,
            creationflags=flags,
        )
        self.idle_since = time.monotonic()

    def ask(self, request: Mapping[str, Any], seconds: int) -> tuple[dict[str, Any], bytes]:
        """Send a request and wait for the answer.

        Raises:
            WorkerLostError: If the process ended, or took longer than `seconds` and was ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            messages.send(self._process.stdin, {**request, "seconds": seconds})
            answer = messages.receive(self._process.stdout)
        except (OSError, EOFError, ValueError):
            answer = None
        finally:
            timer.cancel()
        if answer is None:
            self.close(kill=True)
            raise WorkerLostError(_reason(self._process.returncode, seconds, late=late.is_set()), late=late.is_set())
        return answer

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def close(self, *, kill: bool = False) -> None:
        """End the process: by closing its pipe, or at once."""
        if kill:
            self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _reason(code: int | None, seconds: int, *, late: bool) -> str:
    if late:
        return f"it took longer than {seconds} s and was stopped (limits.max_seconds)"
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"it crashed the renderer ({signal.Signals(-code).name})"
    return f"it ended the renderer (status {code})"


class _Idle:
    """Workers that wait for their next document."""

    def __init__(self) -> None:
        self._workers: list[Worker] = []
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def take(self) -> Worker:
        with self._lock:
            while self._workers:
                idle = self._workers.pop()
                if idle.is_alive:
                    return idle
                idle.close()
        return Worker()

    def give(self, freed: Worker) -> None:
        freed.idle_since = time.monotonic()
        with self._lock:
            self._workers.append(freed)
            if self._timer is None:
                self._watch()

    def _watch(self) -> None:
        self._timer = threading.Timer(_IDLE_SECONDS, self._end_old)
        self._timer.daemon = True
        self._timer.name = "jina-rag-idle"
        self._timer.start()

    def _end_old(self) -> None:
        limit = time.monotonic() - _IDLE_SECONDS * 0.9
        with self._lock:
            old = [idle for idle in self._workers if idle.idle_since < limit]
            self._workers = [idle for idle in self._workers if idle.idle_since >= limit]
            self._timer = None
            if self._workers:
                self._watch()
        for idle in old:
            idle.close()

    def close(self) -> None:
        """End all of them; used at the end of the process."""
        with self._lock:
            workers, self._workers = self._workers, []
        for idle in workers:
            idle.close(kill=True)

    def forget(self) -> None:
        """After a fork the workers are the parent's: two processes must not talk to one."""
        self.__init__()  # type: ignore[misc]


_IDLE = _Idle()
atexit.register(_IDLE.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_IDLE.forget)


def open_isolated(source: SourceFile, settings: IngestSettings) -> Renderer:
    """Open one document in a worker process, or in this one where ``settings.isolate`` is off.

    Raises:
        DocumentError: As `open_document`.
        MissingDependencyError: As `open_document`.
    """
    # A program that was frozen into one file has no interpreter to start: it would start itself.
    can_start = bool(sys.executable) and not getattr(sys, "frozen", False)
    return IsolatedDocument(source, settings) if settings.isolate and can_start else open_document(source, settings)


class IsolatedDocument:
    """A `Renderer` whose work is done by worker processes, `settings.render_processes` of them at most.

    Its methods may be called from as many threads.

    Raises:
        DocumentError: As the renderers in this process; also if opening it crashes or hangs.
    """

    def __init__(self, source: SourceFile, settings: IngestSettings) -> None:
        self._source = source
        self._settings = settings
        self._ready: queue.LifoQueue[Worker] = queue.LifoQueue()
        self._lost = 0
        first, answer = self._start()
        self._count, self._warnings = int(answer["count"]), tuple(answer["warnings"])
        self._ready.put(first)

    @property
    def page_count(self) -> int:
        """Number of pages (frames)."""
        return self._count

    @property
    def warnings(self) -> tuple[str, ...]:
        """What could be mended of the document as a whole."""
        return self._warnings

    def render(self, number: int) -> Page:
        """See `PageRenderer.render`."""
        return self.render_with_pictures(number)[0]

    def render_with_pictures(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        """See `Renderer.render_with_pictures`.

        Raises:
            DocumentError: Also if the page crashes the worker, or takes too long or too much memory.
        """
        if self._lost >= _MOST_LOST:
            raise DocumentError(f"It was not tried: {_MOST_LOST} pages of this document have ended the renderer.")
        try:
            try:
                current = self._ready.get_nowait()
            except queue.Empty:
                current, _ = self._start()
            header, body = current.ask({"op": "page", "number": number}, self._settings.limits.max_seconds)
            if "error" in header:
                if header.get("spent"):  # what ran out of memory once is not trusted with the next page
                    current.close(kill=True)
                else:
                    self._ready.put(current)
                raise _error(header)
            result = messages.unpack_page(self._source, number, self._count, header, body)
        except WorkerLostError as lost:
            self._lost += 1
            raise _failure("The page cannot be rendered", lost) from lost
        except EOFError as error:
            current.close(kill=True)
            raise DocumentError("The page cannot be rendered: the renderer's answer makes no sense.") from error
        self._ready.put(current)
        return result

    def close(self) -> None:
        """Give the workers back."""
        while True:
            try:
                current = self._ready.get_nowait()
            except queue.Empty:
                return
            try:
                current.ask({"op": "close"}, self._settings.limits.max_seconds)
            except WorkerLostError:
                continue
            _IDLE.give(current)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> tuple[Worker, dict[str, Any]]:
        """A worker that has this document open, and what it said of it."""
        current = _IDLE.take()
        try:
            header, _ = current.ask(
                messages.pack_request(self._source, self._settings), self._settings.limits.max_seconds
            )
        except WorkerLostError as lost:
            raise _failure("The file cannot be opened", lost) from lost
        if "error" in header:
            if header.get("spent"):
                current.close(kill=True)
            else:
                _IDLE.give(current)
            raise _error(header)
        return current, header


def _failure(what: str, lost: WorkerLostError) -> DocumentError:
    return (LimitExceededError if lost.late else DocumentError)(f"{what}: {lost}.")


def _error(header: Mapping[str, Any]) -> JinaRagError:
    """The worker's error as an exception of the same class."""
    kind = getattr(errors, str(header["error"]), DocumentError)
    if not (isinstance(kind, type) and issubclass(kind, JinaRagError)):
        kind = DocumentError
    return kind(str(header["message"]))
