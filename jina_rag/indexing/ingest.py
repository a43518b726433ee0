"""One run of ingestion: find what is new or changed, render it, embed it, store it, and say what became of each file.

Memory does not grow with the number of pages: pages stream through bounded queues, and a batch is stored before the
next one is embedded. The order of writing (see `manifest`) makes a run that is stopped anywhere one that can be
gone on with.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jina_rag.catalog.maintenance import IndexResources, drop_parts, settle
from jina_rag.catalog.manifest import RATE, DocumentRecord, PointRecord
from jina_rag.catalog.missing_files import gone
from jina_rag.catalog.near_duplicates.near import NearDuplicates
from jina_rag.config import IngestSettings, Storage
from jina_rag.errors import DocumentError, JinaRagError
from jina_rag.indexing.planner import Metadata, Placed, Planner, Unchanged, Work
from jina_rag.indexing.point_builder import Encoded, PointMaker
from jina_rag.parsing.pages import DocumentEnd, DocumentStart, read_pages
from jina_rag.parsing.sources import Entry, Skipped, SourceFile, find_sources
from jina_rag.parsing.workers.pool import open_isolated
from jina_rag.protocols import Embedder
from jina_rag.stores import schema
from jina_rag.stores.disk_space import check_space
from jina_rag.types import Failure, IngestReport, Page, Point

BATCH_PAGES = 8
"""Pages embedded together. Enough to fill batches, few enough to keep memory flat."""
CHECKPOINT_SECONDS = 5.0
"""Documents count as done after the store was flushed; flushing after each one would cost more than embedding it."""


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """How far a run has come.

    Attributes:
        documents: Documents read to their end, or failed.
        documents_total: Documents that need work.
        pages: Pages stored or failed.
        pages_total: Pages that need work.
        current: The document being read.
    """

    documents: int
    documents_total: int
    pages: int
    pages_total: int
    current: str = ""


@dataclass
class _Open:
    """A document on its way: how many of its pages are stored, and what went wrong."""

    work: Work
    waiting: int = 0
    ended: bool = False
    by_name: bool = False
    failures: list[Failure] = field(default_factory=list)
    warnings: list[Failure] = field(default_factory=list)


class Ingestion:
    """One run over some paths. Made by `DocumentIndex.ingest`; used once."""

    def __init__(
        self,
        *,
        parts: IndexResources,
        embedder: Callable[[], Embedder],
        dim: int,
        storage: Storage,
        settings: IngestSettings,
        metadata: Metadata | None = None,
        progress: Callable[[IngestProgress], None] | None = None,
        sync: bool = False,
        force: bool = False,
        stop: threading.Event | None = None,
    ) -> None:
        self._parts = parts
        self._manifest = parts.manifest
        self._load = embedder
        self._dim = dim
        self._storage = storage
        self._settings = settings
        self._planner = Planner(parts.manifest, parts.store, metadata=metadata, sidecars=settings.sidecars, force=force)
        self._near = NearDuplicates(parts.store, parts.images)
        self._progress = progress
        self._sync = sync
        self._stop = stop
        self._state = IngestProgress(0, 0, 0, 0)
        self._report = IngestReport()
        self._failed: list[Failure] = []
        self._warnings: list[Failure] = []
        self._skipped: list[Failure] = []
        self._duplicates: list[Failure] = []
        self._later: list[Placed] = []
        self._open: dict[str, _Open] = {}
        self._batch: list[Page] = []
        self._last_checkpoint = time.monotonic()

    def run(self, paths: Sequence[str | os.PathLike[str]], *, exclude: Sequence[Path] = ()) -> IngestReport:
        """Index what is new or changed under `paths`. Within `care.changing`.

        Raises:
            InvalidInputError: If a path does not exist.
            IndexStateError: If the index cannot be written (disk full, no permission); what is in stays usable.
        """
        started = time.monotonic()
        sources = find_sources(paths, exclude=exclude)
        interrupted = False
        try:
            todo = self._plan(sources)
            self._count(todo)
            self._read(todo)
        except KeyboardInterrupt:
            # What is stored stays; the document in work is finished by the next run.
            interrupted = True
            self._batch.clear()
            for document in list(self._open.values()):
                self._abandon_if_changed(document)
        self._checkpoint(force=True)
        if not interrupted:
            for placed in self._later:
                self._place(placed)
            if self._sync:
                self._remove_gone(paths)
        seconds = time.monotonic() - started
        self._remember_rate(seconds)
        return replace(
            self._report,
            duplicates=tuple(self._duplicates),
            skipped=tuple(self._skipped),
            failed=tuple(self._failed),
            warnings=tuple(self._planner.warnings + self._warnings),
            seconds=seconds,
            interrupted=interrupted,
        )

    def _remember_rate(self, seconds: float) -> None:
        """For estimates: how long the pages of this index have taken."""
        if self._report.pages:
            pages, before = self._manifest.settings().get(RATE, (0, 0.0))
            self._manifest.write_settings({RATE: (pages + self._report.pages, round(before + seconds, 1))})

    @functools.cached_property
    def _embedder(self) -> Embedder:
        """Loaded when there is something to embed: most runs find everything unchanged."""
        return self._load()

    @functools.cached_property
    def _maker(self) -> PointMaker:
        return PointMaker(
            self._embedder,
            self._parts.images,
            dim=self._dim,
            quality=self._settings.jpeg_quality,
            storage=self._storage,
        )

    # -- what needs work -----------------------------------------------------------------------------------

    def _plan(self, sources: Iterator[Entry]) -> list[Work]:
        todo: list[Work] = []
        known: list[Placed] = []
        for found in self._planner.look_at_all(sources):
            if isinstance(found, Work):
                todo.append(found)
            elif isinstance(found, Failure):
                self._failed.append(found)
            elif isinstance(found, Skipped):
                self._skipped.append(Failure(path=found.path, reason=found.reason))
            elif isinstance(found, Unchanged):
                self._repeat(found.record)
            elif self._manifest.is_done(found.record.sha256):
                known.append(found)
            else:  # the same as a file of this run, whose content is still to come
                self._later.append(found)
        # Nothing is dropped before all of it is placed: of two files that were swapped, each holds the other's content.
        for placed in known:
            self._place(placed)
        return todo

    def _repeat(self, known: DocumentRecord) -> None:
        """Count a document that is indexed as it is; pages that failed then have still failed."""
        self._failed.extend(known.failures)
        self._tally(unchanged=known.pages > 0)

    def _place(self, placed: Placed) -> None:
        """Let a document point at a content that is in the index."""
        record, other = placed.record, placed.other
        if not self._manifest.is_done(record.sha256):
            why = next((f.reason for f in self._failed if other and f.path == other.path and f.page is None), "")
            self._failed.append(Failure(record.path, why or "The file with the same content could not be indexed."))
            return
        self._manifest.place(record, replacing=placed.replaces)
        now = self._manifest.document(record.doc_id)
        assert now is not None, "a document that was just placed"
        self._failed.extend(now.failures)
        if placed.how == "duplicate" and other is not None:
            reason = f"It has the same content as {other.doc_id}: stored once, cited at both places."
            self._duplicates.append(Failure(record.path, reason))
            self._tally(documents=now.pages > 0)
        else:
            self._tally(unchanged=now.pages > 0, moved=placed.how == "moved")

    def _count(self, todo: Sequence[Work]) -> None:
        """Count the pages that need work, for the time left; a document that cannot be opened is reported later."""
        if self._progress is None:
            return
        pages = 0
        for work in todo:
            try:
                with open_isolated(work.source, self._settings) as document:
                    pages += document.page_count
            except DocumentError:
                continue
        self._tell(documents_total=len(todo), pages_total=pages)

    # -- the work ------------------------------------------------------------------------------------------

    def _read(self, todo: Sequence[Work]) -> None:
        works = {work.source.path: work for work in todo}
        sources: Iterator[SourceFile] = (
            replace(
                work.source,
                doc_id=work.record.doc_id,
                done=self._planner.stored_pages(work),
                revision=work.record.sha256,
            )
            for work in todo
        )
        current: _Open | None = None
        with closing(read_pages(sources, self._settings, ocr_cache=self._parts.ocr)) as events:
            for event in events:
                if self._stop is not None and self._stop.is_set():
                    raise KeyboardInterrupt
                if isinstance(event, DocumentStart):
                    current = self._start(works[event.source.path], event)
                elif isinstance(event, Page):
                    assert current is not None, "a page before its document"
                    current.warnings += [Failure(event.path, warning, event.number) for warning in event.warnings]
                    current.waiting += 1
                    self._batch.append(event)
                    if len(self._batch) >= BATCH_PAGES:
                        self._embed()
                elif isinstance(event, Failure):
                    self._fail(event, current)
                elif isinstance(event, DocumentEnd):
                    assert current is not None, "an end without a start"
                    self._tell(documents=self._state.documents + 1)
                    current.ended = True
                self._checkpoint()
            self._embed()

    def _start(self, work: Work, event: DocumentStart) -> _Open:
        self._manifest.begin(work.record)
        opened = _Open(work)
        opened.warnings += [Failure(event.source.path, warning) for warning in event.warnings]
        self._open[work.record.doc_id] = opened
        self._tell(current=work.record.doc_id)
        return opened

    def _fail(self, failure: Failure, current: _Open | None) -> None:
        self._failed.append(failure)
        if failure.page is None:
            self._tell(documents=self._state.documents + 1)
            return
        self._tell(pages=self._state.pages + 1)
        assert current is not None, "a failed page before its document"
        current.failures.append(failure)

    def _abandon_if_changed(self, document: _Open) -> bool:
        """Take a document back whose file is not what was hashed: its pages may be of one or the other."""
        record = document.work.record
        try:
            status = record.path.stat()
            same = (status.st_size, status.st_mtime_ns) == (record.size, record.mtime_ns)
        except OSError:
            same = True  # what was read was read; the next run says that it is gone
        if not same:
            self._manifest.abandon(record)
            self._failed.append(Failure(record.path, "It changed while it was read: run the same command again."))
            del self._open[record.doc_id]
        return not same

    def _embed(self) -> None:
        """Embed and store the pages that have gathered."""
        pages, self._batch = self._batch, []
        if not pages:
            return
        encoded = list(self._encode(pages))
        repeats = self._near.find(
            [(self._page_id(page), page, vectors.dense) for page, vectors in encoded], ignore=self._replaced()
        )
        points: list[Point] = []
        for doc_id in dict.fromkeys(page.doc_id for page, _ in encoded):
            mine = [(page, vectors) for page, vectors in encoded if page.doc_id == doc_id]
            points += self._points(self._open[doc_id], mine, repeats)
        check_space(self._parts.images.folder.parent, sum(map(schema.size_of, points)))
        for batch in schema.batches(points):
            self._parts.store.upsert(batch)
        for page in pages:
            self._open[page.doc_id].waiting -= 1
        pages_made = sum(point.payload[schema.KIND] == "page" for point in points)
        self._tally(pages=pages_made, regions=len(points) - pages_made, repeated=len(repeats))
        self._tell(pages=self._state.pages + len(pages))

    def _replaced(self) -> set[str]:
        """Contents that the documents in work are about to replace: what repeats them repeats nothing."""
        known = [self._manifest.document(doc_id) for doc_id, document in self._open.items() if document.work.changed]
        return {record.sha256 for record in known if record is not None}

    def _points(self, opened: _Open, pages: Sequence[tuple[Page, Encoded]], repeats: dict[str, str]) -> list[Point]:
        """The points of some pages of one document, noted in the manifest before they are written."""
        record = opened.work.record
        opened.by_name = opened.by_name or any(self._maker.is_by_name(page) for page, _ in pages)
        # Copies of the file that the index had before are cited from the start, too.
        others = [d for d in self._manifest.documents_of(record.sha256, waiting=True) if d.doc_id != record.doc_id]
        made = self._maker.make([record, *others], pages, repeats)
        stale: list[PointRecord] = self._manifest.add_parts(record.sha256, [part for _, part in made])
        drop_parts(self._parts, stale)
        for page, _ in pages:
            if note := self._maker.notes.pop(schema.point_id(record.sha256, page.number), None):
                opened.warnings.append(Failure(page.path, note, page.number))
        return [point for point, _ in made]

    def _page_id(self, page: Page) -> str:
        return schema.point_id(self._open[page.doc_id].work.record.sha256, page.number)

    def _encode(self, pages: Sequence[Page]) -> Iterator[tuple[Page, Encoded]]:
        """Embed together; if that fails, one by one, so that one page's fault stays its own."""
        try:
            vectors = self._maker.encode([self._maker.input_of(page) for page in pages])
        except JinaRagError as exc:
            if len(pages) > 1:
                for page in pages:
                    yield from self._encode([page])
                return
            page = pages[0]
            failure = Failure(page.path, f"It could not be embedded: {exc}", page.number)
            self._failed.append(failure)
            self._open[page.doc_id].failures.append(failure)
            return
        yield from zip(pages, vectors, strict=True)

    # -- finishing -----------------------------------------------------------------------------------------

    def _checkpoint(self, *, force: bool = False) -> None:
        """Flush, then mark the documents done whose pages are all stored, and drop what they replace."""
        ready = [document for document in self._open.values() if document.ended and not document.waiting]
        if not ready or not (force or time.monotonic() - self._last_checkpoint > CHECKPOINT_SECONDS):
            if force:
                self._parts.store.flush()
            return
        self._parts.store.flush()
        for document in ready:
            if not self._abandon_if_changed(document):
                self._finish(document)
        settle(self._parts)
        self._last_checkpoint = time.monotonic()

    def _finish(self, document: _Open) -> None:
        record = document.work.record
        del self._open[record.doc_id]
        self._warnings += document.warnings
        self._manifest.finish(
            record,
            failures=document.failures,
            warnings=document.warnings,
            by_name=document.by_name,
            replacing=document.work.replaces,
        )
        finished = self._manifest.document(record.doc_id)
        self._tally(documents=finished is not None and finished.pages > 0)

    def _remove_gone(self, roots: Sequence[str | os.PathLike[str]]) -> None:
        """Take out documents whose file is gone from the ingested folders."""
        unseen = [failure.path for failure in self._failed if failure.page is None and failure.path.is_dir()]
        lost, doubts = gone(self._manifest, roots, unseen=unseen)
        for record in lost:
            self._manifest.forget(record.doc_id)
        self._warnings += doubts
        self._tally(removed=len(lost))

    def _tally(self, **counts: int) -> None:
        self._report = replace(
            self._report, **{name: getattr(self._report, name) + int(n) for name, n in counts.items()}
        )

    def _tell(self, **changes: Any) -> None:  # noqa: ANN401  # fields of IngestProgress
        self._state = replace(self._state, **changes)
        if self._progress is not None:
            self._progress(self._state)
