"""Base class of the vector stores: validates arguments, parses filters and sorts hits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Self, get_args

from jina_rag.errors import InvalidInputError
from jina_rag.stores import schema
from jina_rag.stores.filters import Condition, can_match, parse_where
from jina_rag.types import Float32, Point, Prefetch, RegionKind, SparseVector, StoreHit, StoreQuery, Where

DELETE_BATCH: Final = 10_000
"""Maximum number of ids per delete call of an engine."""


class Stage(NamedTuple):
    """One search stage with one query vector: a candidate stage or the final ranking.

    Attributes:
        vector: Dense query vector, shape (dim,), float32; multi-vector, shape (query tokens, multi_dim), float32; or
            sparse vector.
        using: Name of the stored vector to compare with.
        limit: Maximum number of points to return, at least 1.
        conditions: Filter conditions, all of which a point must meet.
        ids: Ids of the points to rank; None for all points.
    """

    vector: Float32 | SparseVector
    using: str
    limit: int
    conditions: Sequence[Condition]
    ids: Collection[str] | None = None

    @property
    def can_match(self) -> bool:
        """Whether any point can be a hit; an engine is not asked for other stages."""
        has_points = self.ids is None or len(self.ids) > 0
        return (
            has_points
            and (not isinstance(self.vector, SparseVector) or len(self.vector.indices) > 0)
            and can_match(self.conditions)
        )


class StagedQuery(NamedTuple):
    """A query of one or two stages for an engine.

    Attributes:
        stage: The final ranking.
        candidates: Candidate stages. If there are any, `stage` ranks only points that a candidate stage returns.
        keys: Payload keys of the hits; None for all keys.
    """

    stage: Stage
    candidates: Sequence[Stage]
    keys: Sequence[str] | None


class BaseStore(ABC):
    """Base class of a `MultiVectorStore`: a subclass implements the abstract methods for one engine.

    The store is a context manager and is closed on exit.

    Attributes:
        dim: Length of the dense vectors.
        multi_dim: Length of each row of the multi-vectors.
    """

    def __init__(self, dim: int, multi_dim: int) -> None:
        self.dim = dim
        self.multi_dim = multi_dim

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points, replacing stored points with the same id.

        All points are validated before the first write. A multi-vector without rows is not stored.

        Args:
            points: Points to write. Of several points with the same id, the last point is stored.

        Raises:
            InvalidInputError: If an id is not a UUID, a vector has the wrong shape or a number that is not finite, a
                multi-vector has `schema.MULTI_LIMIT` numbers or more, or a payload is not JSON. No point is written.
        """
        checked_points = (schema.checked_point(point, self.dim, self.multi_dim) for point in points)
        self._write(list({point.id: point for point in checked_points}.values()))

    def update_payload(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Set or remove payload keys of stored points.

        All other keys and all vectors stay unchanged. Each point is updated atomically. A call that fails may have
        updated some of the points; repeating the call is safe.

        Args:
            changes: Point id → payload key → new value; None removes the key. Unknown ids are ignored.

        Raises:
            InvalidInputError: If an id is not a UUID or a value is not JSON. No point is changed.
        """
        self._change({schema.checked_id(key): schema.checked_payload(change) for key, change in changes.items()})

    def delete(self, ids: Sequence[str]) -> None:
        """Delete points by id; unknown ids are ignored.

        Raises:
            InvalidInputError: If an id is not a UUID. No point is deleted.
        """
        point_ids = [schema.checked_id(value) for value in ids]
        for start in range(0, len(point_ids), DELETE_BATCH):
            self._delete_ids(point_ids[start : start + DELETE_BATCH])

    def delete_where(self, where: Where) -> None:
        """Delete every point that matches the filter; an empty filter deletes all points.

        Raises:
            InvalidInputError: If the filter is invalid.
        """
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
        """Rank points by exact MaxSim; see `MultiVectorStore.search`.

        The candidate stage and MaxSim run in one engine call.

        Args:
            multi: Query multi-vector, shape (query tokens, multi_dim), float32.
            limit: Maximum number of hits, at least 1.
            dense: Dense query vector of the first stage, shape (dim,), float32.
            lexical: Term weights of the query for the first stage.
            prefetch: Candidate limits of the first stage; None scores every point that matches `where`.
            where: Filter; None for all points.
            keys: Payload keys in the hits; None for all keys.

        Returns:
            Hits by descending score; hits with equal scores are sorted by id.

        Raises:
            InvalidInputError: If a vector has the wrong shape, `multi` has no rows, `limit` is below 1, `where` is
                invalid, or `prefetch` is set but neither `dense` nor `lexical`.
        """
        if dense is not None:
            schema.checked_vector(dense, 1, self.dim, "dense query vector")
        if prefetch is not None and dense is None and lexical is None:
            raise InvalidInputError("prefetch requires a query vector. Pass dense, lexical or both.")
        stage = self._stage(StoreQuery(self._checked_multi(multi), limit, where))
        if prefetch is None:
            return self._rank([StagedQuery(stage, (), keys)])[0]
        has_terms = lexical is not None and len(lexical.indices)
        vectors = {schema.DENSE: dense, schema.LEXICAL: lexical if has_terms else None}
        pages: Where = {schema.KIND: "page"} if prefetch.regions else {}
        candidates = [
            # Each candidate stage has the conditions of the final ranking, so that the candidates do not depend on the
            # engine.
            Stage(vector, name, count, [*stage.conditions, *parse_where(kind_filter)])
            for name, count, kind_filter in (
                (schema.DENSE, prefetch.limit, pages),
                (schema.LEXICAL, prefetch.lexical_limit, pages),
                (schema.DENSE, prefetch.region_limit, {schema.KIND: get_args(RegionKind)}),
            )
            if count > 0 and (vector := vectors[name]) is not None
        ]
        return self._rank([StagedQuery(stage, candidates, keys)])[0] if candidates else []

    def nearest(
        self,
        vector: Float32 | SparseVector,
        *,
        limit: int,
        where: Where | None = None,
        keys: Sequence[str] | None = None,
    ) -> list[StoreHit]:
        """Rank points by a dense or a lexical vector.

        Args:
            vector: Dense query vector, shape (dim,), float32; or term weights, which match only points that share a
                term with the query.
            limit: Maximum number of hits, at least 1.
            where: Filter; None for all points.
            keys: Payload keys in the hits; None for all keys.

        Returns:
            Hits by descending score; hits with equal scores are sorted by id.

        Raises:
            InvalidInputError: If the vector has the wrong shape, `limit` is below 1, or `where` is invalid.
        """
        if not isinstance(vector, SparseVector):
            schema.checked_vector(vector, 1, self.dim, "dense vector")
        return self.query_batch([StoreQuery(vector, limit, where, keys=keys)])[0]

    def query_batch(self, queries: Sequence[StoreQuery]) -> list[list[StoreHit]]:
        """Run several queries in one call of the engine; see `MultiVectorStore.query_batch`.

        Args:
            queries: The queries. All queries are validated before the call.

        Returns:
            The hits of each query by descending score, in the order of `queries`; hits with equal scores are sorted by
            id.

        Raises:
            InvalidInputError: If a query has a vector of the wrong shape, a multi-vector without rows, a limit below 1,
                an invalid filter, or an id that is not a UUID. No query is run.
        """
        return self._rank([StagedQuery(self._stage(query), (), query.keys) for query in queries])

    def fetch(self, ids: Sequence[str], *, vectors: bool = True) -> list[Point]:
        """Return the existing points among `ids`, in the order of `ids`.

        The embedded engine returns multi-vectors as Python numbers. Converting the multi-vector of a page to an array
        takes about 12 ms for 400 rows of 384 dimensions.

        Args:
            ids: Point ids; ids of missing points are skipped.
            vectors: Whether the points contain their stored vectors, in float32.

        Raises:
            InvalidInputError: If an id is not a UUID.
        """
        order = [schema.checked_id(value) for value in ids]
        points = {point.id: point for point in self._fetch(list(dict.fromkeys(order)), vectors=vectors)}
        return [points[value] for value in order if value in points]

    def scroll(self, where: Where | None = None) -> Iterator[StoreHit]:
        """Yield every matching point without its vectors, with score 0, in arbitrary order."""
        conditions = parse_where(where or {})
        if can_match(conditions):
            yield from self._scroll(conditions)

    def count(self, where: Where | None = None) -> int:
        """Return the number of matching points."""
        conditions = parse_where(where or {})
        return self._count(conditions) if can_match(conditions) else 0

    @abstractmethod
    def close(self) -> None:
        """Close the store and release its resources; idempotent.

        Every other call on a closed store raises IndexStateError.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _stage(self, query: StoreQuery) -> Stage:
        vector = query.vector
        if isinstance(vector, SparseVector):
            using = schema.LEXICAL
        elif vector.ndim == 1:
            using = schema.DENSE
            schema.checked_vector(vector, 1, self.dim, "dense vector")
        else:
            using = schema.MULTI
            self._checked_multi(vector)
        if query.limit < 1:
            raise InvalidInputError(f"limit is {query.limit}; expected at least 1.")
        ids = None if query.ids is None else list(dict.fromkeys(schema.checked_id(value) for value in query.ids))
        return Stage(vector, using, query.limit, parse_where(query.where or {}), ids)

    def _checked_multi(self, multi: Float32) -> Float32:
        schema.checked_vector(multi, 2, self.multi_dim, "query multi-vector")
        if len(multi) == 0:
            raise InvalidInputError("The query multi-vector has no rows. Pass at least one row.")
        return multi

    def _rank(self, queries: Sequence[StagedQuery]) -> list[list[StoreHit]]:
        answered = [query for query in queries if query.stage.can_match]
        hits = iter(self._query_batch(answered) if answered else ())
        return [
            sorted(next(hits), key=lambda hit: (-hit.score, hit.id)) if query.stage.can_match else []
            for query in queries
        ]

    # Engine calls. All ids, points and vectors are already validated.

    @abstractmethod
    def _write(self, points: Sequence[Point]) -> None:
        """Write points with distinct ids."""

    @abstractmethod
    def _change(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Update the payloads of existing points; unknown ids are ignored."""

    @abstractmethod
    def _delete_ids(self, ids: list[str]) -> None:
        """Delete points by id; unknown ids are ignored."""

    @abstractmethod
    def _delete_matching(self, conditions: Sequence[Condition]) -> None:
        """Delete all points that meet the conditions."""

    @abstractmethod
    def _query_batch(self, queries: Sequence[StagedQuery]) -> Iterable[Iterable[StoreHit]]:
        """Return the best points of each query, in any order; `queries` is not empty, and each query can match."""

    @abstractmethod
    def _fetch(self, ids: list[str], *, vectors: bool) -> Iterable[Point]:
        """Return the existing points of `ids`, in any order."""

    @abstractmethod
    def _scroll(self, conditions: Sequence[Condition]) -> Iterator[StoreHit]:
        """Yield all points that meet the conditions, without vectors."""

    @abstractmethod
    def _count(self, conditions: Sequence[Condition]) -> int:
        """Return the number of points that meet the conditions."""
