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
from jina_rag.parsing.preparation import prepare as prepare_page
from jina_rag.parsing.renderer import attempt
from jina_rag.parsing.rendering import DocumentRendering
from jina_rag.parsing.sources import SourceFile
from jina_rag.parsing.text_layer.reading import SoundFonts, replace_wrong_words, warn_about_suspects
from jina_rag.parsing.workers.cancellation import Stop, wait_for
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

    Pages are rendered in ``settings.render_processes`` worker processes if ``settings.isolate`` is True, also pages of
    later documents: ``settings.look_ahead`` pages ahead of the caller, and one page for each process. OCR runs in
    ``settings.ocr_threads`` threads of the current process. Closing the generator stops the threads and discards pages
    in progress.

    Args:
        sources: The documents. A separate thread iterates over `sources`, which may be lazy or infinite.
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
    stream = _Stream(settings or IngestSettings(), ocr_cache, prepare=prepare)
    try:
        yield from stream.events(sources, check)
    finally:
        stream.stop()


@dataclass(frozen=True, slots=True)
class _PendingOcr:
    """A page that is read by OCR. `result` is the page with the words of OCR, once OCR has finished."""

    page: Page
    result: Future[Page]


class _StoppedError(Exception):
    """Ends the OCR of a page after the stream was stopped."""


class _Stream:
    """The threads of one `read_pages` call."""

    def __init__(self, settings: IngestSettings, cache: OcrCache | None, *, prepare: bool) -> None:
        self._settings = settings
        self._cache = cache
        self._prepare = prepare
        self._stop = Stop()
        self._sound_fonts = SoundFonts()
        self._rendering: DocumentRendering[Page | _PendingOcr] | None = None
        self._ocr_pool = ThreadPoolExecutor(settings.ocr_threads, thread_name_prefix="jina-rag-ocr")

    def events(self, sources: Iterable[SourceFile], check: Callable[[], None]) -> Generator[Event, None, None]:
        """Yield the events. Runs in the thread of the caller and waits for rendering and OCR of each page."""
        self._rendering = rendering = DocumentRendering(
            sources, self._settings, self._stop, self._start_ocr, prepared=self._prepare
        )
        for document in rendering.documents(check):
            source, opened = document.source, document.opened
            if isinstance(opened, DocumentError):
                yield Failure(source.path, str(opened))
                continue
            if isinstance(opened, BaseException):  # an error that affects all documents
                raise opened
            assert opened is not None
            count, warnings = opened
            yield DocumentStart(source, count, (*source.warnings, *warnings))
            failed = 0
            for number in document.numbers:
                try:
                    result = rendering.take(document, number, check)
                except DocumentError as error:
                    failed += 1
                    yield Failure(source.path, str(error), number)
                    continue
                yield self._with_words(result, check) if isinstance(result, _PendingOcr) else result
            yield DocumentEnd(source, len(document.numbers) - failed, failed)

    def stop(self) -> None:
        """Stop the threads, discard pages in progress, and wait for the threads; no effect in a forked child."""
        if self._rendering is not None and self._rendering.is_inherited:
            return
        self._stop.set()
        self._ocr_pool.shutdown(wait=True, cancel_futures=True)
        if self._rendering is not None:
            self._rendering.close()

    def _start_ocr(self, source: SourceFile, page: Page, images: tuple[Box, ...]) -> Page | _PendingOcr:
        """Start the OCR of a rendered page in an OCR thread; return the page if it needs no OCR."""
        if page.suspects and self._settings.ocr == "never":
            page = warn_about_suspects(page)
        areas = areas_to_read(page, images, self._settings, has_exact_words=source.kind == "text")
        if not areas and not page.suspects:
            return page
        # A scanned page has no vector shapes, so regions are detected in the pixels.
        detect = self._settings.regions and not page.regions and max(map(area, images), default=0) > _SCAN_SHARE
        try:
            return _PendingOcr(page, self._ocr_pool.submit(self._run_ocr, page, areas, detect, source.revision))
        except RuntimeError as error:  # the OCR threads were stopped
            raise _StoppedError from error

    def _run_ocr(self, page: Page, areas: Sequence[Box], detect: bool, revision: str) -> Page:
        """Return the page with the words read by OCR, and with regions. A stop ends OCR between two model calls."""
        image = page.screenshot.image
        prepared = page.prepared
        with interruptible(self._check_stop):
            if page.suspects:
                page = replace_wrong_words(page, self._sound_fonts)
                if not areas and page.prepared is prepared:  # OCR agreed with all words
                    return page
            text_boxes = [word.box for word in page.words]
            ocr_words = read_areas(image, areas, skip_boxes=text_boxes, cache=self._cache, revision=revision)
        words = (*page.words, *ocr_words)
        regions, warnings = page.regions, list(page.warnings)
        if detect:
            contents = "charts, tables and figures"
            regions = attempt(lambda: find_regions_in_pixels(image, words), regions, contents, warnings)
        read_page = replace(page, words=words, regions=regions, warnings=tuple(warnings))
        if prepared is None:
            return read_page
        screenshot = prepared.screenshot
        return read_page.with_prepared(prepare_page(read_page, screenshot.quality, screenshot=screenshot))

    def _check_stop(self) -> None:
        if self._stop.is_set:
            raise _StoppedError

    def _with_words(self, pending: _PendingOcr, check: Callable[[], None]) -> Page:
        page = warn_about_suspects(pending.page)
        wait_for(pending.result, check)
        try:
            return pending.result.result()
        except (MissingDependencyError, ModelError):
            raise
        except Exception as error:  # a failed OCR becomes a warning of the page
            warning = f"OCR failed: {error or type(error).__name__}. The page has only the words of the text layer."
            return replace(page, warnings=(*page.warnings, warning)).with_prepared(page.prepared)


def areas_to_read(
    page: Page, images: Sequence[Box], settings: IngestSettings, *, has_exact_words: bool = False
) -> list[Box]:
    """Return the boxes of a page that OCR reads: the full page, the boxes of the images, or no box.

    Args:
        page: The page with the words of the text layer.
        images: Boxes of the raster images, as fractions of the page.
        settings: Settings of the ingestion, for `ocr`, `ocr_min_words` and `ocr_image_share`.
        has_exact_words: Whether the page was made from a text file, whose words are complete except in images.

    Returns:
        Boxes as fractions of the page.
    """
    if settings.ocr == "never":
        return []
    if has_exact_words:
        return merge_boxes(images)
    if settings.ocr == "always" or len(page.words) < settings.ocr_min_words:
        return [_FULL_PAGE]
    areas = merge_boxes(images)
    if sum(map(area, areas)) <= settings.ocr_image_share:
        return []
    areas = [box for box in areas if area(box) >= _MIN_IMAGE_SHARE]
    return [_FULL_PAGE] if sum(map(area, areas)) > _FULL_PAGE_OCR_SHARE else areas
