"""nDCG@5, Recall@1, Recall@5 and RR@10, computed by trec_eval (through pytrec-eval-terrier).

trec_eval's nDCG takes the gain of a document as it is given, so grades go in as gains: 2 → 3 and 1 → 1, that is
2^grade − 1 (Burges et al., 2005). Recall@k here is success: the share of questions with any grade-2 page among the
first k. RR@10 is the reciprocal rank of the first grade-2 page, 0 beyond rank 10.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jina_rag.evaluation.datasets import JudgedQuery, PageKey

MEASURES = ("nDCG@5", "Recall@1", "Recall@5", "RR@10")
DEPTH = 10
"""How many pages of a ranking the measures look at."""


def measure(queries: Sequence[JudgedQuery], run: Mapping[str, Sequence[PageKey]]) -> dict[str, dict[str, float]]:
    """Score a run.

    Args:
        queries: Judged questions; those without any relevant page are left out.
        run: qid → pages, best first. A question that is missing scores 0; a page that occurs again is ignored.

    Returns:
        qid → measure → value in [0, 1].
    """
    import pytrec_eval

    judged = [query for query in queries if any(query.relevant.values())]
    graded = {q.qid: {_key(page): 2**grade - 1 for page, grade in q.relevant.items() if grade > 0} for q in judged}
    full = {q.qid: {_key(page): int(grade == 2) for page, grade in q.relevant.items()} for q in judged}
    scores = {}
    for query in judged:
        pages = list(dict.fromkeys(_key(page) for page in run.get(query.qid, ())))
        # trec_eval sorts by score and breaks ties by name: ranks as scores keep the order of the run.
        scores[query.qid] = {page: float(len(pages) - rank) for rank, page in enumerate(pages)}
    ndcg = pytrec_eval.RelevanceEvaluator(graded, {"ndcg_cut.5"}).evaluate(scores)
    hits = pytrec_eval.RelevanceEvaluator(full, {"success.1,5"}).evaluate(scores)
    first = {qid: dict(list(pages.items())[:DEPTH]) for qid, pages in scores.items()}
    rr = pytrec_eval.RelevanceEvaluator(full, {"recip_rank"}).evaluate(first)
    return {
        query.qid: {
            "nDCG@5": ndcg.get(query.qid, {}).get("ndcg_cut_5", 0.0),
            "Recall@1": hits.get(query.qid, {}).get("success_1", 0.0),
            "Recall@5": hits.get(query.qid, {}).get("success_5", 0.0),
            "RR@10": rr.get(query.qid, {}).get("recip_rank", 0.0),
        }
        for query in judged
    }


def mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The average of each measure; empty for no rows."""
    return {name: sum(row[name] for row in rows) / len(rows) for name in MEASURES} if rows else {}


def _key(page: PageKey) -> str:
    return f"{page[0]}\x1f{page[1]}"
