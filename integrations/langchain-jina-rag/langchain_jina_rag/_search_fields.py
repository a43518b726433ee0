"""Pydantic field types for search stages and filters, which contain jina_rag objects and serialize to JSON."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from jina_rag import Calibration, Prefetch, Range, Rerank, Rescore

Stage: TypeAlias = Prefetch | Rescore | Rerank
_KINDS: dict[str, type[Any]] = {"prefetch": Prefetch, "rescore": Rescore, "rerank": Rerank}


def stages_to_json(stages: Any) -> list[dict[str, Any]] | None:  # noqa: ANN401  # a stage, several, or None
    """Convert stages to dicts ``{"stage": "prefetch", "limit": 300, …}``; a reranker is replaced by the model name."""
    if stages is None:
        return None
    json_stages = []
    for stage in [stages] if isinstance(stages, Stage) else stages:
        values = {entry.name: getattr(stage, entry.name) for entry in fields(stage)}
        if values.get("shows") is not None:
            values["shows"] = list(values["shows"])
        if values.get("calibration") is not None:
            values["calibration"] = values["calibration"].to_json()
        if not isinstance(values.get("model"), str | None):
            values["model"] = values["model"].name
        json_stages.append({"stage": type(stage).__name__.lower(), **values})
    return json_stages


def stages_from_json(value: Any) -> list[Stage] | None:  # noqa: ANN401  # validated here
    """Convert dicts from `stages_to_json` to stages; entries that already are stages stay unchanged.

    Raises:
        ValueError: If an entry is not a stage.
    """
    if value is None:
        return None
    single = isinstance(value, Stage | dict)
    return [_stage(entry) for entry in ([value] if single else value)]


def _stage(value: Any) -> Stage:  # noqa: ANN401
    if isinstance(value, Stage):
        return value
    if not isinstance(value, dict) or value.get("stage") not in _KINDS:
        raise ValueError(f"stages contains {value!r}; expected a Prefetch, a Rescore or a Rerank.")
    options = {key: option for key, option in value.items() if key != "stage"}
    if isinstance(options.get("calibration"), dict):
        options["calibration"] = Calibration.from_json(options["calibration"])
    try:
        stage: Stage = _KINDS[value["stage"]](**options)
    except TypeError as exc:
        raise ValueError(f"stages contains {value!r}, which is not a valid stage: {exc}.") from exc
    return stage


def filter_to_json(where: Any) -> dict[str, Any] | None:  # noqa: ANN401
    """Return a filter with each `Range` converted to a dict."""
    if where is None:
        return None
    return {key: asdict(value) if isinstance(value, Range) else value for key, value in where.items()}


def filter_from_json(where: Any) -> Any:  # noqa: ANN401
    """Return a filter with each dict converted to a `Range`.

    Raises:
        ValueError: If a dict has other keys than the fields of `Range`.
    """
    if not isinstance(where, dict):
        return where
    return {key: _range(key, value) if isinstance(value, dict) else value for key, value in where.items()}


def _range(key: str, value: dict[str, Any]) -> Range:
    names = {entry.name for entry in fields(Range)}
    if not names.issuperset(value):
        raise ValueError(
            f"The filter {key!r} is {value!r}; expected a value, a list, or a Range of gte, lte, gt and lt."
        )
    return Range(**value)


Stages: TypeAlias = Annotated[
    Any,
    BeforeValidator(stages_from_json),
    PlainSerializer(stages_to_json),
    WithJsonSchema({"anyOf": [{"type": "array", "items": {"type": "object"}}, {"type": "null"}]}),
]
"""A search stage, several stages, or None."""
Filter: TypeAlias = Annotated[
    dict[str, Any] | None,
    BeforeValidator(filter_from_json),
    PlainSerializer(filter_to_json),
    WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "null"}]}),
]
"""A filter that maps each metadata key to a value, several values or a `jina_rag.Range`; or None."""
