"""Evaluation of several settings on one judged folder.

The result holds the measures and the costs of each setting (latency, index size, ingestion time), and the paired
differences between settings with 95 % confidence intervals.

Example:
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
from jina_rag.evaluation.datasets import QUERIES, QUERIES_CSV, JudgedFolder, JudgedQuery, data_hash
from jina_rag.evaluation.measures import DEPTH, MEASURES, all_depths, max_depth, mean, measure, parse_measures, unjudged
from jina_rag.evaluation.results import Evaluation, PairedComparison, QueryResult, SettingResult, ranked_pages
from jina_rag.evaluation.run_cache import RunOptions, run_queries
from jina_rag.evaluation.runner import check_documents, group_means
from jina_rag.evaluation.settings import Setting, index_locations, setting_names
from jina_rag.evaluation.significance import difference, interval
from jina_rag.index.document_index import DocumentIndex
from jina_rag.types import IngestReport

_PACKAGES = (
    "numpy", "onnxruntime", "qdrant-edge-py", "qdrant-client", "pytrec-eval-terrier", "torch", "transformers",
)  # fmt: skip
_PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}


@dataclass(frozen=True)
class EvaluationHooks:
    """Callbacks that follow the progress of an evaluation.

    Attributes:
        ingest: Called with the index and the paths of the documents, in place of `DocumentIndex.ingest`.
        search: Called with the name of a setting. The returned context manager yields a callback, or None for no
            callback. The callback is called with (queries done, total queries).
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
    """Index the documents for each setting, run all queries, and compare each later setting with the first setting.

    Existing indexes and cached query results are reused, including the results of an interrupted evaluation.

    Args:
        folder: Documents and judged queries.
        settings: At least one setting.
        indexes: Folder of the index, or URL of a collection on a server. If the settings need several indexes, the
            folder that holds a subfolder for each index.
        measures: Names of measures, for example ``"nDCG@5"``.
        latency: Run the queries one by one and measure the time of each query. If False, queries run in batches, which
            is faster.
        force: Run every query, including queries with a cached result.
        seed: Seed of the random generator of each bootstrap.
        command: Command line that repeats the evaluation; stored with the result.
        hooks: Progress callbacks.

    Returns:
        The result of each setting, and the comparisons of each later setting with the first setting.

    Raises:
        InvalidInputError: If `settings` is empty, no query has a relevant page, a measure is unknown, or an index holds
            documents from outside the folder.
        KeyboardInterrupt: If Ctrl-C stopped the ingestion. Repeat the call to resume.
    """
    if not settings:
        raise InvalidInputError("settings is empty. Pass at least one setting.")
    if not any(any(query.relevant.values()) for query in folder.queries):
        raise InvalidInputError(
            f"{folder.root} has no judged query. Add a relevant page to a query of {QUERIES} or {QUERIES_CSV}."
        )
    start, started_at = time.monotonic(), datetime.now(UTC)
    names = parse_measures(measures)
    locations = index_locations(indexes, settings)
    resolved_settings = [setting.completed(Path(locations[setting.index_key])) for setting in settings]
    options = RunOptions(max(DEPTH, max_depth(names)), latency, force)
    run = _Evaluator(folder, names, options, seed, hooks or EvaluationHooks())
    results = [
        run.evaluate(name, resolved_setting, locations[setting.index_key])
        for setting, resolved_setting, name in zip(
            settings, resolved_settings, setting_names(resolved_settings), strict=True
        )
    ]
    return Evaluation(
        folder=str(folder.root),
        data_hash=data_hash(folder),
        command=command,
        versions=versions(),
        seed=seed,
        settings=tuple(results),
        comparisons=tuple(pair for other in results[1:] for pair in compare(results[0], other, seed=seed)),
        queries={query.query_id: _query_json(query) for query in folder.queries},
        seconds=time.monotonic() - start,
        when=started_at.isoformat(timespec="seconds"),
    )


