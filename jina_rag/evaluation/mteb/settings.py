"""Settings of a benchmark run: models, loading options and search options."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from jina_rag.config import Storage
from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.mteb.contents import ContentParts
from jina_rag.protocols import Embedder, Reranker
from jina_rag.search.stages import Stage

VectorKind: TypeAlias = Literal["single", "multi"]
"""``"single"``: dense vectors with cosine similarity; ``"multi"``: multi-vectors with MaxSim."""


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Loading options of a model, see `jina_rag.load_embedder`.

    Attributes:
        device: Device, for example ``"cuda"``; ``"auto"`` for the default device.
        dtype: Dtype of the weights; ``"auto"`` for the default of model and device.
        max_pixels: Maximum pixels per image; None for the model's default.
        max_length: Maximum tokens per input of an embedder; None for the model's default.
        truncate_dim: Dimension to which an embedder truncates dense vectors; None for all dimensions.
        revision: Branch, tag or commit on the Hugging Face Hub; None for the default branch.
        local_files_only: Use only local checkpoints, without a download.
    """

    device: str = "auto"
    dtype: str = "auto"
    max_pixels: int | None = None
    max_length: int | None = None
    truncate_dim: int | None = None
    revision: str | None = None
    local_files_only: bool = False

    def to_load(self, *, reranker: bool = False) -> dict[str, Any]:
        """Return the arguments for `load_embedder`, or the arguments for `load_reranker` if `reranker` is True."""
        embedder_only = ("truncate_dim", "max_length") if reranker else ()
        return {name: value for name, value in asdict(self).items() if name not in embedder_only}

    def changed(self) -> dict[str, str | int]:
        """Return the non-default options that change a model's vectors. mteb stores the results under these options."""
        names = ("dtype", "max_pixels", "max_length", "truncate_dim")
        return {name: value for name in names if (value := getattr(self, name)) not in (None, "auto")}


@dataclass(frozen=True, slots=True)
class BenchmarkSetting:
    """The models and options that a benchmark run evaluates.

    Attributes:
        model: An embedder, or a model name or folder for `jina_rag.load_embedder`.
        vectors: ``"single"`` (dense vectors, cosine), ``"multi"`` (multi-vectors, MaxSim) or ``"auto"``. ``"auto"``
            uses multi-vectors for jina-colbert-v2 and lite in retrieval tasks, and dense vectors otherwise.
        pipeline: Evaluate the search pipeline over an index, with `storage`, `stages` and `reranker`; False evaluates
            the vectors without an index.
        reranker: A reranker, or a model name or folder for `jina_rag.load_reranker`; None for no reranking. Without
            `pipeline`, mteb reranks the `rerank_top` documents that rank highest by the vectors.
        rerank_top: Number of documents per query to rerank without `pipeline`.
        storage: Vector storage of the index, with `pipeline` only; None for the default.
        stages: Search stages, with `pipeline` only; empty for the default stages.
        parts: For documents with a text and an image: the parts to read; see `ContentParts`.
        options: Loading options of the models.

    Raises:
        InvalidInputError: If an option is invalid, or conflicts with `pipeline`.
    """

    model: str | os.PathLike[str] | Embedder = "lite"
    vectors: Literal["auto", "single", "multi"] = "auto"
    pipeline: bool = False
    reranker: str | os.PathLike[str] | Reranker | None = None
    rerank_top: int = 100
    storage: str | Storage | None = None
    stages: tuple[Stage, ...] = ()
    parts: ContentParts = "auto"
    options: ModelOptions = field(default_factory=ModelOptions)

    def __post_init__(self) -> None:
        if self.vectors not in ("auto", "single", "multi"):
            raise InvalidInputError(f"vectors is {self.vectors!r}; expected one of auto, single, multi.")
        if self.parts not in ("auto", "image", "text"):
            raise InvalidInputError(f"parts is {self.parts!r}; expected one of auto, image, text.")
        if self.rerank_top < 1:
            raise InvalidInputError(f"rerank_top is {self.rerank_top}; expected at least 1 document.")
        if not self.pipeline and (self.storage is not None or self.stages):
            raise InvalidInputError("storage and stages require an index. Pass pipeline=True (--whole-search).")
        if self.pipeline and self.vectors != "auto":
            raise InvalidInputError(
                "pipeline=True (--whole-search) uses dense vectors and multi-vectors. Omit vectors (--vectors)."
            )

    def described(self) -> dict[str, str]:
        """Return option name → value as a string; options with default values are omitted."""
        parts: Mapping[str, Any] = {
            "embedder": model_name(self.model),
            "vectors": "" if self.vectors == "auto" else self.vectors,
            "search": "whole" if self.pipeline else "",
            "reranker": "" if self.reranker is None else model_name(self.reranker),
            "rerank_top": self.rerank_top if self.reranker is not None and not self.pipeline else "",
            "storage": "" if self.storage is None else self.storage,
            "stages": ", ".join(map(repr, self.stages)),
            "parts": "" if self.parts == "auto" else self.parts,
            **self.options.changed(),
        }
        return {name: str(value) for name, value in parts.items() if value != ""}


def model_name(model: str | os.PathLike[str] | Embedder | Reranker) -> str:
    """Return the short name of a model: the Hugging Face id, the folder name, or the `name` of a model object."""
    name = os.fspath(model) if isinstance(model, str | os.PathLike) else model.name
    folder = Path(name)
    return folder.resolve().name if folder.is_absolute() or isinstance(model, os.PathLike) or folder.is_dir() else name
