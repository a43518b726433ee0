"""An evaluation as JSON, to be compared with a later one: ``jina-rag evaluate --save`` and ``--compare``."""

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
    """All of an evaluation as JSON values; the paths of screenshots are still paths."""
    values = {"format": FORMAT, **asdict(evaluation), "seconds": round(evaluation.seconds, 3)}
    values["questions"] = values.pop("queries")
    del values["comparisons"]
    values["compared"] = [comparison_json(comparison) for comparison in evaluation.comparisons]
    for setting, entry in zip(evaluation.settings, values["settings"], strict=True):
        entry["failed"] = failures_json(setting.failed)
        entry["per_query"] = [{"qid": result.pop("query_id"), **result} for result in entry["per_query"]]
    return values


def setting_json(setting: SettingResult) -> dict[str, Any]:
    """What a setting reached and what it costs, without its single questions."""
    values = asdict(setting) | {"failed": failures_json(setting.failed)}
    del values["per_query"]
    return values


def comparison_json(comparison: PairedComparison) -> dict[str, Any]:
    """A comparison; `mean` is the second less the first."""
    values = asdict(comparison)
    del values["difference"]
    return values | asdict(comparison.difference)


def save(path: Path, evaluation: Evaluation) -> None:
    """Write an evaluation; the file appears whole or not at all.

    Raises:
        InvalidInputError: If it cannot be written.
    """
    write_text(path, json.dumps(to_json(evaluation), default=str) + "\n", what="results")


def load(path: Path) -> Evaluation:
    """Read what `save` wrote.

    Raises:
        InvalidInputError: If it cannot be read, or is no evaluation of this format.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidInputError(f"{path} is no saved evaluation: it is not JSON.") from exc
    if not isinstance(value, dict) or value.pop("format", None) != FORMAT:
        raise InvalidInputError(f"{path} is no evaluation that this version can read: save one with --save.")
    try:
        settings, comparisons = value.pop("settings"), value.pop("compared")
        return Evaluation(
            queries=value.pop("questions"),
            settings=tuple(_setting(entry) for entry in settings),
            comparisons=tuple(_comparison(entry) for entry in comparisons),
            **value,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise InvalidInputError(f"{path} is no whole evaluation ({type(exc).__name__}: {exc}): save it again.") from exc


def _setting(value: Mapping[str, Any]) -> SettingResult:
    return SettingResult(**{
        **value,
        "intervals": {name: (float(low), float(high)) for name, (low, high) in value["intervals"].items()},
        "per_query": tuple(query_result({"query_id": entry.pop("qid"), **entry}) for entry in value["per_query"]),
        "unjudged": {int(k): float(number) for k, number in value["unjudged"].items()},
        "failed": tuple(Failure(Path(f["path"]), f["reason"], f["page"]) for f in value["failed"]),
    })  # fmt: skip


def query_result(value: Mapping[str, Any]) -> QueryResult:
    """The inverse of `dataclasses.asdict` and JSON; a `KeyError`, `TypeError` or `ValueError` where it is none."""
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
