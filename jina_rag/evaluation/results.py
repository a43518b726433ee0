"""Result types of an evaluation, the input of reports, tables and JSON files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jina_rag.evaluation.datasets import PageKey
from jina_rag.evaluation.significance import Difference
from jina_rag.types import Failure

LOG = "vectors: log"
"""Key of the write-ahead log in `SettingResult.bytes`. The bytes per page exclude the log, because its
size does not depend on the number of pages."""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Result of one query.

    Attributes:
        query_id: Id of the query.
        ranking: Pages, best first.
        measures: Measure → value from 0 to 1; empty for a query without judgments.
        milliseconds: Wall time of the search including the embedding of the query, in milliseconds; 0 if queries ran in
            batches.
        unjudged: k → number of unjudged pages among the first k; unjudged pages count as not relevant.
        scores: Scores of the pages, parallel to `ranking`. Scores of different queries are not comparable.
        images: Screenshots of the pages, parallel to `ranking`; None for a page without a screenshot.
        notes: Deviations from the requested search, for example a truncated query.
    """

    query_id: str
    ranking: tuple[PageKey, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
    milliseconds: float = 0.0
    unjudged: Mapping[int, int] = field(default_factory=dict)
    scores: tuple[float, ...] = ()
    images: tuple[Path | None, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SettingResult:
    """Result of one setting.

    Attributes:
        name: Short name, unique within the evaluation.
        setting: The setting as text: ``{"embedder", "storage", "stages", "reranker"}``, without unset values.
        fingerprint: Fingerprint of the embedder; equal fingerprints mean equal vectors.
        queries: Number of judged queries.
        measures: Measure → mean over the judged queries, from 0 to 1.
        intervals: Measure → lower and upper end of the 95 % bootstrap interval of the mean.
        by: ``"modality"`` or ``"language"`` → name of the group → ``{"queries": n, measure: mean}``.
        per_query: Results of all queries, in the order of the queries file.
        latency: ``{"p50", "p90", "p99", "mean"}`` in milliseconds, over queries that ran one by one after one warm-up
            query; empty if queries ran in batches.
        pages: Number of pages in the index.
        bytes: Part of the index → size on disk in bytes.
        index_seconds: Wall time of the ingestion in seconds; 0 for an existing index.
        unjudged: k → mean number of unjudged pages among the first k.
        failed: Files and pages that could not be indexed.
    """

    name: str
    setting: Mapping[str, str]
    fingerprint: str
    queries: int
    measures: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    by: Mapping[str, Mapping[str, Mapping[str, float]]]
    per_query: tuple[QueryResult, ...]
    latency: Mapping[str, float]
    pages: int
    bytes: Mapping[str, int]
    index_seconds: float
    unjudged: Mapping[int, float] = field(default_factory=dict)
    failed: tuple[Failure, ...] = ()

    @property
    def vector_bytes_per_page(self) -> float:
        """Bytes per page in the vector store, for vectors and payload.

        The value excludes page images. The write-ahead log is also excluded, because the size of the log does not
        depend on the number of pages.
        """
        sizes = {part: size for part, size in self.bytes.items() if part.startswith("vectors") and part != LOG}
        return sum(sizes.values()) / max(self.pages, 1)


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """A paired comparison of two settings over the same queries.

    Attributes:
        first: Name of the baseline setting.
        second: Name of the setting compared with the baseline.
        measure: Name of the measure.
        difference: Mean of `second` minus `first` over the queries, with a 95 % interval.
    """

    first: str
    second: str
    measure: str
    difference: Difference


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Results of several settings on one judged folder.

    Attributes:
        folder: Path of the judged folder.
        data_hash: SHA-256 over ``docs.jsonl``, the queries file and the content of the documents.
        command: Command line that repeats the evaluation.
        versions: Package → version, and the platform.
        seed: Seed of the random generator of each bootstrap.
        settings: Results in the order of the requested settings.
        comparisons: Comparisons of each later setting with the first setting, one per measure.
        queries: query_id → ``{"query", "modality", "language", "relevant": [[doc, page, grade], …], "answer"}``.
        seconds: Wall time of the whole evaluation in seconds.
        when: Start time in ISO 8601 (UTC); empty if unknown.
    """

    folder: str
    data_hash: str
    command: str
    versions: Mapping[str, str]
    seed: int
    settings: tuple[SettingResult, ...]
    comparisons: tuple[PairedComparison, ...] = ()
    queries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seconds: float = 0.0
    when: str = ""


def ranked_pages(results: Sequence[QueryResult]) -> dict[str, list[PageKey]]:
    """Return the run of a setting: query_id → pages, best first.

    Args:
        results: Results of the queries of one setting.
    """
    return {result.query_id: list(result.ranking) for result in results}
