"""From files to points: what is new is rendered, embedded and stored; what is known is left alone.

The order of writing makes a run that is killed at any moment harmless; it is described in `manifest`.
"""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from jina_rag import lexical
from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError, IndexStateError, JinaRagError
from jina_rag.ingestion.pages import DocumentEnd, DocumentStart, open_document, read_pages
from jina_rag.ingestion.sources import Skipped, SourceFile, find_sources
from jina_rag.protocols import Embedder, MultiVectorStore
from jina_rag.retrieval.hubness import Background
from jina_rag.retrieval.manifest import DocumentRecord, Manifest, Part
from jina_rag.retrieval.places import describe
from jina_rag.retrieval.plan import Metadata, Planner, Work
from jina_rag.stores import schema
from jina_rag.stores.images import ImageFiles
from jina_rag.types import Box, Failure, Float32, IngestReport, Page, Point, TokenGrid

if TYPE_CHECKING:
    from PIL.Image import Image

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

    record: DocumentRecord
    waiting: int = 0
    ended: bool = False
    failures: list[Failure] = field(default_factory=list)
    warnings: list[Failure] = field(default_factory=list)


class Ingestion:
    """One run over some paths. Made by `DocumentIndex.ingest`; used once."""

    def __init__(
        self,
        *,
        store: MultiVectorStore,
        manifest: Manifest,
        images: ImageFiles,
        embedder: Callable[[], Embedder],
        dim: int,
        settings: IngestSettings,
        metadata: Metadata | None = None,
        progress: Callable[[IngestProgress], None] | None = None,
    ) -> None:
        self._store = store
        self._manifest = manifest
        self._images = images
        self._load = embedder
        self._dim = dim
        self._settings = settings
        self._planner = Planner(manifest, store, metadata)
        self._progress = progress
        self._state = IngestProgress(0, 0, 0, 0)
        self._failed: list[Failure] = []
        self._warnings: list[Failure] = []
        self._open: dict[str, _Open] = {}
        self._batch: list[Page] = []
        self._pages = self._regions = self._documents = self._unchanged = 0
        self._background: Background | None = None
        self._last_checkpoint = time.monotonic()

    def run(self, paths: Sequence[str | os.PathLike[str]], *, exclude: Sequence[Path] = ()) -> IngestReport:
        """Index what is new or changed under `paths`.

        Raises:
            InvalidInputError: If a path does not exist.
            IndexStateError: If the index cannot be written (disk full, no permission); what is in stays usable.
        """
        started = time.monotonic()
        self._tidy()
        skipped: list[Failure] = []
        todo: list[Work] = []
        interrupted = False
        try:
            for entry in find_sources(paths, exclude=exclude):
                if isinstance(entry, Failure):
                    self._failed.append(entry)
                elif isinstance(entry, Skipped):
                    skipped.append(Failure(path=entry.path, reason=entry.reason))
                elif isinstance(found := self._planner.look(entry), Work):
                    todo.append(found)
                elif isinstance(found, Failure):
                    self._failed.append(found)
                else:
                    self._repeat(found)
            self._count(todo)
            self._read(todo)
        except KeyboardInterrupt:
            # What is stored stays; the document in work is finished by the next run.
            interrupted = True
            self._batch.clear()
        except OSError as exc:
            raise IndexStateError(
                f"The index cannot be written: {exc.strerror or exc}. Free space or permissions, then run the same "
                "command again: it goes on where it stopped."
            ) from exc
        self._checkpoint(force=True)
        return IngestReport(
            documents=self._documents,
            pages=self._pages,
            regions=self._regions,
            unchanged=self._unchanged,
            skipped=tuple(skipped),
            failed=tuple(self._failed),
            warnings=tuple(self._warnings),
            seconds=time.monotonic() - started,
            interrupted=interrupted,
        )

    @functools.cached_property
    def _embedder(self) -> Embedder:
        """Loaded when there is something to embed: most runs find everything unchanged."""
        return self._load()

    # -- what needs work -----------------------------------------------------------------------------------

    def _tidy(self) -> None:
        """Remove image files that a killed run wrote and never referred to."""
        if self._manifest.pending():
            referenced = self._manifest.images()
            for name in list(self._images.names()):
                if name not in referenced:
                    self._images.delete(name)

    def _repeat(self, known: DocumentRecord) -> None:
        """Count a document that is indexed as it is; pages that failed then have still failed."""
        self._failed.extend(known.failures)
        self._unchanged += known.pages > 0

    def _count(self, todo: Sequence[Work]) -> None:
        """Count the pages that need work, for the time left; a document that cannot be opened is reported later."""
        if self._progress is None:
            return
        pages = 0
        for work in todo:
            try:
                with open_document(work.source, self._settings) as document:
                    pages += document.page_count
            except DocumentError:
                continue
        self._tell(documents_total=len(todo), pages_total=pages)

    # -- the work ------------------------------------------------------------------------------------------

    def _read(self, todo: Sequence[Work]) -> None:
        records = {work.record.path: work.record for work in todo}
        current: _Open | None = None
        sources: Iterator[SourceFile] = (
            replace(work.source, doc_id=work.record.doc_id, done=self._planner.stored_pages(work.record))
            for work in todo
        )
        with closing(read_pages(sources, self._settings)) as events:
            for event in events:
                if isinstance(event, DocumentStart):
                    record = records[Path(os.path.abspath(event.source.path))]
                    self._manifest.begin(record)
                    current = _Open(record)
                    current.warnings += [Failure(event.source.path, warning) for warning in event.warnings]
                    self._open[record.doc_id] = current
                    self._tell(current=record.doc_id)
                elif isinstance(event, Page):
                    assert current is not None, "a page before its document"
                    current.warnings += [Failure(event.path, warning, event.number) for warning in event.warnings]
                    current.waiting += 1
                    self._batch.append(event)
                    if len(self._batch) >= BATCH_PAGES:
                        self._embed()
                elif isinstance(event, Failure):
                    self._fail(event)
                elif isinstance(event, DocumentEnd):
                    assert current is not None, "an end without a start"
                    current.ended = True
                    self._tell(documents=self._state.documents + 1)
                self._checkpoint()
            self._embed()

    def _fail(self, failure: Failure) -> None:
        self._failed.append(failure)
        if failure.page is None:
            self._tell(documents=self._state.documents + 1)
            return
        self._tell(pages=self._state.pages + 1)
        for document in self._open.values():
            if document.record.path == Path(os.path.abspath(failure.path)):
                document.failures.append(failure)

    def _embed(self) -> None:
        """Embed and store the pages that have gathered."""
        pages, self._batch = self._batch, []
        if not pages:
            return
        points: list[Point] = []
        parts: dict[str, list[Part]] = {}
        for page, dense, rows, grid in self._encode(pages):
            record = self._open[page.doc_id].record
            point, page_parts = self._point(record, page, dense, rows, grid)
            points.append(point)
            parts.setdefault(record.doc_id, []).extend(page_parts)
        for doc_id, page_parts in parts.items():
            self._manifest.add_parts(doc_id, self._open[doc_id].record.sha256, page_parts)
        for batch in schema.batches(points):
            self._store.upsert(batch)
        for page in pages:
            self._open[page.doc_id].waiting -= 1
        self._pages += len(points)
        self._regions += sum(part.kind != "page" for group in parts.values() for part in group)
        self._tell(pages=self._state.pages + len(pages))

    def _encode(self, pages: Sequence[Page]) -> Iterator[tuple[Page, Float32, Float32, TokenGrid | None]]:
        """Embed together; if that fails, one by one, so that one page's fault stays its own."""
        try:
            dim = self._dim if self._dim != self._embedder.dim else None
            result = self._embedder.encode_document([self._input(page) for page in pages], truncate_dim=dim)
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
        assert result.single is not None
        assert result.multi is not None
        grids = result.grids or [None] * len(pages)
        yield from zip(pages, result.single, result.multi, grids, strict=True)

    def _input(self, page: Page) -> Page | str:
        """The page; for an embedder that reads words, a page without any is known by its file name."""
        if page.words or self._embedder.reads == "pixels":
            return page
        return " ".join(re.findall(r"[^\W_]+", PurePosixPath(page.doc_id).stem))

    def _point(
        self,
        record: DocumentRecord,
        page: Page,
        dense: Float32,
        rows: Float32,
        grid: TokenGrid | None,
    ) -> tuple[Point, list[Part]]:
        """Write the page's images and make its point."""
        quality = self._settings.jpeg_quality
        image = self._images.put(page.screenshot.image, quality)
        crops = [self._images.put(_crop(page, region.box), quality) for region in page.regions]
        point_id = schema.point_id(record.doc_id, record.sha256, page.number)
        # File names are often the only words a photo has, and people search for them.
        words = f"{page.text}\n{PurePosixPath(page.doc_id).stem}"
        point = Point(
            id=point_id,
            dense=dense,
            multi=rows if len(rows) else None,
            lexical=lexical.document_vector(words),
            payload={
                schema.KIND: "page",
                schema.DOC_ID: record.doc_id,
                schema.PAGE: page.number,
                schema.PAGE_COUNT: page.count,
                schema.REVISION: record.sha256,
                schema.IMAGE: image,
                schema.META: dict(record.metadata),
                schema.BIAS: self._bias(rows),
                **describe(page, rows, grid, crops),
            },
        )
        parts = [Part(point_id, page.number, "page", image)]
        parts += [
            Part(
                schema.point_id(record.doc_id, record.sha256, page.number, f"region{n}"),
                page.number,
                region.kind,
                crop,
            )
            for n, (region, crop) in enumerate(zip(page.regions, crops, strict=True))
        ]
        return schema.fit(point), parts

    def _bias(self, rows: Float32) -> float:
        if not self._embedder.hubness:
            return 0.0
        if self._background is None:
            self._background = Background(self._embedder)
        return self._background.bias(rows)

    # -- finishing -----------------------------------------------------------------------------------------

    def _checkpoint(self, *, force: bool = False) -> None:
        """Flush, then mark the documents done whose pages are all stored, and drop what they replace."""
        ready = [document for document in self._open.values() if document.ended and not document.waiting]
        if not ready or not (force or time.monotonic() - self._last_checkpoint > CHECKPOINT_SECONDS):
            if force:
                self._store.flush()
            return
        self._store.flush()
        for document in ready:
            del self._open[document.record.doc_id]
            self._warnings += document.warnings
            old = self._manifest.finish(document.record.doc_id, failures=document.failures, warnings=document.warnings)
            drop_parts(old, store=self._store, manifest=self._manifest, images=self._images)
            finished = self._manifest.document(document.record.doc_id)
            self._documents += finished is not None and finished.pages > 0
        self._last_checkpoint = time.monotonic()

    def _tell(self, **changes: Any) -> None:  # noqa: ANN401  # fields of IngestProgress
        self._state = replace(self._state, **changes)
        if self._progress is not None:
            self._progress(self._state)


def drop_parts(parts: Sequence[Part], *, store: MultiVectorStore, manifest: Manifest, images: ImageFiles) -> None:
    """Remove points that the manifest has forgotten, and the images that nothing refers to any more."""
    store.delete([part.part_id for part in parts])
    for name in manifest.unreferenced(part.image for part in parts if part.image):
        images.delete(name)


def _crop(page: Page, box: Box) -> Image:
    width, height = page.screenshot.image.size
    x0, y0, x1, y1 = box
    left, top = min(int(x0 * width), width - 1), min(int(y0 * height), height - 1)
    right, bottom = max(left + 1, round(x1 * width)), max(top + 1, round(y1 * height))
    return page.screenshot.image.crop((left, top, right, bottom))
