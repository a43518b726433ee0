"""A store in memory that computes everything plainly and exactly: what the other stores are held against.

For tests, ours and our users'; it keeps float32 and is not made for many pages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np

from jina_rag.errors import IndexStateError, InvalidInputError
from jina_rag.scoring import maxsim_many
from jina_rag.stores import schema
from jina_rag.stores.filters import checked_range, conditions, in_range
from jina_rag.types import Float32, Point, Prefetch, Range, SparseVector, StoreHit, Where


class MemoryStore:
    """A `MultiVectorStore` in memory; also a context manager."""

    def __init__(self, *, dim: int, multi_dim: int) -> None:
        self.dim = dim
        self.multi_dim = multi_dim
        self._kept: dict[str, Point] = {}
        self._closed = False

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points; one of the same id is replaced."""
        self._points()
        ready = [self._checked(point) for point in points]
        self._kept.update({point.id: point for point in ready})

    def update_payload(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace some keys of points' payloads; see `MultiVectorStore`."""
        kept = self._points()
        ready = {schema.checked_id(key): schema.checked_payload(change) for key, change in changes.items()}
        for key in ready.keys() & kept.keys():
            kept[key] = replace(kept[key], payload=schema.changed_payload(kept[key].payload, ready[key]))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points by id; unknown ids are ignored."""
        kept = self._points()
        for key in [schema.checked_id(value) for value in ids]:
            kept.pop(key, None)

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
        _check_shape(multi, 2, self.multi_dim)
        points = self._matching(where)
        if prefetch is not None:
            if dense is None and lexical is None:
                raise InvalidInputError("A prefetch needs a dense or a lexical vector to find candidates with.")
            vectors = {schema.DENSE: dense, schema.LEXICAL: lexical}
            found: set[str] = set()
            for name, count, also in schema.candidate_stages(prefetch):
                vector = vectors[name]
                if vector is not None:
                    # A filter on the kind may be in both: then both hold.
                    chosen = {hit.id for hit in self.nearest(vector, limit=count, where={**also, **(where or {})})}
                    found |= chosen & {point.id for point in self._matching(also)}
            points = [point for point in points if point.id in found]
        filled = [(point, point.multi) for point in points if point.multi is not None]
        scores = maxsim_many(multi, [rows for _, rows in filled])
        return _only(_best([point for point, _ in filled], scores, limit), keys)

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
            return _only(self._lexical(vector, points, limit), keys)
        _check_shape(vector, 1, self.dim)
        filled = [(point, point.dense) for point in points if point.dense is not None]
        scores = [float(dense @ vector) for _, dense in filled]
        return _only(_best([point for point, _ in filled], scores, limit), keys)

    def fetch(self, ids: Sequence[str], *, vectors: bool = True) -> list[Point]:
        """Return the points that exist among `ids`, in the order of `ids`."""
        kept = self._points()
        found = [kept[key] for key in map(schema.checked_id, ids) if key in kept]
        return found if vectors else [Point(point.id, payload=point.payload) for point in found]

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
        self._kept.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _points(self) -> dict[str, Point]:
        if self._closed:
            raise IndexStateError("The store in memory is closed: make a new one.")
        return self._kept

    def _matching(self, where: Where | None) -> list[Point]:
        conditions(where or {})  # raises for what cannot be filtered by
        return [point for point in self._points().values() if _matches(point.payload, where or {})]

    def _lexical(self, vector: SparseVector, points: Sequence[Point], limit: int) -> list[StoreHit]:
        """Weights times IDF as Qdrant has it, over all points with a lexical vector, whatever the filter."""
        rows = {
            point.id: dict(zip(point.lexical.indices.tolist(), point.lexical.values.tolist(), strict=True))
            for point in self._kept.values()
            if point.lexical is not None
        }
        weights = {}
        for index, value in zip(vector.indices.tolist(), vector.values.tolist(), strict=True):
            n = sum(index in row for row in rows.values())
            weights[index] = value * math.log((len(rows) - n + 0.5) / (n + 0.5) + 1)
        sharing = [point for point in points if weights.keys() & rows.get(point.id, {}).keys()]
        scores = [sum(weights.get(i, 0.0) * v for i, v in rows[point.id].items()) for point in sharing]
        return _best(sharing, scores, limit)

    def _checked(self, point: Point) -> Point:
        if point.dense is not None:
            _check_shape(point.dense, 1, self.dim)
        if point.multi is not None:
            _check_shape(point.multi, 2, self.multi_dim)
        payload = schema.checked_payload(point.payload)
        point = schema.fit(replace(point, id=schema.checked_id(point.id), payload=payload))
        return replace(
            point,
            multi=point.multi if point.multi is not None and len(point.multi) else None,
            lexical=point.lexical if point.lexical is not None and len(point.lexical.indices) else None,
        )


def _check_shape(vector: Float32, axes: int, dim: int) -> None:
    if vector.ndim != axes or vector.shape[-1] != dim:
        raise InvalidInputError(f"A vector has shape {vector.shape}, the store keeps {dim} dimensions.")
    if not np.isfinite(vector).all():
        raise InvalidInputError("A vector holds NaN or infinity.")


def _best(points: Sequence[Point], scores: Sequence[float] | Float32, limit: int) -> list[StoreHit]:
    if limit < 1:
        raise InvalidInputError(f"The limit of a search is {limit}: ask for at least 1 result.")
    hits = [StoreHit(p.id, float(s), dict(p.payload)) for p, s in zip(points, scores, strict=True)]
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))[:limit]


def _only(hits: list[StoreHit], keys: Sequence[str] | None) -> list[StoreHit]:
    if keys is None:
        return hits
    return [replace(hit, payload={key: hit.payload[key] for key in keys if key in hit.payload}) for hit in hits]


def _matches(payload: Any, where: Where) -> bool:  # noqa: ANN401  # JSON
    for key, value in where.items():
        if isinstance(value, Range):
            limits = checked_range(key, value)
            if not any(in_range(float(have), limits) for have in _values(payload, key) if _is_number(have)):
                return False
            continue
        wanted = [value] if isinstance(value, str | int | float | np.generic) else list(value)
        if not any(_same(have, want) for have in _values(payload, key) for want in wanted):
            return False
    return True


def _values(payload: Any, key: str) -> list[Any]:  # noqa: ANN401
    """The values under a dotted key; each key of an object may itself hold dots, and objects may stand in lists."""
    if key == "":
        return payload if isinstance(payload, list) else [payload]
    if isinstance(payload, list):
        return [value for item in payload if isinstance(item, dict) for value in _values(item, key)]
    if not isinstance(payload, dict):
        return []
    found = []
    for name, inner in payload.items():
        if key == name:
            found += _values(inner, "")
        elif key.startswith(f"{name}."):
            found += _values(inner, key[len(name) + 1 :])
    return found


def _same(have: object, want: object) -> bool:
    return isinstance(have, bool) == isinstance(want, bool) and have == want


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
