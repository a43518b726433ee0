"""Putting texts, pictures and pages into an index that lie in no ingested file.

Written in the order of an ingestion (see `manifest`): one that is killed leaves whole entries, and nothing that the
next change of the index does not clear away.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from jina_rag.catalog.maintenance import IndexResources, drop_parts, settle
from jina_rag.catalog.manifest import DocumentRecord, PointRecord
from jina_rag.config import IngestSettings, Storage
from jina_rag.errors import InvalidInputError
from jina_rag.indexing.add_inputs import Entry
from jina_rag.indexing.page_files import beside, open_page
from jina_rag.indexing.point_builder import Encoded, Made, PointMaker
from jina_rag.parsing.pages import read_pages
from jina_rag.parsing.sources import source_file
from jina_rag.protocols import Embedder, Input
from jina_rag.stores import schema
from jina_rag.stores.disk_space import check_space
from jina_rag.types import Embeddings, Failure, Page, TokenGrid, Word

BATCH = 16
"""Entries that are read and embedded together: memory stays flat however many there are."""
_NOWHERE = (float("nan"), float("nan"), float("nan"), float("nan"))

Read: TypeAlias = "str | Page"
"""An entry once it was read: a text, or a page."""


class Adding:
    """One call of `DocumentIndex.add`. Within `care.changing`."""

    def __init__(
        self,
        *,
        parts: IndexResources,
        embedder: Callable[[], Embedder],
        dim: int,
        storage: Storage,
        settings: IngestSettings | None = None,
        vectors: Embeddings | None = None,
    ) -> None:
        self._parts = parts
        self._manifest = parts.manifest
        self._load = embedder
        self._dim = dim
        self._storage = storage
        self._settings = settings or IngestSettings()
        self._vectors = vectors

    def run(self, entries: Sequence[Entry]) -> None:
        """Add what is new or changed.

        Raises:
            InvalidInputError: If an id is that of an ingested file, or a picture cannot be read; entries before it are
                in the index then.
            IndexStateError: If the index cannot be written.
        """
        todo: list[Entry] = []
        placed: list[DocumentRecord] = []
        for entry in entries:
            known = self._manifest.document(entry.record.doc_id)
            if known is not None and not known.added:
                raise InvalidInputError(
                    f"{entry.record.doc_id!r} is the id of a document that was read from {known.path}: choose another."
                )
            if not self._manifest.is_done(entry.record.sha256):
                todo.append(entry)
            elif known is None or not known.done or known != replace(entry.record, **_facts(known)):
                placed.append(entry.record)
        with self._manifest.together():
            for record in placed:
                self._manifest.place(record)
        if not todo:
            return
        maker = PointMaker(
            self._load(), self._parts.images, dim=self._dim, quality=self._settings.jpeg_quality, storage=self._storage
        )
        for start in range(0, len(todo), BATCH):
            self._batch(todo[start : start + BATCH], maker)
        settle(self._parts)

    def _batch(self, entries: Sequence[Entry], maker: PointMaker) -> None:
        read: list[tuple[Entry, Read]] = []
        problem: InvalidInputError | None = None
        for entry in entries:
            try:
                read.append((entry, self._read(entry)))
            except InvalidInputError as exc:
                problem = exc
                break
        made: list[tuple[Entry, list[Made], list[str]]] = []
        for (entry, content), encoded in zip(read, self._encoded(read, maker), strict=True):
            if isinstance(content, str):
                several, notes = [maker.make_text(entry.record, content, encoded)], []
            else:
                several, notes = maker.make([entry.record], [(content, encoded)], {}), list(content.warnings)
            if note := maker.notes.pop(several[-1][0].id, None):
                notes.append(note)
            made.append((entry, several, notes))
        points = [point for _, several, _ in made for point, _ in several]
        check_space(self._parts.images.folder.parent, sum(map(schema.size_of, points)))
        gone: list[PointRecord] = []
        with self._manifest.together():
            for entry, several, _ in made:
                self._manifest.begin(entry.record)
                gone += self._manifest.add_parts(entry.record.sha256, [part for _, part in several])
        drop_parts(self._parts, gone)
        for batch in schema.batches(points):
            self._parts.store.upsert(batch)
        self._parts.store.flush()
        with self._manifest.together():
            for entry, _, notes in made:
                warnings = [Failure(entry.record.path, note, 1) for note in notes]
                self._manifest.finish(entry.record, warnings=warnings)
        if problem is not None:
            settle(self._parts)
            raise problem

    def _encoded(self, read: Sequence[tuple[Entry, Read]], maker: PointMaker) -> list[Encoded]:
        if self._vectors is None:
            inputs: list[Input] = [{"text": item} if isinstance(item, str) else item for _, item in read]
            return maker.encode(inputs)
        given = self._vectors
        assert given.single is not None
        assert given.multi is not None
        grids: Sequence[TokenGrid | None] = given.grids or [None] * len(given.multi)
        return [
            Encoded(
                given.single[entry.place],
                given.multi[entry.place],
                None if isinstance(item, str) else grids[entry.place],
            )
            for entry, item in read
        ]

    # -- reading -------------------------------------------------------------------------------------------

    def _read(self, entry: Entry) -> Read:
        content = entry.content
        if isinstance(content, str):
            return content
        if isinstance(content, Path) and entry.words is None and beside(content).is_file():
            content = open_page(content)
        if isinstance(content, Page):
            return replace(content, doc_id=entry.record.doc_id)
        with _as_file(content) as path:
            page = self._page(path, entry)
        path = content if isinstance(content, Path) else entry.record.path
        page = replace(page, doc_id=entry.record.doc_id, path=path)
        if entry.words is None:
            return page
        return replace(page, words=tuple(Word(word, _NOWHERE) for word in entry.words.split()))

    def _page(self, path: Path, entry: Entry) -> Page:
        """The one page of a picture, by the way that files are read."""
        doc_id = entry.record.doc_id
        try:
            source = source_file(path)
        except InvalidInputError as exc:
            raise InvalidInputError(
                f"The picture of {doc_id!r} cannot be read: its content is no image of a known kind."
            ) from exc
        settings = self._settings if entry.words is None else replace(self._settings, ocr="never")
        source = replace(source, revision=entry.record.sha256)
        with closing(read_pages([source], settings, ocr_cache=self._parts.ocr)) as events:
            found = list(_first(events))
        pages = [event for event in found if isinstance(event, Page)]
        failed = [event for event in found if isinstance(event, Failure)]
        if failed:
            raise InvalidInputError(f"The picture of {doc_id!r} cannot be read: {failed[0].reason}")
        if len(pages) != 1:
            raise InvalidInputError(
                f"{doc_id!r} has more than one page: `ingest` its file, or add its pages one by one (load_pages)."
            )
        return pages[0]


def _first(events: Iterator[Any]) -> Iterator[Any]:
    """Events up to the second page: a document of a thousand is not read to its end only to be refused."""
    pages = 0
    for event in events:
        pages += isinstance(event, Page)
        yield event
        if pages > 1:
            return


@contextmanager
def _as_file(content: Path | bytes) -> Iterator[Path]:
    """A picture as a file, which is what workers read."""
    if isinstance(content, Path):
        yield content
        return
    with tempfile.TemporaryDirectory(prefix="jina-rag-") as folder:
        path = Path(folder) / "picture"
        path.write_bytes(content)
        yield path


def _facts(known: DocumentRecord) -> dict[str, Any]:
    """What the manifest adds to a record."""
    return {
        name: getattr(known, name) for name in ("size", "done", "pages", "regions", "failures", "warnings", "by_name")
    }
