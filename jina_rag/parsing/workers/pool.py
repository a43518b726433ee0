"""Documents opened in worker processes: one that crashes, hangs or eats memory costs a page, not the run.

A worker is an interpreter of its own that imports nothing of the caller's program, so that scripts need no guard
around their main part. Workers are kept for the next document for a while, since starting one takes half a second.
"""

from __future__ import annotations

import atexit
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError, LimitExceededError
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.renderer import Renderer
from jina_rag.parsing.sources import SourceFile
from jina_rag.parsing.workers import ipc
from jina_rag.parsing.workers.cancellation import Stop
from jina_rag.parsing.workers.ipc import Answer, InvalidMessageError
from jina_rag.parsing.workers.process import Worker, WorkerLostError
from jina_rag.types import Box, Page

_IDLE_SECONDS = 30.0
# A document that has ended so many workers is given up: each may have cost the whole time limit.
_MOST_LOST = 3
_Result = TypeVar("_Result")


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

    def give(self, worker: Worker) -> None:
        worker.idle_since = time.monotonic()
        with self._lock:
            self._workers.append(worker)
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


def open_isolated(source: SourceFile, settings: IngestSettings, stop: Stop | None = None) -> Renderer:
    """Open one document in a worker process, or in this one where ``settings.isolate`` is off.

    Args:
        source: The document.
        settings: How.
        stop: Once it is set, workers that are busy with the document are ended.

    Raises:
        DocumentError: As `open_document`.
        MissingDependencyError: As `open_document`.
    """
    # A program that was frozen into one file has no interpreter to start: it would start itself.
    if settings.isolate and sys.executable and not getattr(sys, "frozen", False):
        return IsolatedDocument(source, settings, stop)
    return open_document(source, settings)


class IsolatedDocument(Renderer):
    """A `Renderer` whose work is done by worker processes, `settings.render_processes` of them at most.

    Its methods may be called from as many threads.

    Raises:
        DocumentError: As the renderers in this process; also if opening it crashes or hangs, or no worker starts.
        MissingDependencyError: As the renderers in this process.
    """

    def __init__(self, source: SourceFile, settings: IngestSettings, stop: Stop | None = None) -> None:
        super().__init__(source, settings)
        self._stop = stop or Stop()
        self._ready: queue.LifoQueue[Worker] = queue.LifoQueue()
        self._lost = 0
        first, self._count, self._warnings = self._start()
        self._ready.put(first)

    def render_with_images(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        """See `Renderer.render_with_images`.

        Raises:
            DocumentError: Also if the page crashes the worker, or takes too long or too much memory.
        """
        if self._lost >= _MOST_LOST:
            raise DocumentError(f"It was not tried: {_MOST_LOST} pages of this document have ended the renderer.")
        try:
            worker = self._ready.get_nowait()
        except queue.Empty:
            worker, *_ = self._start()

        def unpack(header: dict[str, Any], body: bytes) -> tuple[Page, tuple[Box, ...]]:
            return ipc.unpack_page(self._source, number, self._count, header, body, self._settings.limits)

        request = {"op": "page", "number": number}
        result = self._answer(worker, request, unpack, "The page cannot be rendered", self._ready.put)
        self._ready.put(worker)
        return result

    def close(self) -> None:
        """Give the workers back; where the run is stopped, end them: nothing is waited for then."""
        while not self._ready.empty():
            worker = self._ready.get_nowait()
            with suppress(WorkerLostError, InvalidMessageError):
                if not self._stop.is_set:
                    self._ask(worker, {"op": "close"})
                    _IDLE.give(worker)
                    continue
            worker.close(kill=True)

    def _ask(self, worker: Worker, request: Mapping[str, Any]) -> Answer:
        with self._stop.kill_on_stop(worker.kill):
            return worker.ask(request, self._settings.limits.max_seconds)

    def _answer(
        self,
        worker: Worker,
        request: Mapping[str, Any],
        unpack: Callable[[dict[str, Any], bytes], _Result],
        what: str,
        release: Callable[[Worker], None],
    ) -> _Result:
        """What a worker answers; what is wrong with it is an error that begins with `what`.

        A worker that answers with an error is released; one that did what none of ours does is ended, since a document
        may have taken it over, and so is one that ran out of memory, which is not trusted with the next page.
        """
        try:
            header, body = self._ask(worker, request)
            error = ipc.unpack_error(header)
            if error is None:
                return unpack(header, body)
        except WorkerLostError as exc:
            self._lost += 1
            raise (LimitExceededError if exc.timed_out else DocumentError)(f"{what}: {exc}.") from exc
        except InvalidMessageError as exc:
            worker.close(kill=True)
            raise DocumentError(f"{what}: the renderer's answer makes no sense.") from exc
        if header.get("spent"):
            worker.close(kill=True)
        else:
            release(worker)
        raise error

    def _start(self) -> tuple[Worker, int, tuple[str, ...]]:
        """A worker that has this document open, and what it said of it: the count of pages, and warnings."""
        if self._stop.is_set:
            raise DocumentError("It was not read: the run was stopped.")
        try:
            worker = _IDLE.take()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise DocumentError(f"The process that renders it cannot be started: {reason}.") from error

        def unpack(header: dict[str, Any], _: bytes) -> tuple[int, tuple[str, ...]]:
            return ipc.unpack_opened(header, self._settings.limits)

        request = ipc.pack_request(self._source, self._settings)
        count, warnings = self._answer(worker, request, unpack, "The file cannot be opened", _IDLE.give)
        return worker, count, warnings
