"""nDCG, Recall, RR, AP and P at any depth, computed by trec_eval (through pytrec-eval-terrier).

trec_eval's nDCG takes the gain of a document as it is given, so grades go in as gains: 2 → 3 and 1 → 1, that is
2^grade − 1 (Burges et al., 2005). The other measures know relevant pages only, those of grade 2:

nDCG@k     gain by rank, discounted by log2(rank + 1), over that of the best order
Recall@k   success: the share of questions with any grade-2 page among the first k
RR@k       the reciprocal rank of the first grade-2 page, 0 beyond rank k
AP@k       precision at each grade-2 page among the first k, added up, over the number of grade-2 pages
P@k        the share of grade-2 pages among the first k

A page that nobody judged counts as not relevant; `unjudged` tells how many there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.datasets import JudgedQuery, PageKey, Run

MEASURES = ("nDCG@5", "nDCG@10", "Recall@1", "Recall@5", "Recall@10", "RR@10")
DEPTH = 10
"""How many pages of a ranking these measures look at."""
DEEPEST = 1000
_FAMILIES = {"ndcg": "nDCG", "recall": "Recall", "rr": "RR", "mrr": "RR", "ap": "AP", "map": "AP", "p": "P"}
_TREC = {"nDCG": "ndcg_cut", "Recall": "success", "AP": "map_cut", "P": "P"}
_NAME = re.compile(r"\s*([A-Za-z]+)@(\d+)\s*")


def parse_measures(names: Iterable[str]) -> tuple[str, ...]:
    """Names of measures as they are written here, each once; ``"ndcg@3"`` is ``"nDCG@3"``, ``"MRR@10"`` is ``"RR@10"``.

    Raises:
        InvalidInputError: If one is unknown, or has no depth from 1 to 1,000.
    """
    return tuple(dict.fromkeys(f"{family}@{k}" for family, k in map(_parsed, names)))


def depth_of(measures: Iterable[str]) -> int:
    """How deep rankings must be for these measures."""
    return max((k for _, k in map(_parsed, measures)), default=DEPTH)


def measure(
    queries: Sequence[JudgedQuery], run: Run, measures: Sequence[str] = MEASURES
) -> dict[str, dict[str, float]]:
    """Score a run.

    Args:
        queries: Judged questions; those without any relevant page are left out.
        run: query_id → pages, best first. A question that is missing scores 0; a page that occurs again is ignored.
        measures: Which; see `parse_measures`.

    Returns:
        query_id → measure → value in [0, 1].

    Raises:
        InvalidInputError: If a measure is unknown.
    """
    import pytrec_eval

    names = parse_measures(measures)
    judged_queries = [query for query in queries if any(query.relevant.values())]
    keys = {query.query_id: ascii(query.query_id) for query in judged_queries}
    gains, relevance, scores = {}, {}, {}
    for query in judged_queries:
        judgements = query.relevant.items()
        gains[keys[query.query_id]] = {_key(page): 2**grade - 1 for page, grade in judgements if grade > 0}
        relevance[keys[query.query_id]] = {_key(page): int(grade == 2) for page, grade in judgements}
        pages = list(dict.fromkeys(_key(page) for page in run.get(query.query_id, ())))
        # trec_eval sorts by score and breaks ties by name: ranks as scores keep the order of the run.
        scores[keys[query.query_id]] = {page: float(len(pages) - rank) for rank, page in enumerate(pages)}
    values_by_query: dict[str, dict[str, float]] = {query.query_id: {} for query in judged_queries}
    for name in names:
        family, k = _parsed(name)
        if family == "RR":  # trec_eval cuts no ranking for it
            trec_name, key = "recip_rank", "recip_rank"
            rankings = {query_id: dict(list(pages.items())[:k]) for query_id, pages in scores.items()}
        else:
            trec_name, key, rankings = f"{_TREC[family]}.{k}", f"{_TREC[family]}_{k}", scores
        evaluator = pytrec_eval.RelevanceEvaluator(gains if family == "nDCG" else relevance, {trec_name})
        scores_of = evaluator.evaluate(rankings)
        for query in judged_queries:
            values_by_query[query.query_id][name] = scores_of.get(keys[query.query_id], {}).get(key, 0.0)
    return values_by_query


def mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The average of each measure; empty for no rows."""
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]} if rows else {}


def unjudged(query: JudgedQuery, ranking: Sequence[PageKey], depths: Iterable[int]) -> dict[int, int]:
    """How many of the first k pages nobody has judged, by k. Grade 0 is a judgement, too."""
    pages = list(dict.fromkeys(ranking))
    return {k: sum(page not in query.relevant for page in pages[:k]) for k in depths}


def depths_of(measures: Iterable[str]) -> tuple[int, ...]:
    """The depths that these measures look at, each once, the smallest first."""
    return tuple(sorted({k for _, k in map(_parsed, measures)}))


def _parsed(name: str) -> tuple[str, int]:
    match = _NAME.fullmatch(name)
    family = _FAMILIES.get(match.group(1).lower()) if match else None
    if match is None or family is None or not 1 <= int(match.group(2)) <= DEEPEST:
        raise InvalidInputError(
            f"{name!r} is no measure: write nDCG@K, Recall@K, RR@K, AP@K or P@K, with a K from 1 to {DEEPEST:,}."
        )
    return family, int(match.group(2))


def _key(page: PageKey) -> str:
    # In ASCII: pytrec_eval crashes on a name that is no UTF-8, and ends one at its first NUL.
    return f"{page[0]!a} {page[1]}"
