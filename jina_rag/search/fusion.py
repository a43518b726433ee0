"""Score fusion in the rescoring stage, which combines MaxSim with three other scores.

The hubness of a page is its mean score for the reference queries. The hubness correction subtracts a fraction of the
hubness from MaxSim. Two values are added: the dense score, scaled to the standard deviation of the corrected MaxSim
scores, and a bonus for each identifier of the query that the page contains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from jina_rag._checks import check_number, check_whole_number
from jina_rag.types import StoreHit


@dataclass(frozen=True, slots=True)
class Rescore:
    """The second stage: exact MaxSim on the stored multi-vectors, fused with other scores.

    Attributes:
        limit: Number of pages per group. Pages are divided into groups in the order of MaxSim. Fusion reorders the
            pages of a group, and no page ranks above a page of a previous group. A search with a greater `k` therefore
            returns the same hits first.
        hubness: Fraction of the page's mean score for the reference queries to subtract from MaxSim; None for the
            default of the embedder. See `jina_rag.reference_queries`.
        identifiers: Bonus, in units of cosine similarity, for identifiers of the query (part numbers, error codes,
            section numbers) that the page contains exactly as written. The bonus is scaled by the rarity-weighted
            fraction of the query's identifiers on the page. See `jina_rag.search.exact_match`.
        dense: Weight of the dense score, which is first scaled to the standard deviation of the MaxSim scores after the
            hubness correction.

    Raises:
        InvalidInputError: If `limit` is below 1 or a weight is negative.
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


class PageScore(Protocol):
    """A page with a score."""

    @property
    def page_id(self) -> str:
        """Id of the page's point."""
        ...

    @property
    def score(self) -> float:
        """Score of the page; higher is better."""
        ...


T = TypeVar("T", bound=PageScore)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A candidate page, with the scores of the completed search stages.

    Attributes:
        page_id: Id of the page's point.
        score: Score of the last stage.
        stage: Name of the last stage.
        scores: Stage name → score, for the completed stages.
        region: Chart, table or figure that scored higher than the page; None if no region scored higher.
    """

    page_id: str
    score: float
    stage: str
    scores: Mapping[str, float]
    region: StoreHit | None = None


@dataclass(frozen=True, slots=True)
class DenseScale:
    """Linear scaling of dense scores to the standard deviation of corrected MaxSim scores.

    A scaled dense score is ``factor * (score - mean)``.

    Attributes:
        mean: Mean of the dense scores.
        factor: Weight of the dense score times the ratio of the standard deviations of corrected MaxSim scores and
            dense scores.
    """

    mean: float
    factor: float


class Fusion:
    """Fuses the scores of pages group by group; the first group determines the `DenseScale` of all groups."""

    def __init__(self, rescore: Rescore, hubness: float, identifier_shares: Mapping[str, float]) -> None:
        """Set the weights and the identifier matches of one query.

        Args:
            rescore: The rescoring stage, with the weights of the scores.
            hubness: The embedder's hubness correction, used if `rescore.hubness` is None.
            identifier_shares: Page id → weighted fraction of the query's identifiers on the page, from 0 to 1.
        """
        self._rescore = rescore
        self._hubness = hubness if rescore.hubness is None else rescore.hubness
        self._identifier_shares = identifier_shares
        self._scale: DenseScale | None = None

    def groups(self, candidates: Sequence[T], *, first: bool) -> Iterator[Sequence[T]]:
        """Yield the candidates in groups of `Rescore.limit`, best first by MaxSim.

        Args:
            candidates: The candidates with MaxSim scores, in any order.
            first: Whether `candidates` are the first candidates of the search. The first group then also contains all
                pages with an identifier of the query, regardless of the MaxSim scores.
        """
        size = self._rescore.limit
        identified_ids = self._identifier_shares if first else {}
        order = sorted(candidates, key=lambda candidate: (-candidate.score, candidate.page_id))
        head = [c for rank, c in enumerate(order) if rank < size or c.page_id in identified_ids]
        rest = [c for c in order[size:] if c.page_id not in identified_ids]
        if head:
            yield head
        yield from (rest[start : start + size] for start in range(0, len(rest), size))

    def fuse(self, group: Sequence[Candidate], dense: Mapping[str, float], *, ceiling: float) -> list[Candidate]:
        """Return a group of candidates with fused scores, best first.

        Args:
            group: Candidates with MaxSim scores.
            dense: Page id → dense score, for the pages with a dense vector; empty if dense scores are not fused.
            ceiling: Upper bound of the fused scores: the lowest score of the previous group.
        """
        late_scores = np.array([c.scores["maxsim"] - self._hubness * c.scores.get("background", 0.0) for c in group])
        scale = self._scale = self._scale or self._dense_scale(late_scores, dense)
        scored: list[tuple[float, Candidate, dict[str, float]]] = []
        for candidate, score in zip(group, late_scores.tolist(), strict=True):
            scores = dict(candidate.scores)
            if candidate.page_id in dense:
                scores["dense"] = dense[candidate.page_id]
                score += scale.factor * (scores["dense"] - scale.mean)
            if candidate.page_id in self._identifier_shares:
                scores["identifiers"] = self._identifier_shares[candidate.page_id]
                score += self._rescore.identifiers * scores["identifiers"]
            scored.append((score, candidate, scores))
        scored.sort(key=lambda item: (-item[0], item[1].page_id))
        return [
            replace(
                candidate, score=min(score, ceiling), stage="rescore", scores={**scores, "rescore": min(score, ceiling)}
            )
            for score, candidate, scores in scored
        ]

    def _dense_scale(self, late_scores: npt.NDArray[np.float64], dense: Mapping[str, float]) -> DenseScale:
        values = np.array(list(dense.values()) or [0.0], np.float64)
        spread = float(values.std())
        factor = self._rescore.dense * float(late_scores.std()) / spread if spread > 0 else 0.0
        return DenseScale(float(values.mean()), factor)
