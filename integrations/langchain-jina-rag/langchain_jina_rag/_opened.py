"""The index behind a retriever or a store: where it is, and opened when it is first asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.runnables.config import run_in_executor
from pydantic import SecretStr

from jina_rag import DocumentIndex, Storage
from langchain_jina_rag._lazy import LazyIndex
from langchain_jina_rag.document_compressors import JinaLocalRerank
from langchain_jina_rag.embeddings import JinaLocalEmbeddings


@dataclass(frozen=True)
class Opening:
    """How an index is opened; see `jina_rag.DocumentIndex.open`."""

    location: str
    embedder: str | JinaLocalEmbeddings | None = None
    reranker: str | JinaLocalRerank | None = None
    assets_dir: str | None = None
    api_key: SecretStr | None = None
    create: bool = False
    storage: str | Storage | None = None

    def open(self) -> DocumentIndex:
        """Open it, with the models that are needed for it."""
        return DocumentIndex.open(
            self.location,
            embedder=self.embedder.embedder if isinstance(self.embedder, JinaLocalEmbeddings) else self.embedder,
            reranker=self.reranker.reranker if isinstance(self.reranker, JinaLocalRerank) else self.reranker,
            storage=self.storage,
            create=self.create,
            assets_dir=self.assets_dir,
            api_key=None if self.api_key is None else self.api_key.get_secret_value(),
        )


async def opened(index: LazyIndex[DocumentIndex], opening: Opening) -> DocumentIndex:
    """The index; if it has to be opened, a thread does that: it may load a model."""
    ready = index.peek()
    return ready if ready is not None else await run_in_executor(None, index.get, opening.open)


def location_of(index: DocumentIndex) -> str:
    """Where an index is, as `DocumentIndex.open` takes it."""
    return index.info().location


def check_same_model(index: DocumentIndex, embedding: JinaLocalEmbeddings) -> None:
    """Refuse a model whose vectors do not fit an index that is open.

    Raises:
        ValueError: If it is another one than the index was built with.
    """
    index_info = index.info()
    if index_info.fingerprint != embedding.embedder.fingerprint:
        raise ValueError(
            f"The index at {index_info.location} was built with the model {index_info.embedder!r}, not with "
            f"{embedding.embedder.name!r}: leave the embedding out, or index into a new folder."
        )


def without_key(state: dict[Any, Any]) -> dict[Any, Any]:
    """A pydantic model's state for pickling, without its `api_key`: a pickle would hold it in plain text."""
    fields = dict(state["__dict__"], api_key=None)
    return {**state, "__dict__": fields}


def as_location(value: str | Path | DocumentIndex) -> tuple[str, DocumentIndex | None]:
    """A location, and the caller's own index if that is what was given."""
    if isinstance(value, DocumentIndex):
        return location_of(value), value
    return str(value), None
