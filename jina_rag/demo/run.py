"""The demonstration itself: index the sample documents, ask them five questions, write the report."""

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

_PAGES_PER_QUESTION = 3
_SMALL_SIDE = 900
"""Longest side in pixels of the pages below the first: they are shown small."""
_MOST_OF_A_PAGE = 0.6
"""A region of this share of its page is no place to enlarge: the best words on it are."""


@dataclass(frozen=True, slots=True)
class DemoAnswer:
    """What one question found.

    Attributes:
        sample: The question, with the page that a person found to answer it.
        seconds: Wall time of the search.
        hits: The pages, best first.
    """

    sample: SampleQuery
    seconds: float
    hits: tuple[ScoredPage, ...]

    @property
    def query(self) -> str:
        """The question's words."""
        return self.sample.query

    @property
    def kind(self) -> str:
        """Where the answer stands: text, table, chart, scan or code."""
        return self.sample.kind

    @property
    def rank(self) -> int | None:
        """Where the answering page came, 1 for first; None if it is not among the hits."""
        for rank, hit in enumerate(self.hits, 1):
            if (hit.doc_id, hit.page) == (self.sample.doc_id, self.sample.page):
                return rank
        return None


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demonstration did.

    Attributes:
        report: The HTML file.
        answers: One per question.
        ingest: What this run's ingestion did; nothing but `unchanged` in a second run.
        index_info: What the index holds now.
        seconds: Wall time of everything.
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
    """Index the sample documents into ``output/index``, ask the questions, write ``output/report.html``.

    A second run finds the index as it is and embeds nothing but the questions.

    Args:
        output: A folder; made if missing.
        embedder: The model, by name or loaded; None for the index's own, and ``"lite"`` for a new index.
        progress: Called while the documents are indexed.

    Raises:
        IndexMismatchError: If ``output/index`` was built with another model.
        DocumentError: If the sample documents are not on disk.
    """
    start = time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    with DocumentIndex.open(output / "index", embedder=embedder) as index:
        ingest = index.ingest([sample_folder()], progress=progress)
        modality = index.embedder.modality  # the model is loaded before the clock of the first question runs
        answers, report_queries = [], []
        for sample in sample_queries():
            clock = time.perf_counter()
            hits = tuple(index.search(sample.query, k=_PAGES_PER_QUESTION))
            seconds = time.perf_counter() - clock
            answers.append(DemoAnswer(sample, seconds, hits))
            report_hits = tuple(_report_hit(index, sample.query, hit, rank) for rank, hit in enumerate(hits, 1))
            report_queries.append(ReportQuery(sample.query, sample.kind, seconds, report_hits, sample.note))
        index_info = index.info()
    report = output / "report.html"
    # A file name may hold bytes that are no text; they become references, which a browser shows as such.
    html = render_report(tuple(report_queries), ReportSummary(index_info, ingest, modality, sample_documents()))
    report.write_text(html, encoding="utf-8", errors="xmlcharrefreplace", newline="\n")
    return DemoResult(report, tuple(answers), ingest, index_info, time.perf_counter() - start)


def _report_hit(index: DocumentIndex, query: str, hit: ScoredPage, rank: int) -> ReportHit:
    """One page with its heat map, as the report shows it."""
    explanation = index.explain(query, hit)
    frame, label = (hit.region.box, hit.region.kind) if hit.region is not None else (None, "")
    image = explanation.image(max_side=None if rank == 1 else _SMALL_SIDE, frame=frame, label=label)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=92)
    has_small_region = frame is not None and _area(frame) < _MOST_OF_A_PAGE
    return ReportHit(rank, hit, buffer.getvalue(), focus=None if has_small_region else explanation.brightest)


def _area(box: Box) -> float:
    """The share of the page that a box covers."""
    return (box[2] - box[0]) * (box[3] - box[1])
