"""The questions of an evaluation: the relevant pages, what came, and which went worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jina_rag.evaluation.datasets import PageKey
from jina_rag.evaluation.results import Evaluation, QueryResult, SettingResult


@dataclass(frozen=True, slots=True)
class ReportQuery:
    """A question with its judgements.

    Attributes:
        query_id: Its id.
        text: On one line.
        modality: What holds the answer; empty if not stated.
        language: Its group by language; empty if not stated.
        relevant: Judged page → grade: 2 answers, 1 answers in part, 0 is known not to.
        answer: As the judge wrote it; empty if not stated.
    """

    query_id: str
    text: str
    modality: str = ""
    language: str = ""
    relevant: Mapping[PageKey, int] = field(default_factory=dict)
    answer: str = ""

    @property
    def right(self) -> list[PageKey]:
        """The pages of the best grade that was given."""
        top = max(self.relevant.values(), default=0)
        return [page for page, grade in self.relevant.items() if grade == top > 0]


def report_query(evaluation: Evaluation, query_id: str) -> ReportQuery:
    """The question of that id; its id stands for a text that was not handed over."""
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
    """Where the first right page came, 1 for first; None if it is not in the ranking."""
    right = set(query.right)
    pages = dict.fromkeys(result.ranking)  # a page that occurs again is ignored, as measures do
    return next((rank for rank, page in enumerate(pages, start=1) if page in right), None)


@dataclass(frozen=True, slots=True)
class RetrievedPage:
    """A page that came.

    Attributes:
        page: Its document and number.
        rank: 1 for first.
        score: Comparable within the question; None where none was kept.
        grade: What the judge gave it; None where nobody has judged it.
    """

    page: PageKey
    rank: int
    score: float | None
    grade: int | None


@dataclass(frozen=True, slots=True)
class SettingOutcome:
    """How a setting did on one question.

    Attributes:
        setting: Its name.
        measure: The main measure; None for a question without judgements.
        rank: Of the first right page; None if it did not come.
        depth: How many pages came.
        milliseconds: What the search took.
    """

    setting: str
    measure: float | None
    rank: int | None
    depth: int
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Miss:
    """A question that went badly with one setting.

    Attributes:
        query: The question.
        measure: What it reached.
        rank: Of the first right page; None if it did not come.
        depth: How many pages came.
        relevant: Relevant pages, best grade first.
        retrieved: Pages that came, best first.
        settings: How each setting did.
        notes: What was not done as asked.
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
    """Question id → what each setting that was asked it made of it, as (setting, result)."""
    results: dict[str, list[tuple[str, QueryResult]]] = {}
    for setting in evaluation.settings:
        for result in setting.per_query:
            results.setdefault(result.query_id, []).append((setting.name, result))
    return results


def outcomes(
    results: Sequence[tuple[str, QueryResult]], query: ReportQuery, measure: str
) -> tuple[SettingOutcome, ...]:
    """How each setting did on a question, of what `by_query` has for it."""
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


def misses(evaluation: Evaluation, setting: SettingResult, measure: str, most: int) -> list[Miss]:
    """The questions that went worst with a setting, worst first; those that could not go better are no misses.

    Args:
        evaluation: The evaluation.
        setting: Whose misses.
        measure: By which measure; among equal ones a right page that came later, or not at all, is worse, then what
            went worse with the other settings.
        most: How many at most.
    """
    results = by_query(evaluation)
    imperfect = [r for r in setting.per_query if r.measures.get(measure, 1.0) < 1.0 - 1e-9]

    def badness(result: QueryResult) -> tuple[float, float, float]:
        rank = rank_of(result, report_query(evaluation, result.query_id))
        values = [other.measures.get(measure, 0.0) for _, other in results[result.query_id]]
        return result.measures[measure], -(rank or float("inf")), sum(values) / len(values)

    worst = sorted(imperfect, key=badness)[: max(0, most)]
    return [
        _miss(report_query(evaluation, result.query_id), result, results[result.query_id], measure) for result in worst
    ]


def _miss(query: ReportQuery, result: QueryResult, others: Sequence[tuple[str, QueryResult]], measure: str) -> Miss:
    scores: dict[PageKey, float] = {}
    for page, score in zip(result.ranking, result.scores, strict=False):
        scores.setdefault(page, score)  # a page that occurs again keeps its first one
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
