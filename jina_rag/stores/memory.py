"""A store in memory that computes everything plainly and exactly: what the other stores are held against.

For tests, ours and our users'; it keeps float32 and is not made for many pages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from jina_rag.errors import IndexStateError, InvalidInputError
from jina_rag.scoring import maxsim_many
from jina_rag.stores import schema
from jina_rag.stores.filters import conditions, matches
from jina_rag.types import Float32, Point, Prefetch, SparseVector, StoreHit, Where


class MemoryStore:
    """A `MultiVectorStore` in memory; also a context manager."""

    def __init__(self, *, dim: int, multi_dim: int) -> None:
        self.dim = dim
        self.multi_dim = multi_dim
        self._points_by_id: dict[str, Point] = {}
        self._closed = False

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points; one of the same id is replaced."""
        self._points()
        checked_points = [schema.checked_point(point, self.dim, self.multi_dim) for point in points]
        self._points_by_id.update({point.id: point for point in checked_points})

    def update_payload(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace some keys of points' payloads; see `MultiVectorStore`."""
        points = self._points()
        changes = {schema.checked_id(key): schema.checked_payload(change) for key, change in changes.items()}
        for key in changes.keys() & points.keys():
            points[key] = replace(points[key], payload=schema.changed_payload(points[key].payload, changes[key]))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points by id; unknown ids are ignored."""
        points = self._points()
        for key in [schema.checked_id(value) for value in ids]:
            points.pop(key, None)

    def delete_where(self, where: Where) -> None:
        """Remove every point that the filter matches."""
        self.delete([point.id for point in self._matching(where)])

    def search(
        self,
        multi: Float32,
        *,
        limit: int,
        dense: Float32 | None = None,
        lexical: SparseVector | None = None,
        prefetch: Prefetch | None = None,
        where: Where | None = None,
        keys: Sequence[str] | None = None,
    ) -> list[StoreHit]:
        """Rank by MaxSim; see `MultiVectorStore`."""
        schema.checked_vector(multi, 2, self.multi_dim, "question's multi-vector")
        points = self._matching(where)
        if prefetch is not None:
            if dense is None and lexical is None:
                raise InvalidInputError("A prefetch needs a dense or a lexical vector to find candidates with.")
            vectors = {schema.DENSE: dense, schema.LEXICAL: lexical}
            candidate_ids: set[str] = set()
            for name, count, also in schema.candidate_stages(prefetch):
                vector = vectors[name]
                if vector is not None:
                    # A filter on the kind may be in both: then both hold.
                    nearest_ids = {hit.id for hit in self.nearest(vector, limit=count, where={**also, **(where or {})})}
                    candidate_ids |= nearest_ids & {point.id for point in self._matching(also)}
            points = [point for point in points if point.id in candidate_ids]
        rows = [(point, point.multi) for point in points if point.multi is not None]
        scores = maxsim_many(multi, [multi_vector for _, multi_vector in rows])
        return _with_keys(_best([point for point, _ in rows], scores, limit), keys)

    def nearest(
        self,
        vector: Float32 | SparseVector,
        *,
        limit: int,
        where: Where | None = None,
        keys: Sequence[str] | None = None,
    ) -> list[StoreHit]:
        """Rank by the dense or the lexical vector; see `MultiVectorStore`."""
        points = self._matching(where)
        if isinstance(vector, SparseVector):
            return _with_keys(self._lexical(vector, points, limit), keys)
        schema.checked_vector(vector, 1, self.dim, "dense vector")
        rows = [(point, point.dense) for point in points if point.dense is not None]
        scores = [float(dense @ vector) for _, dense in rows]
        return _with_keys(_best([point for point, _ in rows], scores, limit), keys)

    def fetch(self, ids: Sequence[str], *, vectors: bool = True) -> list[Point]:
        """Return the points that exist among `ids`, in the order of `ids`."""
        stored = self._points()
        points = [stored[key] for key in map(schema.checked_id, ids) if key in stored]
        return points if vectors else [Point(point.id, payload=point.payload) for point in points]

    def scroll(self, where: Where | None = None) -> Iterator[StoreHit]:
        """Every matching point; scores are 0."""
        for point in self._matching(where):
            yield StoreHit(point.id, 0.0, dict(point.payload))

    def count(self, where: Where | None = None) -> int:
        """Number of matching points."""
        return len(self._matching(where))

    def flush(self) -> None:
        """There is nothing to flush to."""
        self._points()

    def bytes_by_part(self) -> dict[str, int]:
        """Empty: nothing is on disk."""
        return {}

    def close(self) -> None:
        """Forget everything."""
        self._closed = True
        self._points_by_id.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _points(self) -> dict[str, Point]:
        if self._closed:
            raise IndexStateError("The store in memory is closed: make a new one.")
        return self._points_by_id

    def _matching(self, where: Where | None) -> list[Point]:
        conditions(where or {})  # raises for what cannot be filtered by
        return [point for point in self._points().values() if matches(point.payload, where or {})]

    def _lexical(self, vector: SparseVector, points: Sequence[Point], limit: int) -> list[StoreHit]:
        """Weights times IDF as Qdrant has it, over all points with a lexical vector, whatever the filter."""
        rows = {
            point.id: dict(zip(point.lexical.indices.tolist(), point.lexical.values.tolist(), strict=True))
            for point in self._points_by_id.values()
            if point.lexical is not None
        }
        weights = {}
        for index, value in zip(vector.indices.tolist(), vector.values.tolist(), strict=True):
            n = sum(index in row for row in rows.values())
            weights[index] = value * math.log((len(rows) - n + 0.5) / (n + 0.5) + 1)
        sharing = [point for point in points if weights.keys() & rows.get(point.id, {}).keys()]
        scores = [sum(weights.get(i, 0.0) * v for i, v in rows[point.id].items()) for point in sharing]
        return _best(sharing, scores, limit)


def _best(points: Sequence[Point], scores: Sequence[float] | Float32, limit: int) -> list[StoreHit]:
    schema.check_limit(limit)
    return schema.ranked(StoreHit(p.id, float(s), dict(p.payload)) for p, s in zip(points, scores, strict=True))[:limit]


def _with_keys(hits: list[StoreHit], keys: Sequence[str] | None) -> list[StoreHit]:
    if keys is None:
        return hits
    return [replace(hit, payload={key: hit.payload[key] for key in keys if key in hit.payload}) for hit in hits]
