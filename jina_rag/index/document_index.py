"""`DocumentIndex`, the interface to an index of page screenshots: ingestion, search, explanations and maintenance."""

from __future__ import annotations

import os
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypedDict, Unpack, overload

from jina_rag._forks import RenewedLock
from jina_rag.catalog.maintenance import Problem, delete_documents, verify
from jina_rag.catalog.manifest import DocumentRecord
from jina_rag.config import IngestSettings, Storage
from jina_rag.errors import IndexMismatchError, IndexStateError, InvalidInputError
from jina_rag.index.coroutines import coroutine_of
from jina_rag.index.models import IndexModels, absolute_folder, resolve_model
from jina_rag.index.page_lookup import dense_vectors, nearest_pages, pages_by_id
from jina_rag.index.registry import open_session
from jina_rag.index.session import IndexSession, OpenOptions, StoppedWaiting
from jina_rag.inputs import as_input_list
from jina_rag.models.runtime.device_names import DeviceNames, device_names
from jina_rag.protocols import Embedder, Input, Reranker
from jina_rag.search.results import SearchResults
from jina_rag.search.searcher import GroupBy, Searcher, SearchRequest
from jina_rag.search.stages import Stage, default_stages
from jina_rag.types import Embeddings, Float32, IngestReport, ScoredPage, Where

if TYPE_CHECKING:
    import threading

    from jina_rag.context.builder import Context
    from jina_rag.explain.citations import Citation
    from jina_rag.explain.explainer import Explainer
    from jina_rag.explain.explanation import Explanation
    from jina_rag.indexing.dry_run import IngestPlan
    from jina_rag.indexing.ingest import IngestProgress
    from jina_rag.indexing.planner import Metadata
    from jina_rag.indexing.point_builder import IndexTarget

_OPEN_ATTRIBUTES = ("_shared_session", "_opened_session", "_models", "_searcher_cache", "_arguments", "_lease")
"""Attributes of an open index. Other names, such as those that IPython looks up, do not open an unpickled index."""
Paths: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"


