"""From a question to ranked pages: candidates, late interaction, a reranker, and what is shown of the best."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from jina_rag.catalog.maintenance import IndexResources
from jina_rag.config import Storage
from jina_rag.errors import InvalidInputError
from jina_rag.protocols import Embedder, Input, Reranker
from jina_rag.search.filters import checked_filter, conditions_of, unknown_keys
from jina_rag.search.hits import locations, make_hit
from jina_rag.search.late_interaction import Candidate, Candidates
from jina_rag.search.query import Query, embed_queries
from jina_rag.search.reranking import rerank
from jina_rag.search.results import SearchResults
from jina_rag.search.stages import Stages
from jina_rag.search.trace import ranks_of, steps_of
from jina_rag.stores import schema
from jina_rag.types import Location, Point, ScoredPage, SimilarPage

if TYPE_CHECKING:
    from jina_rag.search.dedup import Folding

GroupBy = Literal["page", "document"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a search is asked for, besides its question.

    Attributes:
        k: Hits.
        offset: Hits that are passed over.
        where: A filter, as users write it; checked here.
        stages: How pages are ranked.
        reranker: Loads the reranker; called where `stages.rerank` judges anything.
        group_by: Whether hits are pages, or documents with their best page.
        dedup: Whether pages that show nearly the same become one hit.
        min_score: What the score of the last stage must be at least.
        details: Whether the best region and a snippet are looked for.
        explain: Whether hits tell which stage put them where.
    """

    k: int
    stages: Stages
    offset: int = 0
    where: Mapping[str, Any] | None = None
    reranker: Callable[[], Reranker] | None = None
    group_by: GroupBy = "page"
    dedup: bool = False
    min_score: float | None = None
    details: bool = True
    explain: bool = False

    def __post_init__(self) -> None:
        if not _is_whole(self.k) or self.k < 1:
            raise InvalidInputError(f"k is {self.k!r}; it must be a whole number of at least 1.")
        if not _is_whole(self.offset) or self.offset < 0:
            raise InvalidInputError(f"offset is {self.offset!r}; it counts hits from 0.")
        if self.group_by not in ("page", "document"):
            raise InvalidInputError(f"group_by is {self.group_by!r}; hits are grouped by 'page' or by 'document'.")
        least = self.min_score
        if least is not None and not (isinstance(least, int | float) and abs(least) < sys.float_info.max):
            raise InvalidInputError(f"min_score is {least!r}; it must be a number.")
        object.__setattr__(self, "where", checked_filter(self.where))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass
class _Shown:
    """A hit in the making: its candidate, where it lies, and what was folded into it."""

    candidate: Candidate
    point: Point
    found: list[Location]
    other_pages: list[int]
    similar: list[SimilarPage]


