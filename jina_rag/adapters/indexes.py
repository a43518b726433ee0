"""Index of a retriever or a vector store, which is opened at first use."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, Self

from pydantic import SecretStr

from jina_rag._forks import RenewedLock
from jina_rag.adapters.lazy import Lazy, check_not_empty
from jina_rag.adapters.models import EmbedderOptions, ModelOptions, RerankerOptions
from jina_rag.config import Storage
from jina_rag.errors import InvalidInputError
from jina_rag.index.document_index import DocumentIndex
from jina_rag.index.models import resolve_model
from jina_rag.protocols import Embedder, Reranker


@dataclass(frozen=True)
class IndexOpening:
    """Arguments of `jina_rag.DocumentIndex.open`.

    Copying returns the same object. A pickle excludes the API key and loaded models. An unpickled `IndexOpening` does
    not create a missing index.

    Attributes:
        location: Folder of the index, or URL of a collection on a Qdrant server.
        embedder: Name, folder, options or object of the embedder; None for the embedder of the index.
        reranker: Name, folder, options or object of the reranker; None for no reranker.
        storage: Storage format of a new index: a preset name or a `jina_rag.Storage`; None for the default.
        create: Whether to create a missing index.
        assets_dir: For a server: folder of the page images and the manifest; None for a folder in the user's data
            directory.
        api_key: API key of the server; None for the environment variable QDRANT_API_KEY.

    Raises:
        InvalidInputError: If a path or a model name is empty.
    """

    location: str
    embedder: str | os.PathLike[str] | Embedder | EmbedderOptions | None = None
    reranker: str | os.PathLike[str] | Reranker | RerankerOptions | None = None
    storage: str | Storage | None = None
    create: bool = False
    assets_dir: str | None = None
    api_key: SecretStr | None = None

    def __post_init__(self) -> None:
        check_not_empty(index=self.location, embedder=self.embedder, reranker=self.reranker, assets_dir=self.assets_dir)

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments of `DocumentIndex.open` except `create`; model options become loaded models."""
        return {
            "embedder": self.embedder.embedder if isinstance(self.embedder, EmbedderOptions) else self.embedder,
            "reranker": self.reranker.reranker if isinstance(self.reranker, RerankerOptions) else self.reranker,
            "storage": self.storage,
            "assets_dir": self.assets_dir,
            "api_key": None if self.api_key is None else self.api_key.get_secret_value(),
        }

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        kinds = (str, os.PathLike, ModelOptions)
        loaded_models = {name: None for name in ("embedder", "reranker") if not isinstance(self.__dict__[name], kinds)}
        return {**self.__dict__, **loaded_models, "create": False, "api_key": None}


class LazyIndex(Lazy[DocumentIndex]):
    """Open indexes of an adapter and of the copies of the adapter, one per `IndexOpening`.

    If the caller passed an open index, that index is used instead, and is never closed by `LazyIndex`.
    """

    def __init__(self, external: DocumentIndex | None = None, location: str | None = None) -> None:
        """Create the object without opening an index.

        Args:
            external: Index opened by the caller; None to open the index at first use.
            location: Location of `external`.
        """
        super().__init__(external)
        self._location = location
        self._lock = RenewedLock()
        self._process = os.getpid()
        self._handles: dict[tuple[Any, ...], DocumentIndex] = {}
        self._opened_locations: set[str] = set()

    @classmethod
    def of(cls, index: Any, **options: Any) -> tuple[IndexOpening, LazyIndex]:  # noqa: ANN401
        """Return the `IndexOpening` of an index, with absolute paths, and the `LazyIndex` that opens it.

        Args:
            index: Folder of an index, URL of a collection on a Qdrant server, or an open index.
            options: Further fields of `IndexOpening`.

        Raises:
            InvalidInputError: If options are passed with an open index, or a path or model name is empty.
        """
        if isinstance(options.get("api_key"), str):
            options["api_key"] = SecretStr(options["api_key"])
        external = index if isinstance(index, DocumentIndex) else None
        opening = IndexOpening(os.fspath(index) if external is None else external.info().location, **options)
        opening = replace(
            opening,
            location=opening.location if "://" in opening.location else os.path.abspath(opening.location),
            embedder=resolve_model(opening.embedder),
            reranker=resolve_model(opening.reranker),
            assets_dir=None if opening.assets_dir is None else os.path.abspath(opening.assets_dir),
        )
        lazy_index = cls(external, opening.location)
        if external is not None:
            lazy_index.get(opening)
        return opening, lazy_index

    def get(self, opening: IndexOpening) -> DocumentIndex:
        """Return the open index of `opening`. Thread-safe: concurrent first calls share one open index.

        An index that existed at an earlier call and is missing now is not re-created.

        Args:
            opening: Location and options of the index.

        Raises:
            InvalidInputError: If `opening` has options for the index opened by the caller.
            IndexNotFoundError: If the index is missing, and `opening.create` is False or an earlier call opened the
                index.
        """
        if self.external is not None and opening.location == self._location:
            names = ("embedder", "reranker", "storage", "assets_dir", "api_key")
            name = next((name for name in names if getattr(opening, name) is not None), None)
            if name is not None:
                raise InvalidInputError(f"{name} cannot be set for an index that is already open. Omit {name}.")
            return self.external
        location, arguments = opening.location, opening.arguments()
        # The key contains the ids of loaded models, because models need not be hashable. The open index keeps the
        # models alive, so that an id is not reused.
        key = (location, *(arg if isinstance(arg, str | Storage | None) else id(arg) for arg in arguments.values()))
        with self._lock:
            self._forget_other_process()
            if key not in self._handles:
                create = opening.create and location not in self._opened_locations
                self._handles[key] = DocumentIndex.open(location, create=create, **arguments)
                self._opened_locations.add(location)
            return self._handles[key]

    def close(self) -> None:
        """Close all indexes that `get` opened; an index opened by the caller stays open."""
        with self._lock:
            self._forget_other_process()
            handles, self._handles = self._handles, {}
        for handle in handles.values():
            handle.close()

    def _forget_other_process(self) -> None:
        """In a forked child, forget the indexes that the parent opened, so that the child opens indexes of its own."""
        if self._process != os.getpid():
            self._handles, self._process = {}, os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        return LazyIndex, (self.external, self._location)  # an open index is pickled as the location


class IndexOwner:
    """Base class of adapters that close the index of the adapter with `close` or at the end of a ``with`` block."""

    _index: LazyIndex

    def close(self) -> None:
        """Close the index, unless the caller passed an open index; the next call reopens the index."""
        self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
