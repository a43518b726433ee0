"""Indexing of texts, images and pages that the caller passes as values (`DocumentIndex.add`).

Entries are written in the same order as the documents of an ingestion (see `jina_rag.catalog.manifest`). If a call
is interrupted, searches return only complete entries, and the next change of the index deletes incomplete entries. An
entry that was to replace an earlier one keeps the earlier content.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from jina_rag.catalog.maintenance import drop_points, reconcile
from jina_rag.catalog.manifest import DocumentRecord
from jina_rag.config import IngestSettings
from jina_rag.errors import InvalidInputError
from jina_rag.indexing.add_inputs import EntryInput
from jina_rag.indexing.page_files import open_page, sidecar_of
from jina_rag.indexing.point_builder import (
    BuiltPoint,
    EncodedPage,
    IndexTarget,
    PagePoints,
    PointBuilder,
    place_points,
)
from jina_rag.parsing.pages import DocumentStart, read_pages
from jina_rag.parsing.sources import SourceFile, source_file
from jina_rag.protocols import Input
from jina_rag.stores import schema
from jina_rag.stores.disk_space import check_space
from jina_rag.types import Embeddings, Failure, Page, Word

BATCH_SIZE = 65_536
"""Maximum size of the entries that are read and embedded in one batch, in characters of text. The size limits the
memory of a call: 16 images, or 100 texts of 400 characters."""
_IMAGE_SIZE = 4096  # characters: an image has about as many token vectors as a text of this length
_TEXT_SIZE = 256  # characters added for the payload and the vectors of a short text
_NO_BOX = (float("nan"), float("nan"), float("nan"), float("nan"))

_MAX_PAGES = 16
"""Number of pages of image entries that are embedded in one batch. An entry with more pages forms a batch of its own.
A tall or wide image has several pages, so the size of a batch is not known before the images are read."""

Content: TypeAlias = "str | list[Page]"
"""Content of an entry after reading: a text or the pages of an image."""


class EntryWriter:
    """Writes the entries of one `DocumentIndex.add` call, within `jina_rag.catalog.maintenance.write_session`.

    Each batch is written in four steps, and each step is on the disk before the next one:

    1. One transaction of the manifest records the entries as incomplete, while the entries are embedded. SQLite syncs
       its journal and its file. After a crash, the next change of the index deletes what incomplete entries left.
    2. The images are written.
    3. The store writes all points in one call for every 16 MB of points, and is flushed (see `EdgeStore.flush`; a
       Qdrant server writes its own log).
    4. One transaction of the manifest records the points, and marks the entries as complete.

    After `run`, the entries therefore survive a killed process and a power failure.
    """

    def __init__(self, target: IndexTarget, *, vectors: Embeddings | None = None) -> None:
        self._target = target
        self._resources = target.resources
        self._manifest = target.resources.manifest
        self._settings = IngestSettings()
        self._vectors = vectors

    def run(self, entries: Sequence[EntryInput]) -> None:
        """Index new and changed entries, and update the metadata of entries with unchanged content.

        Args:
            entries: The validated entries, with unique ids.

        Raises:
            InvalidInputError: If an id belongs to an ingested file, or an image cannot be read. All entries before an
                unreadable image are added to the index.
            IndexStateError: If the index cannot be written.
        """
        new_entries: list[EntryInput] = []
        updated_records: list[DocumentRecord] = []
        for entry in entries:
            record = entry.record
            indexed = self._manifest.document(record.doc_id)
            if indexed is not None and not indexed.added:
                raise InvalidInputError(
                    f"The id {record.doc_id!r} belongs to the ingested file {indexed.path}. Choose another id."
                )
            if not self._manifest.is_complete(record.sha256):
                new_entries.append(entry)
            elif indexed is None or not indexed.is_complete or _requested_state(indexed) != _requested_state(record):
                updated_records.append(record)
        if updated_records:
            with self._manifest.transaction():
                for record in updated_records:
                    self._manifest.put_document(record)
        if not new_entries:
            return
        builder = self._target.builder(self._settings)
        for batch in schema.batches_by_size(new_entries, _size, BATCH_SIZE):
            self._write(batch, builder)

    def _write(self, entries: Sequence[EntryInput], builder: PointBuilder) -> None:
        """Read, embed and store a batch of entries. Stop at the first entry that cannot be read and raise the error."""
        contents: list[tuple[EntryInput, Content]] = []
        pages = 0
        for entry in entries:
            try:
                content = self._read(entry)
            except InvalidInputError:
                if contents:
                    self._store(contents, builder)
                reconcile(self._resources)
                raise
            contents.append((entry, content))
            pages += 1 if isinstance(content, str) else len(content)
            if pages >= _MAX_PAGES and not isinstance(content, str):
                self._store(contents, builder)
                contents, pages = [], 0
        if contents:
            self._store(contents, builder)

    def _store(self, contents: Sequence[tuple[EntryInput, Content]], builder: PointBuilder) -> None:
        """Embed and store entries."""
        with self._begin_meanwhile([entry.record for entry, _ in contents]):
            built, pages = self._build(contents, builder)
            points = [point for _, pairs, _ in built for point, _ in pairs]
            check_space(self._resources.images.folder.parent, sum(map(schema.point_bytes, points)))
        builder.write_images(pages)
        for batch in schema.batches(points):
            self._resources.store.upsert(batch)
        self._resources.store.flush()
        with self._manifest.transaction():
            for record, pairs, warnings in built:
                drop_points(self._resources, self._manifest.add_points(record.sha256, [item for _, item in pairs]))
                self._manifest.finish(record, warnings=warnings)

    @contextmanager
    def _begin_meanwhile(self, records: Sequence[DocumentRecord]) -> Iterator[None]:
        """Record the entries as incomplete, in another thread, while the caller embeds the entries.

        The sync of the manifest thus takes no time of its own. If the caller fails, the records are removed.
        """

        def begin() -> None:
            with self._manifest.transaction():
                for record in records:
                    self._manifest.begin(record)

        with ThreadPoolExecutor(1, thread_name_prefix="jina-rag-add") as thread:
            begun = thread.submit(begin)
            try:
                yield
            except BaseException:
                if begun.exception() is None:
                    with self._manifest.transaction():
                        for record in records:
                            self._manifest.abandon(record)
                    reconcile(self._resources)
                raise
            begun.result()

    def _build(
        self, contents: Sequence[tuple[EntryInput, Content]], builder: PointBuilder
    ) -> tuple[list[tuple[DocumentRecord, list[BuiltPoint], list[Failure]]], list[PagePoints]]:
        """Embed the entries; return record, points and warnings of each entry, and the points of all pages."""
        built: list[tuple[DocumentRecord, list[BuiltPoint], list[Failure]]] = []
        all_pages: list[PagePoints] = []
        encoded = iter(self._encode(contents, builder))
        for entry, content in contents:
            record, notes = entry.record, []
            if isinstance(content, str):
                pairs = [builder.build_text(record, content, next(encoded))]
                notes.append((1, builder.notes.pop(pairs[0][0].id, "")))
            else:
                pages = builder.encoded_points([(record.sha256, page, next(encoded)) for page in content])
                all_pages += pages
                pairs = place_points([record], pages, {})
                notes += [(page.page.number, note) for page in pages for note in (*page.page.warnings, page.note)]
            built.append((record, pairs, [Failure(record.path, note, number) for number, note in notes if note]))
        return built, all_pages

    def _encode(self, contents: Sequence[tuple[EntryInput, Content]], builder: PointBuilder) -> list[EncodedPage]:
        """Return the embeddings of each text and each page, in order."""
        if self._vectors is None:
            inputs: list[Input] = []
            for _, item in contents:
                inputs += [{"text": item}] if isinstance(item, str) else item
            return builder.encode(inputs)
        single, multi = self._vectors.require_single(), self._vectors.require_multi()
        grids = self._vectors.grids or [None] * len(multi)
        positions = [(entry.position, content) for entry, content in contents]
        return [EncodedPage(single[i], multi[i], None if isinstance(item, str) else grids[i]) for i, item in positions]

    def _read(self, entry: EntryInput) -> Content:
        content, doc_id = entry.content, entry.record.doc_id
        if isinstance(content, str):
            return content
        if isinstance(content, Path) and entry.words is None and sidecar_of(content).is_file():
            content = open_page(content)
        if isinstance(content, Page):
            # An added page is the only page of its entry, but keeps its number in the document.
            return [replace(content, doc_id=doc_id)]
        with _as_file(content) as path:
            pages = self._pages(path, entry)
        path = content if isinstance(content, Path) else entry.record.path
        pages = [replace(page, doc_id=doc_id, path=path) for page in pages]
        if entry.words is None:
            return pages
        return [replace(pages[0], words=tuple(Word(word, _NO_BOX) for word in entry.words.split()))]

    def _pages(self, path: Path, entry: EntryInput) -> list[Page]:
        """Read an image file in the same way as an ingestion, and return the pages of the file.

        The text or the vectors that the caller passed belong to the whole image, so a tall or wide image is then not
        divided.
        """
        doc_id = entry.record.doc_id
        try:
            source = source_file(path)
        except InvalidInputError as exc:
            raise InvalidInputError(
                f"The image format of {doc_id!r} is not supported. Convert the image to PNG or JPEG."
            ) from exc
        settings = self._settings if entry.words is None else replace(self._settings, ocr="never")
        source = replace(source, revision=entry.record.sha256)
        is_single = entry.words is not None or self._vectors is not None
        pages = self._read_pages(source, settings, doc_id, limit=1 if is_single or source.kind != "image" else None)
        if len(pages) != 1 and is_single and source.kind == "image":
            # No side of an image of at most `max_pixels` is longer.
            settings = replace(settings, max_image_side=settings.limits.max_pixels)
            pages = self._read_pages(source, settings, doc_id, limit=1)
        if len(pages) == 1 or (pages and not is_single and source.kind == "image"):
            return pages
        raise InvalidInputError(
            f"The file of {doc_id!r} has more than one page. Ingest the file, or add each page of load_pages(path)."
        )

    def _read_pages(
        self, source: SourceFile, settings: IngestSettings, doc_id: str, *, limit: int | None
    ) -> list[Page]:
        """Return the pages of a file; an empty list for a file of more than `limit` pages."""
        pages: list[Page] = []
        with closing(read_pages([source], settings, ocr_cache=self._resources.ocr)) as events:
            for event in events:
                if isinstance(event, DocumentStart) and limit is not None and event.count > limit:
                    return []
                if isinstance(event, Failure):
                    raise InvalidInputError(f"The image of {doc_id!r} cannot be read: {event.reason}")
                if isinstance(event, Page):
                    pages.append(event)
        return pages


@contextmanager
def _as_file(content: Path | bytes) -> Iterator[Path]:
    """Yield the path of a file with the image, because the worker processes of the parser read files only."""
    if isinstance(content, Path):
        yield content
        return
    with tempfile.TemporaryDirectory(prefix="jina-rag-") as folder:
        path = Path(folder) / "picture"
        path.write_bytes(content)
        yield path


def _size(entry: EntryInput) -> int:
    return len(entry.content) + _TEXT_SIZE if isinstance(entry.content, str) else _IMAGE_SIZE


def _requested_state(record: DocumentRecord) -> tuple[object, ...]:
    """Return the fields of a record that the caller of `add` sets."""
    return record.path, record.sha256, record.mtime_ns, record.metadata, record.own_metadata