def compare(
    first: SettingResult, second: SettingResult, *, names: tuple[str, str] | None = None, seed: int = 0
) -> list[PairedComparison]:
    """Compare two settings over the same queries, for every measure that the two results have in common.

    Args:
        first: Result of the baseline.
        second: Result of the setting to compare with the baseline.
        names: Names of `first` and `second` in the comparison; default: the names of the settings.
        seed: Seed of the random generator of the bootstrap.

    Returns:
        One comparison per measure.

    Raises:
        InvalidInputError: If the two results cover different queries.
    """
    first_name, second_name = names or (first.name, second.name)
    rows = [{q.query_id: q.measures for q in setting.per_query if q.measures} for setting in (first, second)]
    return [
        PairedComparison(
            first_name,
            second_name,
            name,
            difference(*({query_id: row[name] for query_id, row in setting.items()} for setting in rows), seed=seed),
        )
        for name in second.measures
        if name in first.measures
    ]


def compare_runs(earlier: Evaluation, later: Evaluation, *, earlier_name: str = "before") -> list[PairedComparison]:
    """Compare each setting of a later evaluation with the setting of the same name in an earlier evaluation.

    If the earlier evaluation has a single setting, every later setting is compared with that setting.

    Args:
        earlier: The baseline.
        later: The evaluation to compare with the baseline. The seed of `later` is also the seed of the bootstrap.
        earlier_name: Label of the earlier evaluation, appended in parentheses to the names of the baseline settings.

    Returns:
        One comparison per setting and measure.

    Raises:
        InvalidInputError: If the evaluations differ in documents or judgments, or share no setting or no measure.
    """
    if earlier.data_hash != later.data_hash:
        raise InvalidInputError(
            f"{earlier_name} was measured on different data ({earlier.folder}, hash {earlier.data_hash[:12]}; current "
            f"hash {later.data_hash[:12]}). Compare evaluations of the same documents and judgments."
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
            f"The current evaluation has no setting or no measure in common with {earlier_name}. Evaluate one of the "
            f"settings {', '.join(map(repr, by_name))} with the same measures."
        )
    return comparisons


def versions() -> dict[str, str]:
    """Return the versions of jina_rag, of Python and of the packages that affect the results, and the platform name."""
    numbers = {"jina_rag": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            numbers[package] = importlib.metadata.version(package)
    return numbers | {"platform": f"{platform.system()} {platform.machine()}"}


@dataclass(frozen=True)
class _Evaluator:
    """Evaluates one setting after another. The attributes are shared by all settings of an evaluation."""

    folder: JudgedFolder
    measures: tuple[str, ...]
    options: RunOptions
    seed: int
    hooks: EvaluationHooks
    index_seconds: dict[str, float] = field(default_factory=dict)
    """Location of an index → duration of the ingestion in seconds. Settings with the same index share an entry."""

    def evaluate(self, name: str, setting: Setting, location: str) -> SettingResult:
        """Index the documents, run the queries, and return the result of the setting."""
        folder = self.folder
        documents = list(folder.documents.values())
        with DocumentIndex.open(
            location, embedder=setting.embedder, storage=setting.storage, reranker=setting.reranker
        ) as index:
            started = time.monotonic()
            report = self.hooks.ingest(index, documents)
            if report.documents or report.pages:
                self.index_seconds[location] = time.monotonic() - started
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
            by=group_means(judged_queries, rows),
            per_query=tuple(results),
            latency=_latency(results) if self.options.one_by_one else {},
            pages=index_info.pages,
            bytes=dict(index_info.bytes),
            index_seconds=round(self.index_seconds.get(location, 0.0), 3),
            unjudged={
                k: sum(result.unjudged[k] for result in results if result.measures) / len(judged_queries)
                for k in all_depths(self.measures)
            },
            failed=report.failed,
        )

    def _with_measures(self, results: Sequence[QueryResult]) -> list[QueryResult]:
        per_query = measure(self.folder.queries, ranked_pages(results), self.measures)
        depths = all_depths(self.measures)
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


def _query_json(query: JudgedQuery) -> dict[str, Any]:
    return {
        "query": query.query,
        "modality": query.modality,
        "language": query.language_group,
        "relevant": [[doc, page, grade] for (doc, page), grade in query.relevant.items()],
        "answer": str(query.extra.get("answer") or ""),
    }
