"""What every store does before and after its engine's calls: arguments checked, filters parsed, hits ordered."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Self, get_args

from jina_rag.errors import InvalidInputError
from jina_rag.stores import schema
from jina_rag.stores.filters import Condition, can_match, parse_where
from jina_rag.types import Float32, Point, Prefetch, RegionKind, SparseVector, StoreHit, Where

DELETE_BATCH: Final = 10_000
"""Ids per call of an engine."""


class Stage(NamedTuple):
    """A search by one vector: of candidates, or of the result.

    Attributes:
        vector: Shape (dim,), (query tokens, multi_dim), or sparse.
        using: Name of the vector that it is compared with.
        limit: How many points to find, at least 1.
        conditions: What the points must meet.
    """

    vector: Float32 | SparseVector
    using: str
    limit: int
    conditions: Sequence[Condition]


class BaseStore(ABC):
    """A `MultiVectorStore` but for the calls of its engine, which are the abstract methods. Also a context manager."""

    def __init__(self, dim: int, multi_dim: int) -> None:
        self.dim = dim
        self.multi_dim = multi_dim

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points; one of the same id is replaced. A multi-vector without rows is left out.

        Raises:
            InvalidInputError: If a vector has another length than the store's, or more rows than an engine takes,
                or a payload is not JSON; nothing is written then.
        """
        checked_points = (schema.checked_point(point, self.dim, self.multi_dim) for point in points)
        self._write(list({point.id: point for point in checked_points}.values()))

    def update_payload(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Replace some keys of points' payloads: id → key → value; a value of None takes the key out.

        The other keys and all vectors stay; unknown ids are ignored. Each point is changed whole or not at all; a
        call that fails may have changed some points, and can be repeated.

        Raises:
            InvalidInputError: If a value is not JSON; nothing is changed then.
        """
        self._change({schema.checked_id(key): schema.checked_payload(change) for key, change in changes.items()})

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points by id; unknown ids are ignored."""
        point_ids = [schema.checked_id(value) for value in ids]
        for start in range(0, len(point_ids), DELETE_BATCH):
            self._delete_ids(point_ids[start : start + DELETE_BATCH])

    def delete_where(self, where: Where) -> None:
        """Remove every point that the filter matches; an empty filter matches all of them."""
        conditions = parse_where(where)
        if can_match(conditions):
            self._delete_matching(conditions)

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
        """Rank points by exact MaxSim with `multi`, shape (query tokens, multi_dim); see `MultiVectorStore`.

        Candidates and MaxSim are one call of the engine.

        Raises:
            InvalidInputError: If a vector has another length than the store's, if `limit` is below 1, or if
                there is a `prefetch` but neither `dense` nor `lexical`.
        """
        schema.checked_vector(multi, 2, self.multi_dim, "question's multi-vector")
        if len(multi) == 0:
            raise InvalidInputError("The question has no vectors: pass a multi-vector with at least one row.")
        if dense is not None:
            schema.checked_vector(dense, 1, self.dim, "question's dense vector")
        if prefetch is not None and dense is None and lexical is None:
            raise InvalidInputError("A prefetch needs a dense or a lexical vector to find candidates with.")
        conditions = parse_where(where or {})
        stage = Stage(multi, schema.MULTI, limit, conditions)
        if prefetch is None:
            return self._ranked(stage, (), keys)
        has_terms = lexical is not None and len(lexical.indices)
        vectors = {schema.DENSE: dense, schema.LEXICAL: lexical if has_terms else None}
        pages: Where = {schema.KIND: "page"} if prefetch.regions else {}
        candidates = [
            # Engines pass the outer filter on; said twice, so that nothing hangs on that.
            Stage(vector, name, count, conditions + parse_where(also))
            for name, count, also in (
                (schema.DENSE, prefetch.limit, pages),
                (schema.LEXICAL, prefetch.lexical_limit, pages),
                (schema.DENSE, prefetch.region_limit, {schema.KIND: get_args(RegionKind)}),
            )
            if count > 0 and (vector := vectors[name]) is not None
        ]
        return self._ranked(stage, candidates, keys) if candidates else []

    def nearest(
        self,
        vector: Float32 | SparseVector,
        *,
        limit: int,
        where: Where | None = None,
        keys: Sequence[str] | None = None,
    ) -> list[StoreHit]:
        """Rank by one cheap vector: dense, shape (dim,), or lexical; `keys` as in `search`.

        A lexical one finds only points that share a term with it.

        Raises:
            InvalidInputError: If the vector has another length than the store's, or `limit` is below 1.
        """
        conditions = parse_where(where or {})
        if not isinstance(vector, SparseVector):
            schema.checked_vector(vector, 1, self.dim, "dense vector")
            return self._ranked(Stage(vector, schema.DENSE, limit, conditions), (), keys)
        if not len(vector.indices):
            return []
        return self._ranked(Stage(vector, schema.LEXICAL, limit, conditions), (), keys)

    def fetch(self, ids: Sequence[str], *, vectors: bool = True) -> list[Point]:
        """Return the points that exist among `ids`, in their order; vectors as stored, in float32.

        Multi-vectors come out of the embedded engine as Python numbers: some 12 ms for a page of 400 x 384.
        """
        order = [schema.checked_id(value) for value in ids]
        points = {point.id: point for point in self._fetch(list(dict.fromkeys(order)), vectors=vectors)}
        return [points[value] for value in order if value in points]

    def scroll(self, where: Where | None = None) -> Iterator[StoreHit]:
        """Every matching point, without vectors, in no particular order; scores are 0."""
        conditions = parse_where(where or {})
        if can_match(conditions):
            yield from self._scroll(conditions)

    def count(self, where: Where | None = None) -> int:
        """Number of matching points."""
        conditions = parse_where(where or {})
        return self._count(conditions) if can_match(conditions) else 0

    @abstractmethod
    def close(self) -> None:
        """Release what the store holds; using it afterwards raises IndexStateError. Closing twice is fine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _ranked(self, stage: Stage, candidates: Sequence[Stage], keys: Sequence[str] | None) -> list[StoreHit]:
        if stage.limit < 1:
            raise InvalidInputError(f"The limit of a search is {stage.limit}: ask for at least 1 result.")
        if not can_match(stage.conditions):
            return []
        return sorted(self._query(stage, candidates, keys), key=lambda hit: (-hit.score, hit.id))

    # The calls of an engine. Every id, point and vector has been checked.

    @abstractmethod
    def _write(self, points: Sequence[Point]) -> None:
        """Write points with different ids."""

    @abstractmethod
    def _change(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Change the payloads of the points of these ids that exist."""

    @abstractmethod
    def _delete_ids(self, ids: list[str]) -> None:
        """Delete points by id."""

    @abstractmethod
    def _delete_matching(self, conditions: Sequence[Condition]) -> None:
        """Delete the points that meet conditions."""

    @abstractmethod
    def _query(self, stage: Stage, candidates: Sequence[Stage], keys: Sequence[str] | None) -> Iterable[StoreHit]:
        """The best points, among the union of `candidates` if there are any, in any order."""

    @abstractmethod
    def _fetch(self, ids: list[str], *, vectors: bool) -> Iterable[Point]:
        """The points of those ids that exist, in any order."""

    @abstractmethod
    def _scroll(self, conditions: Sequence[Condition]) -> Iterator[StoreHit]:
        """All points that meet conditions, without vectors."""

    @abstractmethod
    def _count(self, conditions: Sequence[Condition]) -> int:
        """Number of points that meet conditions."""
