"""Score fusion: what is added to a page's MaxSim score, and in which order pages then stand.

A share of what the page scores for any query is taken off MaxSim (hubness). The dense vector's score, brought to the
spread of the late-interaction scores, and the query's identifiers that the page has exactly are added to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from jina_rag._checks import check_number, check_whole_number
from jina_rag.types import StoreHit


@dataclass(frozen=True, slots=True)
class Rescore:
    """The second stage: exact MaxSim on the stored multi-vectors, per query token, and what is added to it.

    Attributes:
        limit: Pages that are compared with each other, best first by MaxSim; what comes further down follows in groups
            of as many, each ranked by itself and none above the group before. So a longer list begins with the shorter.
        hubness: Share of a page's mean score for general questions that is taken off; None for the embedder's own. See
            `jina_rag.reference_queries`.
        identifiers: What a page gains that has an identifier of the query (a part number, an error code, a paragraph)
            exactly as it is written; in units of a cosine. See `jina_rag.search.exact_match`.
        dense: Weight of the dense vector's score, brought to the spread of the late-interaction scores first.
    """

    limit: int = 60
    hubness: float | None = None
    identifiers: float = 0.5
    dense: float = 0.0

    def __post_init__(self) -> None:
        check_whole_number("Rescore.limit", self.limit, minimum=1)
        check_number("Rescore.identifiers", self.identifiers, minimum=0)
        check_number("Rescore.dense", self.dense, minimum=0)
        if self.hubness is not None:
            check_number("Rescore.hubness", self.hubness, minimum=0)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A page on its way through the stages.

    Attributes:
        page_id: Of its point.
        revision: Hash of the file that it is a page of.
        score: That of the last stage.
        stage: The name of that stage.
        scores: Score of each stage so far.
        region: Its chart, table or figure that scored better than itself.
    """

    page_id: str
    revision: str
    score: float
    stage: str
    scores: Mapping[str, float]
    region: StoreHit | None = None


@dataclass(frozen=True, slots=True)
class DenseScale:
    """How dense scores are brought to the spread of late-interaction scores: ``factor * (score - mean)``."""

    mean: float
    factor: float


class Fusion:
    """Fuses the scores of pages, group by group; the first group sets the scale of the dense scores."""

    def __init__(self, rescore: Rescore, hubness: float, identifier_shares: Mapping[str, float]) -> None:
        """Take what is added.

        Args:
            rescore: The weights.
            hubness: The embedder's own share, where `rescore` has none.
            identifier_shares: Page id → share of the query's identifiers that it has.
        """
        self._rescore = rescore
        self._hubness = hubness if rescore.hubness is None else rescore.hubness
        self._identifier_shares = identifier_shares
        self._scale: DenseScale | None = None

    def groups(self, candidates: Sequence[Candidate], *, first: bool) -> Iterator[Sequence[Candidate]]:
        """Pages in groups of `Rescore.limit` that are compared with each other, best first by MaxSim.

        Whatever has an identifier of the query is compared with the best, wherever vectors have put it (`first`).
        """
        size = self._rescore.limit
        identified = self._identifier_shares if first else {}
        order = sorted(candidates, key=lambda candidate: (-candidate.score, candidate.page_id))
        head = [c for rank, c in enumerate(order) if rank < size or c.page_id in identified]
        rest = [c for c in order[size:] if c.page_id not in identified]
        if head:
            yield head
        yield from (rest[start : start + size] for start in range(0, len(rest), size))

    def fuse(self, group: Sequence[Candidate], dense: Mapping[str, float], *, ceiling: float) -> list[Candidate]:
        """A group of pages with their fused scores, best first.

        Args:
            group: Pages with their MaxSim scores.
            dense: Page id → score of the dense vector, of the pages that have one; empty for none to be added.
            ceiling: No score is higher: that of the last page of the group before.
        """
        late = np.array([c.scores["maxsim"] - self._hubness * c.scores.get("background", 0.0) for c in group])
        scale = self._scale = self._scale or self._dense_scale(late, dense)
        candidates = []
        for candidate, score in zip(group, late.tolist(), strict=True):
            scores = dict(candidate.scores)
            if candidate.page_id in dense:
                scores["dense"] = dense[candidate.page_id]
                score += scale.factor * (scores["dense"] - scale.mean)
            if candidate.page_id in self._identifier_shares:
                scores["identifiers"] = self._identifier_shares[candidate.page_id]
                score += self._rescore.identifiers * scores["identifiers"]
            candidates.append(replace(candidate, score=score, stage="rescore", scores=scores))
        candidates.sort(key=lambda candidate: (-candidate.score, candidate.page_id))
        capped = [(candidate, min(candidate.score, ceiling)) for candidate in candidates]
        return [replace(c, score=score, scores={**c.scores, "rescore": score}) for c, score in capped]

    def _dense_scale(self, late: npt.NDArray[np.float64], dense: Mapping[str, float]) -> DenseScale:
        values = np.array(list(dense.values()) or [0.0], np.float64)
        spread = float(values.std())
        factor = self._rescore.dense * float(late.std()) / spread if spread > 0 else 0.0
        return DenseScale(float(values.mean()), factor)
