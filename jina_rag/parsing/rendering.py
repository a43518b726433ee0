"""Rendering of many documents at the same time. The results keep the order of the documents and pages.

Several threads render, each with one worker process. A thread takes the first page, in order, that no thread has taken.
The threads render at most a window of pages ahead of the caller, across the ends of documents. A document is opened
together with its first page, so a folder of documents with one page each is rendered as fast as one long document.
While a document is being opened, it counts as one page. If it turns out to be long, the later documents that were
opened at the same time may have up to one more window of rendered pages.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from jina_rag.config import IngestSettings
from jina_rag.errors import IndexStateError
from jina_rag.parsing.attachments import extracted
from jina_rag.parsing.office import as_pdf
from jina_rag.parsing.preparation import prepare
from jina_rag.parsing.renderer import Renderer
from jina_rag.parsing.sources import SourceFile
from jina_rag.parsing.workers.cancellation import POLL_SECONDS, Stop
from jina_rag.parsing.workers.pool import close_documents, open_isolated
from jina_rag.types import Box, Page

WINDOW_PAGE_BYTES = 20 * 2**20
"""Bytes of RGB pixels per page of the window: three A4 pages at 150 dpi. With larger pages, the window has fewer."""
_USUAL_PAGE_BYTES = 3 * 1240 * 1754
"""Size of an A4 page at 150 dpi, assumed for pages before the first page is rendered."""

_Item = TypeVar("_Item")


@dataclass(eq=False)
class RenderedDocument(Generic[_Item]):
    """A document of `DocumentRendering`. The lock of the `DocumentRendering` protects the fields.

    Attributes:
        source: The document.
        opened: Number of pages and warnings of the document, or the error of opening the document; None before.
        numbers: Numbers of the pages to render, 1-based; empty if the document is not open.
        results: Page number → result of a rendered page that the caller has not taken, or the error.
        pixel_bytes: Page number → size of the pixels of a page in `results`.
        is_started: Whether a thread opens or has opened the document.
        started: Number of pages that were started. Pages are started in order.
        finished: Number of pages that were rendered or failed.
        taken: Number of pages that the caller has taken.
        renderer: The renderer of the open document.
        resources: Renderer and temporary folder of the open document.
    """

    source: SourceFile
    opened: tuple[int, tuple[str, ...]] | BaseException | None = None
    numbers: Sequence[int] = ()
    results: dict[int, _Item | BaseException] = field(default_factory=dict)
    pixel_bytes: dict[int, int] = field(default_factory=dict)
    is_started: bool = False
    started: int = 0
    finished: int = 0
    taken: int = 0
    renderer: Renderer | None = None
    resources: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


class DocumentRendering(Generic[_Item]):
    """Threads that render documents ahead of the caller. Call `close` to stop the threads."""

    def __init__(
        self,
        sources: Iterable[SourceFile],
        settings: IngestSettings,
        stop: Stop,
        finish: Callable[[SourceFile, Page, tuple[Box, ...]], _Item],
        *,
        prepared: bool,
    ) -> None:
        """Start the threads.

        Args:
            sources: The documents. A separate thread iterates over `sources`, no further than the window requires.
            settings: Settings of the ingestion.
            stop: Stop signal that kills the busy workers and ends the threads; set by `close`.
            finish: Function that turns a rendered page into its result, called in the threads that render. The third
                argument contains the boxes of the raster images, as fractions of the page.
            prepared: Whether to set ``Page.prepared`` before `finish` is called.
        """
        self._sources = sources
        self._settings = settings
        self._stop = stop
        self._finish = finish
        self._prepared = prepared
        processes = settings.render_processes if settings.isolate else 1
        self._window = settings.look_ahead + processes
        self._page_bytes = _USUAL_PAGE_BYTES
        self._documents: deque[RenderedDocument[_Item]] = deque()
        self._has_ended = False
        self._error: BaseException | None = None
        self._idle_threads = 0
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._demand = threading.Condition(self._lock)
        self._progress = threading.Condition(self._lock)
        self._process = os.getpid()
        self._threads = [threading.Thread(target=self._feed, name="jina-rag-sources", daemon=True)]
        for number in range(processes):
            self._threads.append(threading.Thread(target=self._run, name=f"jina-rag-render-{number}", daemon=True))
        for thread in self._threads:
            thread.start()

    def documents(self, check: Callable[[], None]) -> Generator[RenderedDocument[_Item], None, None]:
        """Yield the documents in order, each with `opened` set.

        Args:
            check: Called every 0.05 seconds while the generator waits. An exception from `check` ends the iteration.

        Raises:
            BaseException: After the last document, if the iteration over the sources raised an exception.
            IndexStateError: In a forked child, which has none of the threads.
        """
        while True:
            self._wait(lambda: self._has_ended or bool(self._documents), check)
            if not self._documents:
                if self._error is not None:
                    raise self._error
                return
            document = self._documents[0]
            self._wait(lambda document=document: document.opened is not None, check)  # type: ignore[misc]
            yield document
            with self._lock:
                self._documents.popleft()
                self._work.notify()
                self._demand.notify()

    def take(self, document: RenderedDocument[_Item], number: int, check: Callable[[], None]) -> _Item:
        """Wait for the result of a page and remove the result. Pages are taken in the order of ``document.numbers``.

        Args:
            document: The last document that `documents` has yielded.
            number: Page number, 1-based.
            check: Called every 0.05 seconds during the wait. An exception from `check` ends the wait.

        Raises:
            DocumentError: If the page cannot be rendered.
            BaseException: Any exception that `finish` or the renderer raised.
            IndexStateError: In a forked child, which has none of the threads.
        """
        self._wait(lambda: number in document.results, check)
        with self._lock:
            result = document.results.pop(number)
            document.pixel_bytes.pop(number, None)
            document.taken += 1
            self._work.notify()
            self._demand.notify()
        if isinstance(result, BaseException):
            raise result
        return result

    @property
    def is_inherited(self) -> bool:
        """Whether this process is a forked child of the process that started the threads."""
        return os.getpid() != self._process

    def close(self) -> None:
        """Set the stop signal, wait for the threads, and close all documents; no effect in a forked child."""
        if self.is_inherited:
            return
        self._stop.set()
        with self._lock:
            self._work.notify_all()
            self._demand.notify_all()
        for thread in self._threads:
            thread.join()
        for document in self._documents:
            document.resources.close()
        close_documents()

    def _wait(self, is_ready: Callable[[], bool], check: Callable[[], None]) -> None:
        if self.is_inherited:
            raise IndexStateError(
                f"The pages are rendered by process {self._process}, from which this process was forked. Read the "
                "files again in this process."
            )
        while True:
            with self._lock:
                # Without a timeout, Ctrl-C does not interrupt the wait on every operating system.
                if self._progress.wait_for(is_ready, timeout=POLL_SECONDS):
                    return
            check()

    def _feed(self) -> None:
        """Add the documents of the sources, on demand. Runs in a separate thread."""
        error: BaseException | None = None
        try:
            sources = iter(self._sources)
            while self._wait_for_demand() and (source := next(sources, None)) is not None:
                with self._lock:
                    self._documents.append(RenderedDocument(source))
                    self._work.notify()
                    self._progress.notify()
        except BaseException as exc:  # raised by `documents`
            error = exc
        with self._lock:
            self._error, self._has_ended = error, True
            self._progress.notify()

    def _wait_for_demand(self) -> bool:
        """Wait until another document is needed; return False if the stop signal is set."""
        with self._lock:
            self._demand.wait_for(lambda: self._stop.is_set or self._needs_document())
            return not self._stop.is_set

    def _needs_document(self) -> bool:
        # A document that is not open counts as one page.
        ahead = sum(max(1, len(document.numbers) - document.taken) for document in self._documents)
        if ahead >= self._window:
            return False
        return self._idle_threads > 0 or all(document.opened is not None for document in self._documents)

    def _run(self) -> None:
        """Open documents and render pages until the stop signal is set. Runs in several threads."""
        while (job := self._next_job()) is not None:
            document, number = job
            if number is None:
                self._open(document)
            else:
                self._render(document, number)

    def _next_job(self) -> tuple[RenderedDocument[_Item], int | None] | None:
        """Wait for work. Return (document, page number), or None as number to open the document and render a page."""
        with self._lock:
            while not self._stop.is_set:
                job = self._find_job()
                if job is not None:
                    document, number = job
                    document.is_started = True
                    document.started += number is not None
                    return job
                self._idle_threads += 1
                self._demand.notify()
                self._work.wait()
                self._idle_threads -= 1
        return None

    def _find_job(self) -> tuple[RenderedDocument[_Item], int | None] | None:
        """Return the first document or page in order that was not started, if the window includes it."""
        pages = size = 0
        for document in self._documents:
            if document.is_started and document.opened is None:
                pages += 1
                size += self._page_bytes
                continue
            pages += document.started - document.taken
            size += sum(document.pixel_bytes.values()) + (document.started - document.finished) * self._page_bytes
            if document.is_started and document.started == len(document.numbers):
                continue
            # The page that the caller waits for is always rendered, whatever its size.
            if pages >= self._window or (pages and size + self._page_bytes > self._window * WINDOW_PAGE_BYTES):
                return None
            return document, document.numbers[document.started] if document.is_started else None
        return None

    def _open(self, document: RenderedDocument[_Item]) -> None:
        source, settings = document.source, self._settings
        first = next(number for number in itertools.count(1) if number not in source.skip_pages)
        try:
            file, settings = document.resources.enter_context(extracted(source, settings, self._stop))
            pdf = document.resources.enter_context(as_pdf(file, settings, self._stop))
            renderer = open_isolated(pdf, settings, self._stop, prepared=self._prepared, first_page=first)
            # The worker has closed an extracted or converted file when the temporary folder is deleted.
            document.resources.callback(renderer.close, wait=pdf is not source)
            opened = renderer.page_count, renderer.warnings
        except BaseException as error:  # raised by the caller of `documents`
            document.resources.close()
            with self._lock:
                document.opened = error
                self._progress.notify()
                self._demand.notify()
            return
        numbers = [number for number in range(1, opened[0] + 1) if number not in source.skip_pages]
        with self._lock:
            document.renderer, document.numbers, document.opened = renderer, numbers, opened
            document.started = min(1, len(numbers))
            self._progress.notify()
            self._work.notify_all()
            self._demand.notify()
        if numbers:
            self._render(document, first)
        else:
            document.resources.close()

    def _render(self, document: RenderedDocument[_Item], number: int) -> None:
        result: _Item | BaseException
        size = 0
        try:
            assert document.renderer is not None
            page, images = document.renderer.render_with_images(number)
            if self._prepared and page.prepared is None:
                page = page.with_prepared(prepare(page, self._settings.jpeg_quality))
            if page.path != document.source.path:  # an attachment or a converted office file
                page = replace(page, path=document.source.path).with_prepared(page.prepared)
            width, height = page.screenshot.image.size
            size = 3 * width * height
            result = self._finish(document.source, page, images)
        except BaseException as error:  # raised by `take`
            result = error
        with self._lock:
            self._page_bytes = size or self._page_bytes
            document.results[number] = result
            document.pixel_bytes[number] = size
            document.finished += 1
            is_last = document.finished == len(document.numbers)
            self._progress.notify()
        if is_last:
            document.resources.close()
