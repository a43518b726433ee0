"""The front door: an index of page screenshots in a folder or on a server, to fill, search, explain and tend."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from jina_rag.catalog.document_filter import chosen_by_filter, chosen_by_name, possible
from jina_rag.catalog.maintenance import Problem, settle, verify
from jina_rag.catalog.manifest import DocumentRecord
from jina_rag.config import IngestSettings, Storage
from jina_rag.errors import IndexMismatchError, IndexStateError, InvalidInputError
from jina_rag.index.entries import Entries
from jina_rag.index.session import Handle, check_model, check_storage, open_handle
from jina_rag.parsing.sources import path_list
from jina_rag.protocols import Embedder, Reranker
from jina_rag.types import IngestReport, Where

if TYPE_CHECKING:
    from jina_rag.indexing.dry_run import IngestPlan
    from jina_rag.indexing.ingest import IngestProgress
    from jina_rag.indexing.planner import Metadata


@dataclass(frozen=True, slots=True)
class IndexInfo:
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
        storage: How vectors are kept.
        bytes: Bytes on disk by part: the store's parts (``vectors: …``), images, manifest, ocr.
    """

    location: str
    documents: int
    pages: int
    regions: int
    pending: int
    embedder: str
    fingerprint: str
    version: str
    storage: str
    bytes: Mapping[str, int] = field(default_factory=dict)


