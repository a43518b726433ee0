"""Several settings on one judged folder: what each reaches, what it costs, and how sure the differences are.

evaluation = evaluate_settings(read_folder(Path("judged")), cross_product(["lite", "lite-en"]), indexes="eval-kb")
evaluation.settings[0].measures["nDCG@5"], evaluation.comparisons[0].difference
"""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from jina_rag._version import __version__
from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.datasets import JudgedFolder, JudgedQuery, data_hash
from jina_rag.evaluation.measures import DEPTH, MEASURES, depth_of, depths_of, mean, measure, parse_measures, unjudged
from jina_rag.evaluation.results import Evaluation, PairedComparison, QueryResult, SettingResult, ranked_pages
from jina_rag.evaluation.run_cache import RunOptions, run_queries
from jina_rag.evaluation.runner import check_documents, grouped
from jina_rag.evaluation.settings import Setting, names_of, place_index
from jina_rag.evaluation.significance import difference, interval
from jina_rag.index.document_index import DocumentIndex
from jina_rag.types import IngestReport

_PACKAGES = (
    "numpy", "onnxruntime", "qdrant-edge-py", "qdrant-client", "pytrec-eval-terrier", "torch", "transformers",
)  # fmt: skip
_PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}


@dataclass(frozen=True)
class EvaluationHooks:
    """How somebody follows an evaluation.

    Attributes:
        ingest: Called with an index and the documents, in the place of its `ingest`.
        search: Called with a setting's name; what the context gives is called with (questions done, all).
    """

    ingest: Callable[[DocumentIndex, Sequence[Path]], IngestReport] = DocumentIndex.ingest
    search: Callable[[str], AbstractContextManager[Callable[[int, int], None] | None]] = lambda name: nullcontext()


def evaluate_settings(
    folder: JudgedFolder,
    settings: Sequence[Setting],
    *,
    indexes: str,
    measures: Sequence[str] = MEASURES,
    latency: bool = True,
    force: bool = False,
    seed: int = 0,
    command: str = "",
    hooks: EvaluationHooks | None = None,
) -> Evaluation:
    """Index the documents for each setting, ask all questions, and compare every later setting with the first.

    What an earlier run has indexed and asked is not done again, also of a run that was killed.

    Args:
        folder: Documents and judged questions.
        settings: At least one.
        indexes: Folder of the index, or of the indexes where the settings need several; or a collection on a server.
        measures: What is computed.
        latency: Whether questions are asked one by one, to time them; else in batches, which is quicker.
        force: Whether questions are asked again that have their answers.
        seed: Of every bootstrap.
        command: The line that repeats it, to be kept with the result.
        hooks: Shows progress.

    Raises:
        InvalidInputError: If there is no judged question, a measure is unknown, or an index holds other documents.
        KeyboardInterrupt: If Ctrl-C stopped the ingestion; the same call goes on from there.
    """
    if not settings:
        raise InvalidInputError("Name at least one setting.")
    if not any(any(query.relevant.values()) for query in folder.queries):
        raise InvalidInputError(
            f"No question of {folder.root} has a page that answers it: there is nothing to measure."
        )
    start, when = time.monotonic(), datetime.now(UTC)
    names = parse_measures(measures)
    locations = place_index(indexes, settings)
    completed = [setting.completed(Path(locations[setting.index_key])) for setting in settings]
    options = RunOptions(max(DEPTH, depth_of(names)), latency, force)
    run = _Evaluator(folder, names, options, seed, hooks or EvaluationHooks())
    results = [
        run.evaluate(name, whole, locations[setting.index_key])
        for setting, whole, name in zip(settings, completed, names_of(completed), strict=True)
    ]
    return Evaluation(
        folder=str(folder.root),
        data_hash=data_hash(folder),
        command=command,
        versions=versions(),
        seed=seed,
        settings=tuple(results),
        comparisons=tuple(pair for other in results[1:] for pair in compare(results[0], other, seed=seed)),
        queries={query.query_id: _query(query) for query in folder.queries},
        seconds=time.monotonic() - start,
        when=when.isoformat(timespec="seconds"),
    )


def compare(
    first: SettingResult, second: SettingResult, *, names: tuple[str, str] | None = None, seed: int = 0
) -> list[PairedComparison]:
    """One setting against another over the same questions, for every measure that both have.

    Args:
        first: What it is held against.
        second: The other one.
        names: What the two are called; their own names if None.
        seed: Of the bootstrap.

    Raises:
        InvalidInputError: If they answered other questions.
    """
    before, after = names or (first.name, second.name)
    rows = [{q.query_id: q.measures for q in setting.per_query if q.measures} for setting in (first, second)]
    return [
        PairedComparison(
            before,
            after,
            name,
            difference(*({query_id: row[name] for query_id, row in setting.items()} for setting in rows), seed=seed),
        )
        for name in second.measures
        if name in first.measures
    ]


