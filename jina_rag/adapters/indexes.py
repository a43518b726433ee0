"""The index behind a retriever or a vector store, opened at its first use."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, replace
from typing import Any, Self

from pydantic import SecretStr

from jina_rag.adapters.lazy import Lazy, check_not_empty
from jina_rag.adapters.models import EmbedderOptions, ModelOptions, RerankerOptions
from jina_rag.config import Storage
from jina_rag.errors import InvalidInputError
from jina_rag.index.document_index import DocumentIndex
from jina_rag.index.models import resolve_model
from jina_rag.protocols import Embedder, Reranker


@dataclass(frozen=True)
class IndexOpening:
    """The arguments of `jina_rag.DocumentIndex.open`; a model may be its options, which load it.

    Copies are the opening itself. A pickle holds no key and no loaded model, and what comes out of it makes no index.

    Raises:
        InvalidInputError: If a path or the name of a model is empty.
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
        """All arguments but the location and `create`, with the models that are options loaded."""
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
        loaded = {name: None for name in ("embedder", "reranker") if not isinstance(self.__dict__[name], kinds)}
        return {**self.__dict__, **loaded, "create": False, "api_key": None}


class LazyIndex(Lazy[DocumentIndex]):
    """The handles of an adapter and its copies, one for each opening, or the caller's own index, which stays open."""

    def __init__(self, external: DocumentIndex | None = None, location: str | None = None) -> None:
        super().__init__(external)
        self._location = location
        self._lock = threading.Lock()
        self._handles: dict[tuple[Any, ...], DocumentIndex] = {}
        self._opened_locations: set[str] = set()

    @classmethod
    def of(cls, index: Any, **options: Any) -> tuple[IndexOpening, LazyIndex]:  # noqa: ANN401
        """How an index is opened, with absolute paths, and its handle.

        Args:
            index: A folder, an address, or an open index.
            options: Those of `IndexOpening`.

        Raises:
            InvalidInputError: If the index is open already, and there are options; or one of them is empty.
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
        """The index; several threads that ask first get one handle.

        A place where an index was opened before is not made once more: what is gone is told of.

        Raises:
            InvalidInputError: If the caller's own index is meant, and there are options for opening it.
        """
        if self.external is not None and opening.location == self._location:
            names = ("embedder", "reranker", "storage", "assets_dir", "api_key")
            name = next((name for name in names if getattr(opening, name) is not None), None)
            if name is not None:
                raise InvalidInputError(f"{name} is for opening an index, and this one is open already: leave it out.")
            return self.external
        location, arguments = opening.location, opening.arguments()
        # Loaded models by identity: their handle keeps them, and the caller's need not be comparable.
        key = (location, *(arg if isinstance(arg, str | Storage | None) else id(arg) for arg in arguments.values()))
        with self._lock:
            if key not in self._handles:
                create = opening.create and location not in self._opened_locations
                self._handles[key] = DocumentIndex.open(location, create=create, **arguments)
                self._opened_locations.add(location)
            return self._handles[key]

    def close(self) -> None:
        """Release the handles; the caller's own index stays open."""
        with self._lock:
            handles, self._handles = self._handles, {}
        for handle in handles.values():
            handle.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return LazyIndex, (self.external, self._location)  # an index is pickled as its location


class IndexOwner:
    """Releases its index by `close`, or at the end of a ``with`` block."""

    _index: LazyIndex

    def close(self) -> None:
        """Release the index, unless it was passed open; the next call opens it again."""
        self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
