"""Dry run of an ingestion: counts the files and pages to index and estimates time and disk space, without changes."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from jina_rag.catalog.manifest import RATE
from jina_rag.catalog.missing_files import missing_documents
from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError
from jina_rag.indexing.planner import IndexTask, Metadata, Planner
from jina_rag.indexing.point_builder import IndexTarget, place_points
from jina_rag.parsing.attachments import extracted
from jina_rag.parsing.office import as_pdf
from jina_rag.parsing.pages import read_pages
from jina_rag.parsing.sources import Skipped, find_sources
from jina_rag.parsing.workers.cancellation import Stop, call_in_thread
from jina_rag.parsing.workers.pool import open_isolated
from jina_rag.stores import schema
from jina_rag.stores.images import ImageFiles
from jina_rag.types import Failure, Page

SAMPLE_PAGES = 6
"""Number of sample pages that are rendered and embedded for the estimate if too few earlier pages were measured."""
_MIN_HISTORY_PAGES = 50


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """Result of a dry run of `DocumentIndex.ingest`.

    Attributes:
        new: Number of documents that are not in the index.
        changed: Number of documents whose file has new content.
        force: Number of unchanged documents that would be re-indexed.
        unchanged: Number of unchanged documents, including moved documents.
        moved: Number of unchanged documents whose file was renamed or moved.
        duplicates: Number of files with the same bytes as another file.
        removed: Number of documents that would be deleted because the file no longer exists (only with `sync`).
        pages: Number of pages that would be rendered and embedded.
        seconds: Estimated duration in seconds.
        bytes: Estimated disk space in bytes.
        basis: Source of the estimates as a phrase, for example ``"from 6 sample pages of these documents"``.
        failed: Files that could not be indexed, with the reason.
        skipped: Files that would be skipped, with the reason.
        interrupted: Whether the dry run was stopped. If so, the counts exclude the files that were not checked.
        warnings: Metadata that would not be stored, and attachments that would not be read, with the reason.
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
    interrupted: bool = False
    warnings: tuple[Failure, ...] = ()


