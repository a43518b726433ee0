"""What is measured: a model and its options, or the whole of our search."""

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
"""Dense vectors and cosine, or multi-vectors and MaxSim."""


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """How models are loaded: see `jina_rag.load_embedder`. What is left alone is the model's own choice."""

    device: str = "auto"
    dtype: str = "auto"
    max_pixels: int | None = None
    max_length: int | None = None
    truncate_dim: int | None = None
    revision: str | None = None
    local_files_only: bool = False

    def to_load(self, *, reranker: bool = False) -> dict[str, Any]:
        """The arguments of `load_embedder`, or of `load_reranker`, which has no lengths."""
        embedder_only = ("truncate_dim", "max_length") if reranker else ()
        return {name: value for name, value in asdict(self).items() if name not in embedder_only}

    def changed(self) -> dict[str, str | int]:
        """What differs from a model's own choices and changes its vectors: results are filed by it."""
        names = ("dtype", "max_pixels", "max_length", "truncate_dim")
        return {name: value for name in names if (value := getattr(self, name)) not in (None, "auto")}


@dataclass(frozen=True, slots=True)
class BenchmarkSetting:
    """What is measured.

    Attributes:
        model: An embedder, or what `jina_rag.load_embedder` takes.
        vectors: ``"single"`` (dense vectors, cosine), ``"multi"`` (multi-vectors, MaxSim), or ``"auto"``: multi for
            the models that are made for it (jina-colbert-v2, lite), where the task is a search; else single.
        pipeline: Measure the whole of our search over an index (`storage`, `stages`, `reranker`), rather than the
            vectors alone.
        reranker: A reranker, or what `jina_rag.load_reranker` takes. Without `pipeline` it judges the best
            `rerank_top` documents of the vectors, by mteb's own reranking.
        rerank_top: How many.
        storage: How an index keeps its vectors, with `pipeline`.
        stages: Of the search, with `pipeline`; in the place of the defaults.
        parts: What is read of documents that have a text and an image.
        options: How models are loaded.
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
            raise InvalidInputError(f"vectors is {self.vectors!r}; it is 'auto', 'single' or 'multi'.")
        if self.parts not in ("auto", "image", "text"):
            raise InvalidInputError(f"parts is {self.parts!r}; it is 'auto', 'image' or 'text'.")
        if self.rerank_top < 1:
            raise InvalidInputError(f"rerank_top is {self.rerank_top}; it counts documents: at least 1.")
        if not self.pipeline and (self.storage is not None or self.stages):
            raise InvalidInputError("storage and stages are those of an index: they go with pipeline=True.")
        if self.pipeline and self.vectors != "auto":
            raise InvalidInputError(
                "The whole search uses both kinds of vectors: leave vectors out with pipeline=True."
            )

    def described(self) -> dict[str, str]:
        """Its parts as text, what was left alone left out."""
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
    """What a model is called: its id, the last part of its folder, or the name it was loaded by."""
    name = os.fspath(model) if isinstance(model, str | os.PathLike) else model.name
    folder = Path(name)
    return folder.resolve().name if folder.is_absolute() or isinstance(model, os.PathLike) or folder.is_dir() else name
