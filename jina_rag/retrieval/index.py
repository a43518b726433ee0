"""The front door: an index of page screenshots in a folder, to fill, search, explain and tend."""

from __future__ import annotations

import fnmatch
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self

from jina_rag.config import IngestSettings
from jina_rag.errors import IndexStateError, InvalidInputError
from jina_rag.protocols import Embedder
from jina_rag.retrieval.explain import Explanation
from jina_rag.retrieval.handles import IMAGES, MANIFEST, VECTORS, Handle, check_model, open_handle
from jina_rag.retrieval.manifest import DocumentRecord
from jina_rag.retrieval.search import Searcher
from jina_rag.types import IngestReport, ScoredPage, Where

if TYPE_CHECKING:
    from jina_rag.retrieval.ingest import IngestProgress
    from jina_rag.retrieval.plan import Metadata


@dataclass(frozen=True, slots=True)
class IndexStats:
    """What an index holds.

    Attributes:
        location: The folder.
        documents: Completely indexed documents.
        pages: Their pages.
        regions: Charts, tables and figures on them.
        pending: Documents whose indexing was interrupted; the next ingest finishes them.
        embedder: Name of the model.
        fingerprint: What the model's vectors depend on.
        version: Of jina_rag that made the index.
        bytes: Bytes on disk by part: vectors, images, manifest.
    """

    location: Path
    documents: int
    pages: int
    regions: int
    pending: int
    embedder: str
    fingerprint: str
    version: str
    bytes: Mapping[str, int] = field(default_factory=dict)


