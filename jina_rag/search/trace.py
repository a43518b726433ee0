"""Per-stage ranks and scores of a hit (``explain=True``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jina_rag.search.fusion import Candidate
from jina_rag.types import ScoredPage, Step

_NOTES = {
    "background": "mean score of the page for the reference queries; a fraction is subtracted",
    "identifiers": "fraction of the query's identifiers on the page, weighted by rarity",
}
_SKIPPED_NOTE = "selected no candidates: in an index of this size, every page is scored"


def ranks_of(ranking: Sequence[Candidate]) -> dict[str, dict[str, int]]:
    """Return stage → page id → 1-based rank for MaxSim, rescoring and reranking.

    The key ``"region"`` contains the pages whose MaxSim score is the score of a region.
    """
    ranks: dict[str, dict[str, int]] = {}
    for stage in ("maxsim", "rescore", "rerank"):
        candidates = [candidate for candidate in ranking if stage in candidate.scores]
        # The sort is stable: pages with equal scores keep the order of the ranking.
        candidates.sort(key=lambda candidate: -candidate.scores[stage])
        ranks[stage] = {candidate.page_id: rank for rank, candidate in enumerate(candidates, start=1)}
    ranks["region"] = {candidate.page_id: 0 for candidate in ranking if candidate.region is not None}
    return ranks


def steps_of(
    hit: ScoredPage, first_ranks: Mapping[str, Mapping[str, tuple[int, float]]], ranks: Mapping[str, Mapping[str, int]]
) -> tuple[Step, ...]:
    """Return the steps of one hit, in the order of the stages.

    Args:
        hit: The hit, with the scores of all stages in `scores`.
        first_ranks: First-stage vector → page id → (rank, score); empty if every page was scored.
        ranks: Result of `ranks_of`.
    """
    steps = []
    for name in ("dense", "lexical"):
        if name in first_ranks and hit.page_id in first_ranks[name]:
            rank, score = first_ranks[name][hit.page_id]
            steps.append(Step(name, rank, score))
        elif name in hit.scores:
            note = "pages without a rank were found by another stage" if name in first_ranks else _SKIPPED_NOTE
            steps.append(Step(name, None, hit.scores[name], note))
    for name in ("maxsim", "rescore", "rerank"):
        if name not in hit.scores:
            continue
        note = "for some pages, the score of a region" if name == "maxsim" and hit.page_id in ranks["region"] else ""
        if name == "rerank":
            views = [key.partition(":")[2] for key in hit.scores if key.startswith("rerank:")]
            note = f"for some pages, the score of their {views[0]}" if views else ""
        steps.append(Step(name, ranks[name].get(hit.page_id), hit.scores[name], note))
        if name == "maxsim":
            steps += [Step(key, None, hit.scores[key], _NOTES[key]) for key in _NOTES if key in hit.scores]
    return tuple(steps)
