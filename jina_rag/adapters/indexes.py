"""The index behind a retriever or a vector store, opened at its first use."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any, Self

from pydantic import SecretStr

from jina_rag.adapters.lazy import Lazy
from jina_rag.adapters.models import EmbedderOptions, RerankerOptions
from jina_rag.config import Storage
from jina_rag.errors import InvalidInputError
from jina_rag.index.document_index import DocumentIndex
from jina_rag.protocols import Embedder, Reranker


@dataclass(frozen=True)
class IndexOpening:
    """The arguments of `jina_rag.DocumentIndex.open`; a model may be its options, and is loaded by `open`."""

    location: str
    embedder: str | os.PathLike[str] | Embedder | EmbedderOptions | None = None
    reranker: str | os.PathLike[str] | Reranker | RerankerOptions | None = None
    storage: str | Storage | None = None
    create: bool = False
    assets_dir: str | None = None
    api_key: SecretStr | None = None

    def open(self) -> DocumentIndex:
        """Open the index; it loads the models that are options."""
        return DocumentIndex.open(
            self.location,
            embedder=self.embedder.embedder if isinstance(self.embedder, EmbedderOptions) else self.embedder,
            reranker=self.reranker.reranker if isinstance(self.reranker, RerankerOptions) else self.reranker,
            storage=self.storage,
            create=self.create,
            assets_dir=self.assets_dir,
            api_key=None if self.api_key is None else self.api_key.get_secret_value(),
        )


class LazyIndex(Lazy[DocumentIndex]):
    """One handle of an index, opened at its first use, or the caller's own, which stays open."""

    def __init__(self, external: DocumentIndex | None = None) -> None:
        super().__init__(external)
        self._lock = threading.Lock()
        self._handle: DocumentIndex | None = None

    @classmethod
    def of(cls, index: Any, **options: Any) -> tuple[str, LazyIndex]:  # noqa: ANN401
        """The location of an index, and its handle.

        Args:
            index: A folder, an address, or an open index.
            options: Arguments for opening it.

        Raises:
            InvalidInputError: If the index is open already, and there are options.
        """
        if not isinstance(index, DocumentIndex):
            return os.fspath(index), cls()
        for name, value in options.items():
            if value is not None:
                raise InvalidInputError(f"{name} is for opening an index, and this one is open already: leave it out.")
        return index.info().location, cls(index)

    def get(self, opening: IndexOpening) -> DocumentIndex:
        """The index; several threads that ask first get one handle."""
        if self.external is not None:
            return self.external
        with self._lock:
            if self._handle is None:
                self._handle = opening.open()
            return self._handle

    def close(self) -> None:
        """Release the handle; the caller's own index stays open."""
        with self._lock:
            handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return LazyIndex, (self.external,)  # an index is pickled as its location


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