def compare_runs(earlier: Evaluation, later: Evaluation, *, earlier_name: str = "before") -> list[PairedComparison]:
    """Two evaluations made at different times: each setting of the later one against that of its name in the earlier.

    Where the earlier one has a single setting, every setting is held against that.

    Args:
        earlier: What it is held against.
        later: The other one; its seed is taken.
        earlier_name: What the earlier one is called, beside the names of its settings.

    Raises:
        InvalidInputError: If they are of different data, or have no setting in common.
    """
    if earlier.data_hash != later.data_hash:
        raise InvalidInputError(
            f"{earlier_name} was measured on other data ({earlier.folder}, hash {earlier.data_hash[:12]}; here "
            f"{later.data_hash[:12]}): two runs can be compared over the same documents and judgements only."
        )
    by_name = {setting.name: setting for setting in earlier.settings}
    comparisons = []
    for setting in later.settings:
        before = by_name.get(setting.name) or (earlier.settings[0] if len(by_name) == 1 else None)
        if before is not None:
            names = f"{before.name} ({earlier_name})", setting.name
            comparisons += compare(before, setting, names=names, seed=later.seed)
    if not comparisons:
        raise InvalidInputError(
            f"{earlier_name} has no setting of these names and no measure of these; its settings are "
            f"{', '.join(by_name)}."
        )
    return comparisons


def versions() -> dict[str, str]:
    """What an evaluation ran with: this package, those that its figures depend on, the platform."""
    numbers = {"jina_rag": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            numbers[package] = importlib.metadata.version(package)
    return numbers | {"platform": f"{platform.system()} {platform.machine()}"}


@dataclass(frozen=True)
class _Evaluator:
    """What all settings of an evaluation have in common."""

    folder: JudgedFolder
    measures: tuple[str, ...]
    options: RunOptions
    seed: int
    hooks: EvaluationHooks
    index_seconds: dict[str, float] = field(default_factory=dict)
    """Location → what its making took in this run, also for the settings that share it."""

    def evaluate(self, name: str, setting: Setting, location: str) -> SettingResult:
        """Index and search."""
        folder = self.folder
        documents = list(folder.documents.values())
        with DocumentIndex.open(
            location, embedder=setting.embedder, storage=setting.storage, reranker=setting.reranker
        ) as index:
            clock = time.monotonic()
            report = self.hooks.ingest(index, documents)
            if report.documents or report.pages:
                self.index_seconds[location] = time.monotonic() - clock
            if report.interrupted:
                raise KeyboardInterrupt
            check_documents(index, folder)
            with self.hooks.search(name) as on_query:
                results = run_queries(
                    index, setting, folder.queries, self.options, names=folder.names, on_query=on_query
                )
            index_info = index.info()
        results = self._with_measures(results)
        judged_queries = [query for query, result in zip(folder.queries, results, strict=True) if result.measures]
        rows = {result.query_id: result.measures for result in results if result.measures}
        return SettingResult(
            name=name,
            setting=setting.to_json(),
            fingerprint=index_info.fingerprint,
            queries=len(judged_queries),
            measures=mean(list(rows.values())),
            intervals={m: interval([row[m] for row in rows.values()], seed=self.seed) for m in self.measures},
            by=grouped(judged_queries, rows),
            per_query=tuple(results),
            latency=_latency(results) if self.options.one_by_one else {},
            pages=index_info.pages,
            bytes=dict(index_info.bytes),
            index_seconds=round(self.index_seconds.get(location, 0.0), 3),
            unjudged={
                k: sum(result.unjudged[k] for result in results if result.measures) / len(judged_queries)
                for k in depths_of(self.measures)
            },
            failed=report.failed,
        )

    def _with_measures(self, results: Sequence[QueryResult]) -> list[QueryResult]:
        per_query = measure(self.folder.queries, ranked_pages(results), self.measures)
        depths = depths_of(self.measures)
        return [
            replace(result, measures=per_query[query.query_id], unjudged=unjudged(query, result.ranking, depths))
            if query.query_id in per_query
            else result
            for query, result in zip(self.folder.queries, results, strict=True)
        ]


def _latency(results: Sequence[QueryResult]) -> dict[str, float]:
    times = np.array([result.milliseconds for result in results])
    values = {name: np.percentile(times, share) for name, share in _PERCENTILES.items()} | {"mean": times.mean()}
    return {name: round(float(value), 2) for name, value in values.items()}


def _query(query: JudgedQuery) -> dict[str, Any]:
    return {
        "query": query.query,
        "modality": query.modality,
        "language": query.language_group,
        "relevant": [[doc, page, grade] for (doc, page), grade in query.relevant.items()],
        "answer": str(query.extra.get("answer") or ""),
    }
