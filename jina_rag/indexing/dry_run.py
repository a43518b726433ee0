"""What an ingestion would do, before it does it: files, pages, time, disk."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from jina_rag.catalog.maintenance import IndexResources
from jina_rag.catalog.manifest import RATE, DocumentRecord
from jina_rag.catalog.missing_files import gone
from jina_rag.config import IngestSettings, Storage
from jina_rag.errors import DocumentError
from jina_rag.indexing.planner import Metadata, Placed, Planner, Unchanged, Work
from jina_rag.indexing.point_builder import PointMaker
from jina_rag.parsing.office import as_pdf
from jina_rag.parsing.pages import read_pages
from jina_rag.parsing.sources import Skipped, find_sources
from jina_rag.parsing.workers.pool import open_isolated
from jina_rag.protocols import Embedder
from jina_rag.stores import schema
from jina_rag.stores.images import ImageFiles
from jina_rag.types import Failure, Page

SAMPLE = 6
"""Pages that are rendered and embedded for an estimate where the index has no history."""
_HISTORY = 50


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """What `DocumentIndex.ingest` would do.

    Attributes:
        new: Documents that the index does not have.
        changed: Documents whose file holds something else now.
        force: Documents that are unchanged and would be made again.
        unchanged: Documents that are indexed as they are, moved ones included.
        moved: Of these, documents whose file has another name or folder now.
        duplicates: Files with the same bytes as another one.
        removed: Documents that would be taken out.
        pages: Pages that would be rendered and embedded.
        seconds: About how long that takes.
        bytes: About how much disk it takes.
        basis: What time and disk were estimated from, as a clause.
        failed: Files that could not be indexed, with the reason.
        skipped: Files that would be passed over.
    """

    new: int = 0
    changed: int = 0
    force: int = 0
    unchanged: int = 0
    moved: int = 0
    duplicates: int = 0
    removed: int = 0
    pages: int = 0
    seconds: float = 0.0
    bytes: int = 0
    basis: str = "nothing to do"
    failed: tuple[Failure, ...] = ()
    skipped: tuple[Failure, ...] = ()


class Estimate:
    """Makes a plan for one index."""

    def __init__(
        self,
        *,
        parts: IndexResources,
        embedder: Callable[[], Embedder],
        dim: int,
        storage: Storage,
        settings: IngestSettings,
    ) -> None:
        self._parts = parts
        self._embedder = embedder
        self._dim = dim
        self._storage = storage
        self._settings = settings

    def plan(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        metadata: Metadata | None = None,
        sync: bool = False,
        force: bool = False,
        exclude: Sequence[Path] = (),
        indexed_pages: int = 0,
        indexed_bytes: int = 0,
    ) -> IngestPlan:
        """See `DocumentIndex.plan`."""
        planner = Planner(
            self._parts.manifest, self._parts.store, metadata=metadata, sidecars=self._settings.sidecars, force=force
        )
        todo: list[tuple[Work, list[int]]] = []
        failed: list[Failure] = []
        skipped: list[Failure] = []
        counts = dict.fromkeys(("new", "changed", "again", "unchanged", "moved", "duplicates"), 0)
        for found in planner.look_at_all(find_sources(paths, exclude=exclude)):
            if isinstance(found, Skipped):
                skipped.append(Failure(found.path, found.reason))
            elif isinstance(found, Failure):
                failed.append(found)
            elif isinstance(found, Unchanged):
                counts["unchanged"] += 1
            elif isinstance(found, Placed):
                counts["duplicates"] += found.how == "duplicate"
                counts["unchanged"] += found.how != "duplicate"
                counts["moved"] += found.how == "moved"
            else:
                try:
                    numbers = self._pages_of(found, planner)
                except DocumentError as error:
                    failed.append(Failure(found.source.path, str(error)))
                    continue
                counts["changed" if found.changed else "again" if found.known else "new"] += 1
                todo.append((found, numbers))
        pages = sum(len(numbers) for _, numbers in todo)
        seconds, size, basis = self._cost(todo, indexed_pages, indexed_bytes) if pages else (0.0, 0.0, "nothing to do")
        unseen = [failure.path for failure in failed if failure.path.is_dir()]
        lost, _ = gone(self._parts.manifest, paths, unseen=unseen, left=planner.left) if sync else ([], [])
        return IngestPlan(
            **counts,
            removed=len(lost),
            pages=pages,
            seconds=seconds * pages,
            bytes=round(size * pages),
            basis=basis,
            failed=tuple(failed),
            skipped=tuple(skipped),
        )

    def _pages_of(self, work: Work, planner: Planner) -> list[int]:
        """The pages that would be rendered."""
        stored = planner.stored_pages(work)
        with as_pdf(work.source, self._settings) as source, open_isolated(source, self._settings) as document:
            return [number for number in range(1, document.page_count + 1) if number not in stored]

    def _cost(
        self, todo: Sequence[tuple[Work, list[int]]], indexed_pages: int, indexed_bytes: int
    ) -> tuple[float, float, str]:
        """Seconds and bytes a page, and what that was taken from."""
        pages, seconds = self._parts.manifest.settings().get(RATE, (0, 0.0))
        if pages >= _HISTORY and indexed_pages >= _HISTORY:
            basis = f"from the {pages} pages of earlier runs of this index"
            return seconds / pages, indexed_bytes / indexed_pages, basis
        return self._sampled(todo)

    def _sampled(self, todo: Sequence[tuple[Work, list[int]]]) -> tuple[float, float, str]:
        """Render and embed a few pages from all over the documents, into a folder that is thrown away."""
        every = [(work, number) for work, numbers in todo for number in numbers]
        step = max(1, len(every) // SAMPLE)
        chosen = every[step // 2 :: step][:SAMPLE]
        sources = []
        for work, numbers in todo:
            mine = {number for other, number in chosen if other is work}
            if mine:
                # All but these; those that are stored already are among them, or are left out anyway.
                done = frozenset(range(1, max(numbers) + 1)) - mine
                sources.append((replace(work.source, done=done), work.record))
        embedder = self._embedder()
        with tempfile.TemporaryDirectory(prefix="jina-rag-") as scratch:
            images = ImageFiles(scratch)
            maker = PointMaker(
                embedder, images, dim=self._dim, quality=self._settings.jpeg_quality, storage=self._storage
            )
            records: dict[Path, DocumentRecord] = {source.path: record for source, record in sources}
            maker.encode(["warm up"])
            started = time.monotonic()
            sampled, size = 0, 0
            with closing(read_pages([source for source, _ in sources], self._settings)) as events:
                for event in events:
                    if isinstance(event, Page):
                        vectors = maker.encode([maker.input_of(event)])[0]
                        made = maker.make([records[event.path]], [(event, vectors)], {})
                        size += sum(schema.size_of(point) for point, _ in made)
                        sampled += 1
            seconds = time.monotonic() - started
            size += sum(images.path(name).stat().st_size for name in images.names())
        if not sampled:
            return 0.0, 0.0, "none of the pages that were tried could be read"
        return seconds / sampled, size / sampled, f"from {sampled} of these pages, rendered and embedded for it"
