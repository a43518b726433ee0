"""One ingestion run: finds new and changed files, renders, embeds and stores the pages, and reports on every file.

Memory does not grow with the number of pages, because pages stream through bounded queues, and each batch of pages is
stored before the next batch is embedded. The order of the writes makes a run resumable after a stop at any point (see
`jina_rag.catalog.manifest`).
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jina_rag.catalog.maintenance import drop_points, reconcile
from jina_rag.catalog.manifest import RATE, DocumentRecord
from jina_rag.catalog.missing_files import missing_documents
from jina_rag.catalog.near_duplicates.finder import NearDuplicateFinder
from jina_rag.config import IngestSettings
from jina_rag.errors import JinaRagError
from jina_rag.indexing.plan_stream import PlanStream
from jina_rag.indexing.planner import IndexTask, Metadata, Outcome, Placement, Planner
from jina_rag.indexing.point_builder import EncodedPage, IndexTarget, PointBuilder
from jina_rag.parsing.pages import DocumentEnd, DocumentStart, read_pages
from jina_rag.parsing.sources import Skipped, SourceFile, find_sources
from jina_rag.stores import schema
from jina_rag.stores.disk_space import check_space
from jina_rag.types import Failure, IngestReport, Page, Point

BATCH_PAGES = 8
"""Number of pages per embedding batch: enough pages to use the model efficiently, with limited memory."""
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
            sidecars=settings.sidecars,
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
        self._batch: list[Page] = []
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
            sources = find_sources(paths, exclude=exclude, check=self._check_planning)
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
        reasons = {Path(os.path.abspath(f.path)): f.reason for f in self._failures if f.page is None}
        for placement in self._placements:
            reason = reasons.get(
                placement.other.path,
                f"The file has the same content as {placement.other.doc_id}, which could not be indexed. "
                "Ingest the file again.",
            )
            self._failures.append(Failure(placement.record.path, reason))

    def _read(self, plan: PlanStream) -> None:
        self._update_progress()
        process_plan = functools.partial(self._process_plan, plan)
        events = read_pages(self._sources(plan), self._settings, ocr_cache=self._resources.ocr, check=process_plan)
        with closing(events), plan:
            for event in events:
                process_plan()
                if isinstance(event, DocumentStart):
                    self._start(event)
                elif isinstance(event, Page):
                    document = self._open_documents[event.doc_id]
                    document.warnings += [Failure(event.path, warning, event.number) for warning in event.warnings]
                    document.pages_to_store += 1
                    self._batch.append(event)
                    if len(self._batch) >= BATCH_PAGES:
                        self._embed()
                elif isinstance(event, Failure):
                    self._fail(event)
                else:
                    self._end(event)
                self._checkpoint()
            process_plan()
            self._embed()

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
        self._manifest.begin(record)
        document = _OpenDocument(replace(task, record=record))
        document.warnings += [Failure(event.source.path, warning) for warning in event.warnings]
        self._open_documents[record.doc_id] = document
        pages = event.count - len(event.source.skip_pages)
        self._update_progress(
            current=record.doc_id,
            pages_total=self._state.pages_total + pages,
            documents_opened=self._state.documents_opened + 1,
        )

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

    def _embed(self) -> None:
        """Embed and store the pages of the current batch."""
        pages, self._batch = self._batch, []
        if not pages:
            return
        encoded = list(self._encode(pages))
        # Pages of replaced content are ignored in the search for near-duplicates, because the run deletes these pages.
        replaced = {document.task.previous for document in self._open_documents.values() if document.task.previous}
        near_duplicates = self._near_duplicates.find(
            [(self._page_id(page), page, vectors.dense) for page, vectors in encoded], ignore=replaced
        )
        points: list[Point] = []
        for doc_id in dict.fromkeys(page.doc_id for page, _ in encoded):
            self._check()
            document_pages = [(page, vectors) for page, vectors in encoded if page.doc_id == doc_id]
            points += self._points(self._open_documents[doc_id], document_pages, near_duplicates)
        check_space(self._resources.images.folder.parent, sum(map(schema.point_bytes, points)))
        for batch in schema.batches(points):
            self._resources.store.upsert(batch)
        for page in pages:
            self._open_documents[page.doc_id].pages_to_store -= 1
        page_count = sum(point.payload[schema.KIND] == "page" for point in points)
        self._counts.update(pages=page_count, regions=len(points) - page_count, repeated=len(near_duplicates))
        self._update_progress(pages=self._state.pages + len(pages))

    def _points(
        self, document: _OpenDocument, pages: Sequence[tuple[Page, EncodedPage]], near_duplicates: dict[str, str]
    ) -> list[Point]:
        """Build the points of pages and record the points in the manifest. The caller stores the points afterwards."""
        record = document.task.record
        document.by_name = document.by_name or any(self._builder.is_by_name(page) for page, _ in pages)
        # The points also cite the documents that are copies of the same file.
        copies = [
            d for d in self._manifest.documents_of(record.sha256, include_pending=True) if d.doc_id != record.doc_id
        ]
        built = self._builder.build([record, *copies], pages, near_duplicates)
        drop_points(
            self._resources, self._manifest.add_points(record.sha256, [point_record for _, point_record in built])
        )
        for page, _ in pages:
            if note := self._builder.notes.pop(self._page_id(page), None):
                document.warnings.append(Failure(page.path, note, page.number))
        return [point for point, _ in built]

    def _page_id(self, page: Page) -> str:
        return schema.point_id(self._open_documents[page.doc_id].task.record.sha256, page.number)

    def _encode(self, pages: Sequence[Page]) -> Iterator[tuple[Page, EncodedPage]]:
        """Embed pages in one batch. If the batch fails, embed page by page, so that only a page with an error fails."""
        self._check()
        try:
            vectors = self._builder.encode([self._builder.input_of(page) for page in pages])
        except JinaRagError as exc:
            if len(pages) > 1:
                for page in pages:
                    yield from self._encode([page])
                return
            page = pages[0]
            failure = Failure(page.path, f"The page cannot be embedded: {exc}", page.number)
            self._failures.append(failure)
            self._open_documents[page.doc_id].failures.append(failure)
            return
        yield from zip(pages, vectors, strict=True)

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
            self._resources.store.flush()
        for document in ready:
            if document.changed_on_disk:
                self._abandon(document)
            else:
                self._finish(document)
        if ready:
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
