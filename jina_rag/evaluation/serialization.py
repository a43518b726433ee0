"""An evaluation as JSON, to be compared with a later one: ``jina-rag evaluate --save`` and ``--compare``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.results import Compared, Evaluation, QueryResult, SettingResult
from jina_rag.evaluation.runner import write_whole
from jina_rag.evaluation.significance import Difference
from jina_rag.types import Failure

FORMAT = 1


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """All of an evaluation as JSON values."""
    return {
        "format": FORMAT,
        "folder": evaluation.folder,
        "data_hash": evaluation.data_hash,
        "command": evaluation.command,
        "versions": dict(evaluation.versions),
        "seed": evaluation.seed,
        "settings": [setting_json(setting) | {"per_query": _answers_json(setting)} for setting in evaluation.settings],
        "compared": [compared_json(compared) for compared in evaluation.compared],
        "questions": {qid: dict(query) for qid, query in evaluation.queries.items()},
        "seconds": round(evaluation.seconds, 3),
        "when": evaluation.when,
    }


def setting_json(setting: SettingResult) -> dict[str, Any]:
    """What a setting reached and what it costs, without its single questions."""
    return {
        "name": setting.name,
        "setting": dict(setting.setting),
        "fingerprint": setting.fingerprint,
        "queries": setting.queries,
        "measures": dict(setting.measures),
        "intervals": {name: list(ends) for name, ends in setting.intervals.items()},
        "by": {group: {name: dict(row) for name, row in rows.items()} for group, rows in setting.by.items()},
        "unjudged": {str(k): number for k, number in setting.unjudged.items()},
        "latency": dict(setting.latency),
        "pages": setting.pages,
        "bytes": dict(setting.bytes),
        "index_seconds": setting.index_seconds,
        "failed": [{"path": str(f.path), "reason": f.reason, "page": f.page} for f in setting.failed],
    }


def compared_json(compared: Compared) -> dict[str, Any]:
    """A comparison; `mean` is the second less the first."""
    found = compared.difference
    return {
        "first": compared.first,
        "second": compared.second,
        "measure": compared.measure,
        "mean": found.mean,
        "low": found.low,
        "high": found.high,
        "better": found.better,
        "worse": found.worse,
    }


def save(path: Path, evaluation: Evaluation) -> None:
    """Write an evaluation; the file appears whole or not at all.

    Raises:
        InvalidInputError: If it cannot be written.
    """
    write_whole(path, json.dumps(to_json(evaluation)) + "\n", what="results")


def load(path: Path) -> Evaluation:
    """Read what `save` wrote.

    Raises:
        InvalidInputError: If it cannot be read, or is no evaluation of this format.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise InvalidInputError(f"{path} cannot be read: {exc.strerror or exc}.") from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidInputError(f"{path} is no saved evaluation: it is not JSON.") from exc
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise InvalidInputError(f"{path} is no evaluation that this version can read: save one with --save.")
    try:
        return _evaluation(value)
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise InvalidInputError(f"{path} is no whole evaluation ({type(exc).__name__}: {exc}): save it again.") from exc


def _answers_json(setting: SettingResult) -> list[dict[str, Any]]:
    return [
        {
            "qid": answer.qid,
            "ranking": [list(page) for page in answer.ranking],
            "measures": dict(answer.measures),
            "milliseconds": answer.milliseconds,
            "unjudged": {str(k): number for k, number in answer.unjudged.items()},
            "scores": list(answer.scores),
            "images": [None if image is None else str(image) for image in answer.images],
            "notes": list(answer.notes),
        }
        for answer in setting.per_query
    ]


def _evaluation(value: Mapping[str, Any]) -> Evaluation:
    return Evaluation(
        folder=value["folder"],
        data_hash=value["data_hash"],
        command=value["command"],
        versions=dict(value["versions"]),
        seed=int(value["seed"]),
        settings=tuple(_setting(entry) for entry in value["settings"]),
        compared=tuple(_compared(entry) for entry in value["compared"]),
        queries=dict(value["questions"]),
        seconds=float(value["seconds"]),
        when=str(value["when"]),
    )


def _setting(value: Mapping[str, Any]) -> SettingResult:
    return SettingResult(
        name=value["name"],
        setting=dict(value["setting"]),
        fingerprint=value["fingerprint"],
        queries=int(value["queries"]),
        measures=dict(value["measures"]),
        intervals={name: (float(low), float(high)) for name, (low, high) in value["intervals"].items()},
        by=value["by"],
        per_query=tuple(_answer(entry) for entry in value["per_query"]),
        latency=dict(value["latency"]),
        pages=int(value["pages"]),
        bytes=dict(value["bytes"]),
        index_seconds=float(value["index_seconds"]),
        unjudged={int(k): float(number) for k, number in value["unjudged"].items()},
        failed=tuple(Failure(Path(f["path"]), f["reason"], f["page"]) for f in value["failed"]),
    )


def _answer(value: Mapping[str, Any]) -> QueryResult:
    return QueryResult(
        qid=value["qid"],
        ranking=tuple((doc, int(page)) for doc, page in value["ranking"]),
        measures=dict(value["measures"]),
        milliseconds=float(value["milliseconds"]),
        unjudged={int(k): int(number) for k, number in value["unjudged"].items()},
        scores=tuple(value["scores"]),
        images=tuple(None if image is None else Path(image) for image in value["images"]),
        notes=tuple(value["notes"]),
    )


def _compared(value: Mapping[str, Any]) -> Compared:
    found = Difference(
        float(value["mean"]), float(value["low"]), float(value["high"]), int(value["better"]), int(value["worse"])
    )
    return Compared(value["first"], value["second"], value["measure"], found)
