"""What mteb files results under: a model, its revision, and what was set otherwise than it is published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mteb.models.model_implementations import MODEL_REGISTRY
from mteb.models.model_meta import ModelMeta, ScoringFunction

from jina_rag.evaluation.mteb.loading import Identity
from jina_rag.models import catalogue

Kind = Literal["dense", "late-interaction", "cross-encoder"]


def encoder_meta(
    model: Identity, *, vectors: str, modalities: Sequence[str], options: Mapping[str, str | int]
) -> ModelMeta:
    """Of an embedder.

    Dense vectors are filed under the bare model, as mteb's own are, unless it is made for late interaction; the
    others and what `options` names are "experiments" of it.

    Args:
        model: Which one.
        vectors: ``"single"`` or ``"multi"``.
        modalities: What it reads.
        options: What differs from the model's own choices.
    """
    usual = "multi" if model.late else "single"
    return _meta(
        model,
        kind="late-interaction" if vectors == "multi" else "dense",
        similarity=ScoringFunction.MAX_SIM if vectors == "multi" else ScoringFunction.COSINE,
        modalities=modalities,
        experiment={**({} if vectors == usual else {"vectors": vectors}), **options},
    )


def reranker_meta(model: Identity, *, modalities: Sequence[str], experiment: Mapping[str, str | int]) -> ModelMeta:
    """Of a reranker; `experiment` says whose best documents it judged, and how many of them."""
    return _meta(model, kind="cross-encoder", similarity=None, modalities=modalities, experiment=experiment)


def pipeline_meta(model: Identity, *, experiment: Mapping[str, str | int]) -> ModelMeta:
    """Of a whole search with an embedder; `experiment` says how."""
    return _meta(
        model,
        kind="late-interaction",
        similarity=ScoringFunction.MAX_SIM,
        modalities=["text", "image"],
        experiment={"search": "whole", **experiment},
    )


def _meta(
    model: Identity,
    *,
    kind: Kind,
    similarity: ScoringFunction | None,
    modalities: Sequence[str],
    experiment: Mapping[str, str | int],
) -> ModelMeta:
    ours: dict[str, Any] = {
        "loader": None,
        "loader_kwargs": {},
        "name": model.name,
        "revision": model.revision,
        "similarity_fn_name": similarity,
        "model_type": [kind],
        "modalities": list(modalities),
        "experiment_kwargs": dict(experiment) or None,
        "extra_requirements_groups": None,
        "output_dtypes": None,
    }
    published = MODEL_REGISTRY.get(model.name)
    if published is not None:
        found: ModelMeta = published.model_copy(update=ours, deep=True)
        return found
    known = catalogue.describe(model.family) if model.family else None
    return ModelMeta(
        release_date=None,
        languages=None,
        n_parameters=known.parameters if known else None,
        memory_usage_mb=known.megabytes if known else None,
        max_tokens=known.max_tokens if known else None,
        embed_dim=known.dim or None if known else None,
        license=None,
        open_weights=True if known else None,
        public_training_code=None,
        public_training_data=None,
        framework=["NumPy"] if model.family in ("lite", "") else ["PyTorch", "Transformers", "safetensors"],
        use_instructions=None,
        training_datasets=None,
        **ours,
    )
