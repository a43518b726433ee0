"""Ranking measures at any depth: nDCG, Recall, RR, AP and P, computed by trec_eval through pytrec-eval-terrier.

trec_eval's nDCG reads gains, so each grade is converted to the gain 2^grade − 1: grade 2 has gain 3, and grade 1 has
gain 1. For all measures except nDCG, only pages of grade 2 are relevant.

nDCG@k     sum of gain / log2(rank + 1) over the first k pages, divided by the sum for the ideal ranking
Recall@k   success: the share of queries with at least one grade-2 page among the first k
RR@k       reciprocal rank of the first grade-2 page; 0 beyond rank k
AP@k       sum of the precisions at the grade-2 pages among the first k, divided by the number of grade-2 pages
P@k        share of grade-2 pages among the first k

An unjudged page counts as not relevant. The function `unjudged` returns the number of unjudged pages.

Source: trec_eval (National Institute of Standards and Technology); gains: Burges et al., Learning to Rank using
Gradient Descent (ICML 2005).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.datasets import JudgedQuery, PageKey, Run

MEASURES = ("nDCG@5", "nDCG@10", "Recall@1", "Recall@5", "Recall@10", "RR@10")
DEPTH = 10
"""Depth of the default measures, in pages per ranking."""
MAX_DEPTH = 1000  # largest valid depth of a measure, in pages
_FAMILIES = {"ndcg": "nDCG", "recall": "Recall", "rr": "RR", "mrr": "RR", "ap": "AP", "map": "AP", "p": "P"}
_TREC = {"nDCG": "ndcg_cut", "Recall": "success", "AP": "map_cut", "P": "P"}
_NAME = re.compile(r"\s*([A-Za-z]+)@(\d+)\s*")


def parse_measures(names: Iterable[str]) -> tuple[str, ...]:
    """Return the canonical names of measures without duplicates.

    ``"ndcg@3"`` becomes ``"nDCG@3"``, and ``"MRR@10"`` becomes ``"RR@10"``.

    Args:
        names: Names of measures, in any case.

    Raises:
        InvalidInputError: If a measure is unknown, or the depth of a measure is missing or outside 1 to 1,000.
    """
    return tuple(dict.fromkeys(f"{family}@{k}" for family, k in map(_parse_measure, names)))


def max_depth(measures: Iterable[str]) -> int:
    """Return the largest depth of the measures, in pages; 10 if `measures` is empty.

    Args:
        measures: Names of measures.
    """
    return max((k for _, k in map(_parse_measure, measures)), default=DEPTH)


def measure(
    queries: Sequence[JudgedQuery], run: Run, measures: Sequence[str] = MEASURES
) -> dict[str, dict[str, float]]:
    """Compute the measures of each judged query of a run.

    Args:
        queries: Judged queries; queries without a relevant page are skipped.
        run: query_id → pages, best first. A missing query scores 0; repeated pages are ignored.
        measures: Names of measures; see `parse_measures`.

    Returns:
        query_id → measure → value from 0 to 1.

    Raises:
        InvalidInputError: If a measure is unknown.
    """
    import pytrec_eval

    names = parse_measures(measures)
    judged_queries = [query for query in queries if any(query.relevant.values())]
    keys = {query.query_id: ascii(query.query_id) for query in judged_queries}
    gains, relevance, scores = {}, {}, {}
    for query in judged_queries:
        judgments = query.relevant.items()
        gains[keys[query.query_id]] = {_trec_key(page): 2**grade - 1 for page, grade in judgments if grade > 0}
        relevance[keys[query.query_id]] = {_trec_key(page): int(grade == 2) for page, grade in judgments}
        pages = list(dict.fromkeys(_trec_key(page) for page in run.get(query.query_id, ())))
        # trec_eval sorts by score and breaks ties by name: scores derived from ranks preserve the order of the run.
        scores[keys[query.query_id]] = {page: float(len(pages) - rank) for rank, page in enumerate(pages)}
    values_by_query: dict[str, dict[str, float]] = {query.query_id: {} for query in judged_queries}
    for name in names:
        family, k = _parse_measure(name)
        if family == "RR":  # trec_eval has no depth for recip_rank, so cut the ranking here
            trec_name, key = "recip_rank", "recip_rank"
            rankings = {query_id: dict(list(pages.items())[:k]) for query_id, pages in scores.items()}
        else:
            trec_name, key, rankings = f"{_TREC[family]}.{k}", f"{_TREC[family]}_{k}", scores
        evaluator = pytrec_eval.RelevanceEvaluator(gains if family == "nDCG" else relevance, {trec_name})
        trec_scores = evaluator.evaluate(rankings)
        for query in judged_queries:
            values_by_query[query.query_id][name] = trec_scores.get(keys[query.query_id], {}).get(key, 0.0)
    return values_by_query


def mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each measure over the rows; empty if `rows` is empty.

    Args:
        rows: One mapping of measure → value per query.
    """
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]} if rows else {}


def unjudged(query: JudgedQuery, ranking: Sequence[PageKey], depths: Iterable[int]) -> dict[int, int]:
    """Return k → number of unjudged pages among the first k. A page of grade 0 is judged.

    Args:
        query: The query with its judgments.
        ranking: Pages, best first.
        depths: Values of k, in pages.
    """
    pages = list(dict.fromkeys(ranking))
    return {k: sum(page not in query.relevant for page in pages[:k]) for k in depths}


def all_depths(measures: Iterable[str]) -> tuple[int, ...]:
    """Return the distinct depths of the measures in ascending order, in pages.

    Args:
        measures: Names of measures.
    """
    return tuple(sorted({k for _, k in map(_parse_measure, measures)}))


def _parse_measure(name: str) -> tuple[str, int]:
    match = _NAME.fullmatch(name)
    family = _FAMILIES.get(match.group(1).lower()) if match else None
    if match is None or family is None or not 1 <= int(match.group(2)) <= MAX_DEPTH:
        raise InvalidInputError(
            f"{name!r} is not a measure; expected nDCG@K, Recall@K, RR@K, AP@K or P@K, with K from 1 to {MAX_DEPTH:,}."
        )
    return family, int(match.group(2))


def _trec_key(page: PageKey) -> str:
    # ASCII, because pytrec_eval crashes on names that are not UTF-8 and truncates names at the first NUL.
    return f"{page[0]!a} {page[1]}"
