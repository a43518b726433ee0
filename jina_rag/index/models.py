"""The embedder and the rerankers of an index, loaded on first use."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from jina_rag.errors import InvalidInputError
from jina_rag.index.session import IndexSession
from jina_rag.models import catalogue
from jina_rag.models.runtime.device_names import DeviceNames
from jina_rag.protocols import Embedder, Reranker
from jina_rag.search.reranking import Rerank

Model = TypeVar("Model")


def resolve_model(model: str | os.PathLike[str] | Model | None) -> str | Model | None:
    """Return the absolute path of a model folder; return any other value unchanged.

    An absolute path stays valid if the working directory changes later.

    Args:
        model: Model name, model folder, model object or None.

    Raises:
        InvalidInputError: If the name is empty.
    """
    if not isinstance(model, str | os.PathLike):
        return model
    name = os.fspath(model)
    if not name.strip():
        raise InvalidInputError("The model name is empty. Pass the name of a model, or omit the argument.")
    return os.path.realpath(name) if name not in catalogue.names_of("lite") and os.path.isdir(name) else name


def absolute_folder(assets_dir: str | os.PathLike[str] | None) -> str | None:
    """Return the absolute path of an assets folder; return None for None.

    Raises:
        InvalidInputError: If the path is empty.
    """
    if assets_dir is None:
        return None
    if not os.fspath(assets_dir).strip():
        raise InvalidInputError('assets_dir is empty. Pass a folder (--assets-dir), or "." for the current folder.')
    return os.path.abspath(assets_dir)


class IndexModels:
    """The embedder and the rerankers of one `DocumentIndex`, loaded on first use.

    Attributes:
        default_reranker: The reranker that the index was opened with, as an object or a model name; None without a
            reranker.
    """

    def __init__(
        self,
        session: IndexSession,
        embedder: str | Embedder | None,
        reranker: str | Reranker | None,
        device: DeviceNames = "auto",
    ) -> None:
        self._session, self._device = session, device
        self._embedder = self._passed_embedder = embedder
        self.default_reranker = reranker
        self._rerankers: dict[str, Reranker] = {}
        # Each model has a lock, so that a loaded model stays usable while another model loads.
        self._embedder_lock = threading.Lock()
        self._reranker_locks: dict[str, threading.Lock] = {}

    @property
    def embedder(self) -> Embedder:
        """Embedder of the index."""
        with self._embedder_lock:
            if self._embedder is None or isinstance(self._embedder, str):
                self._embedder = self._session.load_embedder(self._embedder, self._device)
            return self._embedder

    @property
    def reranker(self) -> Reranker | None:
        """Reranker that the index was opened with; None without a reranker."""
        return None if self.default_reranker is None else self._load_reranker(self.default_reranker)

    def reranker_for(self, stage: Rerank | None) -> Callable[[], Reranker] | None:
        """Return a function that loads the reranker of a stage; return None if the stage is off.

        Args:
            stage: The rerank stage of a search; None if the search has none.

        Raises:
            InvalidInputError: If neither the stage nor the index has a reranker.
        """
        if stage is None or not stage.limit:
            return None
        model = stage.model if stage.model is not None else self.default_reranker
        if model is None:
            raise InvalidInputError(
                "The index has no reranker. Open the index with reranker=NAME (--reranker), or pass Rerank(model=NAME)."
            )
        return partial(self._load_reranker, model)

    def _load_reranker(self, model: str | os.PathLike[str] | Reranker) -> Reranker:
        if not isinstance(model, str | os.PathLike):
            return model
        from jina_rag.models.registry import load_reranker

        name = os.fspath(model)
        with self._reranker_locks.setdefault(name, threading.Lock()):
            if name not in self._rerankers:
                # The lite models run on the CPU only, also beside an embedder on another device.
                device = "auto" if name in catalogue.names_of("lite") else self._device
                self._rerankers[name] = load_reranker(name, device=device)
            return self._rerankers[name]

    def release(self) -> None:
        """Drop the models that were loaded by name. Their memory is freed, and processes of several devices end."""
        self._embedder = self._passed_embedder
        self._rerankers.clear()