class DryRun:
    """Plans ingestions into one index without changing the index."""

    def __init__(self, target: IndexTarget, settings: IngestSettings, *, stop: threading.Event | None = None) -> None:
        self._target = target
        self._resources = target.resources
        self._settings = settings
        self._stop = stop or threading.Event()

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
        """Return the plan of an ingestion (see `DocumentIndex.ingest`, argument `dry_run`).

        Args:
            paths: Files, folders and globs.
            metadata: See `DocumentIndex.ingest`.
            sync: See `DocumentIndex.ingest`.
            force: See `DocumentIndex.ingest`.
            exclude: Files and folders to skip.
            indexed_pages: Number of pages in the index.
            indexed_bytes: Size of the index in bytes.
        """
        planner = Planner(
            self._resources.manifest,
            self._resources.store,
            metadata=metadata,
            settings=self._settings,
            force=force,
            check=self._check,
        )
        tasks: list[tuple[IndexTask, list[int]]] = []
        failed: list[Failure] = []
        skipped: list[Failure] = []
        warnings: list[Failure] = []
        counts = dict.fromkeys(("new", "changed", "force", "unchanged", "moved", "duplicates", "removed"), 0)
        seconds, size, basis, interrupted = 0.0, 0.0, "nothing to do", False
        try:
            follow_links = self._settings.follow_links
            sources = find_sources(paths, exclude=exclude, follow_links=follow_links, check=self._check)
            for item in planner.plan(sources):
                if isinstance(item, Skipped):
                    skipped.append(Failure(item.path, item.reason))
                elif isinstance(item, Failure):
                    failed.append(item)
                elif isinstance(item, IndexTask):
                    record = planner.with_metadata(item.source.path, item.record)
                    try:
                        tasks.append((replace(item, record=record), self._pages_to_render(item, planner)))
                    except DocumentError as error:
                        failed.append(Failure(item.source.path, str(error)))
                        continue
                    warnings += [Failure(item.source.path, warning) for warning in item.source.warnings]
                    counts["changed" if item.previous else "force" if item.force else "new"] += 1
                else:
                    planner.with_metadata(item.path, item.record)
                    counts["duplicates" if item.how == "duplicate" else "unchanged"] += 1
                    counts["moved"] += item.how == "moved"
            if any(numbers for _, numbers in tasks):
                seconds, size, basis = self._cost(tasks, indexed_pages, indexed_bytes)
            if sync:
                unlisted = [failure.path for failure in failed if failure.path.is_dir()]
                missing, _ = missing_documents(
                    self._resources.manifest, paths, unlisted=unlisted, moved_ids=planner.moved_ids, check=self._check
                )
                counts["removed"] = len(missing)
        except _StoppedError:
            interrupted = True
        pages = sum(len(numbers) for _, numbers in tasks)
        return IngestPlan(
            **counts,
            pages=pages,
            seconds=seconds * pages,
            bytes=round(size * pages),
            basis=basis,
            failed=tuple(failed),
            skipped=tuple(skipped),
            interrupted=interrupted,
            warnings=tuple(planner.warnings + warnings),
        )

    def _check(self) -> None:
        if self._stop.is_set():
            raise _StoppedError

    def _pages_to_render(self, task: IndexTask, planner: Planner) -> list[int]:
        stored = planner.stored_pages(task)
        settings, stop = self._settings, Stop()

        def count_pages() -> int:
            with (
                extracted(task.source, settings, stop) as (file, file_settings),
                as_pdf(file, file_settings, stop) as source,
                open_isolated(source, file_settings, stop) as document,
            ):
                return document.page_count

        try:
            page_count = call_in_thread(count_pages, self._check)
        finally:
            stop.set()
        return [number for number in range(1, page_count + 1) if number not in stored]

    def _cost(
        self, tasks: Sequence[tuple[IndexTask, list[int]]], indexed_pages: int, indexed_bytes: int
    ) -> tuple[float, float, str]:
        """Return the estimated seconds per page and bytes per page, and the source of the estimate as a phrase."""
        pages, seconds = self._resources.manifest.settings().get(RATE, (0, 0.0))
        if pages >= _MIN_HISTORY_PAGES and indexed_pages >= _MIN_HISTORY_PAGES:
            basis = f"from {pages} pages of earlier runs on this index"
            return seconds / pages, indexed_bytes / indexed_pages, basis
        return self._sample(tasks)

    def _sample(self, tasks: Sequence[tuple[IndexTask, list[int]]]) -> tuple[float, float, str]:
        """Measure the cost per page, as returned by `_cost`, on a few pages that are spread over all documents."""
        pages = [(task, number) for task, numbers in tasks for number in numbers]
        step = max(1, len(pages) // SAMPLE_PAGES)
        sample = pages[step // 2 :: step][:SAMPLE_PAGES]
        sources, records = [], {}
        for task, numbers in tasks:
            sampled_numbers = {number for other, number in sample if other is task}
            if sampled_numbers:
                # All pages outside the sample are skipped, including the pages that an interrupted run has stored.
                sources.append(replace(task.source, skip_pages=frozenset(range(1, max(numbers) + 1)) - sampled_numbers))
                records[task.source.path] = task.record
        with tempfile.TemporaryDirectory(prefix="jina-rag-") as scratch:
            images = ImageFiles(scratch)
            builder = self._target.builder(self._settings, images=images, check=self._check)
            builder.encode(["warm up"])
            start_time = time.monotonic()
            count, size = 0, 0
            with closing(read_pages(sources, self._settings, check=self._check, prepare=True)) as events:
                for event in events:
                    self._check()
                    if isinstance(event, Page):
                        record = records[event.path]
                        page_points = builder.page_points([(record.sha256, event)])
                        builder.write_images(page_points)
                        points = place_points([record], page_points, {})
                        size += sum(schema.point_bytes(point) for point, _ in points)
                        count += 1
            seconds = time.monotonic() - start_time
            size += sum(images.path(name).stat().st_size for name in images.names())
        if not count:
            return 0.0, 0.0, "from no page, because no sample page is readable"
        return seconds / count, size / count, f"from {count} sample pages of these documents"


class _StoppedError(Exception):
    """Ends the dry run after a stop request. The plan then covers only the files checked so far."""
