"""One stream of pages out of many documents: rendered ahead, read by OCR in parallel, handed out in order.

    for event in read_pages(sources, settings):
        match event:
            case DocumentStart(): ...   # source, count, warnings
            case Page(): ...            # words include what OCR found
            case Failure(): ...         # page is None: the whole document, which then had no DocumentStart
            case DocumentEnd(): ...     # source, pages, failed

The stream is a generator: leave the loop early and close it (``contextlib.closing``) to stop its threads.
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
from jina_rag.ocr.interruption import checked_by
from jina_rag.parsing.layout.boxes import area, merged
from jina_rag.parsing.layout.scan_regions import find_regions_in_pixels
from jina_rag.parsing.office import as_pdf
from jina_rag.parsing.renderer import Renderer
from jina_rag.parsing.sources import SourceFile
from jina_rag.parsing.workers.cancellation import PATIENCE, Stop, wait_for
from jina_rag.parsing.workers.pool import open_isolated
from jina_rag.types import Box, Failure, Page

if TYPE_CHECKING:
    from jina_rag.ocr.cache import OcrCache

_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
# Pictures below this share of the page (logos, bullets) are not worth a run of the text finder.
_MIN_AREA = 0.01
# From this share on, one run over the whole page costs less than one for each picture.
_MOST = 0.6
# A picture over more of the page than this is the page.
_SCAN = 0.8


@dataclass(frozen=True, slots=True)
class DocumentStart:
    """A document was opened; its `count` pages (or their failures) follow, in order.

    Attributes:
        source: The document.
        count: Number of pages.
        warnings: What was wrong with the document as a whole but could be mended, in sentences.
    """

    source: SourceFile
    count: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DocumentEnd:
    """All pages of a document were handed out.

    Attributes:
        source: The document.
        pages: Pages handed out.
        failed: Pages that failed. With `pages` it makes the document's count, less ``source.skip_pages``.
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
) -> Generator[Event, None, None]:
    """Read every page of every source, in order.

    A document that cannot be opened gives one `Failure` with page None and nothing else. Otherwise it gives
    `DocumentStart`, then for each page in order (but those of ``source.skip_pages``) a `Page` or a `Failure`, then
    `DocumentEnd`. Errors of one document never stop the others.

    Pages are rendered by worker processes (``settings.isolate``), at most ``settings.look_ahead`` pages ahead;
    ``settings.ocr_threads`` threads of this process do OCR. `sources` is iterated in the rendering thread, so a walk
    may feed it directly. Closing the generator stops the threads; pages that workers are busy with are given up.

    Args:
        sources: What to read. May be endless.
        settings: How; the defaults if None.
        ocr_cache: What OCR has read before, and where to keep what it reads.
        check: Called in the consumer's thread while it waits, every 0.05 s; what it raises ends the stream.

    Raises:
        MissingDependencyError: If a package is missing, which would fail every page.
        CheckpointError: If the weights of the OCR are not what they should be.
    """
    stream = _Stream(settings or IngestSettings(), ocr_cache, check)
    producer = threading.Thread(target=stream.produce, args=(sources,), name="jina-rag-render", daemon=True)
    producer.start()
    try:
        yield from stream.consume()
    finally:
        stream.stop()
        producer.join()


@dataclass(frozen=True, slots=True)
class _Reading:
    """A page whose pixels are being read; `result` is the page with the words in them."""

    page: Page
    result: Future[Page]


class _Stopped(Exception):
    """The consumer is gone."""


