"""The demo: index the sample documents, run five queries, write the report."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jina_rag.demo.report import ReportHit, ReportQuery, ReportSummary, render_report
from jina_rag.demo.samples import SampleQuery, sample_documents, sample_folder, sample_queries
from jina_rag.index.document_index import DocumentIndex, IndexInfo
from jina_rag.indexing.ingest import IngestProgress
from jina_rag.protocols import Embedder
from jina_rag.types import Box, IngestReport, ScoredPage

_HITS_PER_QUERY = 3
_SMALL_SIDE = 900
"""Longest side in pixels of the page images from rank 2."""
_MAX_CLOSE_UP_AREA = 0.6
"""Maximum area of a region that the close-up shows, as a fraction of the page. For a larger region, the close-up shows
the best-matching area of the page instead."""


@dataclass(frozen=True, slots=True)
class DemoAnswer:
    """Hits of one sample query.

    Attributes:
        sample: The query with its relevant page.
        seconds: Wall time of the search in seconds.
        hits: The hits in rank order.
    """

    sample: SampleQuery
    seconds: float
    hits: tuple[ScoredPage, ...]

    @property
    def query(self) -> str:
        """Text of the query."""
        return self.sample.query

    @property
    def kind(self) -> str:
        """Where the answer appears: text, table, chart, scan or code."""
        return self.sample.kind

    @property
    def rank(self) -> int | None:
        """Rank of the relevant page, from 1; None if the hits do not contain it."""
        for rank, hit in enumerate(self.hits, 1):
            if (hit.doc_id, hit.page) == (self.sample.doc_id, self.sample.page):
                return rank
        return None


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Result of the demo.

    Attributes:
        report: Path of the HTML report.
        answers: Hits of each query.
        ingest: Report of the ingestion; a second run reports all documents as unchanged.
        index_info: Contents and size of the index.
        seconds: Wall time of the demo in seconds.
    """

    report: Path
    answers: tuple[DemoAnswer, ...]
    ingest: IngestReport
    index_info: IndexInfo
    seconds: float


def run_demo(
    output: Path,
    *,
    embedder: str | Embedder | None = None,
    progress: Callable[[IngestProgress], None] | None = None,
) -> DemoResult:
    """Index the sample documents in ``output/index``, run the queries and write ``output/report.html``.

    A second run reuses the index and embeds only the queries.

    Args:
        output: Output folder, created if missing.
        embedder: Embedding model or its name; None for the model of the index, or ``"lite"`` for a new index.
        progress: Function to call with the progress of the ingestion; None for no progress reports.

    Returns:
        The hits, the ingestion report and the path of the HTML report.

    Raises:
        IndexMismatchError: If ``output/index`` was created with another model.
        DocumentError: If the sample documents are not on disk.
    """
    start = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    with DocumentIndex.open(output / "index", embedder=embedder) as index:
        ingest = index.ingest([sample_folder()], progress=progress)
        modality = index.embedder.modality  # loads the model, so that the time of the first query excludes loading
        answers, report_queries = [], []
        for sample in sample_queries():
            search_start = time.perf_counter()
            hits = tuple(index.search(sample.query, k=_HITS_PER_QUERY))
            seconds = time.perf_counter() - search_start
            answers.append(DemoAnswer(sample, seconds, hits))
            report_hits = tuple(_report_hit(index, sample.query, hit, rank) for rank, hit in enumerate(hits, 1))
            report_queries.append(ReportQuery(sample.query, sample.kind, seconds, report_hits, sample.note))
        index_info = index.info()
    report = output / "report.html"
    # File names may contain bytes that are invalid in UTF-8; the HTML encodes these bytes as character references.
    html = render_report(tuple(report_queries), ReportSummary(index_info, ingest, modality, sample_documents()))
    report.write_text(html, encoding="utf-8", errors="xmlcharrefreplace", newline="\n")
    return DemoResult(report, tuple(answers), ingest, index_info, time.perf_counter() - start)


def _report_hit(index: DocumentIndex, query: str, hit: ScoredPage, rank: int) -> ReportHit:
    """Render a hit with its heat map and region frame."""
    explanation = index.explain(query, hit)
    frame, label = (hit.region.box, hit.region.kind) if hit.region is not None else (None, "")
    image = explanation.image(max_side=None if rank == 1 else _SMALL_SIDE, frame=frame, label=label)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=92)
    has_small_region = frame is not None and _area(frame) < _MAX_CLOSE_UP_AREA
    return ReportHit(rank, hit, buffer.getvalue(), focus=None if has_small_region else explanation.brightest)


def _area(box: Box) -> float:
    """Return the area of a box as a fraction of the page."""
    return (box[2] - box[0]) * (box[3] - box[1])