class IngestOptions(TypedDict, total=False):
    """Keyword arguments that both overloads of `DocumentIndex.ingest` accept.

    Attributes:
        metadata: JSON metadata for every document, or a function that returns the metadata for a path.
        settings: Rendering, OCR and resource limits.
        progress: Called with an `IngestProgress` as the run advances.
        sync: Whether to delete indexed documents whose files no longer exist under the ingested paths.
        force: Whether to re-read and re-embed unchanged documents.
        stop: Event that stops the run when another thread sets it.
    """

    metadata: Metadata | None
    settings: IngestSettings | None
    progress: Callable[[IngestProgress], None] | None
    sync: bool
    force: bool
    stop: threading.Event | None


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """Contents, model and disk usage of an index.

    Attributes:
        location: Folder of the index, or URL of the collection on a server.
        documents: Number of completely indexed documents.
        pages: Number of pages of completely indexed documents.
        regions: Number of charts, tables and figures in completely indexed documents.
        pending: Number of documents whose indexing was interrupted. The next call of `ingest` completes these
            documents.
        embedder: Name of the embedder.
        fingerprint: Fingerprint of the embedder: all settings and versions that determine the vectors.
        version: Version of jina_rag that created the index.
        storage: Name of the storage preset; for other storage settings, the settings that differ from the preset
            ``"exact"``.
        bytes: Name of a part of the index → number of bytes on disk. The parts are ``vectors: …`` for each part of the
            vector store, ``images``, ``manifest`` and ``ocr`` (the OCR cache).
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


class DocumentIndex:
    """An index of page screenshots, searched with text or image queries.

        with DocumentIndex.open("kb/") as index:
            index.ingest(["docs/"])
            for hit in index.search("Which region grew fastest?", k=5):
                print(hit.path, hit.page, hit.score)

    See `open` for how to create an instance. Instances are thread-safe; one thread at a time changes the index. Only
    one process at a time can open an index folder. Within a process, all instances on one folder share one vector
    store. The vector store closes when the last instance on the folder is closed or garbage-collected.

    In a forked child (`os.fork`, multiprocessing, Celery), an instance of the parent raises IndexStateError. The child
    can open the index after the parent has closed it, and an index on a Qdrant server at any time.

    Each coroutine (``asearch``, ``aingest``, …) runs the method without the prefix ``a`` in a thread, so that models
    never run on the event loop's thread. Concurrent calls return the results that sequential calls would return.
    Cancelling `aingest` stops the run as Ctrl-C does and waits until the run has stopped.
    """

    def __init__(self, location: str, options: OpenOptions, reranker: str | Reranker | None = None) -> None:
        self._shared_session, self._opened_session = open_session(location, options)
        self._models = IndexModels(self._opened_session, options.embedder, reranker, options.device)
        self._searcher_cache: Searcher | None = None
        self._arguments: dict[str, Any] = {
            "location": location if "://" in location else os.path.abspath(location),
            "assets_dir": options.assets_dir,
            "embedder": options.embedder,
            "reranker": reranker,
            "device": options.device,
        }
        # The finalizer does not run at interpreter exit, because other threads may still use the store.
        self._lease = weakref.finalize(self, self._shared_session.release, wait=False)
        self._lease.atexit = False

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
        device: DeviceNames = "auto",
    ) -> Self:
        """Open the index at `location`; create a missing index.

        Args:
            location: A folder, or the URL of a collection on a Qdrant server, ``"http://host:6333/collection"``. A new
                folder is readable only by the owner, because the index contains the text and images of all pages. The
                URL of a collection accepts options, for example ``?grpc=true&timeout=120&shards=3&replicas=2&ca=FILE``
                (see `QdrantConnection`).
            embedder: Model name, model folder or embedder. Default: the embedder that the index was built with, and
                ``"lite"`` for a new index.
            reranker: Model name, model folder or reranker that scores the best pages of each search; loaded on first
                use. The index does not record the reranker: each instance can have a different reranker. Default: no
                reranker.
            storage: Storage preset of a new index, ``"exact"``, ``"balanced"`` or ``"compact"``, or a `Storage`.
                Default: ``"exact"`` for a new index, the recorded storage for an existing index.
            create: Whether to create the index if it does not exist.
            assets_dir: For a server: folder of the page images and the manifest, which the server does not store.
                Default: a folder in the current user's data directory. A search does not require the assets folder, but
                without the folder, `ScoredPage.image_path` is the path of a missing file.
            api_key: For a server: API key. Default: the environment variable QDRANT_API_KEY.
            device: Device or devices of the models that are loaded by name, as in `jina_rag.load_embedder`, for example
                ``"cuda"`` or ``["cuda:0", "cuda:1"]``. Default: CUDA, else MPS, else the CPU. The ``lite`` rerankers
                always run on the CPU.

        Returns:
            The open index.

        Raises:
            IndexNotFoundError: If `location` has no index and `create` is False.
            IndexLockedError: If another process has the index open.
            IndexMismatchError: If the index was built with a different `embedder` or `storage`.
            IndexCorruptError: If the index is damaged or incomplete.
            InvalidInputError: If `location` is a file or an invalid URL, or an argument is empty.
            IndexStateError: If the folder contains other files or cannot be created, the server is unreachable, or the
                index is already open in this process with other options.
            ModelNotFoundError: If the embedder of a new index does not exist or cannot be downloaded.
        """
        options = OpenOptions(
            embedder=resolve_model(embedder),
            storage=Storage.named(storage) if isinstance(storage, str) else storage,
            create=create,
            assets_dir=absolute_folder(assets_dir),
            api_key=api_key,
            device=device if isinstance(device, str) else device_names(device),
        )
        return cls(os.fspath(location), options, resolve_model(reranker))

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            """Open an unpickled index at its first use; until then, the index has no attributes."""
            arguments = self.__dict__.get("_unopened")
            if arguments is None or name not in _OPEN_ATTRIBUTES:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            with self.__dict__["_opening"]:
                if "_lease" not in self.__dict__:
                    options = dict(arguments)
                    location, reranker = options.pop("location"), options.pop("reranker")
                    self.__init__(location, OpenOptions(create=False, **options), reranker)
            return self.__dict__[name]

    @overload
    def ingest(
        self, paths: Paths, *, dry_run: Literal[False] = ..., **options: Unpack[IngestOptions]
    ) -> IngestReport: ...
    @overload
    def ingest(self, paths: Paths, *, dry_run: Literal[True], **options: Unpack[IngestOptions]) -> IngestPlan: ...
    def ingest(
        self,
        paths: Paths,
        *,
        metadata: Metadata | None = None,
        settings: IngestSettings | None = None,
        progress: Callable[[IngestProgress], None] | None = None,
        sync: bool = False,
        force: bool = False,
        stop: threading.Event | None = None,
        dry_run: bool = False,
    ) -> IngestReport | IngestPlan:
        """Index new and changed files, and skip unchanged files.

        Moved files are not re-embedded. Files with identical content are stored once; hits list the paths of all files.
        The previous pages of a changed file stay searchable until the new pages of the file are complete. A file or
        page that cannot be read is reported, and the run continues. Ctrl-C stops the run and leaves a searchable index;
        repeat the call to resume the run.

        The attachments of a file, for example of a PDF portfolio, are documents with paths like
        ``report.pdf#attachment.pdf`` and with the metadata of the file. They change, move and are deleted with the
        file. Attachments of attachments are named in a warning.

        Args:
            paths: Files, folders and globs, for example ``reports/**/*.pdf``. ``*`` matches within a folder, and ``**``
                matches across folders (see `jina_rag.globs`).
            metadata: Metadata for every document, or a function that returns the metadata for a path: JSON values,
                dates and times, which are stored as text of RFC 3339. A datetime without an offset gets UTC. `search`
                can filter by the metadata keys. A sidecar file, ``report.pdf.json`` or ``report.json`` (or ``.yaml``,
                ``.yml``, ``.toml``), adds keys and overrides existing keys. A key whose value cannot be stored is left
                out, with a warning in the report.
            settings: Rendering, OCR and resource limits. Default: `IngestSettings()`.
            progress: Called with an `IngestProgress` as the run advances.
            sync: Whether to delete indexed documents whose files no longer exist under `paths`.
            force: Whether to re-read and re-embed unchanged documents, for example to retry failed pages or to apply
                new settings.
            stop: Event that stops the run, as Ctrl-C does, when another thread sets it.
            dry_run: Whether to change nothing and return an `IngestPlan`: the files, pages, time and disk space that
                the call would take without `dry_run`. Time and disk space are estimated from earlier runs of this
                index. After too few earlier runs, a few pages are rendered and embedded for the estimate, and discarded
                afterwards.

        Returns:
            The report of the run, or the plan if `dry_run` is True.

        Raises:
            InvalidInputError: If a path does not exist.
            IndexStateError: If the index cannot be written.
        """
        session = self._session
        settings = settings or IngestSettings()
        # Imported here so that a search does not load the document parsers.
        from jina_rag.parsing.sources import path_list

        if dry_run:
            from jina_rag.indexing.dry_run import DryRun

            index_info = self.info()
            return DryRun(self._target(), settings, stop=stop).plan(
                path_list(paths),
                metadata=metadata,
                sync=sync,
                force=force,
                exclude=[session.root],
                indexed_pages=index_info.pages,
                indexed_bytes=sum(index_info.bytes.values()),
            )
        from jina_rag.indexing.ingest import Ingestion

        run = Ingestion(
            self._target(), settings, metadata=metadata, progress=progress, sync=sync, force=force, stop=stop
        )
        try:
            with session.write_session(stop):
                return run.run(path_list(paths), exclude=[session.root])
        except StoppedWaiting:
            return IngestReport(interrupted=True)

    def _target(self) -> IndexTarget:
        from jina_rag.indexing.point_builder import IndexTarget

        session = self._session
        return IndexTarget(session.resources, lambda: self.embedder, session.settings.dim, session.settings.storage)

    def add(
        self,
        contents: Sequence[Input],
        *,
        ids: Sequence[str] | None = None,
        metadata: Sequence[Mapping[str, Any]] | None = None,
        vectors: Embeddings | None = None,
    ) -> list[str]:
        """Index texts, images and pages under ids that the caller chooses.

        `search` returns these entries like pages of files, with `ScoredPage.added` set to True and the id in
        `ScoredPage.doc_id`. An entry replaces the existing entry with the same id. If the content is unchanged, only
        the metadata is updated and nothing is embedded.

        Each batch of up to 16 images or 65,536 characters of text is synced to the disk three times, whatever its size:
        the manifest records the entries as incomplete, the vector store writes the points, and the manifest marks the
        entries as complete. Entries of a call that has returned therefore survive a killed process and a power failure,
        and searches never return incomplete entries. After a killed or failed call, `documents` lists incomplete
        entries until the next change of the index deletes them; an entry that was to replace an earlier one keeps the
        earlier content. A few long calls are faster than many short calls.

        Args:
            contents: One input per entry: a text (stored verbatim), an image (bytes, `pathlib.Path`, PIL image, data
                URI), a `Page`, or ``{"image": …, "text": …}`` for an image with the text on the image. OCR reads the
                text of an image that is passed without a text, as in `ingest`. From an image file written by
                `save_page`, the saved page is loaded, including the text. A very tall or very wide image has several
                pages, as in `ingest`, unless it is passed with a text or with `vectors`.
            ids: One id per entry. If an id occurs twice, the last entry wins. Default: random ids.
            metadata: One mapping of JSON values, dates and times per entry, for filters. Default: no metadata.
            vectors: Embeddings of `contents` from the embedder of this index: dense vectors of length `dim`,
                multi-vectors and token grids. Default: this call embeds `contents`.

        Returns:
            The ids, one per entry.

        Raises:
            InvalidInputError: If the arguments differ in length, an entry has an unsupported type or cannot be read, an
                id is empty or belongs to an ingested document, or `vectors` do not fit the index. Entries before the
                entry named in the message may already be indexed.
            IndexStateError: If the index cannot be written.
        """
        from jina_rag.indexing.add import EntryWriter
        from jina_rag.indexing.add_inputs import checked_vectors, entries_of

        inputs = as_input_list(contents, "contents")
        entry_ids = [uuid.uuid4().hex for _ in inputs] if ids is None else list(ids)
        entry_metadata: list[Mapping[str, Any]] = [{} for _ in inputs] if metadata is None else list(metadata)
        if not len(inputs) == len(entry_ids) == len(entry_metadata):
            raise InvalidInputError(
                f"Got {len(inputs)} contents, {len(entry_ids)} ids and {len(entry_metadata)} metadata mappings. Pass "
                "one id and one mapping per entry."
            )
        session = self._session
        if vectors is not None:
            vectors = checked_vectors(vectors, len(inputs), session.settings.dim, session.settings.multi_dim)
        entries = entries_of(inputs, entry_ids, entry_metadata)
        if entries:
            with session.write_session():
                EntryWriter(self._target(), vectors=vectors).run(entries)
        return entry_ids

    def search(
        self,
        query: Input,
        *,
        k: int = 5,
        offset: int = 0,
        filter: Where | None = None,
        stages: Stage | Sequence[Stage] | None = None,
        group_by: GroupBy = "page",
        dedup: bool = False,
        min_score: float | None = None,
        details: bool = True,
        explain: bool = False,
    ) -> SearchResults:
        """Return the pages that best match a query.

        Args:
            query: A text in any language that the embedder supports, an image (bytes, `pathlib.Path`, PIL image, data
                URI), a page, or a list of these inputs. A text embedder reads images by OCR. A very tall or very wide
                image is one query: OCR reads it in slices at full size, and an image embedder scales it down to its
                limit of pixels, so pass a part of the image if its text matters.
            k: Maximum number of hits.
            offset: Number of hits to skip, for pagination.
            filter: Conditions applied before ranking: key → value, list of accepted values, or `Range`. Keys: ``path``
                (a path, or a glob like ``reports/*.pdf``; the exact path of a document or folder selects only this
                document or folder), ``doc_id``, ``page``, ``has`` (a kind of region on the page: ``"chart"``,
                ``"table"``, ``"figure"``), and every metadata key of the documents. Dates and times are compared by
                value, and a date covers the whole day in UTC: ``{"when": Range(gte="2025-01-01")}``.
            stages: One or several of `Prefetch`, `Rescore` and `Rerank`. Each stage replaces the default stage of the
                same type.
            group_by: ``"page"`` returns pages. ``"document"`` returns each document once, with the best page of the
                document; other matching pages are in `ScoredPage.other_pages`.
            dedup: Whether to merge near-duplicate pages into one hit; the other pages are in `ScoredPage.similar`.
            min_score: Drop hits below this score; with a reranker, also hits that the reranker did not score. Default:
                keep all hits.
            details: Whether to find the best region and the snippet of each hit.
            explain: Whether to add the rank and score of each stage to the hits (`ScoredPage.steps`).

        Returns:
            The hits, best first: a list of `ScoredPage` with the attributes `notes`, `complete`, `more` and
            `milliseconds` (see `SearchResults`).

        Raises:
            InvalidInputError: If the query is empty or an argument is invalid.
        """
        return self.search_many(
            [query],
            k=k,
            offset=offset,
            filter=filter,
            stages=stages,
            group_by=group_by,
            dedup=dedup,
            min_score=min_score,
            details=details,
            explain=explain,
        )[0]

    def search_many(
        self,
        queries: Sequence[Input],
        *,
        k: int = 5,
        offset: int = 0,
        filter: Where | None = None,
        stages: Stage | Sequence[Stage] | None = None,
        group_by: GroupBy = "page",
        dedup: bool = False,
        min_score: float | None = None,
        details: bool = True,
        explain: bool = False,
    ) -> list[SearchResults]:
        """Return the search results of several queries, which are embedded in one batch.

        Args:
            queries: The queries, each as in `search`.
            k: Maximum number of hits per query.
            offset: Number of hits to skip per query.
            filter: As in `search`.
            stages: As in `search`.
            group_by: As in `search`.
            dedup: As in `search`.
            min_score: As in `search`.
            details: As in `search`.
            explain: As in `search`.

        Returns:
            One list of hits per query, in the order of `queries`.

        Raises:
            InvalidInputError: If a query is empty or an argument is invalid.
        """
        all_stages = default_stages(self.embedder, self._models.default_reranker is not None).override(stages)
        request = SearchRequest(
            k=k,
            offset=offset,
            where=filter,
            stages=all_stages,
            reranker=self._models.reranker_for(all_stages.rerank),
            group_by=group_by,
            dedup=dedup,
            min_score=min_score,
            details=details,
            explain=explain,
        )
        return self._searcher.search(queries, request)

    def get(self, ids: Sequence[str]) -> list[ScoredPage]:
        """Return pages by id, in the order of `ids`; missing ids are omitted.

        Args:
            ids: Values of `ScoredPage.page_id`, or ids that were passed to `add`.

        Returns:
            The pages, with score 0.0 and an empty `stage`.

        Raises:
            InvalidInputError: If `ids` is a single string, or an id is not a string.
        """
        return pages_by_id(self._session.resources, ids)

    def nearest(
        self, vector: Float32 | Sequence[float], *, k: int = 5, filter: Where | None = None
    ) -> list[ScoredPage]:
        """Return the pages whose dense vectors are nearest to `vector`, by cosine similarity.

        The vector must come from the embedder of this index. For text queries, use `search`, which also compares the
        query and the pages token by token.

        Args:
            vector: Shape (dim,), float32; normalized to unit length.
            k: Maximum number of pages.
            filter: As in `search`.

        Returns:
            The pages, best first, with the cosine similarity as `score` and ``"dense"`` as `stage`; empty for a zero
            vector.

        Raises:
            InvalidInputError: If `k` is below 1, `filter` is invalid, or `vector` has another shape or a non-finite
                value.
        """
        return nearest_pages(self._session.resources, vector, dim=self.dim, k=k, where=filter)

    def dense_vectors(self, pages: Sequence[ScoredPage]) -> Float32:
        """Return the stored dense vectors of pages.

        Args:
            pages: Pages returned by `search`, `get` or `nearest`.

        Returns:
            Shape (len(pages), dim), float32. The row is zero for a page that has no dense vector or is no longer in the
            index.
        """
        return dense_vectors(self._session.resources, pages, self.dim)

    def explain(
        self,
        query: Input,
        hit: ScoredPage,
        *,
        by: Literal["embedder", "reranker"] = "embedder",
        method: Literal["gradient", "attention"] | None = None,
    ) -> Explanation:
        """Return a heat map of a page: the relevance of each position on the page to a query.

        Args:
            query: The query that returned `hit`.
            hit: A page returned by `search`.
            by: ``"embedder"`` compares the query with the stored vectors that ranked the page. ``"reranker"``
                attributes the score of the reranker to the parts of the page image. The reranker must read images.
            method: Attribution method, ``"gradient"`` or ``"attention"``. Default: the default method of the reranker.

        Returns:
            The boxes of the page, each with a weight from 0 to 1.

        Raises:
            IndexStateError: If the page is no longer in the index, or, for ``by="reranker"``, the screenshot of the
                page is missing.
            InvalidInputError: If `by` is unknown. For ``by="reranker"``: if the index has no reranker, the reranker
                does not support explanations, or the page is a text without an image.
        """
        if by == "embedder":
            return self._explainer.explain(query, hit)
        if by != "reranker":
            raise InvalidInputError(f"by is {by!r}; expected one of embedder, reranker.")
        return self._explainer.explain_by(self.reranker, query, hit, method)

    def cite(self, query: Input, hit: ScoredPage) -> Citation:
        """Return the citation of a page for a query: the relevant box, the words in the box and the page image.

        Args:
            query: The query that returned `hit`.
            hit: A page returned by `search`.

        Returns:
            The citation; the cited box is the whole page if the heat map of the page is empty.

        Raises:
            IndexStateError: If the page is no longer in the index.
        """
        return self._explainer.cite(query, [hit])[0]

    def build_context(
        self,
        query: Input,
        hits: Sequence[ScoredPage],
        *,
        max_images: int = 4,
        max_tokens: int = 4000,
        prefer: Literal["page", "region"] = "page",
        count_tokens: Callable[[str], int] | None = None,
        max_side: int = 1568,
        image_format: Literal["jpeg", "png"] = "jpeg",
    ) -> Context:
        """Build the context for a vision chat model: images, captions, sources, and the text of pages marked as data.

        Args:
            query: The query; the text of the query comes last in the context.
            hits: Pages returned by `search`, best first.
            max_images: Maximum number of images.
            max_tokens: Maximum number of tokens of all text.
            prefer: ``"page"`` for images of whole pages, ``"region"`` for images of the cited boxes.
            count_tokens: Function that returns the number of tokens of a text for the chat model. Default: an estimate
                that tends to be too high.
            max_side: Longest side of an image in pixels.
            image_format: File format of the images.

        Returns:
            The context. `Context.blocks()` returns the message content for the chat model; `Context.omissions` lists
            the content that exceeded the limits or could not be read.

        Raises:
            IndexStateError: If a page is no longer in the index.
            InvalidInputError: If a limit is negative or an option is unknown.
        """
        from jina_rag.context.builder import build_context
        from jina_rag.search.query import words_in

        numbered_hits, text_of, citation_of = self._explainer.context_sources(query, hits, cite=prefer == "region")
        return build_context(
            numbered_hits,
            query=words_in(query),
            max_images=max_images,
            max_tokens=max_tokens,
            prefer=prefer,
            text_of=text_of,
            citation_of=citation_of,
            count_tokens=count_tokens,
            max_side=max_side,
            image_format=image_format,
        )

    def documents(self) -> list[DocumentRecord]:
        """Return the records of all documents, sorted by id; `is_complete` is False if indexing was interrupted."""
        return self._session.resources.manifest.documents()

    def delete(self, document: str | os.PathLike[str] | None = None, *, filter: Where | None = None) -> int:
        """Delete documents, including the vectors, the images and the documents attached to them.

        Args:
            document: A document id, a file (existing or not), a folder of files, or a glob over ids and paths, for
                example ``reports/2023-*``.
            filter: Conditions as in `search`, but only on ``path``, ``doc_id`` and metadata. A document must match all
                conditions. If `document` and `filter` are passed, a document must match both arguments.

        Returns:
            The number of deleted documents.

        Raises:
            InvalidInputError: If neither `document` nor `filter` is passed, `document` is not a string or path, or
                `filter` is invalid.
        """
        session = self._session
        if not isinstance(document, str | os.PathLike | None):
            raise InvalidInputError(
                f"document is a {type(document).__name__}; expected an id, a path or a glob. For several documents, "
                'pass filter={"path": [...]}.'
            )
        with session.write_session():
            name = None if document is None else os.fspath(document)
            return delete_documents(session.resources, name, filter or {})

    def verify(self) -> list[Problem]:
        """Check that vectors, images and manifest agree, without changing the index.

        Returns:
            The problems; empty for a consistent index. A problem of a single document contains the id of the document,
            which must be ingested again.
        """
        return verify(self._session.resources)

    def copy(
        self,
        location: str | os.PathLike[str],
        *,
        assets_dir: str | os.PathLike[str] | None = None,
        api_key: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Copy this index to a folder or a Qdrant server, without re-embedding pages.

        Points are streamed in batches of limited size in bytes. To resume an interrupted copy, repeat the call: points
        that exist at the target are not sent a second time.

        Args:
            location: As in `open`: a new location, or the target of an interrupted copy of this index.
            assets_dir: As in `open`.
            api_key: As in `open`.
            progress: Called with (number of copied points, total number of points).

        Returns:
            The number of points sent.

        Raises:
            InvalidInputError: If `location` is the location of this index.
            IndexMismatchError: If the target is an index with another model or storage.
        """
        from jina_rag.catalog.migrate import copy_index

        session = self._session
        settings = session.settings
        options = OpenOptions(
            storage=settings.storage, assets_dir=absolute_folder(assets_dir), api_key=api_key, template=settings
        )
        with DocumentIndex(os.fspath(location), options) as target:
            target_session = target._session
            if target_session is session:
                raise InvalidInputError(f"{session.location} cannot be copied onto itself. Pass another location.")
            if target_session.settings.fingerprint != settings.fingerprint:
                raise IndexMismatchError(
                    f"The index at {target_session.location} was built with {target_session.settings.fingerprint}, "
                    f"this index with {settings.fingerprint}. Copy to a new location."
                )
            # Two copies in opposite directions would deadlock; locking both indexes in a fixed order prevents the
            # deadlock.
            first_session, second_session = sorted((session, target_session), key=lambda each: each.location)
            with first_session.write_session(), second_session.write_session():
                return copy_index(session.resources, target_session.resources, progress=progress)

    def info(self) -> IndexInfo:
        """Return the contents, model and disk usage of the index."""
        session, settings = self._session, self._session.settings
        manifest = session.resources.manifest
        return IndexInfo(
            location=session.location,
            **manifest.totals(),
            pending=len(manifest.pending()),
            embedder=settings.embedder,
            fingerprint=settings.fingerprint,
            version=settings.version,
            storage=str(settings.storage),
            bytes=session.bytes_by_part(),
        )

    @property
    def location(self) -> Path:
        """Folder with the images, the manifest and, unless a server stores the vectors, the vectors of the index."""
        return self._session.root

    @property
    def dim(self) -> int:
        """Length of the stored dense vectors. The vectors of the embedder may be longer."""
        return self._session.settings.dim

    if TYPE_CHECKING:  # `coroutine_of` keeps only the first overload

        @overload
        async def aingest(
            self, paths: Paths, *, dry_run: Literal[False] = ..., **options: Unpack[IngestOptions]
        ) -> IngestReport: ...
        @overload
        async def aingest(
            self, paths: Paths, *, dry_run: Literal[True], **options: Unpack[IngestOptions]
        ) -> IngestPlan: ...
        async def aingest(self, paths: Paths, **options: Any) -> IngestReport | IngestPlan:
            """Run `ingest` in a thread (see `ingest`); cancelling the coroutine stops the run as Ctrl-C does."""
    else:
        aingest = coroutine_of(ingest, pool="ingest")
    aadd = coroutine_of(add, pool="ingest")
    adelete = coroutine_of(delete, pool="ingest")
    acopy = coroutine_of(copy, pool="ingest")
    asearch = coroutine_of(search)
    asearch_many = coroutine_of(search_many)
    aget = coroutine_of(get)
    anearest = coroutine_of(nearest)
    adense_vectors = coroutine_of(dense_vectors)
    aexplain = coroutine_of(explain)
    acite = coroutine_of(cite)
    abuild_context = coroutine_of(build_context)
    adocuments = coroutine_of(documents)
    averify = coroutine_of(verify)
    ainfo = coroutine_of(info)

    @property
    def embedder(self) -> Embedder:
        """Embedder of the index, loaded on first use."""
        self._opened_session.check_process()
        return self._models.embedder

    @property
    def reranker(self) -> Reranker | None:
        """Reranker that was passed to `open`, loaded on first use; None if no reranker was passed."""
        self._opened_session.check_process()
        return self._models.reranker

    @property
    def _searcher(self) -> Searcher:
        resources, settings = self._session.resources, self._session.settings
        if self._searcher_cache is None:
            self._searcher_cache = Searcher(
                resources=resources, embedder=self.embedder, dim=settings.dim, storage=settings.storage
            )
        return self._searcher_cache

    @property
    def _explainer(self) -> Explainer:
        # Imported here so that a search on the command line starts faster.
        from jina_rag.explain.explainer import Explainer

        return Explainer(self._session.resources, self._searcher.embed)

    @property
    def _session(self) -> IndexSession:
        if not self._lease.alive:
            raise IndexStateError(
                f"The index at {self._opened_session.location} is closed. Reopen it with DocumentIndex.open."
            )
        self._opened_session.check_process()
        return self._opened_session

    def close(self) -> None:
        """Release the index; the last instance on a location closes the vector store. Idempotent.

        Raises:
            IndexStateError: In a forked child of the process that opened the index, which cannot close the index. At
                the end of a ``with`` block, the child raises no error.
        """
        if "_lease" in self.__dict__ and self._lease.alive:
            self._opened_session.check_process()
        self._release()

    def _release(self) -> None:
        if "_lease" in self.__dict__ and self._lease.detach() is not None:
            self._shared_session.release()
            self._models.release()
            self._searcher_cache = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._release()  # in a forked child, an error would replace the exception that ends the block

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the location, model names and devices.

        The first use of the unpickled index opens the index, with the key in QDRANT_API_KEY. Weights are not pickled,
        so the models must be loadable by name.

        Raises:
            InvalidInputError: If the embedder or the reranker was passed as an object, or the index was built with an
                embedder that `load_embedder` cannot load by name.
        """
        if "_lease" not in self.__dict__:
            return _unopened_index, (type(self), self.__dict__["_unopened"])
        for role in ("embedder", "reranker"):
            if not isinstance(self._arguments[role], str | None):
                raise InvalidInputError(
                    f"The index cannot be pickled, because the {role} is an object. Pass {role} as a name or a folder."
                )
        settings = self._opened_session.settings
        if not settings.has_loadable_model:
            raise InvalidInputError(
                f"The index cannot be pickled, because the embedder ({settings.embedder!r}) is a custom object. Open "
                "the index with that embedder in each process."
            )
        return _unopened_index, (type(self), self._arguments)

    def __repr__(self) -> str:
        if "_lease" not in self.__dict__:
            return f"DocumentIndex({self.__dict__.get('_unopened', {}).get('location')!r}, unopened)"
        if not self._lease.alive:
            return "DocumentIndex(closed)"
        session = self._opened_session
        return f"DocumentIndex({session.location!r}, embedder={session.settings.embedder!r})"


def _unopened_index(kind: type[DocumentIndex], arguments: Mapping[str, Any]) -> DocumentIndex:
    """Return an index that is opened at its first use.

    An error while unpickling would break the pool of processes that receives the index, and lose the message.
    """
    index = kind.__new__(kind)
    index.__dict__.update(_unopened=arguments, _opening=RenewedLock())
    return index
