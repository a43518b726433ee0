"""Pool of worker processes that render pages. A crash, timeout or out-of-memory error fails only one page.

A worker is a separate interpreter that does not import the main module of the program, so scripts need no
``if __name__ == "__main__"`` guard. Starting a worker takes half a second. Idle workers are therefore reused, and exit
after 30 seconds without work.
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
# After this number of crashes or timeouts, the remaining pages of a document fail immediately, because each timeout
# would take `Limits.max_seconds`.
_MAX_LOST = 3
_Result = TypeVar("_Result")


class _IdleWorkers:
    """Worker processes without a document, which are reused for the next document."""

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
                self._start_timer()

    def _start_timer(self) -> None:
        self._timer = threading.Timer(_IDLE_SECONDS, self._close_expired)
        self._timer.daemon = True
        self._timer.name = "jina-rag-idle"
        self._timer.start()

    def _close_expired(self) -> None:
        limit = time.monotonic() - _IDLE_SECONDS * 0.9
        with self._lock:
            expired_workers = [idle for idle in self._workers if idle.idle_since < limit]
            self._workers = [idle for idle in self._workers if idle.idle_since >= limit]
            self._timer = None
            if self._workers:
                self._start_timer()
        for idle in expired_workers:
            idle.close()

    def close(self) -> None:
        """Kill all idle workers. Called when the process exits."""
        with self._lock:
            workers, self._workers = self._workers, []
        for idle in workers:
            idle.close(kill=True)

    def forget(self) -> None:
        """Drop all workers. Called in a forked child process, because the workers belong to the parent process."""
        self.__init__()  # type: ignore[misc]


_IDLE_WORKERS = _IdleWorkers()
atexit.register(_IDLE_WORKERS.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_IDLE_WORKERS.forget)


def open_isolated(source: SourceFile, settings: IngestSettings, stop: Stop | None = None) -> Renderer:
    """Open a document in a worker process, or in the current process if ``settings.isolate`` is False.

    Args:
        source: The document.
        settings: Settings of the ingestion.
        stop: Stop signal that kills the workers of the document.

    Returns:
        The renderer of the open document.

    Raises:
        DocumentError: If the document cannot be opened. `open_document` lists the subclasses.
        MissingDependencyError: If no PDF renderer is installed.
    """
    # In a frozen application, sys.executable is the application and not a Python interpreter.
    if settings.isolate and sys.executable and not getattr(sys, "frozen", False):
        return IsolatedDocument(source, settings, stop)
    return open_document(source, settings)


class IsolatedDocument(Renderer):
    """A thread-safe `Renderer` that uses one worker process per concurrent call.

    Raises:
        DocumentError: If the document cannot be opened, the worker crashes or exceeds a limit, or no worker starts.
        MissingDependencyError: If no PDF renderer is installed.
    """

    def __init__(self, source: SourceFile, settings: IngestSettings, stop: Stop | None = None) -> None:
        super().__init__(source, settings)
        self._stop = stop or Stop()
        self._ready: queue.LifoQueue[Worker] = queue.LifoQueue()
        self._lost_count = 0
        first, self._count, self._warnings = self._start()
        self._ready.put(first)

    def render_with_images(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        """Return a page as `render` does, and the boxes of the raster images.

        Args:
            number: Page number, 1-based.

        Returns:
            The page, and the boxes of the raster images as fractions of the page.

        Raises:
            DocumentError: If the page cannot be rendered or the worker crashes.
            LimitExceededError: If rendering exceeds the limit of time or memory.
        """
        if self._lost_count >= _MAX_LOST:
            raise DocumentError(
                f"The page was not rendered: the document caused {_MAX_LOST} crashes or timeouts. "
                "Re-export the file, or raise Limits.max_seconds (--limit max_seconds=N)."
            )
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
        """Return the workers to the pool. If the stop signal is set, kill the workers instead."""
        while not self._ready.empty():
            worker = self._ready.get_nowait()
            with suppress(WorkerLostError, InvalidMessageError):
                if not self._stop.is_set:
                    self._ask(worker, {"op": "close"})
                    _IDLE_WORKERS.give(worker)
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
        problem: str,
        release: Callable[[Worker], None],
    ) -> _Result:
        """Send a request to a worker and return the unpacked answer.

        If the worker reports an error, the worker is passed to `release` and the error is raised. A worker that
        violates the protocol is killed, because a document may have compromised the worker. A worker that ran out of
        memory is killed, because the state of the worker is unreliable. If the worker was lost or violated the
        protocol, the error message starts with `problem`.
        """
        try:
            header, body = self._ask(worker, request)
            error = ipc.unpack_error(header)
            if error is None:
                return unpack(header, body)
        except WorkerLostError as exc:
            self._lost_count += 1
            raise (LimitExceededError if exc.timed_out else DocumentError)(f"{problem}: {exc}.") from exc
        except InvalidMessageError as exc:
            worker.close(kill=True)
            raise DocumentError(f"{problem}: the worker process sent an invalid answer. Re-export the file.") from exc
        if header.get("spent"):
            worker.close(kill=True)
        else:
            release(worker)
        raise error

    def _start(self) -> tuple[Worker, int, tuple[str, ...]]:
        """Open the document in a worker. Return the worker, the number of pages and the warnings of the document."""
        if self._stop.is_set:
            raise DocumentError("The document was not read because the run was stopped. Run the ingestion again.")
        try:
            worker = _IDLE_WORKERS.take()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise DocumentError(
                f"The worker process for rendering cannot be started: {reason}. Reduce IngestSettings.processes."
            ) from error

        def unpack(header: dict[str, Any], _: bytes) -> tuple[int, tuple[str, ...]]:
            return ipc.unpack_opened(header, self._settings.limits)

        request = ipc.pack_request(self._source, self._settings)
        count, warnings = self._answer(worker, request, unpack, "The file cannot be opened", _IDLE_WORKERS.give)
        return worker, count, warnings
