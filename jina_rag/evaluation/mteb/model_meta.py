"""mteb model metadata: model, revision and changed options under which mteb stores results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mteb.models.model_implementations import MODEL_REGISTRY
from mteb.models.model_meta import ModelMeta, ScoringFunction

from jina_rag.evaluation.mteb.loading import Identity
from jina_rag.models import catalogue

Kind = Literal["dense", "late-interaction", "cross-encoder"]
_OPTIONAL_FIELDS = (
    "release_date", "languages", "n_parameters", "memory_usage_mb", "max_tokens", "embed_dim", "license",
    "open_weights", "public_training_code", "public_training_data", "use_instructions", "training_datasets",
)  # fmt: skip
_SIMILARITY = {"dense": ScoringFunction.COSINE, "late-interaction": ScoringFunction.MAX_SIM, "cross-encoder": None}


def model_meta(
    model: Identity, kind: Kind, *, modalities: Sequence[str], experiment: Mapping[str, str | int]
) -> ModelMeta:
    """Return the metadata under which mteb stores a model's results.

    Args:
        model: Name and revision of the model.
        kind: Model type in mteb, for example ``"cross-encoder"``.
        modalities: Input modalities, ``"text"`` and ``"image"``.
        experiment: Options that differ from the published model. If any, mteb stores the results as an
            experiment.
    """
    fields: dict[str, Any] = {
        "loader": None,
        "loader_kwargs": {},
        "name": model.name,
        "revision": model.revision,
        "similarity_fn_name": _SIMILARITY[kind],
        "model_type": [kind],
        "modalities": list(modalities),
        "experiment_kwargs": dict(experiment) or None,
        "extra_requirements_groups": None,
        "output_dtypes": None,
    }
    registered_meta = MODEL_REGISTRY.get(model.name)
    if registered_meta is not None:
        meta: ModelMeta = registered_meta.model_copy(update=fields, deep=True)
        return meta
    description = catalogue.describe(model.family) if model.family else None
    facts = {
        "n_parameters": description.parameters,
        "memory_usage_mb": description.megabytes,
        "max_tokens": description.max_tokens,
        "embed_dim": description.dim or None,
        "open_weights": True,
    } if description else {}  # fmt: skip
    in_torch = model.family not in ("lite", "")
    frameworks = ["PyTorch", "Transformers", "safetensors"] if in_torch else ["NumPy"]
    return ModelMeta(**dict.fromkeys(_OPTIONAL_FIELDS) | facts | fields | {"framework": frameworks})
