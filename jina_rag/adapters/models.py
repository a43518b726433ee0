"""The options of a model as pydantic fields, and the model: loaded at its first use, shared by equal options."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias
from weakref import WeakValueDictionary

from pydantic import BaseModel, Field, ModelWrapValidatorHandler, PrivateAttr, model_validator

from jina_rag.adapters.lazy import Lazy, check_not_empty
from jina_rag.errors import InvalidInputError
from jina_rag.models.registry import load_embedder, load_reranker
from jina_rag.protocols import Embedder, Input, Reranker
from jina_rag.types import Embeddings

if TYPE_CHECKING:
    EmbedderSource: TypeAlias = str | Path | Embedder
    RerankerSource: TypeAlias = str | Path | Reranker
else:
    EmbedderSource = RerankerSource = str  # what a field keeps, and what a JSON schema tells

_LIMITS = ("truncate_dim", "max_pixels", "max_length")
_LOADING = ("device", "dtype", "task", "revision", "local_files_only", "allow_urls")


_models: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()
"""Loaded models by name and options, as long as anybody uses them."""
_locks: WeakValueDictionary[Hashable, threading.Lock] = WeakValueDictionary()
"""A lock for each model that is being loaded: nobody waits for another model."""
_locks_lock = threading.Lock()


class LazyModel(Lazy[Any]):
    """The model that was passed by the caller, and the one that was loaded by name and options.

    It does not change: one that loads another model takes a new `LazyModel`, and its copies keep theirs.
    """

    def __init__(self, external: Any = None, key: Hashable = None, model: Any = None) -> None:  # noqa: ANN401
        super().__init__(external)
        self.key = key
        self.model = model


class ModelOptions(BaseModel):
    """How a model is loaded: the fields that both frameworks' classes have.

    A subclass has a field for the model itself, which takes a name, a folder, or a loaded model; the field keeps the
    name. Dumps, pickles and reprs hold the fields, never the model.
    """

    device: str = Field(default="auto", description="'auto', 'cpu', 'cuda', 'cuda:1', 'mps'.")
    dtype: str = Field(default="auto", description="Of the weights: 'auto', 'float32', 'bfloat16', 'float16'.")
    max_pixels: int | None = Field(default=None, description="Pixels that images are scaled down to.")
    max_length: int | None = Field(default=None, description="Tokens of an input that are read; None for all.")
    revision: str | None = Field(default=None, description="Branch, tag or commit on the hub.")
    local_files_only: bool = Field(default=False, description="Download nothing.")

    _lazy_model: LazyModel = PrivateAttr(default_factory=LazyModel)
    _model_field: ClassVar[str] = "model"
    _model_method: ClassVar[str]
    _fixed_options: ClassVar[Sequence[str]]

    @model_validator(mode="wrap")
    @classmethod
    def _keep_model(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:  # noqa: ANN401
        """Keep a loaded model beside the fields, and its name in them."""
        field = cls._model_field
        model = data.get(field) if isinstance(data, dict) else None
        if model is None:
            return handler(data)
        if isinstance(model, str | os.PathLike):
            check_not_empty(**{field: model})
            return handler({**data, field: os.fspath(model)})
        # Not by isinstance: before Python 3.12 that asks for the fingerprint, which may have to be computed.
        if not callable(getattr(model, cls._model_method, None)):
            kind = "an embedder" if cls._model_method == "encode_document" else "a reranker"
            raise ValueError(f"{field} is a {type(model).__name__}; it is the name or folder of a model, or {kind}.")
        options = handler({**data, field: model.name})
        options._lazy_model = LazyModel(model)
        options._check_passed_model()
        return options

    def _check_passed_model(self) -> Any:  # noqa: ANN401
        """The model that the caller passed, unless the field names another one by now; None if there is none.

        Raises:
            InvalidInputError: If a field for loading a model is set beside it.
        """
        model, fields = self._lazy_model.external, type(self).model_fields
        if model is None or model.name != getattr(self, self._model_field):
            return None
        for name in self._fixed_options:
            if name in fields and getattr(self, name) != fields[name].default:
                raise InvalidInputError(f"{name} is for loading a model, and {model.name!r} is loaded: leave it out.")
        return model

    def _get_model(self, load: Callable[..., Any]) -> Any:  # noqa: ANN401
        """The model; one of the same name and options that is in use anywhere in the process is shared."""
        model = self._check_passed_model()
        if model is not None:
            return model
        lazy_model, name = self._lazy_model, getattr(self, self._model_field)
        options = {key: getattr(self, key) for key in (*_LOADING, *_LIMITS) if key in type(self).model_fields}
        key = (load, name, *options.items())
        if lazy_model.key != key:
            with _locks_lock:
                lock = _locks.setdefault(key, threading.Lock())
            with lock:
                model = _models.get(key)
                if model is None:
                    model = _models[key] = load(name, **options)
            lazy_model = self._lazy_model = LazyModel(lazy_model.external, key, model)
        return lazy_model.model


class EmbedderOptions(ModelOptions):
    """The options of an embedder."""

    task: str = Field(default="retrieval", description="Also 'text-matching' or 'code', for jina-embeddings-v4.")
    truncate_dim: int | None = Field(default=None, description="Length of the vectors; None for the model's own.")

    _model_method: ClassVar[str] = "encode_document"
    _fixed_options: ClassVar[Sequence[str]] = _LOADING

    @property
    def embedder(self) -> Embedder:
        """The model, loaded when it is first needed.

        Raises:
            JinaRagError: If it cannot be loaded; see `jina_rag.load_embedder`.
        """
        model: Embedder = self._get_model(load_embedder)
        return model

    @property
    def matches_fingerprint(self) -> bool:
        """Whether `encode` gives the vectors that the embedder's fingerprint stands for: no limit is set per call."""
        return self._check_passed_model() is None or not any(getattr(self, name) for name in _LIMITS)

    def encode(self, side: Literal["query", "document"], inputs: Sequence[Input], *, multi: bool = False) -> Embeddings:
        """Embed queries or documents as the options say; see `jina_rag.Embedder`."""
        embedder = self.embedder
        encode = embedder.encode_query if side == "query" else embedder.encode_document
        limits: dict[str, Any] = {name: getattr(self, name) for name in _LIMITS}
        return encode(inputs, multi=multi, **limits)

    def dense_vectors(self, side: Literal["query", "document"], inputs: Sequence[Input]) -> list[list[float]]:
        """One vector of Python floats for each input."""
        if not inputs:
            return []
        vectors: list[list[float]] = self.encode(side, inputs).require_single().tolist()
        return vectors


class RerankerOptions(ModelOptions):
    """The options of a reranker."""

    _model_method: ClassVar[str] = "score"
    _fixed_options: ClassVar[Sequence[str]] = (*_LOADING, *_LIMITS)

    @property
    def reranker(self) -> Reranker:
        """The model, loaded when it is first needed.

        Raises:
            JinaRagError: If it cannot be loaded; see `jina_rag.load_reranker`.
        """
        model: Reranker = self._get_model(load_reranker)
        return model


def model_argument(field: str, name: str | os.PathLike[str] | None, model: Any) -> dict[str, Any]:  # noqa: ANN401
    """The value of a model's field, where a name and a loaded model are two arguments; {} for the default.

    Raises:
        InvalidInputError: If both are given.
    """
    if name is not None and model is not None:
        raise InvalidInputError(f"{field} is for loading a model, and {model.name!r} is loaded: leave it out.")
    return {} if name is None and model is None else {field: model if name is None else name}
