"""One ingestion run: finds new and changed files, renders, embeds and stores the pages, and reports on every file.

The stages run at the same time, connected by bounded queues, so that memory does not grow with the number of pages:

1. A thread searches for files and plans (`plan_stream`).
2. Worker processes render the pages and encode the images, and threads run OCR (`jina_rag.parsing.pages`).
3. Threads embed batches of pages and compute the points (`encoding_queue`). While a batch is on the device, the inputs
   of the next batch are prepared.
4. The thread of the caller receives the pages, and stores the batches in the order of the pages. No other thread writes
   to the manifest or the store.

The order of the writes makes a run resumable after a stop at any point (see `jina_rag.catalog.manifest`).
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jina_rag.catalog.maintenance import drop_points, reconcile
from jina_rag.catalog.manifest import RATE, DocumentRecord, PointRecord
from jina_rag.catalog.missing_files import missing_documents
from jina_rag.catalog.near_duplicates.finder import NearDuplicateFinder
from jina_rag.config import IngestSettings
from jina_rag.errors import DeviceLostError, JinaRagError
from jina_rag.indexing.encoding_queue import EncodingQueue
from jina_rag.indexing.plan_stream import PlanStream
from jina_rag.indexing.planner import IndexTask, Metadata, Outcome, Placement, Planner
from jina_rag.indexing.point_builder import BuiltPoint, IndexTarget, PagePoints, PointBuilder, place_points
from jina_rag.parsing.pages import DocumentEnd, DocumentStart, read_pages
from jina_rag.parsing.sources import Skipped, SourceFile, find_sources
from jina_rag.stores import schema
from jina_rag.stores.disk_space import check_space
from jina_rag.types import Failure, IngestReport, Page, Point

BATCH_PAGES = 8
"""Number of pages per embedding batch: enough pages to use the model efficiently, with limited memory.

