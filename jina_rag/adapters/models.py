"""Options for loading a model as pydantic fields. A model is loaded at first use, and equal options share one model."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias
from weakref import WeakValueDictionary

from pydantic import BaseModel, Field, ModelWrapValidatorHandler, PrivateAttr, model_validator

from jina_rag._forks import after_fork_in_child
from jina_rag.adapters.lazy import Lazy, check_not_empty
from jina_rag.errors import InvalidInputError
from jina_rag.models.registry import load_embedder, load_reranker
from jina_rag.protocols import Embedder, Input, Reranker
from jina_rag.types import Embeddings

if TYPE_CHECKING:
    EmbedderSource: TypeAlias = str | Path | Embedder
    RerankerSource: TypeAlias = str | Path | Reranker
else:
    EmbedderSource = RerankerSource = str  # type of the stored value, and of the field in the JSON schema

_CALL_LIMITS = ("truncate_dim", "max_pixels", "max_length")
_LOAD_OPTIONS = ("device", "dtype", "task", "revision", "local_files_only", "allow_urls")


_models: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()
"""Loaded models by name and options. A model stays in the dict as long as an adapter references the model."""
_locks: WeakValueDictionary[Hashable, threading.Lock] = WeakValueDictionary()
"""One lock per model that is being loaded, so that different models load concurrently."""
_locks_lock = threading.Lock()


def _renew_locks() -> None:
    global _locks, _locks_lock
    _locks, _locks_lock = WeakValueDictionary(), threading.Lock()


after_fork_in_child(_renew_locks)


class LazyModel(Lazy[Any]):
    """The model passed by the caller, and the model loaded by name and options.

    Immutable: if the options change, `ModelOptions` creates another `LazyModel`, so that copies of the options keep the
    previous model.
    """

    def __init__(self, external: Any = None, key: Hashable = None, model: Any = None) -> None:  # noqa: ANN401
        """Store a passed model and a loaded model.

        Args:
            external: Model passed by the caller; None if the caller passed no model.
            key: Name and options of `model`.
            model: Loaded model.
        """
        super().__init__(external)
        self.key = key
        self.model = model


class ModelOptions(BaseModel):
    """Options for loading a model, for the adapters of LangChain and LlamaIndex.

    A subclass adds a field for the model, which accepts a name, a folder or a loaded model and stores the name. Dumps,
    pickles and reprs contain the fields, never a loaded model.

    Attributes:
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``; or several devices, with one process for
            each device: ``("cuda:0", "cuda:1")``, ``"cuda:0,cuda:1"`` or ``"all"``.
        dtype: Type of the weights: ``"auto"``, ``"float32"``, ``"bfloat16"`` or ``"float16"``.
        max_pixels: Maximum number of pixels of an image; larger images are scaled down. None for the model's default.
        max_length: Maximum number of tokens of an input; longer inputs are truncated. None for the model's limit.
        revision: Branch, tag or commit on the Hugging Face hub; None for the default branch.
        local_files_only: Whether to use downloaded files only.
    """

    device: str | tuple[str, ...] = Field(
        default="auto", description="Device: 'auto', 'cpu', 'cuda', 'cuda:1', 'mps'; or several, ['cuda:0', 'cuda:1']."
    )
    dtype: str = Field(default="auto", description="Type of the weights: 'auto', 'float32', 'bfloat16', 'float16'.")
    max_pixels: int | None = Field(
        default=None, description="Maximum pixels of an image; larger images are scaled down."
    )
    max_length: int | None = Field(default=None, description="Maximum tokens of an input; None for the model's limit.")
    revision: str | None = Field(default=None, description="Branch, tag or commit on the Hugging Face hub.")
    local_files_only: bool = Field(default=False, description="Use downloaded files only.")

    _lazy_model: LazyModel = PrivateAttr(default_factory=LazyModel)
    _model_field: ClassVar[str] = "model"
    _model_method: ClassVar[str]
    _loading_only_options: ClassVar[Sequence[str]]

    @model_validator(mode="wrap")
    @classmethod
    def _store_model(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:  # noqa: ANN401
        """Store a loaded model outside of the fields, and store the name of the model in the model field."""
        field = cls._model_field
        model = data.get(field) if isinstance(data, dict) else None
        if model is None:
            return handler(data)
        if isinstance(model, str | os.PathLike):
            check_not_empty(**{field: model})
            return handler({**data, field: os.fspath(model)})
        # isinstance with a protocol evaluates `fingerprint` before Python 3.12, which can be slow.
        if not callable(getattr(model, cls._model_method, None)):
            kind = "an embedder" if cls._model_method == "encode_document" else "a reranker"
            raise ValueError(f"{field} is a {type(model).__name__}; expected a model name, a folder or {kind}.")
        options = handler({**data, field: model.name})
        options._lazy_model = LazyModel(model)
        options._check_passed_model()
        return options

    def _check_passed_model(self) -> Any:  # noqa: ANN401
        """Return the model passed by the caller; None if the caller passed no model or changed the model field.

        Raises:
            InvalidInputError: If a loading option is set together with the passed model.
        """
        model, fields = self._lazy_model.external, type(self).model_fields
        if model is None or model.name != getattr(self, self._model_field):
            return None
        for name in self._loading_only_options:
            if name in fields and getattr(self, name) != fields[name].default:
                raise InvalidInputError(
                    f"{name} cannot be set for {model.name!r}, which is already loaded. Omit {name}."
                )
        return model

    def _get_model(self, load: Callable[..., Any]) -> Any:  # noqa: ANN401
        """Return the passed or loaded model; equal names and options share one model per process."""
        model = self._check_passed_model()
        if model is not None:
            return model
        lazy_model, name = self._lazy_model, getattr(self, self._model_field)
        options = {key: getattr(self, key) for key in (*_LOAD_OPTIONS, *_CALL_LIMITS) if key in type(self).model_fields}
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
    """Options for loading an embedder.

    Attributes:
        task: ``"retrieval"``; jina-embeddings-v4 also supports ``"text-matching"`` and ``"code"``.
        truncate_dim: Length of the dense vectors after Matryoshka truncation; None for the model's full length.
    """

    task: str = Field(default="retrieval", description="'retrieval'; jina-embeddings-v4: also 'text-matching', 'code'.")
    truncate_dim: int | None = Field(
        default=None, description="Length of the vectors; None for the model's full length."
    )

    _model_method: ClassVar[str] = "encode_document"
    _loading_only_options: ClassVar[Sequence[str]] = _LOAD_OPTIONS

    @property
    def embedder(self) -> Embedder:
        """The embedder, loaded at first use.

        Raises:
            JinaRagError: If the model cannot be loaded; see `jina_rag.load_embedder`.
        """
        model: Embedder = self._get_model(load_embedder)
        return model

    @property
    def matches_fingerprint(self) -> bool:
        """Whether the fingerprint of the embedder describes the vectors of `encode`.

        False if `truncate_dim`, `max_pixels` or `max_length` is set for a passed embedder.
        """
        return self._check_passed_model() is None or not any(getattr(self, name) for name in _CALL_LIMITS)

    def encode(self, side: Literal["query", "document"], inputs: Sequence[Input], *, multi: bool = False) -> Embeddings:
        """Encode queries or documents with the length and size limits of the options; see `jina_rag.Embedder`.

        Args:
            side: ``"query"`` or ``"document"``.
            inputs: Texts, images or pages.
            multi: Whether to return multi-vectors in addition to the dense vectors.

        Returns:
            Embeddings with dense vectors of shape (n, dim), float32. If `multi` is True, the embeddings also contain
            one multi-vector of shape (tokens, dim), float32, per input.
        """
        embedder = self.embedder
        encode = embedder.encode_query if side == "query" else embedder.encode_document
        limits: dict[str, Any] = {name: getattr(self, name) for name in _CALL_LIMITS}
        return encode(inputs, multi=multi, **limits)

    def dense_vectors(self, side: Literal["query", "document"], inputs: Sequence[Input]) -> list[list[float]]:
        """Return one dense vector per input as a list of floats; the length is `truncate_dim` or the model's dimension.

        Args:
            side: ``"query"`` or ``"document"``.
            inputs: Texts, images or pages.
        """
        if not inputs:
            return []
        vectors: list[list[float]] = self.encode(side, inputs).require_single().tolist()
        return vectors


class RerankerOptions(ModelOptions):
    """Options for loading a reranker."""

    _model_method: ClassVar[str] = "score"
    _loading_only_options: ClassVar[Sequence[str]] = (*_LOAD_OPTIONS, *_CALL_LIMITS)

    @property
    def reranker(self) -> Reranker:
        """The reranker, loaded at first use.

        Raises:
            JinaRagError: If the model cannot be loaded; see `jina_rag.load_reranker`.
        """
        model: Reranker = self._get_model(load_reranker)
        return model


def model_argument(field: str, name: str | os.PathLike[str] | None, model: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the model name or the loaded model as a keyword argument for the model field.

    Args:
        field: Name of the model field.
        name: Model name or folder; None if no name was passed.
        model: Loaded model; None if no model was passed.

    Returns:
        ``{field: name or model}``, or ``{}`` if both are None.

    Raises:
        InvalidInputError: If `name` and `model` are passed.
    """
    if name is not None and model is not None:
        raise InvalidInputError(f"{field} cannot be set for {model.name!r}, which is already loaded. Omit {field}.")
    return {} if name is None and model is None else {field: model if name is None else name}
