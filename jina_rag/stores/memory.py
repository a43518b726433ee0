"""Exact in-memory vector store: the reference implementation that the other stores are tested against."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from jina_rag.errors import IndexStateError
from jina_rag.scoring import maxsim_many
from jina_rag.stores import schema
from jina_rag.stores.base import BaseStore, Stage, StagedQuery
from jina_rag.stores.filters import Condition, meets_all
from jina_rag.types import Point, SparseVector, StoreHit


class MemoryStore(BaseStore):
    """An exact `MultiVectorStore` in memory, for tests: it stores float32 vectors and scans all points.

    The store is a context manager and is closed on exit.
    """

    def __init__(self, *, dim: int, multi_dim: int) -> None:
        """Create an empty store.

        Args:
            dim: Length of the dense vectors.
            multi_dim: Length of each row of the multi-vectors.
        """
        super().__init__(dim, multi_dim)
        self._points_by_id: dict[str, Point] = {}
        self._closed = False

    def flush(self) -> None:
        """Do nothing: the store has no disk storage."""
        self._points()

    def bytes_by_part(self) -> dict[str, int]:
        """Return an empty dict: the store takes no bytes on disk."""
        return {}

    def close(self) -> None:
        """Close the store and drop all points; idempotent."""
        self._closed = True
        self._points_by_id.clear()

    def _points(self) -> dict[str, Point]:
        if self._closed:
            raise IndexStateError("The in-memory store is closed. Create a new MemoryStore.")
        return self._points_by_id

    def _matching(self, conditions: Sequence[Condition]) -> list[Point]:
        return [point for point in self._points().values() if not conditions or meets_all(point.payload, conditions)]

    def _write(self, points: Sequence[Point]) -> None:
        self._points().update({point.id: point for point in points})

    def _change(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        points = self._points()
        for key in changes.keys() & points.keys():
            points[key] = replace(points[key], payload=schema.changed_payload(points[key].payload, changes[key]))

    def _delete_ids(self, ids: list[str]) -> None:
        for key in ids:
            self._points().pop(key, None)

    def _delete_matching(self, conditions: Sequence[Condition]) -> None:
        self._delete_ids([point.id for point in self._matching(conditions)])

    def _query_batch(self, queries: Sequence[StagedQuery]) -> Iterable[Iterable[StoreHit]]:
        return [self._query(query) for query in queries]

    def _query(self, query: StagedQuery) -> Iterator[StoreHit]:
        points = self._selected(query.stage)
        if query.candidates:
            candidate_ids = {
                point_id
                for stage in query.candidates
                if stage.can_match
                for point_id in self._best_ids(stage, self._scores(stage, self._selected(stage)))
            }
            points = [point for point in points if point.id in candidate_ids]
        scores = self._scores(query.stage, points)
        for point_id in self._best_ids(query.stage, scores):
            payload = self._points_by_id[point_id].payload
            selected = {key: value for key, value in payload.items() if query.keys is None or key in query.keys}
            yield StoreHit(point_id, scores[point_id], selected)

    def _selected(self, stage: Stage) -> list[Point]:
        points = self._matching(stage.conditions)
        ids = None if stage.ids is None else set(stage.ids)
        return [point for point in points if ids is None or point.id in ids]

    @staticmethod
    def _best_ids(stage: Stage, scores: Mapping[str, float]) -> list[str]:
        return sorted(scores, key=lambda point_id: (-scores[point_id], point_id))[: stage.limit]

    def _scores(self, stage: Stage, points: Sequence[Point]) -> dict[str, float]:
        """Return the score of each point that has the vector `stage.using`, by point id."""
        if isinstance(stage.vector, SparseVector):
            return self._lexical_scores(stage.vector, points)
        if stage.using == schema.DENSE:
            return {point.id: float(point.dense @ stage.vector) for point in points if point.dense is not None}
        rows = {point.id: point.multi for point in points if point.multi is not None}
        return dict(zip(rows, maxsim_many(stage.vector, list(rows.values())).tolist(), strict=True))

    def _lexical_scores(self, vector: SparseVector, points: Sequence[Point]) -> dict[str, float]:
        """Return the lexical score of each point that shares a term with the query, by point id.

        For each shared term, the query weight, the point weight and Qdrant's IDF are multiplied. The score is the sum
        of the products.

        The IDF counts all stored points with a lexical vector, including points that the filter excludes.
        """
        rows = {
            point.id: dict(zip(point.lexical.indices.tolist(), point.lexical.values.tolist(), strict=True))
            for point in self._points().values()
            if point.lexical is not None
        }
        weights = {}
        for index, value in zip(vector.indices.tolist(), vector.values.tolist(), strict=True):
            n = sum(index in row for row in rows.values())
            weights[index] = value * math.log((len(rows) - n + 0.5) / (n + 0.5) + 1)
        matching_ids = [point.id for point in points if weights.keys() & rows.get(point.id, {}).keys()]
        return {key: sum(weights.get(i, 0.0) * v for i, v in rows[key].items()) for key in matching_ids}

    def _fetch(self, ids: list[str], *, vectors: bool) -> Iterable[Point]:
        points = self._points()
        for point in [points[key] for key in ids if key in points]:
            yield point if vectors else Point(point.id, payload=point.payload)

    def _scroll(self, conditions: Sequence[Condition]) -> Iterator[StoreHit]:
        for point in self._matching(conditions):
            yield StoreHit(point.id, 0.0, dict(point.payload))

    def _count(self, conditions: Sequence[Condition]) -> int:
        return len(self._matching(conditions))
