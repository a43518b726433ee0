"""Pool of worker processes that render pages. A crash, timeout or out-of-memory error fails only one page.

A worker is a separate interpreter that does not import the main module of the program, so scripts need no
``if __name__ == "__main__"`` guard. Starting a worker takes half a second. Idle workers are therefore reused, and exit
after 30 seconds without work.
"""

from __future__ import annotations

import atexit
import itertools
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from jina_rag._forks import after_fork_in_child, settle_fork
from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError, LimitExceededError, MissingDependencyError
from jina_rag.parsing.documents import open_document, renderer_name, renderer_names
from jina_rag.parsing.fallback import FallbackRenderer
from jina_rag.parsing.renderer import Renderer
from jina_rag.parsing.sources import SourceFile
from jina_rag.parsing.workers import ipc
from jina_rag.parsing.workers.cancellation import Stop
from jina_rag.parsing.workers.ipc import InvalidMessageError
from jina_rag.parsing.workers.process import Worker, WorkerLostError
from jina_rag.types import Box, Page

_IDLE_SECONDS = 30.0
# After this number of crashes or timeouts, the remaining pages of a document fail immediately, because each timeout
# would take `Limits.max_seconds`.
_MAX_LOST = 3
_Result = TypeVar("_Result")


class _IdleWorkers:
    """Worker processes without a request, which are reused for the next request of any document."""

    def __init__(self) -> None:
        self._workers: list[Worker] = []
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def take(self, document: int, libraries: Sequence[str] = ()) -> Worker:
        """Return a worker that has a document open if possible, else another idle worker, else a new worker.

        An idle worker must answer first: the operating system may have killed the process, for example to free memory,
        and a killed process is not distinguishable from a running one for some milliseconds.

        Args:
            document: Key of the document.
            libraries: Names of the packages that a new worker imports.
        """
        settle_fork()
        while (idle := self._pop(document)) is not None:
            if idle.is_usable and idle.answers():
                return idle
            idle.close(kill=True)
        return Worker(libraries)

    def _pop(self, document: int) -> Worker | None:
        with self._lock:
            if not self._workers:
                return None
            last = len(self._workers) - 1
            return self._workers.pop(next((i for i, w in enumerate(self._workers) if w.holds(document)), last))

    def give(self, worker: Worker) -> None:
        """Keep a worker for the next request, unless the worker was told to stop or has exited."""
        if not worker.is_usable:
            worker.close(kill=True)
            return
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

    def close_documents(self) -> None:
        """Close the documents in idle workers that are no longer needed."""
        with self._lock:
            workers = [idle for idle in self._workers if idle.has_documents_to_close]
            self._workers = [idle for idle in self._workers if idle not in workers]
        for worker in workers:
            worker.ask()
        for worker in workers:
            if worker.has_answered():
                self.give(worker)
            else:
                worker.close(kill=True)

    def close(self) -> None:
        """Kill all idle workers. Called when the process exits."""
        settle_fork()
        with self._lock:
            workers, self._workers = self._workers, []
        for idle in workers:
            idle.close(kill=True)

    def forget(self) -> None:
        """Drop all workers. Called in a forked child process, because the workers belong to the parent process."""
        for worker in self._workers:
            worker.close_pipes()
        self.__init__()  # type: ignore[misc]


_IDLE_WORKERS = _IdleWorkers()
atexit.register(_IDLE_WORKERS.close)
after_fork_in_child(_IDLE_WORKERS.forget)


def open_isolated(
    source: SourceFile,
    settings: IngestSettings,
    stop: Stop | None = None,
    *,
    prepared: bool = False,
    first_page: int | None = None,
) -> Renderer:
    """Open a document in a worker process, or in the current process if ``settings.isolate`` is False.

    Args:
        source: The document.
        settings: Settings of the ingestion.
        stop: Stop signal that kills the workers of the document.
        prepared: Whether workers set ``Page.prepared``. In the current process, `prepare` does.
        first_page: Number of the page that is rendered first, 1-based; None if unknown. The worker process then renders
            the page as soon as the document is open.

    Returns:
        The renderer of the open document.

    Raises:
        DocumentError: If the document cannot be opened. `open_document` lists the subclasses.
        MissingDependencyError: If no PDF renderer is installed.
    """
    # In a frozen application, sys.executable is the application and not a Python interpreter.
    if settings.isolate and sys.executable and not getattr(sys, "frozen", False):

        def open_with(named: IngestSettings, is_first: bool = True) -> Renderer:
            page = first_page if is_first else None
            return IsolatedDocument(source, named, stop, prepared=prepared, first_page=page)

        if source.kind != "pdf":
            return open_with(settings)
        return FallbackRenderer(source, settings, renderer_names(settings), open_with)
    return open_document(source, settings)