class DocumentIndex:
    """An index of page screenshots.

        with DocumentIndex.open("kb/") as index:
            index.ingest(["docs/"])
            for hit in index.search("Which region grew fastest?", k=5):
                print(hit.path, hit.page, hit.score)

    Made by `open`. Safe to use from several threads; one thread ingests at a time. The folder belongs to one
    process at a time, and within a process all handles on it share one store.
    """

    _open: ClassVar[dict[Path, Handle]] = {}
    _open_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, shared: Handle, embedder: str | Embedder | None) -> None:
        self._shared: Handle | None = shared
        self._loading = threading.Lock()
        self._embedder = None if isinstance(embedder, str) else embedder
        self._searcher: Searcher | None = None

    @classmethod
    def open(
        cls,
        location: str | os.PathLike[str],
        *,
        embedder: str | os.PathLike[str] | Embedder | None = None,
        create: bool = True,
    ) -> Self:
        """Open the index at `location`, or make a new one there.

        Args:
            location: A folder. It is made readable by its owner only: it holds readable pages.
            embedder: Name or folder of a model, or an embedder; None for the one the index was built with,
                and ``"lite"`` for a new index.
            create: Whether to make an index where there is none.

        Raises:
            IndexNotFoundError: If there is none and `create` is False.
            IndexLockedError: If another process has it open.
            IndexMismatchError: If it was built with another model than `embedder`.
            InvalidInputError: If `location` is a URL or a file.
        """
        if isinstance(embedder, os.PathLike):
            embedder = os.fspath(embedder)
        if "://" in os.fspath(location):
            raise InvalidInputError(
                f"{os.fspath(location)}: this version keeps indexes in folders; a Qdrant server comes with a later one."
            )
        root = Path(os.path.abspath(location))
        with cls._open_lock:
            key = Path(os.path.realpath(root))
            shared = cls._open.get(key)
            if shared is not None:
                check_model(embedder, shared)
            else:
                shared = cls._open[key] = open_handle(root, embedder, create=create)
            shared.users += 1
            return cls(shared, embedder)

    # -- the model -----------------------------------------------------------------------------------------

    @property
    def embedder(self) -> Embedder:
        """The model, loaded when it is first needed."""
        with self._loading:
            if self._embedder is None:
                self._embedder = self._alive.embedder()
            return self._embedder

    # -- filling and searching -----------------------------------------------------------------------------

    def ingest(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        metadata: Metadata | None = None,
        settings: IngestSettings | None = None,
        progress: Callable[[IngestProgress], None] | None = None,
    ) -> IngestReport:
        """Index what is new or changed among files and folders; what is known and unchanged is left alone.

        A file or page that cannot be read is reported and the rest goes on. Ctrl-C stops the run and leaves an
        index that can be searched; the same call again goes on from there.

        Args:
            paths: Files and folders.
            metadata: For every document, or a function from its path to its metadata; JSON values. Search can
                filter by it.
            settings: How pages are rendered and read.
            progress: Called now and then with how far the run has come.

        Raises:
            InvalidInputError: If a path does not exist.
            IndexStateError: If the index cannot be written.
        """
        # Imported here: a search has no use for what reads documents, and should not wait for it.
        from jina_rag.retrieval.ingest import Ingestion

        shared = self._alive
        several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        with shared.writing:
            run = Ingestion(
                store=shared.store,
                manifest=shared.manifest,
                images=shared.images,
                embedder=lambda: self.embedder,
                dim=shared.settings["dim"],
                settings=settings or IngestSettings(),
                metadata=metadata,
                progress=progress,
            )
            return run.run(several, exclude=[shared.root])

    def search(
        self,
        question: str,
        *,
        k: int = 5,
        filter: Where | None = None,  # the word users look for
        details: bool = True,
    ) -> list[ScoredPage]:
        """Rank pages for a question.

        Args:
            question: In any language the model knows.
            k: How many pages to return at most.
            filter: Key → value, or values of which one must match: ``path`` (a glob such as ``reports/*.pdf``),
                ``doc_id``, ``page``, or any key of the documents' metadata.
            details: Whether to look for the best region and snippet of each hit.

        Raises:
            InvalidInputError: If the question is empty, `k` is below 1, or the filter makes no sense.
        """
        if k < 1:
            raise InvalidInputError(f"k is {k}; it must be at least 1.")
        return self._search.search(question, k=k, where=filter, details=details)

    def explain(self, question: str, hit: ScoredPage) -> Explanation:
        """Where on a page the answer stands, from the vectors that ranked it.

        Args:
            question: As it was asked.
            hit: A page, as `search` returned it.

        Raises:
            IndexStateError: If the page is not in the index any more.
        """
        return self._search.explain(question, hit)

    @property
    def _search(self) -> Searcher:
        shared = self._alive
        embedder = self.embedder
        if self._searcher is None:
            self._searcher = Searcher(
                store=shared.store,
                manifest=shared.manifest,
                images=shared.images,
                embedder=embedder,
                dim=shared.settings["dim"],
            )
        return self._searcher

    # -- tending -------------------------------------------------------------------------------------------

    def documents(self) -> list[DocumentRecord]:
        """Every document, by id; those whose indexing was interrupted have ``done`` False."""
        return self._alive.manifest.documents()

    def delete(self, document: str | os.PathLike[str]) -> int:
        """Remove documents, their vectors and their images.

        Args:
            document: A document's id, its file (which need not exist any more), a folder of files, or a glob
                over ids such as ``reports/2023-*``.

        Returns:
            How many documents were removed.
        """
        from jina_rag.retrieval.ingest import drop_parts

        shared = self._alive
        with shared.writing:
            chosen = _matching(shared.manifest.documents(), os.fspath(document))
            for record in chosen:
                parts = shared.manifest.forget(record.doc_id)
                drop_parts(parts, store=shared.store, manifest=shared.manifest, images=shared.images)
            if chosen:
                shared.store.flush()
            return len(chosen)

    def stats(self) -> IndexStats:
        """What the index holds and what it weighs."""
        shared = self._alive
        settings = shared.settings
        return IndexStats(
            location=shared.root,
            **shared.manifest.totals(),
            pending=len(shared.manifest.pending()),
            embedder=settings["embedder"],
            fingerprint=settings["fingerprint"],
            version=settings["version"],
            bytes={name: _size(shared.root / name) for name in (VECTORS, IMAGES, MANIFEST)},
        )

    @property
    def location(self) -> Path:
        """The folder of the index."""
        return self._alive.root

    # -- life ----------------------------------------------------------------------------------------------

    @property
    def _alive(self) -> Handle:
        if self._shared is None:
            raise IndexStateError("This index was closed: open it again with DocumentIndex.open.")
        return self._shared

    def close(self) -> None:
        """Release the index; the last handle on a folder closes its store. Closing twice is fine."""
        with self._open_lock:
            shared, self._shared = self._shared, None
            if shared is None:
                return
            shared.users -= 1
            if shared.users == 0:
                self._open.pop(Path(os.path.realpath(shared.root)), None)
                shared.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._shared is None:
            return "DocumentIndex(closed)"
        return f"DocumentIndex({str(self._shared.root)!r}, embedder={self._shared.settings['embedder']!r})"


def _matching(records: Sequence[DocumentRecord], pattern: str) -> list[DocumentRecord]:
    """Documents called by id, by file, by folder, or by a glob over ids."""
    exact = [record for record in records if record.doc_id == pattern]
    if exact:
        return exact
    path = Path(os.path.abspath(pattern))
    placed = [record for record in records if record.path == path or path in record.path.parents]
    return placed or [record for record in records if fnmatch.fnmatchcase(record.doc_id, pattern)]


def _size(path: Path) -> int:
    """Bytes on disk; the engine's files are sparse, so that their lengths would tell far too much."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(_allocated(file.stat()) for file in files)


def _allocated(status: os.stat_result) -> int:
    blocks: int | None = getattr(status, "st_blocks", None)  # Windows has none
    return status.st_size if blocks is None else min(status.st_size, blocks * 512)
