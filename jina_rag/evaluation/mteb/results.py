"""Results of a benchmark run, with the published score of each task."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jina_rag.evaluation.reference_scores import Comparison, Vectors, compare


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """The result of one task.

    Attributes:
        task: mteb's name of the task.
        measure: mteb's name of the task's main score, for example ``ndcg_at_5``.
        value: Main score in percent, averaged over the task's subsets and splits.
        queries: Number of judged queries, or of pairs or texts if the task is not a retrieval task; None if unknown.
        file: Path of mteb's JSON file with the result.
        seconds: Wall time in seconds, including the loading of data; 0 for a resumed task.
        resumed: True if an earlier run had finished the task.
        reference: Comparison with the score published for the model on this task with mteb's loader; None if no score
            is published.
    """

    task: str
    measure: str
    value: float
    queries: int | None
    file: Path
    seconds: float = 0.0
    resumed: bool = False
    reference: Comparison | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        values = asdict(self) | {"value": round(self.value, 3), "seconds": round(self.seconds, 1)}
        del values["reference"]
        reference = self.reference
        published = reference and {
            "value": reference.target.value,
            "difference": round(reference.difference, 3),
            "tolerance": round(reference.tolerance, 3),
            "within": reference.within,
            "source": reference.source,
        }
        return values | {"file": str(self.file), "published": published}


@dataclass(frozen=True, slots=True)
class BenchmarkRun:
    """The result of a benchmark run.

    Attributes:
        model: ``owner/model``, the name under which mteb stores results.
        revision: Commit of the checkpoint, or a hash of the weights.
        setting: Evaluated models and options; options with default values are omitted.
        outcomes: Results of the finished tasks, in order.
        failed: Task name → error message.
        embedded: Number of inputs that the embedder embedded, cached inputs excluded; 0 with ``pipeline=True``,
            because the index embeds the inputs.
        versions: Package name → version.
        seconds: Wall time in seconds.
    """

    model: str
    revision: str
    setting: Mapping[str, str]
    outcomes: tuple[TaskOutcome, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    embedded: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def mean(self) -> float | None:
        """Mean score of the finished tasks in percent; None if no task has finished."""
        return sum(outcome.value for outcome in self.outcomes) / len(self.outcomes) if self.outcomes else None

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``jina-rag evaluate --benchmark … --json`` prints."""
        values = asdict(self) | {"seconds": round(self.seconds, 1)}
        del values["outcomes"]
        return values | {
            "tasks": [outcome.to_json() for outcome in self.outcomes],
            "mean": None if self.mean is None else round(self.mean, 3),
            "failed": [{"task": task, "reason": reason} for task, reason in self.failed.items()],
        }


def reference_of(
    task: str, model: str, vectors: Vectors, value: float, queries: int | None, measure: str, dimensions: int | None
) -> Comparison | None:
    """Compare `value` with the published score; return None if no score is published, or if `queries` is 0 or None.

    Args:
        task: mteb's name of the task.
        model: Name of the model, ``owner/model``.
        vectors: Vector type of the published score, or reranking; see `Vectors`.
        value: The score in percent.
        queries: Number of judged queries; None if unknown.
        measure: mteb's name of the measure, for example ``ndcg_at_5``.
        dimensions: Dimension to which dense vectors were truncated; None for full vectors.
    """
    if not queries:
        return None
    match = re.fullmatch(r"ndcg_at_(\d+)", measure)
    name = f"nDCG@{match.group(1)}" if match else None
    return compare(task, model, vectors, value, queries, "mteb", measure=name, dimensions=dimensions)