class IsolatedDocument(Renderer):
    """A thread-safe `Renderer` that uses one worker process per concurrent call.

    Workers are not reserved for the document: between two calls, a worker serves other documents. A worker opens the
    document with the first request of the document, and keeps the document open with a few others.

    Raises:
        DocumentError: If the document cannot be opened, the worker crashes or exceeds a limit, or no worker starts.
        MissingDependencyError: If no PDF renderer is installed.
    """

    _keys = itertools.count(1)

    def __init__(
        self,
        source: SourceFile,
        settings: IngestSettings,
        stop: Stop | None = None,
        *,
        prepared: bool = False,
        first_page: int | None = None,
    ) -> None:
        super().__init__(source, settings)
        self._stop = stop or Stop()
        self._prepared = prepared
        self._key = next(self._keys)
        self._workers: set[Worker] = set()  # workers that may have the document open
        self._lost_count = 0
        self._rendering: tuple[int, Worker] | None = None  # the first page, which a worker has started to render
        worker = self._take()
        pages = [] if first_page is None else [self._page_request(first_page)]
        self._send(worker, [self._open_request(worker), *pages])
        self._count, self._warnings = self._receive_opened(worker, len(pages))
        if first_page is None:
            self._release(worker)
        elif first_page > self._count:
            self._skip(worker, 1)
        else:
            self._rendering = first_page, worker

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
        rendering = self._rendering
        if rendering is not None and rendering[0] == number:
            self._rendering = None
            return self._receive_page(rendering[1], number)
        self._check_lost("The page was not rendered")
        worker = self._take()
        page = self._page_request(number)
        if worker.holds(self._key):
            self._send(worker, [page])
        else:
            self._send(worker, [self._open_request(worker), page])
            self._receive_opened(worker, 1)
        return self._receive_page(worker, number)

    def close(self, *, wait: bool = True) -> None:
        """Close the document in all workers.

        Args:
            wait: Whether to wait until idle workers have closed the document. Without waiting, a worker closes the
                document before the next request to the worker, or when `close_documents` is called.
        """
        if self._rendering is not None:  # the answer would be mistaken for the answer to the next request
            self._rendering[1].close(kill=True)
            self._rendering = None
        workers, self._workers = self._workers, set()
        for worker in workers:
            worker.forget(self._key)
        if wait and workers:
            close_documents()

    def _take(self) -> Worker:
        if self._stop.is_set:
            raise DocumentError("The document was not read because the run was stopped. Run the ingestion again.")
        try:
            library = "PIL.Image" if self._source.kind == "image" else renderer_name(self._settings)
            return _IDLE_WORKERS.take(self._key, [library])
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise DocumentError(
                f"The worker process for rendering cannot be started: {reason}. Reduce IngestSettings.processes."
            ) from error

    def _check_lost(self, problem: str) -> None:
        if self._lost_count >= _MAX_LOST:
            raise DocumentError(
                f"{problem}: the document caused {_MAX_LOST} crashes or timeouts. "
                "Re-export the file, or raise Limits.max_seconds (--limit max_seconds=N)."
            )

    def _open_request(self, worker: Worker) -> dict[str, Any]:
        worker.remember(self._key)
        self._workers.add(worker)
        return ipc.pack_request(self._source, self._settings, self._key)

    def _page_request(self, number: int) -> dict[str, Any]:
        return {"op": "page", "document": self._key, "number": number, "prepared": self._prepared}

    def _send(self, worker: Worker, requests: Sequence[Mapping[str, Any]]) -> None:
        worker.send(*requests, seconds=self._settings.limits.max_seconds)

    def _receive_opened(self, worker: Worker, following: int) -> tuple[int, tuple[str, ...]]:
        """Return the number of pages and the warnings of the document, from the answer to the request to open it."""
        try:
            return self._receive(
                worker,
                lambda header, _: ipc.unpack_opened(header, self._settings.limits),
                "The file cannot be opened",
                following,
            )
        except (DocumentError, MissingDependencyError):
            worker.forget(self._key, is_closed=True)
            raise

    def _receive_page(self, worker: Worker, number: int) -> tuple[Page, tuple[Box, ...]]:
        def unpack(header: dict[str, Any], body: bytes | memoryview) -> tuple[Page, tuple[Box, ...]]:
            return ipc.unpack_page(
                self._source, number, self._count, header, body, self._settings, prepared=self._prepared
            )

        result = self._receive(worker, unpack, "The page cannot be rendered")
        if self._count == 1:
            worker.forget(self._key, is_closed=True)
        self._release(worker)
        return result

    def _receive(
        self,
        worker: Worker,
        unpack: Callable[[dict[str, Any], bytes | memoryview], _Result],
        problem: str,
        following: int = 0,
    ) -> _Result:
        """Wait for an answer of a worker and return the unpacked answer.

        If the worker reports an error, the worker becomes idle and the error is raised. A worker that violates the
        protocol is killed, because a document may have compromised the worker. A worker that ran out of memory is
        killed, because the state of the worker is unreliable. If the worker was lost or violated the protocol, the
        error message starts with `problem`. `following` is the number of answers that follow this answer.
        """
        limits = self._settings.limits
        try:
            with self._stop.kill_on_stop(worker.kill):
                header, body = worker.receive(limits.max_seconds, max_body=ipc.max_body_bytes(limits))
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
            self._skip(worker, following)
        raise error

    def _skip(self, worker: Worker, answers: int) -> None:
        """Drop answers of a worker; the worker then becomes idle."""
        limits = self._settings.limits
        try:
            with self._stop.kill_on_stop(worker.kill):
                for _ in range(answers):
                    worker.receive(limits.max_seconds, max_body=ipc.max_body_bytes(limits))
        except WorkerLostError:
            return
        except InvalidMessageError:
            worker.close(kill=True)
            return
        self._release(worker)

    def _release(self, worker: Worker) -> None:
        if self._stop.is_set:  # the signal may have killed the worker after the last answer
            worker.close(kill=True)
        else:
            _IDLE_WORKERS.give(worker)  # closes a worker that the time limit killed after the last answer


def close_documents() -> None:
    """Close the documents in idle workers that were closed without waiting."""
    _IDLE_WORKERS.close_documents()
