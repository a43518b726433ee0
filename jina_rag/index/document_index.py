"""The front door: an index of page screenshots in a folder or on a server, to fill, search, explain and tend."""

from __future__ import annotations

import os
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypedDict, Unpack, overload

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

Paths: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"


class IngestOptions(TypedDict, total=False):
    """Keyword arguments of `DocumentIndex.ingest` that go with every value of `dry_run`."""

    metadata: Metadata | None
    settings: IngestSettings | None
    progress: Callable[[IngestProgress], None] | None
    sync: bool
    force: bool
    stop: threading.Event | None


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


class DocumentIndex:
    """An index of page screenshots.

        with DocumentIndex.open("kb/") as index:
            index.ingest(["docs/"])
            for hit in index.search("Which region grew fastest?", k=5):
                print(hit.path, hit.page, hit.score)

    Made by `open`. Safe to use from several threads; one thread ingests at a time. The folder belongs to one
    process at a time, and within a process all objects on it share one store, which is closed with the last of them:
    by `close`, or when nothing refers to the object any more.

    Each coroutine works in a thread as the method does whose name it has after an ``a``: nothing is encoded or scored
    on the thread of an event loop, and many of them at once give what as many calls in turn give. Cancelling `aingest`
    stops the run as Ctrl-C does, and waits for that.
    """

    def __init__(self, location: str, options: OpenOptions, reranker: str | Reranker | None = None) -> None:
        self._shared_session, self._opened_session = open_session(location, options)
        self._models = IndexModels(self._opened_session, options.embedder, reranker)
        self._searcher_cache: Searcher | None = None
        self._arguments: dict[str, Any] = {
            "location": location if "://" in location else os.path.abspath(location),
            "assets_dir": options.assets_dir,
            "embedder": options.embedder,
            "reranker": reranker,
        }
        # Not at the exit of the interpreter, when threads may still be at work.
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
    ) -> Self:
        """Open the index at `location`, or make a new one there.

        Args:
            location: A folder, which is made readable by its owner only: it holds readable pages. Or a collection
                of a Qdrant server, ``"http://host:6333/collection"``, where options may follow: ``?grpc=true``,
                ``timeout=120``, ``shards=3``, ``replicas=2``, ``ca=FILE`` (see `QdrantConnection`).
            embedder: Name or folder of a model, or an embedder; None for the one the index was built with,
                and ``"lite"`` for a new index.
            reranker: Name or folder of a model, or a reranker, that judges the best pages of each search; loaded when
                it is first needed. None for none. It is no part of the index, and each object on an index may have
                its own.
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
        options = OpenOptions(
            embedder=resolve_model(embedder),
            storage=Storage.named(storage) if isinstance(storage, str) else storage,
            create=create,
            assets_dir=absolute_folder(assets_dir),
            api_key=api_key,
        )
        return cls(os.fspath(location), options, resolve_model(reranker))

    # -- filling -------------------------------------------------------------------------------------------

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
        """Index what is new or changed among files and folders; what is known and unchanged is left alone.

        A file that was moved is not embedded again, copies of a file are stored once and cited at all places, and a
        changed file's old pages are found until its new ones are complete. A file or page that cannot be read is
        reported and the rest goes on. Ctrl-C stops the run and leaves an index that can be searched; the same call
        again goes on from there.

        Args:
            paths: Files, folders, and globs such as ``reports/**/*.pdf``: ``*`` stays within a folder, ``**`` crosses
                folders (see `jina_rag.globs`).
            metadata: For every document, or a function from its path to its metadata; JSON values. Search can
                filter by it. What stands in ``report.pdf.json`` or ``report.json`` is added to it.
            settings: How pages are rendered and read, and what that may cost.
            progress: Called now and then with how far the run has come.
            sync: Whether documents are removed whose file is gone from the given folders.
            force: Whether unchanged documents are read and embedded again, to try failed pages or new settings.
            stop: Ends the run as Ctrl-C does once another thread sets it.
            dry_run: Whether to change nothing and to return what the same call would do: files, pages, time and disk.
                Time and disk are estimated from earlier runs of this index, or else from a few pages that are rendered
                and embedded for it and thrown away.

        Raises:
            InvalidInputError: If a path does not exist.
            IndexStateError: If the index cannot be written.
        """
        session = self._session
        settings = settings or IngestSettings()
        # Imported here: a search has no use for what reads documents, and should not wait for it.
        from jina_rag.parsing.sources import path_list

        if dry_run:
            from jina_rag.indexing.dry_run import Estimate

            index_info = self.info()
            return Estimate(self._target(), settings, stop=stop).plan(
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
            with session.changing(stop):
                return run.run(path_list(paths), exclude=[session.root])
        except StoppedWaiting:
            return IngestReport(interrupted=True)

    def _target(self) -> IndexTarget:
        """What is written to."""
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
        """Index texts, pictures and pages that lie in no ingested file.

        They are found by `search` as pages of files are; `ScoredPage.added` tells them apart, and `ScoredPage.doc_id`
        is the id that was given. What has an id that is known takes its place; where the content is the same, nothing
        is embedded again and only the metadata are.

        Args:
            contents: Each a text (kept to the letter), a picture (bytes, `pathlib.Path`, PIL image, data URI), a
                `Page`, or ``{"image": …, "text": …}``: a picture whose words are known. Of other pictures the words are
                read as `ingest` does. A picture that `save_page` has kept is the page that it was.
            ids: One for each; random ones if None. Of two of the same id the last counts.
            metadata: One JSON mapping for each; searches can filter by it.
            vectors: What the index's embedder has made of these very contents, so that nothing is embedded: dense
                vectors of this index's `dim`, multi-vectors, grids.

        Returns:
            The ids.

        Raises:
            InvalidInputError: If a content is of another kind or cannot be read, an id is empty or that of an ingested
                document, or `vectors` do not fit. Entries before the one that is named may be in the index then.
            IndexStateError: If the index cannot be written.
        """
        from jina_rag.indexing.add import EntryWriter
        from jina_rag.indexing.add_inputs import checked_vectors, entries_of

        inputs = as_input_list(contents, "contents")
        names = [uuid.uuid4().hex for _ in inputs] if ids is None else list(ids)
        mappings: list[Mapping[str, Any]] = [{} for _ in inputs] if metadata is None else list(metadata)
        if not len(inputs) == len(names) == len(mappings):
            raise InvalidInputError(
                f"There are {len(inputs)} contents, {len(names)} ids and {len(mappings)} metadata: give one of each."
            )
        session = self._session
        if vectors is not None:
            vectors = checked_vectors(vectors, len(inputs), session.settings.dim, session.settings.multi_dim)
        entries = entries_of(inputs, names, mappings)
        if entries:
            with session.changing():
                EntryWriter(self._target(), vectors=vectors).run(entries)
        return names

    # -- searching -----------------------------------------------------------------------------------------

    def search(
        self,
        query: Input,
        *,
        k: int = 5,
        offset: int = 0,
        filter: Where | None = None,  # the word users look for
        stages: Stage | Sequence[Stage] | None = None,
        group_by: GroupBy = "page",
        dedup: bool = False,
        min_score: float | None = None,
        details: bool = True,
        explain: bool = False,
    ) -> SearchResults:
        """Rank pages for a question.

        Args:
            query: A text in any language the model knows, an image (bytes, `pathlib.Path`, PIL, data URI), a page,
                or a list of these. Models that read words read an image by OCR.
            k: How many hits to return at most.
            offset: How many hits to pass over, for the next page of results.
            filter: Conditions that hold before anything is ranked. Key → value, or values of which one must match, or
                a `Range`: ``path`` (a glob such as ``reports/*.pdf``), ``doc_id``, ``page``, ``has`` (a kind of region
                on the page: ``"chart"``, ``"table"``, ``"figure"``), or any key of the documents' metadata.
            stages: A `Prefetch`, `Rescore` or `Rerank`, or several, each in the place of the index's own.
            group_by: ``"document"`` returns each document once, with its best page; `ScoredPage.other_pages` has the
                others that were found.
            dedup: Whether pages that show nearly the same become one hit, with the others in `ScoredPage.similar`.
            min_score: Hits of a lower score are left out, and where a reranker judges, what it did not judge.
            details: Whether to look for the best region and snippet of each hit.
            explain: Whether each hit tells which stage put it where (`ScoredPage.steps`).

        Returns:
            A list of `ScoredPage` with `notes`, `complete`, `more` and `milliseconds`.

        Raises:
            InvalidInputError: If the question is empty, or an argument makes no sense.
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
        """Rank pages for each of many questions, which are embedded in one batch; see `search`."""
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
        """Pages by their id, in the order of the ids; what is not there is left out.

        Args:
            ids: Each a `ScoredPage.page_id`, or an id that was given to `add`.

        Returns:
            Pages without a score (0.0) and without a stage.
        """
        return pages_by_id(self._session.resources, ids)

    def nearest(
        self, vector: Float32 | Sequence[float], *, k: int = 5, filter: Where | None = None
    ) -> list[ScoredPage]:
        """Pages by their dense vector alone: for a vector that was made elsewhere, by the model of this index.

        A question is better asked with `search`, which compares every word of it.

        Args:
            vector: Shape (dim,).
            k: Pages at most.
            filter: As in `search`.

        Returns:
            Pages with the cosine as their score and ``"dense"`` as their stage, best first.

        Raises:
            InvalidInputError: If the vector is of another length, or holds what is no number.
        """
        return nearest_pages(self._session.resources, vector, dim=self.dim, k=k, where=filter)

    def dense_vectors(self, pages: Sequence[ScoredPage]) -> Float32:
        """The dense vectors of pages as the index keeps them.

        Args:
            pages: As `search`, `get` or `nearest` returned them.

        Returns:
            Shape (len(pages), dim) float32; zeros for a page that has none, or is not in the index any more.
        """
        return dense_vectors(self._session.resources, pages, self.dim)

    # -- explaining ----------------------------------------------------------------------------------------

    def explain(
        self,
        query: Input,
        hit: ScoredPage,
        *,
        by: Literal["embedder", "reranker"] = "embedder",
        method: Literal["gradient", "attention"] | None = None,
    ) -> Explanation:
        """Where on a page the answer stands.

        Args:
            query: As it was asked.
            hit: A page, as `search` returned it.
            by: ``"embedder"``: from the stored vectors that ranked it. ``"reranker"``: which part of the picture
                carried the reranker's score, for one that looks at pixels.
            method: How a reranker is asked; None for what it does best.

        Raises:
            IndexStateError: If the page is not in the index any more.
            InvalidInputError: If there is no reranker that could tell.
        """
        if by == "embedder":
            return self._explainer.explain(query, hit)
        if by != "reranker":
            raise InvalidInputError(f"A page is explained by the 'embedder' or by the 'reranker', not by {by!r}.")
        return self._explainer.explain_by(self.reranker, query, hit, method)

    def cite(self, query: Input, hit: ScoredPage) -> Citation:
        """The place of a page to quote: its box, the words in it, a picture of it.

        Args:
            query: As it was asked.
            hit: A page, as `search` returned it.

        Raises:
            IndexStateError: If the page is not in the index any more.
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
        """What a vision chat model needs to answer from pages: images, captions, sources, the pages' words as data.

        Args:
            query: As it was asked; its words stand at the end.
            hits: Pages, as `search` returned them, best first.
            max_images: Pictures at most.
            max_tokens: Tokens of all text at most.
            prefer: Whether pictures show the whole page, or the place that is cited.
            count_tokens: Of the chat model; None for an estimate that is rather too high.
            max_side: Longest side of a picture in pixels.
            image_format: How pictures are encoded.

        Returns:
            Its `blocks()` are what is sent; `left_out` tells what did not fit.

        Raises:
            IndexStateError: If a page is not in the index any more.
            InvalidInputError: If a budget is negative or a choice is unknown.
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

    # -- tending -------------------------------------------------------------------------------------------

    def documents(self) -> list[DocumentRecord]:
        """Every document, by id; those whose indexing was interrupted have ``is_complete`` False."""
        return self._session.resources.manifest.documents()

    def delete(self, document: str | os.PathLike[str] | None = None, *, filter: Where | None = None) -> int:
        """Remove documents, their vectors and their images.

        Args:
            document: A document's id, its file (which need not exist any more), a folder of files, or a glob
                over ids and paths such as ``reports/2023-*``.
            filter: As in `search`, by ``path``, ``doc_id`` or metadata: documents that match all of it.

        Returns:
            How many documents were removed.

        Raises:
            InvalidInputError: If neither is given, or the filter makes no sense.
        """
        session = self._session
        with session.changing():
            name = None if document is None else os.fspath(document)
            return delete_documents(session.resources, name, filter or {})

    def verify(self) -> list[Problem]:
        """Hold vectors, images and manifest against each other; nothing is changed.

        Returns:
            What is amiss and which documents to ingest again; empty for an index in order.
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

        session = self._session
        settings = session.settings
        options = OpenOptions(
            storage=settings.storage, assets_dir=absolute_folder(assets_dir), api_key=api_key, template=settings
        )
        with DocumentIndex(os.fspath(location), options) as target:
            other = target._session
            if other is session:
                raise InvalidInputError(f"{session.location} cannot be copied onto itself.")
            if other.settings.fingerprint != settings.fingerprint:
                raise IndexMismatchError(
                    f"{other.location} was built with {other.settings.fingerprint}, this index with "
                    f"{settings.fingerprint}: copy to a new place."
                )
            # In the same order whichever way is copied: two copies must not wait for each other.
            first, second = sorted((session, other), key=lambda each: each.location)
            with first.changing(), second.changing():
                return copy_index(session.resources, other.resources, progress=progress)

    def info(self) -> IndexInfo:
        """What the index holds and what it weighs."""
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
        """The folder of the index: its vectors, unless they are on a server, its images and its manifest."""
        return self._session.root

    @property
    def dim(self) -> int:
        """Length of the dense vectors that this index keeps; the embedder's may be longer."""
        return self._session.settings.dim

    # -- for event loops -----------------------------------------------------------------------------------

    if TYPE_CHECKING:  # an overloaded method loses all overloads but the first in `coroutine_of`

        @overload
        async def aingest(
            self, paths: Paths, *, dry_run: Literal[False] = ..., **options: Unpack[IngestOptions]
        ) -> IngestReport: ...
        @overload
        async def aingest(
            self, paths: Paths, *, dry_run: Literal[True], **options: Unpack[IngestOptions]
        ) -> IngestPlan: ...
        async def aingest(self, paths: Paths, **options: Any) -> IngestReport | IngestPlan:
            """As `ingest`, in a thread; cancelling it stops the run as Ctrl-C does."""
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

    # -- models --------------------------------------------------------------------------------------------

    @property
    def embedder(self) -> Embedder:
        """The model, loaded when it is first needed."""
        return self._models.embedder

    @property
    def reranker(self) -> Reranker | None:
        """The reranker that the index was opened with, loaded when it is first needed; None if there is none."""
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
        # Imported here: a search from a command line does not wait for it.
        from jina_rag.explain.explainer import Explainer

        return Explainer(self._session.resources, self._searcher.embed)

    # -- life ----------------------------------------------------------------------------------------------

    @property
    def _session(self) -> IndexSession:
        if not self._lease.alive:
            raise IndexStateError("This index was closed: open it again with DocumentIndex.open.")
        return self._opened_session

    def close(self) -> None:
        """Release the index; the last object on a folder closes its store. Closing twice is fine."""
        if self._lease.detach() is not None:
            self._shared_session.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """As the place it lies at: whoever unpickles it opens it again, with the key of a server from the environment.

        Raises:
            InvalidInputError: If its embedder or its reranker was given as an object, or the index was built with an
                object that no name loads: weights are not pickled.
        """
        for role in ("embedder", "reranker"):
            if not isinstance(self._arguments[role], str | None):
                raise InvalidInputError(
                    f"An index with a model that was loaded by hand cannot be pickled: open it with the {role}'s name."
                )
        settings = self._opened_session.settings
        if not settings.has_loadable_model:
            raise InvalidInputError(
                f"An index that was built with a model of your own ({settings.embedder!r}) cannot be pickled: open it "
                "with that model where it is needed."
            )
        return partial(type(self).open, create=False, **self._arguments), ()

    def __repr__(self) -> str:
        if not self._lease.alive:
            return "DocumentIndex(closed)"
        return f"DocumentIndex({self._session.location!r}, embedder={self._session.settings.embedder!r})"