class _Stream:
    """The queue between the rendering thread and the consumer. None in it marks the end."""

    def __init__(self, settings: IngestSettings, cache: OcrCache | None, check: Callable[[], None]) -> None:
        self._settings = settings
        self._cache = cache
        self._check = check
        self._queue: queue.Queue[Event | _Reading | BaseException | None] = queue.Queue(settings.look_ahead)
        self._stop = Stop()
        self._readers = ThreadPoolExecutor(settings.ocr_threads, thread_name_prefix="jina-rag-ocr")

    def produce(self, sources: Iterable[SourceFile]) -> None:
        """Run in the rendering thread."""
        try:
            for source in sources:
                self._document(source)
            self._put(None)
        except _Stopped:
            pass
        except BaseException as error:  # handed over, to be raised in the consumer's thread
            with contextlib.suppress(_Stopped):
                self._put(error)

    def consume(self) -> Generator[Event, None, None]:
        """Hand out events in the consumer's thread; waits for OCR where it must."""
        while True:
            try:
                # With a time limit Ctrl-C is noticed on every system.
                item = self._queue.get(timeout=PATIENCE)
            except queue.Empty:
                self._check()
                continue
            if item is None:
                return
            if isinstance(item, BaseException):  # nobody's document's fault
                raise item
            yield self._with_words(item) if isinstance(item, _Reading) else item

    def stop(self) -> None:
        """Make the rendering thread end, without the page that it waits for, and wait for the OCR threads."""
        self._stop.set()
        self._readers.shutdown(wait=True, cancel_futures=True)

    def _put(self, item: Event | _Reading | BaseException | None) -> None:
        while not self._stop.is_set:
            try:
                self._queue.put(item, timeout=PATIENCE)
            except queue.Full:
                continue
            return
        raise _Stopped

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
            # Closed before the renderer is: its threads still hold workers.
            results = stack.enter_context(contextlib.closing(self._render(renderer, numbers)))
            for number, result in results:
                if isinstance(result, DocumentError):
                    failed += 1
                    self._put(Failure(source.path, str(result), number))
                    continue
                page, images = result
                page = replace(page, path=source.path)
                self._put(self._reading(page, images, source.revision) or page)
            self._put(DocumentEnd(source, len(numbers) - failed, failed))

    def _render(self, renderer: Renderer, numbers: Sequence[int]) -> Generator[tuple[int, _Result], None, None]:
        """The pages in order, rendered by several workers at a time where there are."""

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

    def _reading(self, page: Page, images: tuple[Box, ...], revision: str) -> _Reading | None:
        """Start the OCR of a page that needs it."""
        areas = areas_to_read(page, images, self._settings)
        if not areas:
            return None
        try:
            # A page that is one picture shows its charts and tables in pixels only.
            look = self._settings.regions and not page.regions and max(map(area, images), default=0) > _SCAN
            return _Reading(page, self._readers.submit(self._read, page, areas, look, revision))
        except RuntimeError as error:  # the pool was shut down
            raise _Stopped from error

    def _read(self, page: Page, areas: Sequence[Box], look_for_regions: bool, revision: str) -> Page:
        """Add what the pixels of a page say; runs in a thread of the pool, and ends between two passes of a network."""
        image = page.screenshot.image
        text_boxes = [word.box for word in page.words]
        with checked_by(self._check_stop):
            ocr_words = read_areas(image, areas, skip_boxes=text_boxes, cache=self._cache, revision=revision)
        words = (*page.words, *ocr_words)
        regions = find_regions_in_pixels(image, words) if look_for_regions else page.regions
        return replace(page, words=words, regions=regions)

    def _check_stop(self) -> None:
        if self._stop.is_set:
            raise _Stopped

    def _with_words(self, reading: _Reading) -> Page:
        page = reading.page
        wait_for(reading.result, self._check)
        try:
            return reading.result.result()
        except (MissingDependencyError, ModelError):
            raise
        except Exception as error:  # the page is worth having without them, and says so
            note = f"The words in its pictures could not be read: {error or type(error).__name__}."
            return replace(page, warnings=(*page.warnings, note))


def areas_to_read(page: Page, images: Sequence[Box], settings: IngestSettings) -> list[Box]:
    """Which parts of a page OCR should read: all of it, its pictures, or nothing.

    Args:
        page: With the words of its text layer.
        images: Where it shows raster pictures.
        settings: `ocr`, `ocr_min_words` and `ocr_image_share` decide.
    """
    if settings.ocr == "never":
        return []
    if settings.ocr == "always" or len(page.words) < settings.ocr_min_words:
        return [_WHOLE]
    areas = merged(images)
    if sum(map(area, areas)) <= settings.ocr_image_share:
        return []
    areas = [box for box in areas if area(box) >= _MIN_AREA]
    return [_WHOLE] if sum(map(area, areas)) > _MOST else areas
