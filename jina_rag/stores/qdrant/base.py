"""What the embedded store and the store on a Qdrant server have in common: queries, filters, and how points change."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from jina_rag.errors import InvalidInputError
from jina_rag.stores import schema
from jina_rag.stores.filters import (
    MOST_INDEXED,
    Condition,
    Within,
    can_match,
    conditions,
    for_filters,
    number_paths,
    without_own,
)
from jina_rag.stores.qdrant.codec import QdrantObject, decode, encode_sparse, prepared
from jina_rag.types import Float32, Point, Prefetch, SparseVector, StoreHit, Where

READ_BATCH: Final = 256
"""Points per call when they are read without vectors."""
DELETE_BATCH: Final = 10_000
"""Ids per call."""


class Stage(NamedTuple):
    """A vector that finds points: candidates, or the result.

    Attributes:
        vector: The query, in the engine's form.
        using: Name of the vector that it is compared with.
        limit: How many points to find.
        filter: In the engine's form; None for none.
    """

    vector: QdrantObject
    using: str
    limit: int
    filter: QdrantObject


class BaseQdrantStore(ABC):
    """A `MultiVectorStore` on one of Qdrant's engines. Also a context manager.

    A subclass makes the engine's calls, in the methods that are abstract here.
    """

    def __init__(
        self, types: QdrantObject, range_type: QdrantObject, dims: tuple[int, int], indexed_paths: set[str]
    ) -> None:
        """Make a store.

        Args:
            types: What holds the engine's request types.
            range_type: The one for a range of numbers, whose name differs.
            dims: Lengths of the dense vectors and of the multi-vectors' rows.
            indexed_paths: The paths under which numbers are indexed.
        """
        self._types = types
        self._range_type = range_type
        self._indexed_paths = indexed_paths
        self.dim, self.multi_dim = dims

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points; one of the same id is replaced. A multi-vector without rows is left out.

        Raises:
            InvalidInputError: If a vector has another length than the store's, or more rows than the engine takes,
                or a payload is not JSON; nothing is written then.
        """
        points_by_id = {point.id: point for point in (prepared(item, self.dim, self.multi_dim) for item in points)}
        if points_by_id:
            self._write(list(points_by_id.values()))

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
        terms = conditions(where)
        if can_match(terms):
            self._delete_matching(self._filter(terms) or self._types.Filter())

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
        rows = schema.checked_vector(multi, 2, self.multi_dim, "question's multi-vector")
        if len(rows) == 0:
            raise InvalidInputError("The question has no vectors: pass a multi-vector with at least one row.")
        terms = conditions(where or {})
        if prefetch is None:
            return self._ranked(rows.tolist(), schema.MULTI, limit, terms, keys)
        if dense is None and lexical is None:
            raise InvalidInputError("A prefetch needs a dense or a lexical vector to find candidates with.")
        vectors: dict[str, QdrantObject] = {}
        if dense is not None:
            vectors[schema.DENSE] = schema.checked_vector(dense, 1, self.dim, "question's dense vector").tolist()
        if lexical is not None and len(lexical.indices):
            vectors[schema.LEXICAL] = encode_sparse(self._types, lexical)
        stages = [
            # The engines pass the outer filter on; said twice, so that nothing hangs on that.
            Stage(vectors[name], name, count, self._filter(terms + conditions(also)))
            for name, count, also in schema.candidate_stages(prefetch)
            if name in vectors
        ]
        return self._ranked(rows.tolist(), schema.MULTI, limit, terms, keys, stages) if stages else []

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
        terms = conditions(where or {})
        if not isinstance(vector, SparseVector):
            numbers = schema.checked_vector(vector, 1, self.dim, "dense vector").tolist()
            return self._ranked(numbers, schema.DENSE, limit, terms, keys)
        if not len(vector.indices):
            return []
        return self._ranked(encode_sparse(self._types, vector), schema.LEXICAL, limit, terms, keys)

    def fetch(self, ids: Sequence[str], *, vectors: bool = True) -> list[Point]:
        """Return the points that exist among `ids`, in their order; vectors as stored, in float32.

        Multi-vectors come out of the embedded engine as Python numbers: some 12 ms for a page of 400 x 384.
        """
        order = [schema.checked_id(value) for value in ids]
        records = self._retrieve(list(dict.fromkeys(order)), vectors=vectors) if order else ()
        points = {str(record.id): decode(record) for record in records}
        return [points[value] for value in order if value in points]

    def scroll(self, where: Where | None = None) -> Iterator[StoreHit]:
        """Every matching point, without vectors, in no particular order; scores are 0."""
        terms = conditions(where or {})
        offset = None
        while can_match(terms):
            records, offset = self._scroll_batch(self._filter(terms), offset)
            for record in records:
                yield StoreHit(str(record.id), 0.0, without_own(record.payload))
            if offset is None:
                return

    def count(self, where: Where | None = None) -> int:
        """Number of matching points."""
        terms = conditions(where or {})
        return self._count(self._filter(terms)) if can_match(terms) else 0

    @abstractmethod
    def close(self) -> None:
        """Release what the store holds; using it afterwards raises IndexStateError. Closing twice is fine."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # The engine's calls.

    @abstractmethod
    def _write(self, points: Sequence[Point]) -> None:
        """Write points that `codec.prepared` returned, with different ids, after `_index` of their numbers."""

    @abstractmethod
    def _change(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Write what `_changed_payloads` gives for the points of these ids."""

    @abstractmethod
    def _delete_ids(self, ids: list[str]) -> None:
        """Delete points by id."""

    @abstractmethod
    def _delete_matching(self, selection: QdrantObject) -> None:
        """Delete the points that a filter matches."""

    @abstractmethod
    def _query(self, stage: Stage, candidates: Sequence[Stage], keys: Sequence[str] | None) -> Iterable[QdrantObject]:
        """Points with their scores, among the union of `candidates` if there are any."""

    @abstractmethod
    def _retrieve(self, ids: list[str], *, vectors: bool) -> Iterable[QdrantObject]:
        """The records of those ids that exist."""

    @abstractmethod
    def _scroll_batch(
        self, selection: QdrantObject, offset: QdrantObject
    ) -> tuple[Iterable[QdrantObject], QdrantObject]:
        """Some records that match a filter, without vectors, and where the next ones begin; None at the end."""

    @abstractmethod
    def _count(self, selection: QdrantObject) -> int:
        """Number of points that match a filter."""

    @abstractmethod
    def _index_numbers(self, path: str) -> None:
        """Index the numbers under a path of the payload."""

    # What those calls share.

    def _index(self, paths: Iterable[str]) -> None:
        """Index these paths, so that no payload is read for a range: 0.5 ms of 5,000 points in the place of 55 ms."""
        for path in dict.fromkeys(paths):
            if path not in self._indexed_paths and len(self._indexed_paths) < MOST_INDEXED:
                self._index_numbers(path)
                self._indexed_paths.add(path)

    def _changed_payloads(
        self, records: Iterable[QdrantObject], changes: Mapping[str, Mapping[str, Any]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Id and payload keys to set of each record, after indexing its numbers; null takes a key out."""
        for record in records:
            change = changes[str(record.id)]
            payload = {**change, **for_filters(schema.changed_payload(record.payload or {}, change))}
            self._index(number_paths(payload))
            yield str(record.id), payload

    def _ranked(
        self,
        vector: QdrantObject,
        using: str,
        limit: int,
        terms: Sequence[Condition],
        keys: Sequence[str] | None,
        candidates: Sequence[Stage] = (),
    ) -> list[StoreHit]:
        schema.check_limit(limit)
        if not can_match(terms):
            return []
        points = self._query(Stage(vector, using, limit, self._filter(terms)), candidates, keys)
        return schema.ranked(
            StoreHit(str(point.id), float(point.score), without_own(point.payload)) for point in points
        )

    def _filter(self, terms: Sequence[Condition]) -> QdrantObject:
        """The engine's filter; None for no conditions."""
        return self._types.Filter(must=[self._condition(term) for term in terms]) if terms else None

    def _condition(self, term: Condition) -> QdrantObject:
        if isinstance(term, Within):
            return self._types.FieldCondition(key=term.path, range=self._range_type(**asdict(term.range)))
        return self._types.FieldCondition(key=schema.TAGS, match=self._types.MatchAny(any=list(term.tags)))
