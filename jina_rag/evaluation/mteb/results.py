"""What a run of benchmarks found, each task with the published figure beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jina_rag.evaluation.reference_scores import Comparison, Vectors, compare


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """What came out of one task.

    Attributes:
        task: mteb's name of it.
        measure: mteb's name of its main score, such as ``ndcg_at_5``.
        value: The main score in percent points: the mean over the task's languages and splits.
        queries: Questions that were judged; None where they were not counted, or the task is no search.
        file: mteb's JSON of the result.
        seconds: Wall time, data included; 0 for a task that an earlier run had finished.
        resumed: Whether an earlier run had finished it.
        reference: The figure that was published for this model on this task with mteb's loader; None if there is none.
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
        """As JSON values."""
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
    """What a run found.

    Attributes:
        model: ``owner/model``, as mteb files it.
        revision: Commit, or hash of the weights.
        setting: What was measured, what was left alone left out.
        outcomes: Tasks that are done, in their order.
        failed: Task → why it could not be done.
        embedded: Inputs that went through the embedder; what was known from disk is not among them. 0 for a whole
            search, whose index does that.
        versions: Package → version.
        seconds: Wall time.
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
        """The mean over the tasks that are done, in percent points; None for none."""
        return sum(outcome.value for outcome in self.outcomes) / len(self.outcomes) if self.outcomes else None

    def to_json(self) -> dict[str, Any]:
        """The object that ``jina-rag evaluate --benchmark … --json`` prints."""
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
    """The published figure beside a value; None where there is none, or the number of questions is not known."""
    if not queries:
        return None
    match = re.fullmatch(r"ndcg_at_(\d+)", measure)
    name = f"nDCG@{match.group(1)}" if match else None
    return compare(task, model, vectors, value, queries, "mteb", measure=name, dimensions=dimensions)
