"""Stream of the pages of many documents. Later pages are rendered and read by OCR while the caller uses earlier pages.

    for event in read_pages(sources, settings):
        match event:
            case DocumentStart(): ...   # source, count, warnings
            case Page(): ...            # with the words of the text layer and of OCR
            case Failure(): ...         # a failed page, or with page None a failed document
            case DocumentEnd(): ...     # source, pages, failed

The stream is a generator. To leave the loop early, close the generator (``contextlib.closing``), which stops the
threads.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError, MissingDependencyError, ModelError
from jina_rag.ocr import read_areas
from jina_rag.ocr.interruption import interruptible
from jina_rag.parsing.layout.boxes import area, merge_boxes
from jina_rag.parsing.layout.scan_regions import find_regions_in_pixels
from jina_rag.parsing.office import as_pdf
from jina_rag.parsing.preparation import prepare as prepare_page
from jina_rag.parsing.renderer import Renderer
from jina_rag.parsing.sources import SourceFile
from jina_rag.parsing.workers.cancellation import POLL_SECONDS, Stop, wait_for
from jina_rag.parsing.workers.pool import open_isolated
from jina_rag.types import Box, Failure, Page

if TYPE_CHECKING:
    from jina_rag.ocr.cache import OcrCache

_FULL_PAGE: Box = (0.0, 0.0, 1.0, 1.0)
# OCR ignores images whose area is below this fraction of the page, for example logos and bullets.
_MIN_IMAGE_SHARE = 0.01
# If the images cover more than this fraction of the page, OCR of the page is faster than OCR of each image.
_FULL_PAGE_OCR_SHARE = 0.6
# A page is a scan if an image covers more than this fraction of the page.
_SCAN_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class DocumentStart:
    """Event after a document was opened. The pages and page failures of the document follow in page order.

    Attributes:
        source: The document.
        count: Number of pages in the document.
        warnings: Warnings about the whole document, one message per recoverable problem.
    """

    source: SourceFile
    count: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DocumentEnd:
    """Event after the last page of a document.

    Attributes:
        source: The document.
        pages: Number of pages rendered.
        failed: Number of pages that failed. Pages in ``source.skip_pages`` count neither as rendered nor as failed.
    """

    source: SourceFile
    pages: int
    failed: int


_Result: TypeAlias = "tuple[Page, tuple[Box, ...]] | DocumentError"
Event: TypeAlias = "DocumentStart | Page | Failure | DocumentEnd"


def read_pages(
    sources: Iterable[SourceFile],
    settings: IngestSettings | None = None,
    *,
    ocr_cache: OcrCache | None = None,
    check: Callable[[], None] = lambda: None,
    prepare: bool = False,
) -> Generator[Event, None, None]:
    """Iterate over the pages of documents, in the order of the documents.

    A document that cannot be opened produces a single `Failure` with page None. Any other document produces a
    `DocumentStart`, a `Page` or `Failure` for each page except ``source.skip_pages``, and a `DocumentEnd`. A failed
    document does not end the iteration.

    At most ``settings.look_ahead`` pages are rendered ahead of the caller. Pages are rendered in worker processes if
    ``settings.isolate`` is True. OCR runs in ``settings.ocr_threads`` threads of the current process. Closing the
    generator stops the threads and discards pages in progress.

    Args:
        sources: The documents. The rendering thread iterates over `sources`, which may be lazy or infinite.
        settings: Settings of the ingestion; None for the defaults.
        ocr_cache: Cache of OCR results; None for no cache.
        check: Called every 0.05 seconds in the thread of the caller while the caller waits for a page. An exception
            from `check` stops the iteration.
        prepare: Whether to set ``Page.prepared``: the images as JPEG files of ``settings.jpeg_quality``, and the term
            weights. The work is done in the worker processes, and for pages read by OCR in the OCR threads.

    Yields:
        The events of each document and of the pages of the document.

    Raises:
        MissingDependencyError: If a package that rendering or OCR requires is not installed.
        CheckpointError: If the weights of the OCR models are invalid.
    """
    stream = _Stream(settings or IngestSettings(), ocr_cache, check, prepare)
    producer = threading.Thread(target=stream.produce, args=(sources,), name="jina-rag-render", daemon=True)
    producer.start()
    try:
        yield from stream.consume()
    finally:
        stream.stop()
        producer.join()


@dataclass(frozen=True, slots=True)
class _PendingOcr:
    """A page that is read by OCR. `result` is the page with the words of OCR, once OCR has finished."""

    page: Page
    result: Future[Page]


class _StoppedError(Exception):
    """Ends the rendering and OCR threads after the stream was stopped."""


class _Stream:
    """The threads of one `read_pages` call, and the queue between the threads. None marks the end of the queue."""

    def __init__(
        self, settings: IngestSettings, cache: OcrCache | None, check: Callable[[], None], prepare: bool
    ) -> None:
        self._settings = settings
        self._cache = cache
        self._check = check
        self._prepare_pages = prepare
        self._queue: queue.Queue[Event | _PendingOcr | BaseException | None] = queue.Queue(settings.look_ahead)
        self._stop = Stop()
        self._ocr_pool = ThreadPoolExecutor(settings.ocr_threads, thread_name_prefix="jina-rag-ocr")

    def produce(self, sources: Iterable[SourceFile]) -> None:
        """Render all documents and put the events into the queue. Runs in the rendering thread."""
        try:
            for source in sources:
                self._document(source)
            self._put(None)
        except _StoppedError:
            pass
        except BaseException as error:  # re-raised by `consume`
            with contextlib.suppress(_StoppedError):
                self._put(error)

    def consume(self) -> Generator[Event, None, None]:
        """Yield the events of the queue. Runs in the thread of the caller and waits for the OCR of each page."""
        while True:
            try:
                # Without a timeout, Ctrl-C does not interrupt the wait on every operating system.
                item = self._queue.get(timeout=POLL_SECONDS)
            except queue.Empty:
                self._check()
                continue
            if item is None:
                return
            if isinstance(item, BaseException):  # an error that affects all documents
                raise item
            yield self._with_words(item) if isinstance(item, _PendingOcr) else item

    def stop(self) -> None:
        """Tell the rendering thread to stop, discard pages in progress, and wait for the OCR threads."""
        self._stop.set()
        self._ocr_pool.shutdown(wait=True, cancel_futures=True)

    def _put(self, item: Event | _PendingOcr | BaseException | None) -> None:
        while not self._stop.is_set:
            try:
                self._queue.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return
        raise _StoppedError

    def _document(self, source: SourceFile) -> None:
        with contextlib.ExitStack() as stack:
            try:
                pdf = stack.enter_context(as_pdf(source, self._settings, self._stop))
                renderer = stack.enter_context(open_isolated(pdf, self._settings, self._stop))
            except DocumentError as error:
                self._put(Failure(source.path, str(error)))
                return
            self._put(DocumentStart(source, renderer.page_count, renderer.warnings))
            failed = 0
            numbers = [n for n in range(1, renderer.page_count + 1) if n not in source.skip_pages]
            # `results` is closed before the renderer, because the threads of `_render` use the renderer.
            results = stack.enter_context(contextlib.closing(self._render(renderer, numbers)))
            for number, result in results:
                if isinstance(result, DocumentError):
                    failed += 1
                    self._put(Failure(source.path, str(result), number))
                    continue
                page, images = result
                page = replace(page, path=source.path)
                self._put(self._start_ocr(page, images, source.revision) or self._prepared(page))
            self._put(DocumentEnd(source, len(numbers) - failed, failed))

    def _render(self, renderer: Renderer, numbers: Sequence[int]) -> Generator[tuple[int, _Result], None, None]:
        """Render pages, in several worker processes if configured, and yield (page number, result) in page order."""

        def render(number: int) -> _Result:
            try:
                return renderer.render_with_images(number)
            except DocumentError as error:
                return error

        processes = min(self._settings.render_processes if self._settings.isolate else 1, len(numbers))
        if processes <= 1:
            yield from ((number, render(number)) for number in numbers)
            return
        waiting: deque[tuple[int, Future[_Result]]] = deque()
        with ThreadPoolExecutor(processes, thread_name_prefix="jina-rag-render") as pool:
            try:
                for number in numbers:
                    waiting.append((number, pool.submit(render, number)))
                    if len(waiting) > processes:
                        first, future = waiting.popleft()
                        yield first, future.result()
                for number, future in waiting:
                    yield number, future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _start_ocr(self, page: Page, images: tuple[Box, ...], revision: str) -> _PendingOcr | None:
        """Start the OCR of a page in an OCR thread; return None if the page needs no OCR."""
        areas = areas_to_read(page, images, self._settings)
        if not areas:
            return None
        try:
            # A scanned page has no vector shapes, so regions are detected in the pixels.
            detect = self._settings.regions and not page.regions and max(map(area, images), default=0) > _SCAN_SHARE
            return _PendingOcr(page, self._ocr_pool.submit(self._run_ocr, page, areas, detect, revision))
        except RuntimeError as error:  # the OCR threads were stopped
            raise _StoppedError from error

    def _run_ocr(self, page: Page, areas: Sequence[Box], detect: bool, revision: str) -> Page:
        """Return the page with the words read by OCR, and with regions. A stop ends OCR between two model calls."""
        image = page.screenshot.image
        text_boxes = [word.box for word in page.words]
        with interruptible(self._check_stop):
            ocr_words = read_areas(image, areas, skip_boxes=text_boxes, cache=self._cache, revision=revision)
        words = (*page.words, *ocr_words)
        regions = find_regions_in_pixels(image, words) if detect else page.regions
        return self._prepared(replace(page, words=words, regions=regions))

    def _prepared(self, page: Page) -> Page:
        return page.with_prepared(prepare_page(page, self._settings.jpeg_quality)) if self._prepare_pages else page

    def _check_stop(self) -> None:
        if self._stop.is_set:
            raise _StoppedError

    def _with_words(self, pending: _PendingOcr) -> Page:
        page = pending.page
        wait_for(pending.result, self._check)
        try:
            return pending.result.result()
        except (MissingDependencyError, ModelError):
            raise
        except Exception as error:  # a failed OCR becomes a warning of the page
            warning = f"OCR failed: {error or type(error).__name__}. The page has only the words of the text layer."
            return replace(page, warnings=(*page.warnings, warning))


def areas_to_read(page: Page, images: Sequence[Box], settings: IngestSettings) -> list[Box]:
    """Return the boxes of a page that OCR reads: the full page, the boxes of the images, or no box.

    Args:
        page: The page with the words of the text layer.
        images: Boxes of the raster images, as fractions of the page.
        settings: Settings of the ingestion, for `ocr`, `ocr_min_words` and `ocr_image_share`.

    Returns:
        Boxes as fractions of the page.
    """
    if settings.ocr == "never":
        return []
    if settings.ocr == "always" or len(page.words) < settings.ocr_min_words:
        return [_FULL_PAGE]
    areas = merge_boxes(images)
    if sum(map(area, areas)) <= settings.ocr_image_share:
        return []
    areas = [box for box in areas if area(box) >= _MIN_IMAGE_SHARE]
    return [_FULL_PAGE] if sum(map(area, areas)) > _FULL_PAGE_OCR_SHARE else areas
