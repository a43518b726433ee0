"""Queries of an evaluation: relevant pages, retrieved pages and the lowest-scoring queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jina_rag.evaluation.datasets import PageKey
from jina_rag.evaluation.results import Evaluation, QueryResult, SettingResult


@dataclass(frozen=True, slots=True)
class ReportQuery:
    """A query with its relevance judgments.

    Attributes:
        query_id: Id of the query.
        text: The query on one line.
        modality: Kind of content that holds the answer, for example ``"table"``; empty if not stated.
        language: Language group, ``"same"`` or ``"cross"``; empty if not stated.
        relevant: Judged page → grade: 2 relevant, 1 partly relevant, 0 not relevant.
        answer: The expected answer; empty if not stated.
    """

    query_id: str
    text: str
    modality: str = ""
    language: str = ""
    relevant: Mapping[PageKey, int] = field(default_factory=dict)
    answer: str = ""

    @property
    def best_pages(self) -> list[PageKey]:
        """Pages with the query's highest grade; empty if no grade is above 0."""
        top = max(self.relevant.values(), default=0)
        return [page for page, grade in self.relevant.items() if grade == top > 0]


def report_query(evaluation: Evaluation, query_id: str) -> ReportQuery:
    """Return the query with `query_id`. If the evaluation does not store the text of the query, the text is the id."""
    entry = evaluation.queries.get(query_id, {})
    return ReportQuery(
        query_id=query_id,
        text=" ".join(str(entry.get("query") or query_id).split()),
        modality=str(entry.get("modality") or ""),
        language=str(entry.get("language") or ""),
        relevant={(str(doc), int(page)): int(grade) for doc, page, grade in entry.get("relevant") or ()},
        answer=" ".join(str(entry.get("answer") or "").split()),
    )


def rank_of(result: QueryResult, query: ReportQuery) -> int | None:
    """Return the rank (from 1) of the first page with the query's highest grade, or None if no such page is ranked."""
    best_pages = set(query.best_pages)
    pages = dict.fromkeys(result.ranking)  # repetitions of a page are ignored, as in the measures
    return next((rank for rank, page in enumerate(pages, start=1) if page in best_pages), None)


@dataclass(frozen=True, slots=True)
class RetrievedPage:
    """A retrieved page of a query.

    Attributes:
        page: Document name and page number.
        rank: Rank, counted from 1.
        score: Score, comparable only with other scores of the query; None if the result has no scores.
        grade: Relevance grade; None for an unjudged page.
    """

    page: PageKey
    rank: int
    score: float | None
    grade: int | None


@dataclass(frozen=True, slots=True)
class SettingOutcome:
    """The result of one setting for one query.

    Attributes:
        setting: Name of the setting.
        measure: Value of the main measure; None for a query without judgments.
        rank: Rank of the first relevant page, see `rank_of`; None if no relevant page was retrieved.
        depth: Number of distinct retrieved pages.
        milliseconds: Wall time of the search, in milliseconds.
    """

    setting: str
    measure: float | None
    rank: int | None
    depth: int
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Miss:
    """A query for which the main measure of one setting is below 1.

    Attributes:
        query: The query.
        measure: Value of the main measure.
        rank: Rank of the first relevant page, see `rank_of`; None if no relevant page was retrieved.
        depth: Number of distinct retrieved pages.
        relevant: Pairs of a relevant page and its grade, highest grade first.
        retrieved: Retrieved pages, best first.
        settings: Results of all settings for the query.
        notes: Deviations from the requested search, for example a truncated query.
    """

    query: ReportQuery
    measure: float
    rank: int | None
    depth: int
    relevant: tuple[tuple[PageKey, int], ...]
    retrieved: tuple[RetrievedPage, ...]
    settings: tuple[SettingOutcome, ...]
    notes: tuple[str, ...]


def by_query(evaluation: Evaluation) -> dict[str, list[tuple[str, QueryResult]]]:
    """Return the results of all settings by query id, as pairs (setting name, result)."""
    results: dict[str, list[tuple[str, QueryResult]]] = {}
    for setting in evaluation.settings:
        for result in setting.per_query:
            results.setdefault(result.query_id, []).append((setting.name, result))
    return results


def outcomes(
    results: Sequence[tuple[str, QueryResult]], query: ReportQuery, measure: str
) -> tuple[SettingOutcome, ...]:
    """Return measure, rank and search time of each setting for a query.

    Args:
        results: Results of the query, from `by_query`.
        query: The query with its relevance judgments, which determine the rank.
        measure: Name of the main measure.
    """
    return tuple(
        SettingOutcome(
            setting=setting,
            measure=result.measures.get(measure),
            rank=rank_of(result, query),
            depth=len(set(result.ranking)),
            milliseconds=result.milliseconds,
        )
        for setting, result in results
    )


def misses(evaluation: Evaluation, setting: SettingResult, measure: str, limit: int) -> list[Miss]:
    """Return the queries with the lowest values of a measure, lowest first. Queries with the value 1 are excluded.

    Queries with equal values are ordered by the rank of the first relevant page, worst rank first, and then by the mean
    value of all settings.

    Args:
        evaluation: The evaluation that contains `setting`.
        setting: The setting whose results are searched for low values.
        measure: Name of the measure that orders the queries.
        limit: Maximum number of returned queries.
    """
    results = by_query(evaluation)
    imperfect = [r for r in setting.per_query if r.measures.get(measure, 1.0) < 1.0 - 1e-9]

    def sort_key(result: QueryResult) -> tuple[float, float, float]:
        rank = rank_of(result, report_query(evaluation, result.query_id))
        values = [other.measures.get(measure, 0.0) for _, other in results[result.query_id]]
        return result.measures[measure], -(rank or float("inf")), sum(values) / len(values)

    worst = sorted(imperfect, key=sort_key)[: max(0, limit)]
    return [
        _miss(report_query(evaluation, result.query_id), result, results[result.query_id], measure) for result in worst
    ]


def _miss(query: ReportQuery, result: QueryResult, others: Sequence[tuple[str, QueryResult]], measure: str) -> Miss:
    scores: dict[PageKey, float] = {}
    for page, score in zip(result.ranking, result.scores, strict=False):
        scores.setdefault(page, score)  # the first score of a repeated page counts
    pages = list(dict.fromkeys(result.ranking))
    return Miss(
        query=query,
        measure=result.measures[measure],
        rank=rank_of(result, query),
        depth=len(pages),
        relevant=tuple(sorted(((p, g) for p, g in query.relevant.items() if g > 0), key=lambda item: -item[1])),
        retrieved=tuple(
            RetrievedPage(page, rank, scores.get(page), query.relevant.get(page))
            for rank, page in enumerate(pages, start=1)
        ),
        settings=outcomes(others, query, measure),
        notes=result.notes,
    )
