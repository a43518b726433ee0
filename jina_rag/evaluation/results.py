"""What an evaluation found: values that runners fill, and reports, tables and JSON are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jina_rag.evaluation.datasets import PageKey
from jina_rag.evaluation.significance import Difference
from jina_rag.types import Failure

LOG = "vectors: log"
"""The part of an index's bytes that holds its last changes once more, up to a fixed size."""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What came out for one question.

    Attributes:
        query_id: Its id.
        ranking: Pages, best first.
        measures: Measure → value in [0, 1]; empty for a question without judgements.
        milliseconds: Wall time of the search, its embedding included, asked alone.
        unjudged: How many of the first `k` pages nobody has judged, by k: they count as not relevant.
        scores: Of the pages, beside `ranking`; comparable within the question.
        images: Screenshots of the pages, beside `ranking`; None where there is none.
        notes: What was not done as asked.
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
    """What one setting reached.

    Attributes:
        name: Short and unique among the settings of an evaluation.
        setting: Its parts as text: ``{"embedder", "storage", "stages", "reranker"}``, what was not given left out.
        fingerprint: What the vectors depend on.
        queries: Judged questions.
        measures: Measure → mean over them.
        intervals: Measure → its 95 % bootstrap interval.
        by: Group (``"modality"``, ``"language"``) → name → ``{"queries": n, measure: mean}``.
        per_query: Every question, in the order of the file.
        latency: ``{"p50", "p90", "p99", "mean"}`` in milliseconds, of questions asked one by one after one to warm up.
        pages: Pages in the index.
        bytes: Bytes on disk by part.
        index_seconds: Wall time of the ingestion; 0 where the index was there already.
        unjudged: Mean number of unjudged pages among the first k, by k.
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
        """Bytes a page of what the store keeps: vectors and what goes with them.

        Without images, and without the log of the last changes, which does not grow with the pages.
        """
        sizes = {part: size for part, size in self.bytes.items() if part.startswith("vectors") and part != LOG}
        return sum(sizes.values()) / max(self.pages, 1)


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """One setting against another over the same questions: `second` less `first`."""

    first: str
    second: str
    measure: str
    difference: Difference


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Several settings on one judged set.

    Attributes:
        folder: The judged set.
        data_hash: SHA-256 over ``docs.jsonl``, ``queries.jsonl`` and the files' hashes.
        command: The line that repeats it.
        versions: Package → version, and the platform.
        seed: Of every bootstrap.
        settings: In the order they were asked for.
        comparisons: Every later setting against the first one, for every measure.
        queries: query_id → ``{"query", "modality", "language", "relevant": [[doc, page, grade], …], "answer"}``.
        seconds: Wall time of all of it.
        when: When it began, as ISO 8601 (UTC); empty if not known.
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
    """Question id → pages, best first, as measures take it."""
    return {result.query_id: list(result.ranking) for result in results}
