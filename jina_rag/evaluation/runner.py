"""Evaluation of one index on a judged folder: ingestion, search and measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.datasets import JudgedFolder, JudgedQuery, PageKey, Run
from jina_rag.evaluation.files import write_lines
from jina_rag.evaluation.measures import DEPTH, mean, measure
from jina_rag.evaluation.run_cache import BATCH_SIZE, judged_page_keys
from jina_rag.index.document_index import DocumentIndex
from jina_rag.search.searcher import GroupBy
from jina_rag.search.stages import Stage
from jina_rag.types import Failure, IngestReport, Where


@dataclass(frozen=True)
class EvaluationReport:
    """Measures of one index on a judged folder.

    Attributes:
        queries: Number of judged queries.
        measures: Measure → mean over the judged queries, from 0 to 1.
        by: ``{"modality": {name: {"queries": n, measure: mean}}, "language": {"same": …, "cross": …}}``.
        per_query: query_id → measure → value from 0 to 1.
        run: query_id → pages, best first.
        failed: Files and pages that could not be indexed. Searches cannot find these pages, so the measures are lower.
        seconds: Wall time in seconds, including the ingestion.
        index_seconds: Wall time of the ingestion in seconds.
    """

    queries: int
    measures: Mapping[str, float]
    by: Mapping[str, Mapping[str, Mapping[str, float]]]
    per_query: Mapping[str, Mapping[str, float]]
    run: Run
    failed: tuple[Failure, ...] = ()
    seconds: float = 0.0
    index_seconds: float = 0.0


def evaluate(
    folder: JudgedFolder,
    index: DocumentIndex,
    *,
    ingest: Callable[[Sequence[Path]], IngestReport] | None = None,
    on_query: Callable[[int, int], None] | None = None,
) -> EvaluationReport:
    """Ingest the documents of a judged folder, run the queries in batches, and return the default measures.

    For several settings, latency, intervals and saved results, see `jina_rag.evaluation.comparison`.

    Args:
        folder: Documents and judged queries.
        index: An empty index, or an index of documents of the folder. Unchanged documents are not embedded again.
        ingest: Called with the documents instead of ``index.ingest``, for example to show progress.
        on_query: Called with (queries done, total queries) after each batch.

    Returns:
        The mean of each measure, the means by modality and by language, and the rankings.

    Raises:
        InvalidInputError: If the index holds documents from outside the folder.
    """
    start = time.monotonic()
    report = (ingest or index.ingest)(list(folder.documents.values()))
    index_seconds = time.monotonic() - start
    check_documents(index, folder)
    run = search_all(index, folder.queries, names=folder.names, on_query=on_query)
    per_query = measure(folder.queries, run)
    judged_queries = [query for query in folder.queries if query.query_id in per_query]
    return EvaluationReport(
        queries=len(judged_queries),
        measures=mean(list(per_query.values())),
        by=group_means(judged_queries, per_query),
        per_query=per_query,
        run=run,
        failed=report.failed,
        seconds=time.monotonic() - start,
        index_seconds=index_seconds,
    )


def search_all(
    index: DocumentIndex,
    queries: Sequence[JudgedQuery],
    *,
    names: Mapping[Path, str] | None = None,
    on_query: Callable[[int, int], None] | None = None,
    k: int = DEPTH,
    filter: Where | None = None,
    stages: Sequence[Stage] | None = None,
    group_by: GroupBy = "page",
    dedup: bool = False,
    min_score: float | None = None,
    on_note: Callable[[str, str], None] | None = None,
) -> dict[str, list[PageKey]]:
    """Return query_id → the best `k` pages of each query.

    The index stores the pages of identical files once. The result lists a page of identical files once per file, in
    consecutive ranks, because judgments may refer to any of the files.

    Args:
        index: The index to search.
        queries: Queries to run.
        names: File → name of the document in the judgments. Files without an entry get the stem of the file name.
        on_query: Called with (queries done, total queries) after each batch.
        k: Maximum number of hits per query.
        filter: Metadata filter; see `DocumentIndex.search`.
        stages: Search stages; None for the stages of the index.
        group_by: ``"page"``, or ``"document"`` to rank each document once, by the best page of the document.
        dedup: Keep only the best page of each group of near-duplicates.
        min_score: Drop pages below this score; None for no minimum.
        on_note: Called with (query_id, note) for each deviation from the requested search.
    """
    run: dict[str, list[PageKey]] = {}
    for start in range(0, len(queries), BATCH_SIZE):
        batch = queries[start : start + BATCH_SIZE]
        hit_lists = index.search_many(
            [query.query for query in batch],
            k=k,
            filter=filter,
            stages=stages,
            group_by=group_by,
            dedup=dedup,
            min_score=min_score,
            details=False,
        )
        for query, hits in zip(batch, hit_lists, strict=True):
            if on_note:
                for note in hits.notes:
                    on_note(query.query_id, note)
            run[query.query_id] = judged_page_keys(hits, names or {})
        if on_query:
            on_query(start + len(batch), len(queries))
    return run


def check_documents(index: DocumentIndex, folder: JudgedFolder) -> None:
    """Raise an error if an index holds documents from outside a judged folder: they distort the measures.

    Args:
        index: The index.
        folder: The judged folder.

    Raises:
        InvalidInputError: If the index holds a document from outside the folder.
    """
    names = folder.names
    other_paths = [d.path for d in index.documents() if d.path.resolve() not in names]
    if other_paths:
        raise InvalidInputError(
            f"The index at {index.location} holds {len(other_paths)} document(s) from outside {folder.root}, for "
            f"example {other_paths[0]}. Use a separate index for the evaluation."
        )


def group_means(
    queries: Sequence[JudgedQuery], scores: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the mean measures by ``"modality"`` and by ``"language"`` (``"same"`` or ``"cross"``).

    Args:
        queries: Judged queries. Queries without a modality are omitted from the means by modality, and queries without
            a language group from the means by language.
        scores: query_id → measure → value.

    Returns:
        ``"modality"`` or ``"language"`` → name of the group → ``{"queries": n, measure: mean}``.
    """
    groups: dict[str, dict[str, list[Mapping[str, float]]]] = {"modality": {}, "language": {}}
    for query in queries:
        for kind, name in (("modality", query.modality), ("language", query.language_group)):
            if name:
                groups[kind].setdefault(name, []).append(scores[query.query_id])
    return {
        kind: {name: {"queries": len(rows), **mean(rows)} for name, rows in sorted(by_name.items())}
        for kind, by_name in groups.items()
    }


def write_run(path: Path, run: Run) -> None:
    """Write a run as JSON Lines, one ``{"qid", "ranking": [[doc, page], …]}`` per query; the write is atomic.

    Args:
        path: Path of the file; an existing file is replaced.
        run: query_id → pages, best first.

    Raises:
        InvalidInputError: If the file cannot be written.
    """
    write_lines(path, ({"qid": query_id, "ranking": pages} for query_id, pages in run.items()), label="rankings")