class DocumentIndex(Entries):
    """An index of page screenshots.

        with DocumentIndex.open("kb/") as index:
            index.ingest(["docs/"])
            for hit in index.search("Which region grew fastest?", k=5):
                print(hit.path, hit.page, hit.score)

    Made by `open`. Safe to use from several threads; one thread ingests at a time. The folder belongs to one
    process at a time, and within a process all handles on it share one store.
    """

    _open: ClassVar[dict[str, Handle]] = {}
    _open_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, shared: Handle, embedder: str | Embedder | None) -> None:
        super().__init__(None if isinstance(embedder, str) else embedder)
        self._shared: Handle | None = shared
        self._asked: tuple[str, str | None] = ("", None)

    @classmethod
    def open(
        cls,
        location: str | os.PathLike[str],
        *,
        embedder: str | os.PathLike[str] | Embedder | None = None,
        reranker: str | os.PathLike[str] | Reranker | None = None,
        storage: str | Storage | None = None,
        create: bool = True,
        assets_dir: str | os.PathLike[str] | None = None,
        api_key: str | None = None,
    ) -> Self:
        """Open the index at `location`, or make a new one there.

        Args:
            location: A folder, which is made readable by its owner only: it holds readable pages. Or a collection
                of a Qdrant server, ``"http://host:6333/collection"``, where options may follow: ``?grpc=true``,
                ``timeout=120``, ``shards=3``, ``replicas=2``, ``ca=FILE`` (see `QdrantConnection`).
            embedder: Name or folder of a model, or an embedder; None for the one the index was built with,
                and ``"lite"`` for a new index.
            reranker: Name or folder of a model, or a reranker, that judges the best pages of each search; loaded when
                it is first needed. None for none. It is no part of the index, and each handle may have its own.
            storage: How a new index keeps its vectors: ``"exact"``, ``"balanced"``, ``"compact"``, or the knobs
                beneath; None for ``"exact"``, and for what an index that exists was made with.
            create: Whether to make an index where there is none.
            assets_dir: With a server: folder for the page images and the manifest, which a server does not keep; None
                for one of this user. Who only searches needs none, and gets hits without images.
            api_key: With a server; None for the environment variable QDRANT_API_KEY.

        Raises:
            IndexNotFoundError: If there is none and `create` is False.
            IndexLockedError: If another process has it open.
            IndexMismatchError: If it was built with another model than `embedder`, or another `storage`.
            InvalidInputError: If `location` is a file or an address that makes no sense.
            IndexStateError: If the server cannot be reached.
        """
        opened = cls._open_at(
            location, embedder=embedder, storage=storage, create=create, assets_dir=assets_dir, api_key=api_key
        )
        opened._reranker = os.fspath(reranker) if isinstance(reranker, os.PathLike) else reranker
        name = os.fspath(location)
        opened._asked = (
            name if "://" in name else os.path.abspath(name),
            None if assets_dir is None else os.path.abspath(assets_dir),
        )
        return opened

    @classmethod
    def _open_at(
        cls,
        location: str | os.PathLike[str],
        *,
        embedder: str | os.PathLike[str] | Embedder | None = None,
        storage: str | Storage | None = None,
        create: bool = True,
        assets_dir: str | os.PathLike[str] | None = None,
        api_key: str | None = None,
        template: Mapping[str, Any] | None = None,
    ) -> Self:
        """As `open`; a new index takes what it records about its model from `template`."""
        if isinstance(embedder, os.PathLike):
            embedder = os.fspath(embedder)
        name = os.fspath(location)
        remote = "://" in name
        if not remote and (assets_dir is not None or api_key is not None):
            raise InvalidInputError("assets_dir and api_key go with the address of a Qdrant server, not with a folder.")
        with cls._open_lock:
            key = name if remote else os.path.realpath(os.path.abspath(name))
            shared = cls._open.get(key)
            if shared is not None:
                check_model(embedder, shared)
                check_storage(storage, shared.storage, shared.location)
            elif remote:
                from jina_rag.index.qdrant_server import open_server

                shared = open_server(
                    name,
                    embedder,
                    create=create,
                    storage=storage,
                    assets_dir=None if assets_dir is None else Path(assets_dir),
                    api_key=api_key,
                    template=template,
                )
            else:
                shared = open_handle(
                    Path(os.path.abspath(name)), embedder, create=create, storage=storage, template=template
                )
            cls._open[key] = shared
            shared.users += 1
            return cls(shared, embedder)

    # -- filling -------------------------------------------------------------------------------------------

    def ingest(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        metadata: Metadata | None = None,
        settings: IngestSettings | None = None,
        progress: Callable[[IngestProgress], None] | None = None,
        sync: bool = False,
        force: bool = False,
        stop: threading.Event | None = None,
    ) -> IngestReport:
        """Index what is new or changed among files and folders; what is known and unchanged is left alone.

        A file that was moved is not embedded again, copies of a file are stored once and cited at all places, and a
        changed file's old pages are found until its new ones are complete. A file or page that cannot be read is
        reported and the rest goes on. Ctrl-C stops the run and leaves an index that can be searched; the same call
        again goes on from there.

        Args:
            paths: Files, folders, and globs such as ``reports/**/*.pdf``.
            metadata: For every document, or a function from its path to its metadata; JSON values. Search can
                filter by it. What stands in ``report.pdf.json`` or ``report.json`` is added to it.
            settings: How pages are rendered and read, and what that may cost.
            progress: Called now and then with how far the run has come.
            sync: Whether documents are removed whose file is gone from the given folders.
            force: Whether unchanged documents are read and embedded again, to try failed pages or new settings.
            stop: Ends the run as Ctrl-C does once another thread sets it.

        Raises:
            InvalidInputError: If a path does not exist.
            IndexStateError: If the index cannot be written.
        """
        # Imported here: a search has no use for what reads documents, and should not wait for it.
        from jina_rag.indexing.ingest import Ingestion

        shared = self._alive
        with shared.changing():
            run = Ingestion(
                parts=shared.parts,
                embedder=lambda: self.embedder,
                dim=shared.settings["dim"],
                storage=shared.storage,
                settings=settings or IngestSettings(),
                metadata=metadata,
                progress=progress,
                sync=sync,
                force=force,
                stop=stop,
            )
            return run.run(path_list(paths), exclude=[shared.root])

    async def aingest(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        **options: Any,  # noqa: ANN401  # those of ingest
    ) -> IngestReport:
        """As `ingest`, in a thread. Cancelling it stops the run as Ctrl-C does, and waits for that."""
        import asyncio

        from jina_rag.index.coroutines import in_thread

        stop = options.pop("stop", None) or threading.Event()
        work = asyncio.ensure_future(in_thread("ingest", self.ingest, paths, stop=stop, **options))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            stop.set()
            while not work.done():  # also where it is cancelled again meanwhile
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([work])
            work.exception()  # it has been looked at
            raise

    def plan(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        metadata: Metadata | None = None,
        settings: IngestSettings | None = None,
        sync: bool = False,
        force: bool = False,
    ) -> IngestPlan:
        """What `ingest` would do with the same arguments: files, pages, time and disk. Nothing is changed.

        Time and disk are estimated from earlier runs of this index, or else from a few pages that are rendered and
        embedded for it and thrown away.

        Raises:
            InvalidInputError: If a path does not exist.
        """
        from jina_rag.indexing.dry_run import Estimate

        shared = self._alive
        estimate = Estimate(
            parts=shared.parts,
            embedder=lambda: self.embedder,
            dim=shared.settings["dim"],
            storage=shared.storage,
            settings=settings or IngestSettings(),
        )
        index_info = self.info()
        return estimate.plan(
            path_list(paths),
            metadata=metadata,
            sync=sync,
            force=force,
            exclude=[shared.root],
            indexed_pages=index_info.pages,
            indexed_bytes=sum(index_info.bytes.values()),
        )

    # -- tending -------------------------------------------------------------------------------------------

    def documents(self) -> list[DocumentRecord]:
        """Every document, by id; those whose indexing was interrupted have ``done`` False."""
        return self._alive.manifest.documents()

    def delete(self, document: str | os.PathLike[str] | None = None, *, filter: Where | None = None) -> int:
        """Remove documents, their vectors and their images.

        Args:
            document: A document's id, its file (which need not exist any more), a folder of files, or a glob
                over ids such as ``reports/2023-*``.
            filter: As in `search`, by ``path``, ``doc_id`` or metadata: documents that match all of it.

        Returns:
            How many documents were removed.

        Raises:
            InvalidInputError: If neither is given, or the filter makes no sense.
        """
        if document is None and not filter:
            raise InvalidInputError("Say which documents to remove: an id, a file, a folder, a glob or a filter.")
        shared = self._alive
        with shared.changing():
            if document is None:
                chosen = possible(shared.manifest, filter or {})
            else:
                chosen = chosen_by_name(shared.manifest.documents(), os.fspath(document))
            if filter:
                chosen = chosen_by_filter(chosen, filter)
            for record in chosen:
                shared.manifest.forget(record.doc_id)
            settle(shared.parts)
            shared.store.flush()
            return len(chosen)

    def verify(self) -> list[Problem]:
        """Hold vectors, images and manifest against each other; nothing is changed.

        Returns:
            What is amiss and which documents to ingest again; empty for an index in order.
        """
        return verify(self._alive.parts)

    def copy(
        self,
        location: str | os.PathLike[str],
        *,
        assets_dir: str | os.PathLike[str] | None = None,
        api_key: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Copy this index to another place: a folder, or a Qdrant server for one that outgrew this machine.

        Points are streamed and requests filled by bytes. A copy that was stopped is gone on with by the same call;
        what the target has already is not sent again. Nothing is embedded.

        Args:
            location: As in `open`: a new place, or one that an interrupted copy of this index has begun.
            assets_dir: As in `open`.
            api_key: As in `open`.
            progress: Called with (points done, points in all).

        Returns:
            How many points were sent.

        Raises:
            IndexMismatchError: If the target holds an index of another model.
        """
        from jina_rag.catalog.migrate import copy_index

        shared = self._alive
        with DocumentIndex._open_at(
            location, assets_dir=assets_dir, api_key=api_key, storage=shared.storage, template=shared.settings
        ) as target:
            other = target._alive
            if other is shared:
                raise InvalidInputError(f"{shared.location} cannot be copied onto itself.")
            if other.settings["fingerprint"] != shared.settings["fingerprint"]:
                raise IndexMismatchError(
                    f"{other.location} was built with {other.settings['fingerprint']}, this index with "
                    f"{shared.settings['fingerprint']}: copy to a new place."
                )
            # In the same order whichever way is copied: two copies must not wait for each other.
            first, second = sorted((shared, other), key=lambda handle: handle.location)
            with first.changing(), second.changing():
                return copy_index(shared.parts, other.parts, progress=progress)

    def info(self) -> IndexInfo:
        """What the index holds and what it weighs."""
        shared = self._alive
        settings = shared.settings
        return IndexInfo(
            location=shared.location,
            **shared.manifest.totals(),
            pending=len(shared.manifest.pending()),
            embedder=settings["embedder"],
            fingerprint=settings["fingerprint"],
            version=settings["version"],
            storage=str(shared.storage),
            bytes=shared.bytes_by_part(),
        )

    @property
    def location(self) -> Path:
        """The folder of the index: its vectors, unless they are on a server, its images and its manifest."""
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
                for key in [key for key, handle in self._open.items() if handle is shared]:
                    del self._open[key]
                shared.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """As the place it lies at: whoever unpickles it opens it again, with the key of a server from the environment.

        Raises:
            InvalidInputError: If it has a reranker that is not known by its name.
        """
        if self._reranker is not None and not isinstance(self._reranker, str):
            raise InvalidInputError(
                "An index with a reranker that was loaded by hand cannot be pickled: open it with the reranker's name."
            )
        return _open_again, (*self._asked, self._reranker)

    def __repr__(self) -> str:
        if self._shared is None:
            return "DocumentIndex(closed)"
        return f"DocumentIndex({self._shared.location!r}, embedder={self._shared.settings['embedder']!r})"


def _open_again(location: str, assets_dir: str | None, reranker: str | None) -> DocumentIndex:
    return DocumentIndex.open(location, assets_dir=assets_dir, reranker=reranker, create=False)
