"""The models of one index, loaded when they are first needed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from jina_rag.errors import InvalidInputError
from jina_rag.index.session import IndexSession
from jina_rag.models import catalogue
from jina_rag.protocols import Embedder, Reranker
from jina_rag.search.reranking import Rerank

Model = TypeVar("Model")


def resolve_model(model: str | os.PathLike[str] | Model | None) -> str | Model | None:
    """The absolute path of a model folder, which is the same from every working directory; anything else as it is.

    Raises:
        InvalidInputError: If the name is empty.
    """
    if not isinstance(model, str | os.PathLike):
        return model
    name = os.fspath(model)
    if not name.strip():
        raise InvalidInputError("The name of a model is empty: name an embedder or a reranker, or leave it out.")
    return os.path.realpath(name) if name not in catalogue.names_of("lite") and os.path.isdir(name) else name


def absolute_folder(assets_dir: str | os.PathLike[str] | None) -> str | None:
    """The absolute path of a folder of page images; None for none.

    Raises:
        InvalidInputError: If the path is empty.
    """
    if assets_dir is None:
        return None
    if not os.fspath(assets_dir).strip():
        raise InvalidInputError('assets_dir is empty: name a folder, or "." for the current one.')
    return os.path.abspath(assets_dir)


class IndexModels:
    """The embedder and the rerankers that one `DocumentIndex` works with.

    Attributes:
        default_reranker: The reranker that the index was opened with, or its name; None if there is none.
    """

    def __init__(self, session: IndexSession, embedder: str | Embedder | None, reranker: str | Reranker | None) -> None:
        self._session = session
        self._embedder = embedder
        self.default_reranker = reranker
        self._rerankers: dict[str, Reranker] = {}
        # A lock for each model: who needs one that is loaded does not wait for another.
        self._embedder_lock = threading.Lock()
        self._reranker_locks: dict[str, threading.Lock] = {}

    @property
    def embedder(self) -> Embedder:
        """The model of the index."""
        with self._embedder_lock:
            if self._embedder is None or isinstance(self._embedder, str):
                self._embedder = self._session.load_embedder(self._embedder)
            return self._embedder

    @property
    def reranker(self) -> Reranker | None:
        """The reranker that the index was opened with."""
        return None if self.default_reranker is None else self._load_reranker(self.default_reranker)

    def reranker_for(self, stage: Rerank | None) -> Callable[[], Reranker] | None:
        """What loads the reranker of a stage; None for a stage that judges nothing.

        Raises:
            InvalidInputError: If there is none.
        """
        if stage is None or not stage.limit:
            return None
        model = stage.model if stage.model is not None else self.default_reranker
        if model is None:
            raise InvalidInputError(
                "There is no reranker: open the index with one (reranker=…), or name it: Rerank(model=…)."
            )
        return partial(self._load_reranker, model)

    def _load_reranker(self, model: str | os.PathLike[str] | Reranker) -> Reranker:
        if not isinstance(model, str | os.PathLike):
            return model
        from jina_rag.models.registry import load_reranker

        name = os.fspath(model)
        with self._reranker_locks.setdefault(name, threading.Lock()):
            if name not in self._rerankers:
                self._rerankers[name] = load_reranker(name)
            return self._rerankers[name]
