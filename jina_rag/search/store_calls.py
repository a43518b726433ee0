"""Store calls of searches: searches that run together share each call.

A search is a generator. It yields the queries and the page ids that it needs next, and receives the hits and points.
`run_together` advances several searches in rounds, with one query call and one fetch call of the store per round.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, TypeVar

from jina_rag.protocols import MultiVectorStore
from jina_rag.types import Point, StoreHit, StoreQuery

T = TypeVar("T")

VECTOR_BATCH: Final = 16
"""Points per fetch call with vectors: the embedded engine returns the vectors of a page as about 3 MB of Python
numbers."""


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """What a search needs from the store before it can continue.

    Attributes:
        queries: Queries of the store.
        page_ids: Ids of the points to fetch.
        vectors: Whether the points contain their stored vectors.
    """

    queries: Sequence[StoreQuery] = ()
    page_ids: Sequence[str] = ()
    vectors: bool = False


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """The answer to a `StoreRequest`.

    Attributes:
        hits: Hits of each query of the request.
        points: Point id → point, for the existing points of the request.
        seconds: Wall time of the calls in seconds, divided by the number of searches that shared the calls.
    """

    hits: Sequence[list[StoreHit]] = ()
    points: Mapping[str, Point] = field(default_factory=dict)
    seconds: float = 0.0


StoreSteps: TypeAlias = Generator[StoreRequest, StoreAnswer, T]
"""A computation that yields requests, receives the answers, and returns a value."""


def run_together(searches: Sequence[StoreSteps[T]], store: MultiVectorStore) -> list[T]:
    """Run several searches to the end and return their results, in the order of `searches`.

    Args:
        searches: The searches. In each round, the requests of all running searches are answered together.
        store: The vector store.
    """
    results: dict[int, T] = {}
    requests: dict[int, StoreRequest] = {}
    answers: dict[int, StoreAnswer | None] = dict.fromkeys(range(len(searches)))
    while answers:
        requests.clear()
        for number, answer in answers.items():
            try:
                # The first `send` must pass None, which starts the generator.
                requests[number] = searches[number].send(answer)  # type: ignore[arg-type]
            except StopIteration as stop:
                results[number] = stop.value
        answers = dict(zip(requests, _answer(list(requests.values()), store), strict=True))
    return [results[number] for number in range(len(searches))]


def _answer(requests: Sequence[StoreRequest], store: MultiVectorStore) -> list[StoreAnswer]:
    start = time.monotonic()
    queries = [query for request in requests for query in request.queries]
    hits = iter(store.query_batch(queries) if queries else ())
    points: dict[bool, dict[str, Point]] = {}
    for vectors in (False, True):
        ids = list(dict.fromkeys(i for request in requests if request.vectors is vectors for i in request.page_ids))
        step = VECTOR_BATCH if vectors else max(len(ids), 1)
        batches = (ids[first : first + step] for first in range(0, len(ids), step))
        points[vectors] = {point.id: point for batch in batches for point in store.fetch(batch, vectors=vectors)}
    seconds = (time.monotonic() - start) / max(len(requests), 1)
    return [
        StoreAnswer(
            [next(hits) for _ in request.queries],
            {i: points[request.vectors][i] for i in request.page_ids if i in points[request.vectors]},
            seconds,
        )
        for request in requests
    ]