A batch contains pages of several documents. The size does not depend on the speed of rendering, so that repeated runs
embed the same batches.
"""
EMBEDDING_THREADS = 2
"""Number of concurrent calls of the embedder: one call uses the device, while the other prepares its inputs."""
MAX_BATCHES = 3
"""Maximum number of batches that were passed to the embedding threads and are not stored. The pages of a batch take
50 MB at 150 dpi."""
CHECKPOINT_SECONDS = 5.0
"""Minimum time between checkpoints, in seconds. Flushing after every document would take longer than embedding."""


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """Progress of an ingestion run.

    The totals grow during the run, because a document is opened only when the rendering of the document starts.

    Attributes:
        documents: Number of documents that were read completely or failed.
        documents_total: Number of documents to index among the files checked so far.
        pages: Number of pages stored or failed.
        pages_total: Number of pages to index in the documents that were opened so far.
        current: Id of the document that is being read.
        documents_opened: Number of documents whose pages are included in `pages_total`.
    """

    documents: int = 0
    documents_total: int = 0
    pages: int = 0
    pages_total: int = 0
    current: str = ""
    documents_opened: int = 0

    @property
    def pages_expected(self) -> int:
        """Estimated total number of pages. Unopened documents count with the mean length of the opened documents."""
        unopened_count = max(self.documents_total - max(self.documents_opened, self.documents), 0)
        return self.pages_total + round(unopened_count * self.pages_total / max(self.documents_opened, 1))


@dataclass
class _OpenDocument:
    """State of a document that is being rendered, embedded or stored."""

    task: IndexTask
    pages_to_store: int = 0
    ended: bool = False
    changed_on_disk: bool = False
    by_name: bool = False
    failures: list[Failure] = field(default_factory=list)
    warnings: list[Failure] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _EncodedBatch:
    """A batch of pages after embedding. Each page has points or a failure."""

    pages: tuple[Page, ...]
    points: tuple[PagePoints, ...]
    failures: tuple[tuple[Page, JinaRagError], ...]


class Ingestion:
    """One ingestion run, created by `DocumentIndex.ingest`; each instance runs once."""

    def __init__(
        self,
        target: IndexTarget,
        settings: IngestSettings,
        *,
        metadata: Metadata | None = None,
        progress: Callable[[IngestProgress], None] | None = None,
        sync: bool = False,
        force: bool = False,
        stop: threading.Event | None = None,
    ) -> None:
        self._target = target
        self._resources = resources = target.resources
        self._manifest = resources.manifest
        self._settings = settings
        self._stop = stop or threading.Event()
        self._planning_stop = threading.Event()
        self._planner = Planner(
            resources.manifest,
            resources.store,
            metadata=metadata,
            settings=settings,
            force=force,
            check=self._check_planning,
        )
        self._near_duplicates = NearDuplicateFinder(resources.store, resources.images)
        self._progress = progress
        self._sync = sync
        self._state = IngestProgress()
        self._counts: Counter[str] = Counter()
        self._failures: list[Failure] = []
        self._warnings: list[Failure] = []
        self._skipped: list[Failure] = []
        self._duplicates: list[Failure] = []
        self._placements: list[Placement] = []
        self._all_planned = False
        self._tasks: dict[Path, IndexTask] = {}
        self._open_documents: dict[str, _OpenDocument] = {}
        self._records_to_begin: list[DocumentRecord] = []
        self._batch: list[Page] = []
        self._encoding: EncodingQueue[tuple[str, Page], _EncodedBatch] = EncodingQueue(
            self._encode, threads=EMBEDDING_THREADS, max_batches=max(MAX_BATCHES, EMBEDDING_THREADS)
        )
        self._is_storing = False
        self._last_checkpoint = time.monotonic()

    def run(self, paths: Sequence[str | os.PathLike[str]], *, exclude: Sequence[Path] = ()) -> IngestReport:
        """Index new and changed files, within `jina_rag.catalog.maintenance.write_session`.

        Args:
            paths: Files, folders and globs.
            exclude: Files and folders to skip.

        Returns:
            The report of the run.

        Raises:
            InvalidInputError: If a path does not exist.
            IndexStateError: If the index cannot be written (disk full, no permission). Stored pages stay in the index.
        """
        start_time = time.monotonic()
        interrupted = False
        try:
            follow_links = self._settings.follow_links
            sources = find_sources(paths, exclude=exclude, follow_links=follow_links, check=self._check_planning)
            self._read(PlanStream(self._planner.plan(sources), self._planning_stop))
            self._checkpoint(force=True)
            self._place_complete()
            self._fail_placements()
            if self._sync:
                self._remove_missing(paths)
        except KeyboardInterrupt:
            # Stored pages stay in the index, so the next run resumes the documents in progress.
            interrupted = True
            self._batch.clear()
            self._begin_documents()
            self._store_completed()
            for document in list(self._open_documents.values()):
                if document.changed_on_disk or (not document.ended and _has_changed(document.task)):
                    self._abandon(document)
            # `_checkpoint` deletes the previous content of the documents in progress. A moved file with the same
            # content is recorded before `_checkpoint`, so that the content is kept.
            if self._all_planned and self._open_documents:
                self._place_complete()
            self._checkpoint(force=True)
        seconds = time.monotonic() - start_time
        self._record_rate(seconds)
        return IngestReport(
            **self._counts,
            duplicates=tuple(self._duplicates),
            skipped=tuple(self._skipped),
            failed=tuple(self._failures),
            warnings=tuple(self._planner.warnings + self._warnings),
            seconds=seconds,
            interrupted=interrupted,
        )

    def _check(self) -> None:
        """Raise KeyboardInterrupt if a stop was requested. Called between the steps of the run and while waiting."""
        if self._stop.is_set():
            raise KeyboardInterrupt

    def _check_planning(self) -> None:
        """Raise KeyboardInterrupt if a stop was requested or the reading of the pages has ended."""
        self._check()
        if self._planning_stop.is_set():
            raise KeyboardInterrupt

    def _record_rate(self, seconds: float) -> None:
        """Add the pages and seconds of this run to the totals that dry runs use to estimate the duration."""
        if self._counts["pages"]:
            pages, previous_seconds = self._manifest.settings().get(RATE, (0, 0.0))
            self._manifest.write_settings({RATE: (pages + self._counts["pages"], round(previous_seconds + seconds, 1))})

    @functools.cached_property
    def _builder(self) -> PointBuilder:
        """Point builder. The embedder is loaded on first use, because most runs find only unchanged files."""
        return self._target.builder(self._settings, check=self._check)

    def _process_plan(self, plan: PlanStream) -> None:
        """Process the planner's outcomes for files without new content, and raise KeyboardInterrupt if stopped."""
        self._check()
        for outcome in plan.outcomes():
            self._process_outcome(outcome)
            self._check()
        if plan.is_complete and not self._all_planned:
            self._all_planned = True
            self._place_complete()
        if plan.task_count != self._state.documents_total:
            self._update_progress(documents_total=plan.task_count)

    def _process_outcome(self, outcome: Outcome) -> None:
        if isinstance(outcome, Failure):
            self._failures.append(outcome)
        elif isinstance(outcome, Skipped):
            self._skipped.append(Failure(outcome.path, outcome.reason))
        else:
            record = self._planner.with_metadata(outcome.path, outcome.record)
            if record == outcome.other:
                self._count_placement(outcome, record)
            else:
                self._placements.append(replace(outcome, record=record))

    def _place_complete(self) -> None:
        """Record the documents whose content is completely indexed. Documents with incomplete content stay pending.

        All documents are recorded in one transaction after planning. If two files were swapped, the content of each
        file therefore always belongs to a document and is not deleted.
        """
        if not self._placements:
            return
        self._begin_documents()
        pending: list[Placement] = []
        complete: list[Placement] = []
        for placement in self._placements:
            (complete if self._manifest.is_complete(placement.record.sha256) else pending).append(placement)
        with self._manifest.transaction():
            for placement in complete:
                self._manifest.put_document(placement.record, replacing=placement.replaces)
        self._placements = pending
        records = self._manifest.documents_by_id(placement.record.doc_id for placement in complete)
        for placement, record in zip(complete, records, strict=True):
            self._count_placement(placement, record)

    def _count_placement(self, placement: Placement, record: DocumentRecord) -> None:
        # Pages that failed when the content was indexed are reported again, because the pages are still missing.
        self._failures.extend(record.failures)
        if placement.how == "duplicate":
            reason = f"Same content as {placement.other.doc_id}. The content is stored once and cited with all paths."
            self._duplicates.append(Failure(record.path, reason))
            self._counts.update(documents=record.pages > 0)
        else:
            self._counts.update(unchanged=record.pages > 0, moved=placement.how == "moved")

    def _fail_placements(self) -> None:
        """Report each file that has the same content as a file that could not be indexed in this run."""
        failures = {Path(os.path.abspath(failure.path)): failure for failure in self._failures if failure.page is None}
        for placement in self._placements:
            failure = failures.get(placement.other.path)
            name = placement.other.path if failure is None else failure.path
            reason = "Ingest both files again." if failure is None else failure.reason
            reason = f"Same content as {name}, which could not be indexed: {reason}"
            self._failures.append(Failure(placement.path, reason))

    def _read(self, plan: PlanStream) -> None:
        self._update_progress()
        process = functools.partial(self._process, plan)
        events = read_pages(
            self._sources(plan), self._settings, ocr_cache=self._resources.ocr, check=process, prepare=True
        )
        with self._encoding, closing(events), plan:
            for event in events:
                process()
                if isinstance(event, DocumentStart):
                    self._start(event)
                elif isinstance(event, Page):
                    document = self._open_documents[event.doc_id]
                    document.warnings += [Failure(event.path, warning, event.number) for warning in event.warnings]
                    document.pages_to_store += 1
                    self._batch.append(event)
                    if len(self._batch) >= BATCH_PAGES:
                        self._embed(process)
                elif isinstance(event, Failure):
                    self._fail(event)
                else:
                    self._end(event)
            process()
            if self._batch:
                self._embed(process)
            while len(self._encoding):
                self._encoding.wait(process)
                process()

    def _process(self, plan: PlanStream) -> None:
        """Process everything that does not wait: the planner's outcomes, finished batches, and documents to complete.

        Called between two events and while waiting for a page or a batch. Raises KeyboardInterrupt if stopped.
        """
        self._process_plan(plan)
        for batch in self._encoding.finished():
            self._store(batch)
            self._check()
        self._checkpoint()

    def _sources(self, plan: PlanStream) -> Iterator[SourceFile]:
        """Yield the files to read. The rendering thread iterates over this generator."""
        for task in plan.tasks():
            self._tasks[task.source.path] = task
            record = task.record
            pages = self._planner.stored_pages(task)
            yield replace(task.source, doc_id=record.doc_id, skip_pages=pages, revision=record.sha256)

    def _start(self, event: DocumentStart) -> None:
        task = self._tasks[event.source.path]
        record = self._planner.with_metadata(task.source.path, task.record)
        self._records_to_begin.append(record)
        document = _OpenDocument(replace(task, record=record))
        document.warnings += [Failure(event.source.path, warning) for warning in event.warnings]
        self._open_documents[record.doc_id] = document
        pages = event.count - len(event.source.skip_pages)
        self._update_progress(
            current=record.doc_id,
            pages_total=self._state.pages_total + pages,
            documents_opened=self._state.documents_opened + 1,
        )

    def _begin_documents(self) -> None:
        """Record in the manifest, in one transaction, that the indexing of the opened documents starts.

        Called before the first image of these documents is written, and before changes that depend on the state of
        contents.
        """
        if self._records_to_begin:
            with self._manifest.transaction():
                for record in self._records_to_begin:
                    self._manifest.begin(record)
            self._records_to_begin.clear()

    def _fail(self, failure: Failure) -> None:
        self._failures.append(failure)
        if failure.page is None:
            del self._tasks[failure.path]
            self._update_progress(documents=self._state.documents + 1)
        else:
            self._update_progress(pages=self._state.pages + 1)
            self._open_documents[self._tasks[failure.path].record.doc_id].failures.append(failure)

    def _end(self, event: DocumentEnd) -> None:
        task = self._tasks.pop(event.source.path)
        document = self._open_documents[task.record.doc_id]
        document.ended, document.changed_on_disk = True, _has_changed(task)
        self._update_progress(documents=self._state.documents + 1)

    def _abandon(self, document: _OpenDocument) -> None:
        """Roll back a document whose file changed after hashing, because the pages may come from two versions."""
        record = document.task.record
        self._manifest.abandon(record)
        self._failures.append(Failure(record.path, "The file changed while it was read. Ingest the file again."))
        del self._open_documents[record.doc_id]

    def _embed(self, process: Callable[[], None]) -> None:
        """Pass the current batch to the embedding threads. Store earlier batches while the queue is full."""
        self._builder  # noqa: B018  # the embedder is loaded in this thread, where a stop ends the wait
        while self._encoding.is_full:
            self._encoding.wait(process)
            process()
        self._encoding.put([(self._open_documents[page.doc_id].task.record.sha256, page) for page in self._batch])
        self._batch = []

    def _encode(self, pages: Sequence[tuple[str, Page]]) -> _EncodedBatch:
        """Embed pages in one batch. If the batch fails, embed page by page, so that only a page with an error fails.

        Runs in the embedding threads.

        Args:
            pages: (SHA-256 of the file, page) of each page.

        Raises:
            DeviceLostError: If the device is lost for two successive pages, or for a batch of one page. The cause is
                then the device and not a page: the run ends, and the next run embeds the pages again.
        """
        self._check()
        points: list[PagePoints] = []
        failures: list[tuple[Page, JinaRagError]] = []
        try:
            points = self._builder.page_points(pages)
        except JinaRagError as exc:
            if len(pages) == 1:
                if isinstance(exc, DeviceLostError):
                    raise
                failures.append((pages[0][1], exc))
            else:
                is_lost = False
                for page in pages:
                    try:
                        part = self._encode([page])
                    except DeviceLostError as error:
                        if is_lost:
                            raise
                        is_lost = True
                        failures.append((page[1], error))
                    else:
                        is_lost = False
                        points += part.points
                        failures += part.failures
        return _EncodedBatch(tuple(page for _, page in pages), tuple(points), tuple(failures))

    def _store_completed(self) -> None:
        """After an interruption, store the batches whose embedding was completed, so that no page is embedded twice.

        If the interruption occurred while a batch was being stored, later batches are not stored, because pages are
        stored in order.
        """
        if not self._is_storing:
            with suppress(KeyboardInterrupt):  # an interrupted batch
                for batch in self._encoding.finished():
                    self._store(batch)

    def _store(self, batch: _EncodedBatch) -> None:
        """Write the images and points of a batch, in the order described in `jina_rag.catalog.manifest`."""
        self._is_storing = True
        for page, error in batch.failures:
            failure = Failure(page.path, f"The page cannot be embedded: {error}", page.number)
            self._failures.append(failure)
            self._open_documents[page.doc_id].failures.append(failure)
        # Pages of replaced content are ignored in the search for near-duplicates, because the run deletes these pages.
        replaced = {document.task.previous for document in self._open_documents.values() if document.task.previous}
        near_duplicates = self._near_duplicates.find(
            [(points.page_id, points.page, points.dense) for points in batch.points], ignore=replaced
        )
        self._begin_documents()
        self._builder.write_images(batch.points)
        points: list[Point] = []
        replaced_points: list[PointRecord] = []
        with self._manifest.transaction():
            for doc_id in dict.fromkeys(page_points.page.doc_id for page_points in batch.points):
                document = self._open_documents[doc_id]
                pages = [page_points for page_points in batch.points if page_points.page.doc_id == doc_id]
                built = self._points(document, pages, near_duplicates)
                points += [point for point, _ in built]
                replaced_points += self._manifest.add_points(
                    document.task.record.sha256, [point_record for _, point_record in built]
                )
        drop_points(self._resources, replaced_points)
        check_space(self._resources.images.folder.parent, sum(map(schema.point_bytes, points)))
        for upserted_points in schema.batches(points):
            self._resources.store.upsert(upserted_points)
        for page in batch.pages:
            self._open_documents[page.doc_id].pages_to_store -= 1
        self._is_storing = False
        page_count = len(batch.points)
        self._counts.update(pages=page_count, regions=len(points) - page_count, repeated=len(near_duplicates))
        self._update_progress(pages=self._state.pages + len(batch.pages))

    def _points(
        self, document: _OpenDocument, pages: Sequence[PagePoints], near_duplicates: dict[str, str]
    ) -> list[BuiltPoint]:
        """Return the points of pages of one document, and add the warnings of the points to the document."""
        record = document.task.record
        for page_points in pages:
            document.by_name = document.by_name or page_points.by_name
            if page_points.note:
                document.warnings.append(Failure(page_points.page.path, page_points.note, page_points.page.number))
        # The points also cite the documents that are copies of the same file.
        copies = [
            d for d in self._manifest.documents_of(record.sha256, include_pending=True) if d.doc_id != record.doc_id
        ]
        return place_points([record, *copies], pages, near_duplicates)

    def _checkpoint(self, *, force: bool = False) -> None:
        """Flush the store, complete the documents whose pages are all stored, and delete previous contents.

        Without `force`, the checkpoint is skipped if the last checkpoint is less than `CHECKPOINT_SECONDS` ago, and no
        previous content is deleted before planning has ended, because an unchecked file may have the same content.
        """
        if not force and time.monotonic() - self._last_checkpoint <= CHECKPOINT_SECONDS:
            return
        ready = [
            document
            for document in self._open_documents.values()
            if document.ended
            and not document.pages_to_store
            and (force or self._all_planned or document.task.previous is None)
        ]
        if ready or force:
            self._begin_documents()
            self._resources.store.flush()
        if ready:
            with self._manifest.transaction():
                for document in ready:
                    if document.changed_on_disk:
                        self._abandon(document)
                    else:
                        self._finish(document)
            reconcile(self._resources)
            self._last_checkpoint = time.monotonic()

    def _finish(self, document: _OpenDocument) -> None:
        record = document.task.record
        del self._open_documents[record.doc_id]
        self._warnings += document.warnings
        self._manifest.finish(
            record,
            failures=document.failures,
            warnings=document.warnings,
            by_name=document.by_name,
            replacing=document.task.replaces,
        )
        finished_record = self._manifest.document(record.doc_id)
        self._counts.update(documents=finished_record is not None and finished_record.pages > 0)

    def _remove_missing(self, roots: Sequence[str | os.PathLike[str]]) -> None:
        """Delete documents whose file no longer exists under the ingested paths."""
        unlisted = [failure.path for failure in self._failures if failure.page is None and failure.path.is_dir()]
        missing, warnings = missing_documents(self._manifest, roots, unlisted=unlisted, check=self._check)
        self._manifest.remove_documents([record.doc_id for record in missing])
        self._warnings += warnings
        self._counts.update(removed=len(missing))

    def _update_progress(self, **changes: Any) -> None:  # noqa: ANN401  # fields of IngestProgress
        self._state = replace(self._state, **changes)
        if self._progress is not None:
            self._progress(self._state)


def _has_changed(task: IndexTask) -> bool:
    """Return whether a file changed after hashing. False for a deleted file, because the next run reports deletions."""
    try:
        status = task.record.path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) != (task.record.size, task.record.mtime_ns)