class Searcher:
    """Searches one index. Holds no state of its own; several threads may use it."""

    def __init__(self, *, parts: IndexResources, embedder: Embedder, dim: int, storage: Storage | None = None) -> None:
        self._parts = parts
        self._storage = storage or Storage()
        self._truncate_dim = dim if dim != embedder.dim else None
        self._embedder = embedder
        self._candidates = Candidates(parts.store, embedder)

    def embed(self, queries: Sequence[Input]) -> list[Query]:
        """Embed questions as this index needs them."""
        return embed_queries(queries, self._embedder, dim=self._truncate_dim, multi_dim=self._storage.multi_dim)

    def search(self, queries: Sequence[Input], asked: Asked) -> list[SearchResults]:
        """See `DocumentIndex.search_many`."""
        conditions = conditions_of(asked.where or {}, self._parts)
        started = time.monotonic()
        embedded = self.embed(queries)
        encode = (time.monotonic() - started) * 1000 / max(len(embedded), 1)
        found = []
        for query in embedded:
            if conditions is None:
                results = SearchResults()
            else:
                results = self._one(query, conditions, asked)
            results.query = query.text
            results.milliseconds = {"encode": round(encode, 3), **results.milliseconds}
            if not results and asked.where and self._parts.manifest.contents():
                # A misspelt key finds nothing, which looks like an index without an answer.
                results.notes += tuple(
                    f"No document has {key!r} among its metadata."
                    for key in unknown_keys(asked.where, self._parts.manifest)
                )
            if query.cut:
                results.notes = ("The question is too long: its end was not read.", *results.notes)
            found.append(results)
        return found

    def _one(self, query: Query, conditions: Mapping[str, Any], asked: Asked) -> SearchResults:
        timer = _Timer()
        judge = asked.stages.rerank if asked.reranker and asked.stages.rerank and asked.stages.rerank.limit else None
        points: dict[str, Point] = {}
        notes: tuple[str, ...] = ()
        complete = True
        reranked: list[Candidate] | None = None
        need = asked.offset + asked.k + 1
        while True:
            ranked = self._candidates.rank(query, conditions, max(need, judge.limit if judge else 0), asked.stages)
            timer.lap("candidates")
            exhausted = len(ranked) < need
            if judge is not None and asked.reranker is not None:
                if reranked is None:
                    ranked = self._visible(ranked, judge.limit, points, asked)
                    done = rerank(query, ranked, points, self._parts.images, asked.reranker(), judge)
                    reranked, notes, complete = done.candidates[: done.judged], done.notes, done.complete
                    timer.lap("rerank")
                judged = {candidate.page_id for candidate in reranked}
                ranked = reranked + [c for c in ranked if c.page_id not in judged]
            width = query.multi.shape[1]
            # With a reranker, scores from before it are of another kind: what it did not judge has none to compare.
            scored = "rerank" if judge is not None else "rescore"
            ended = asked.min_score is not None and not _reaches(ranked, asked.min_score, scored)
            shown, more = self._shown(ranked, points, asked, scored, multi_dim=width)
            timer.lap("show")
            if len(shown) >= asked.offset + asked.k or exhausted or ended:
                break
            need *= 4
        hits = self._hits(shown[asked.offset : asked.offset + asked.k], query, conditions, ranked, asked)
        timer.lap("show")
        return SearchResults(hits, notes=notes, complete=complete, more=more, milliseconds=timer.milliseconds)

    # -- what is shown -------------------------------------------------------------------------------------

    def _shown(
        self, ranked: Sequence[Candidate], points: dict[str, Point], asked: Asked, scored: str, *, multi_dim: int
    ) -> tuple[list[_Shown], bool]:
        """The hits up to the last that is asked for, and whether there are more."""
        wanted = asked.offset + asked.k
        shown: list[_Shown] = []
        documents: dict[str, _Shown] = {}
        folding = self._folding(multi_dim) if asked.dedup else None
        for candidate, point in self._walk(ranked, points, asked):
            if asked.min_score is not None and (candidate.score < asked.min_score or candidate.stage != scored):
                break  # they are sorted: nothing behind it scores more
            found = self._where(point, asked)
            if not found:
                continue
            page = int(point.payload[schema.PAGE])
            if asked.group_by == "document" and candidate.revision in documents:
                documents[candidate.revision].other_pages.append(page)
                continue
            same = folding.find(point) if folding is not None else None
            if same is not None:
                first, similarity = same
                shown[first].similar += [SimilarPage(location, page, similarity) for location in found]
                continue
            if len(shown) == wanted:
                return shown, True
            if folding is not None:
                folding.add(point)
            entry = _Shown(candidate, point, found, [], [])
            documents[candidate.revision] = entry
            shown.append(entry)
        return shown, False

    def _folding(self, multi_dim: int) -> Folding:
        from jina_rag.search.dedup import Folding

        return Folding(self._parts.images.folder, multi_dim)

    def _visible(
        self, ranked: Sequence[Candidate], limit: int, points: dict[str, Point], asked: Asked
    ) -> list[Candidate]:
        """The candidates without those, among the first, whose documents are just being replaced: shown to nobody."""
        visible: list[Candidate] = []
        for start in range(0, len(ranked), max(limit, 1)):
            some = ranked[start : start + limit]
            self._fetch(points, [candidate.page_id for candidate in some], asked)
            visible += [c for c in some if c.page_id in points and self._where(points[c.page_id], asked)]
            if len(visible) >= limit:
                return visible + list(ranked[start + limit :])
        return visible

    def _walk(
        self, ranked: Sequence[Candidate], points: dict[str, Point], asked: Asked
    ) -> Iterator[tuple[Candidate, Point]]:
        step = max(asked.k, 1) + 1
        for start in range(0, len(ranked), step):
            some = ranked[start : start + step]
            self._fetch(points, [candidate.page_id for candidate in some], asked)
            for candidate in some:
                if candidate.page_id in points:
                    yield candidate, points[candidate.page_id]

    def _fetch(self, points: dict[str, Point], page_ids: Sequence[str], asked: Asked) -> None:
        missing = [page_id for page_id in page_ids if page_id not in points]
        if missing:
            # Where there are no sign codes, the place on the page is told by its vectors.
            vectors = (asked.details or asked.dedup) and not self._storage.sign_codes
            points |= {point.id: point for point in self._parts.store.fetch(missing, vectors=vectors)}

    def _where(self, point: Point, asked: Asked) -> list[Location]:
        return locations(self._parts, point.payload, asked.where or {})

    def _hits(
        self,
        shown: Sequence[_Shown],
        query: Query,
        conditions: Mapping[str, Any],
        ranked: Sequence[Candidate],
        asked: Asked,
    ) -> list[ScoredPage]:
        cheap: Mapping[str, Mapping[str, float]] = {}
        if asked.details or asked.explain:
            cheap = self._candidates.cheap_scores(query, [entry.point.id for entry in shown])
        hits = []
        for entry in shown:
            hit = make_hit(self._parts, entry.point, entry.found, entry.candidate, query, details=asked.details)
            hits.append(
                replace(
                    hit,
                    scores={**cheap.get(entry.point.id, {}), **hit.scores},
                    other_pages=tuple(entry.other_pages),
                    similar=tuple(entry.similar),
                )
            )
        if asked.explain:
            first = self._candidates.first_ranks(query, conditions, asked.stages)
            ranks = ranks_of(ranked)
            hits = [replace(hit, steps=steps_of(hit, first, ranks)) for hit in hits]
        return hits


def _reaches(ranked: Sequence[Candidate], least: float, scored: str) -> bool:
    """Whether the last of the pages that this stage scored may not be the last with so high a score."""
    return bool(ranked) and ranked[-1].stage == scored and ranked[-1].score >= least


class _Timer:
    """Adds up the wall time of stages."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """Count the time since the last lap for this stage."""
        now = time.monotonic()
        self.milliseconds[name] = round(self.milliseconds.get(name, 0.0) + (now - self._last) * 1000, 3)
        self._last = now
