"""Run judged questions against an index and report how well it ranks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.datasets import JudgedFolder, JudgedQuery, PageKey, Run
from jina_rag.evaluation.files import write_lines
from jina_rag.evaluation.measures import DEPTH, mean, measure
from jina_rag.evaluation.run_cache import TOGETHER, named_pages
from jina_rag.index.document_index import DocumentIndex
from jina_rag.search.searcher import GroupBy
from jina_rag.search.stages import Stage
from jina_rag.types import Failure, IngestReport, Where


@dataclass(frozen=True)
class EvaluationReport:
    """What an evaluation found.

    Attributes:
        queries: Number of judged questions.
        measures: Measure → mean over all questions.
        by: ``{"modality": {name: {"queries": n, measure: mean}}, "language": {"same": …, "cross": …}}``.
        per_query: query_id → measure → value.
        run: query_id → pages, best first.
        failed: Files that could not be indexed: their pages count as not found.
        seconds: Wall time, ingestion included.
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
    """Ingest the folder's documents into `index` and ask its questions, in batches.

    For several settings, latency, intervals, and results that are kept, see `jina_rag.evaluation.comparison`.

    Args:
        folder: Documents and judged questions.
        index: Documents that it already holds unchanged are not embedded again.
        ingest: Called instead of ``index.ingest`` (to show progress).
        on_query: Called with (done, all) after each question.

    Raises:
        InvalidInputError: If the index holds documents that are not of this folder, which would change the figures.
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
        by=grouped(judged_queries, per_query),
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
    filter: Where | None = None,  # the word users look for
    stages: Sequence[Stage] | None = None,
    group_by: GroupBy = "page",
    dedup: bool = False,
    min_score: float | None = None,
    on_note: Callable[[str, str], None] | None = None,
) -> dict[str, list[PageKey]]:
    """The best `k` pages for each question; a document is called by `names`, else by its file's stem.

    Files with the same bytes follow each other: the index has their pages once, and judgements may name either.

    Args:
        index: What is asked.
        queries: Questions.
        names: File → what judgements call its document.
        on_query: Called with (done, all) after each batch of questions.
        k: Hits for each question at most.
        filter: As `DocumentIndex.search` takes it, and so are the others.
        stages: In the place of the index's own.
        group_by: ``"document"`` ranks each document once, by its best page.
        dedup: Whether pages that show nearly the same are left out after the best of them.
        min_score: Pages of a lower score are left out.
        on_note: Called with (qid, note) for what was not done as asked.
    """
    run: dict[str, list[PageKey]] = {}
    for start in range(0, len(queries), TOGETHER):
        some = queries[start : start + TOGETHER]
        hits_of = index.search_many(
            [query.query for query in some],
            k=k,
            filter=filter,
            stages=stages,
            group_by=group_by,
            dedup=dedup,
            min_score=min_score,
            details=False,
        )
        for query, hits in zip(some, hits_of, strict=True):
            if on_note:
                for note in hits.notes:
                    on_note(query.query_id, note)
            run[query.query_id] = named_pages(hits, names or {})
        if on_query:
            on_query(start + len(some), len(queries))
    return run


def check_documents(index: DocumentIndex, folder: JudgedFolder) -> None:
    """Refuse an index that holds documents which are not of the folder: they would change the figures.

    Raises:
        InvalidInputError: If it does.
    """
    names = folder.names
    strange = [d.path for d in index.documents() if d.path.resolve() not in names]
    if strange:
        raise InvalidInputError(
            f"The index at {index.location} holds {len(strange)} document(s) that are not of {folder.root}, such as "
            f"{strange[0]}: use an index of its own for the evaluation."
        )


def grouped(
    queries: Sequence[JudgedQuery], scores: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, dict[str, float]]]:
    """Means by ``"modality"``, and by ``"language"``: ``"same"`` or ``"cross"``.

    Args:
        queries: Judged questions; those that state no group are in none.
        scores: query_id → measure → value.
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
    """Write a run, one ``{"qid", "ranking": [[doc, page], …]}`` a line; the file appears whole or not at all."""
    write_lines(path, ({"qid": query_id, "ranking": pages} for query_id, pages in run.items()), what="rankings")
