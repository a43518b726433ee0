"""JSON format of an evaluation, for ``jina-rag evaluate --save`` and ``--compare``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.files import failures_json, read_text, write_text
from jina_rag.evaluation.results import Evaluation, PairedComparison, QueryResult, SettingResult
from jina_rag.evaluation.significance import Difference
from jina_rag.types import Failure

FORMAT = 1


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation as a dict for ``json.dumps(…, default=str)``; paths of screenshots remain `Path` objects.

    Args:
        evaluation: Evaluation to convert.
    """
    values = {"format": FORMAT, **asdict(evaluation), "seconds": round(evaluation.seconds, 3)}
    values["questions"] = values.pop("queries")
    del values["comparisons"]
    values["compared"] = [comparison_json(comparison) for comparison in evaluation.comparisons]
    for setting, entry in zip(evaluation.settings, values["settings"], strict=True):
        entry["failed"] = failures_json(setting.failed)
        entry["per_query"] = [{"qid": result.pop("query_id"), **result} for result in entry["per_query"]]
    return values


def setting_json(setting: SettingResult) -> dict[str, Any]:
    """Return the result of a setting as a JSON object, without the results of single queries.

    Args:
        setting: Result to convert.
    """
    values = asdict(setting) | {"failed": failures_json(setting.failed)}
    del values["per_query"]
    return values


def comparison_json(comparison: PairedComparison) -> dict[str, Any]:
    """Return a paired comparison as a JSON object; ``mean`` is the mean difference, second minus first setting.

    Args:
        comparison: Comparison to convert.
    """
    values = asdict(comparison)
    del values["difference"]
    return values | asdict(comparison.difference)


def save(path: Path, evaluation: Evaluation) -> None:
    """Write an evaluation as JSON; the write is atomic.

    Args:
        path: Path of the file; an existing file is replaced.
        evaluation: Evaluation to save.

    Raises:
        InvalidInputError: If the file cannot be written.
    """
    write_text(path, json.dumps(to_json(evaluation), default=str) + "\n", label="results")


def load(path: Path) -> Evaluation:
    """Return the evaluation of a file that `save` wrote.

    Args:
        path: Path of the file.

    Raises:
        InvalidInputError: If the file cannot be read, or is not an evaluation of this format version.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidInputError(
            f"{path} is not a saved evaluation (not JSON). Save an evaluation with --save."
        ) from exc
    if not isinstance(value, dict) or value.pop("format", None) != FORMAT:
        raise InvalidInputError(f"{path} is not an evaluation in a supported format. Save an evaluation with --save.")
    try:
        settings, comparisons = value.pop("settings"), value.pop("compared")
        return Evaluation(
            queries=value.pop("questions"),
            settings=tuple(_setting(entry) for entry in settings),
            comparisons=tuple(_comparison(entry) for entry in comparisons),
            **value,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise InvalidInputError(
            f"{path} is incomplete ({type(exc).__name__}: {exc}). Save the evaluation again with --save."
        ) from exc


def _setting(value: Mapping[str, Any]) -> SettingResult:
    return SettingResult(**{
        **value,
        "intervals": {name: (float(low), float(high)) for name, (low, high) in value["intervals"].items()},
        "per_query": tuple(query_result({"query_id": entry.pop("qid"), **entry}) for entry in value["per_query"]),
        "unjudged": {int(k): float(number) for k, number in value["unjudged"].items()},
        "failed": tuple(Failure(Path(f["path"]), f["reason"], f["page"]) for f in value["failed"]),
    })  # fmt: skip


def query_result(value: Mapping[str, Any]) -> QueryResult:
    """Return the `QueryResult` of a JSON object that `dataclasses.asdict` created.

    Args:
        value: The JSON object.

    Raises:
        KeyError: If a key is missing.
        TypeError: If a value has the wrong type, or a key is unknown.
        ValueError: If a value cannot be converted.
    """
    return QueryResult(**{
        **value,
        "ranking": tuple((doc, int(page)) for doc, page in value["ranking"]),
        "unjudged": {int(k): int(number) for k, number in value["unjudged"].items()},
        "scores": tuple(value["scores"]),
        "images": tuple(None if image is None else Path(image) for image in value["images"]),
        "notes": tuple(value["notes"]),
    })  # fmt: skip


def _comparison(value: Mapping[str, Any]) -> PairedComparison:
    delta = Difference(*(value[name] for name in ("mean", "low", "high", "better", "worse")))
    return PairedComparison(value["first"], value["second"], value["measure"], delta)
