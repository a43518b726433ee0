"""Which stage put a page where: the story of a hit, for people who want to know why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jina_rag.search.fusion import Candidate
from jina_rag.types import ScoredPage, Step

_NOTES = {
    "background": "what the page scores for any question; a share of it is taken off",
    "identifiers": "the share of the question's codes that the page has exactly, rare ones first",
}
_SKIPPED = "it picked no candidates: in an index of this size every page is compared"


def ranks_of(ranking: Sequence[Candidate]) -> dict[str, dict[str, int]]:
    """Stage → page id → rank from 1, of the stages that put all their pages in an order."""
    ranks: dict[str, dict[str, int]] = {}
    for stage in ("maxsim", "rescore", "rerank"):
        candidates = [candidate for candidate in ranking if stage in candidate.scores]
        # Stable: pages of equal scores are ranked as they stand.
        candidates.sort(key=lambda candidate: -candidate.scores[stage])
        ranks[stage] = {candidate.page_id: rank for rank, candidate in enumerate(candidates, start=1)}
    ranks["region"] = {candidate.page_id: 0 for candidate in ranking if candidate.region is not None}
    return ranks


def steps_of(
    hit: ScoredPage, first: Mapping[str, Mapping[str, tuple[int, float]]], ranks: Mapping[str, Mapping[str, int]]
) -> tuple[Step, ...]:
    """The steps of one hit, in order.

    Args:
        hit: With the scores of its stages.
        first: Vector of the first stage → page id → (rank, score); empty where every page was scored.
        ranks: From `ranks_of`.
    """
    steps = []
    for name in ("dense", "lexical"):
        if name in first and hit.page_id in first[name]:
            rank, score = first[name][hit.page_id]
            steps.append(Step(name, rank, score))
        elif name in hit.scores:
            note = "where no rank stands, the page was found by another stage" if name in first else _SKIPPED
            steps.append(Step(name, None, hit.scores[name], note))
    for name in ("maxsim", "rescore", "rerank"):
        if name not in hit.scores:
            continue
        note = "some by one of their regions" if name == "maxsim" and hit.page_id in ranks["region"] else ""
        if name == "rerank":
            views = [key.partition(":")[2] for key in hit.scores if key.startswith("rerank:")]
            note = f"some judged by their {views[0]}" if views else ""
        steps.append(Step(name, ranks[name].get(hit.page_id), hit.scores[name], note))
        if name == "maxsim":
            steps += [Step(key, None, hit.scores[key], _NOTES[key]) for key in _NOTES if key in hit.scores]
    return tuple(steps)
