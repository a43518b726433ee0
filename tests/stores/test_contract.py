"""Stores: the common contract of the in-memory store, the embedded engine and the Qdrant server.

The server tests use the client's in-process Qdrant, directly and behind HTTP and gRPC servers. Set
JINA_RAG_TEST_QDRANT_URL to run them also on a real server.
"""

from __future__ import annotations

import datetime as dt
import itertools
import os
import uuid
from contextlib import contextmanager

import numpy as np
import pytest
from helpers.qdrant_stand_in import grpc_stand_in, rest_stand_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient

from jina_rag import scoring
from jina_rag.errors import IndexStateError, InvalidInputError
from jina_rag.protocols import MultiVectorStore
from jina_rag.stores import schema
from jina_rag.stores.qdrant.edge import EdgeStore
from jina_rag.stores.qdrant.server import QdrantConnection, QdrantStore
from jina_rag.testing import MemoryStore
from jina_rag.types import Point, Prefetch, Range, SparseVector, StoreQuery

DIM, MULTI_DIM = 6, 5
FLOAT16_TOLERANCE = 2e-3
"""Absolute error of a number from 1 to 2 in float16, which has 11 significant bits."""


SERVER_URL = os.environ.get("JINA_RAG_TEST_QDRANT_URL")


@pytest.fixture(params=["memory", "edge", "qdrant", "rest", "grpc", "server"])
def store(request, tmp_path):
    with open_store(request.param, tmp_path) as store:
        yield store


@contextmanager
def open_store(kind, folder):
    dims = {"dim": DIM, "multi_dim": MULTI_DIM}
    name = f"jina-rag-test-{uuid.uuid4()}"
    if kind == "memory":
        with MemoryStore(**dims) as store:
            yield store
    elif kind == "edge":
        with EdgeStore.open(folder, **dims) as store:
            yield store
    elif kind == "qdrant":
        with QdrantStore.open(":memory:", collection=name, **dims) as store:
            yield store
    elif kind == "rest":
        with rest_stand_in() as server, QdrantStore.open(server.url, collection=name, **dims) as store:
            yield store
    elif kind == "grpc":
        with grpc_stand_in() as (server, port):
            connection = QdrantConnection(prefer_grpc=True, grpc_port=port)
            with QdrantStore.open(server.url, collection=name, connection=connection, **dims) as store:
                yield store
    elif SERVER_URL:
        api_key = os.environ.get("QDRANT_API_KEY")
        cleaner = QdrantClient(
            url=SERVER_URL, headers={"api-key": api_key} if api_key else None, check_compatibility=False
        )
        try:
            with QdrantStore.open(SERVER_URL, collection=name, **dims) as store:
                yield store
        finally:
            cleaner.delete_collection(name)
            cleaner.close()
    else:
        pytest.skip("JINA_RAG_TEST_QDRANT_URL is not set")


def point_id(n):
    return str(uuid.UUID(int=n + 1))


def sparse(weights):
    return SparseVector(np.array(list(weights), "u4"), np.array(list(weights.values()), "f4"))


def point(n, *, rows=3, seed=None, lexical=None, dense=True, **payload):
    rng = np.random.default_rng(n if seed is None else seed)
    return Point(
        id=point_id(n),
        dense=rng.normal(size=DIM).astype("f4") if dense else None,
        multi=rng.normal(size=(rows, MULTI_DIM)).astype("f4") if rows else None,
        lexical=sparse(lexical) if lexical else None,
        payload={"n": n, **payload},
    )


def numbers(hits):
    return [hit.payload["n"] for hit in hits]


def query(rows=4, seed=99):
    return np.random.default_rng(seed).normal(size=(rows, MULTI_DIM)).astype("f4")


def has_bound(bounds):
    return any(end is not None for end in bounds)


def test_store_implements_the_protocol(store):
    assert isinstance(store, MultiVectorStore)


def test_empty_store_returns_empty_results(store):
    assert store.count() == 0
    assert store.search(query(), limit=3) == []
    assert store.search(query(), limit=3, dense=np.ones(DIM, "f4"), prefetch=Prefetch(60, 50, 0)) == []
    assert store.nearest(np.ones(DIM, "f4"), limit=3) == []
    assert store.nearest(sparse({1: 1.0}), limit=3) == []
    assert store.fetch([point_id(1)]) == []
    assert list(store.scroll()) == []
    store.upsert([])
    store.delete([])
    store.delete([point_id(7)])
    store.flush()
    assert store.count() == 0


def test_fetch_returns_points_as_written(store):
    payload = {
        "text": "naïve 東京 \U0001f600",
        "flag": True,
        "none": None,
        "float": 0.1,
        "big": 2**53 + 1,
        "meta": {"list": [1, 2.5, "x", {"y": None}]},
    }
    originals = [
        point(1, lexical={7: 0.5, 2**32 - 1: 2.0}, **payload),
        point(2, rows=0),
        point(3, dense=False),
    ]
    store.upsert(originals)
    ids = [point_id(3), point_id(1), point_id(8), point_id(2), point_id(1)]
    points = store.fetch(ids)
    assert [p.id for p in points] == [point_id(3), point_id(1), point_id(2), point_id(1)]
    complete_point = points[1]
    assert complete_point.payload == {"n": 1, **payload}
    assert type(complete_point.payload["flag"]) is bool
    np.testing.assert_array_equal(complete_point.dense, originals[0].dense)
    np.testing.assert_allclose(complete_point.multi, originals[0].multi, atol=FLOAT16_TOLERANCE)
    assert complete_point.multi.dtype == complete_point.dense.dtype == np.float32
    weights = dict(zip(complete_point.lexical.indices.tolist(), complete_point.lexical.values.tolist(), strict=True))
    assert weights == {7: 0.5, 2**32 - 1: 2.0}
    assert points[0].dense is None
    assert points[0].lexical is None
    assert points[2].multi is None
    payload_only = store.fetch([point_id(1)], vectors=False)[0]
    assert (payload_only.dense, payload_only.multi, payload_only.lexical) == (None, None, None)
    assert payload_only.payload == complete_point.payload


def test_update_payload_changes_keys_and_filters(store):
    payload = {
        "doc_id": "a.pdf",
        "text": "long",
        "none": None,
        'x.y " z': 1,
        "meta": {"year": 2024, "by": "Ann"},
        "kind": "page",
    }
    points = [point(n, lexical={1: 1.0, 10 + n: 1.0}, **payload) for n in range(3)]
    store.upsert(points)
    store.update_payload(
        {
            point_id(1): {"meta": {"year": 2025}, "new": [1, "ü"], "doc_id": "b.pdf"},
            point_id(2): {"meta": None, "kind": None, 'x.y " z': None, "absent": None, "half": "\ud83d"},
            point_id(7): {"meta": {"year": 2025}},
        }
    )
    store.update_payload({})
    store.update_payload({point_id(0): {}})
    first, second, third = store.fetch([point_id(0), point_id(1), point_id(2)])
    assert first.payload == {"n": 0, **payload}
    assert second.payload == {"n": 1, **payload, "meta": {"year": 2025}, "new": [1, "ü"], "doc_id": "b.pdf"}
    assert third.payload == {"n": 2, "doc_id": "a.pdf", "text": "long", "none": None, "half": "\ufffd"}
    assert store.count() == 3
    for stored_point, original in zip((first, second, third), points, strict=True):
        np.testing.assert_array_equal(stored_point.dense, original.dense)
        np.testing.assert_allclose(stored_point.multi, original.multi, atol=FLOAT16_TOLERANCE)
        assert sorted(stored_point.lexical.indices) == sorted(original.lexical.indices)
    query_options = {"dense": np.ones(DIM, "f4"), "lexical": sparse({1: 1.0}), "prefetch": Prefetch(9, 9, 0)}
    for where, expected in [
        ({"meta.year": 2024}, [0]),
        ({"meta.year": 2025}, [1]),
        ({"meta.by": "Ann"}, [0]),
        ({"doc_id": "a.pdf"}, [0, 2]),
        ({"doc_id": "b.pdf"}, [1]),
        ({"new": ["ü"]}, [1]),
        ({"kind": "page"}, [0, 1]),
        ({'x.y " z': 1}, [0, 1]),
        ({"half": "\ufffd"}, [2]),
        ({}, [0, 1, 2]),
    ]:
        assert store.count(where) == len(expected), where
        assert sorted(numbers(store.scroll(where))) == expected, where
        assert sorted(numbers(store.search(query(), limit=9, where=where))) == expected, where
        assert sorted(numbers(store.search(query(), limit=9, where=where, **query_options))) == expected, where
        assert sorted(numbers(store.nearest(np.ones(DIM, "f4"), limit=9, where=where))) == expected, where
        assert sorted(numbers(store.nearest(sparse({1: 1.0}), limit=9, where=where))) == expected, where
    assert numbers(store.nearest(sparse({11: 1.0}), limit=9)) == [1]
    store.delete_where({"meta.year": 2025})
    assert sorted(numbers(store.scroll())) == [0, 2]


def test_update_payload_changes_many_points_in_one_call(store):
    store.upsert([point(n, rows=1, kind="page") for n in range(600)])
    store.update_payload({point_id(n): {"kind": "chart"} for n in range(0, 600, 2)})
    assert sorted(numbers(store.scroll({"kind": "chart"}))) == list(range(0, 600, 2))
    assert store.count({"kind": "page"}) == 300


def test_invalid_payload_update_changes_nothing(store):
    store.upsert([point(1), point(2)])
    for invalid in ({"x": float("nan")}, {"x": object()}, {"_where": []}):
        with pytest.raises(InvalidInputError):
            store.update_payload({point_id(1): {"n": 9}, point_id(2): invalid})
    with pytest.raises(InvalidInputError):
        store.update_payload({point_id(1): {"n": 9}, "not a uuid": {"n": 9}})
    assert sorted(numbers(store.scroll())) == [1, 2]


def test_upsert_replaces_the_complete_point(store):
    store.upsert([point(1, lexical={1: 1.0}, old=True), point(2)])
    store.upsert([Point(point_id(1), multi=np.ones((1, MULTI_DIM), "f4"), payload={"n": 11})])
    (stored_point,) = store.fetch([point_id(1)])
    assert stored_point.payload == {"n": 11}
    assert stored_point.dense is None
    assert stored_point.lexical is None
    np.testing.assert_array_equal(stored_point.multi, np.ones((1, MULTI_DIM)))
    assert store.count() == 2
    assert store.count({"old": True}) == 0
    assert store.nearest(sparse({1: 1.0}), limit=5) == []


def test_upsert_stores_the_last_point_of_a_repeated_id(store):
    store.upsert([point(1, v=1), point(1, v=2)])
    assert [p.payload["v"] for p in store.fetch([point_id(1)])] == [2]


def test_delete_by_id_and_by_filter(store):
    store.upsert([point(n, doc_id="a" if n < 3 else "b") for n in range(6)])
    store.delete([point_id(0), point_id(77)])
    assert sorted(numbers(store.scroll())) == [1, 2, 3, 4, 5]
    store.delete_where({"doc_id": "a"})
    assert sorted(numbers(store.search(query(), limit=9))) == [3, 4, 5]
    store.delete_where({"n": []})
    assert store.count() == 3
    store.delete_where({})
    assert store.count() == 0


PAYLOADS = [
    {
        "doc_id": "a/é 東京.pdf",
        "page": 1,
        "draft": True,
        "year": 2024,
        "meta": {"x.y z": "v", "who": ["Ann", "Bo"]},
    },
    {"doc_id": "b.pdf", "page": 2, "draft": False, "year": 2024.5, "meta": {"x.y z": "w", "who": "Ann"}},
    {"doc_id": "1", "page": 1.0, "draft": 1, "year": "2024", "meta": {"who": []}, "long": "x" * 999 + "a"},
    {"doc_id": "true", "page": -3, "draft": "true", "year": None, "long": "x" * 999 + "b"},
]


FILTERS = [
    ({}, [0, 1, 2, 3]),
    ({"doc_id": "a/é 東京.pdf"}, [0]),
    ({"doc_id": "A/é 東京.pdf"}, []),
    ({"doc_id": ["b.pdf", "1", "nope"]}, [1, 2]),
    ({"doc_id": ("b.pdf",)}, [1]),
    ({"doc_id": []}, []),
    ({"page": 1}, [0, 2]),
    ({"page": 1.0}, [0, 2]),
    ({"page": "1"}, []),
    ({"page": -3}, [3]),
    ({"draft": True}, [0]),
    ({"draft": False}, [1]),
    ({"draft": 1}, [2]),
    ({"draft": "true"}, [3]),
    ({"draft": [True, False]}, [0, 1]),
    ({"year": 2024.5}, [1]),
    ({"year": np.int64(2024)}, [0]),
    ({"year": "2024"}, [2]),
    ({"meta.x.y z": "v"}, [0]),
    ({"meta.who": "Ann"}, [0, 1]),
    ({"meta.who": ["Bo", "Cy"]}, [0]),
    ({"missing": "x"}, []),
    ({"doc_id": "b.pdf", "page": 2}, [1]),
    ({"doc_id": "b.pdf", "page": 1}, []),
    ({"long": "x" * 999 + "b"}, [3]),
]


def test_filter_matches_expected_points(store):
    points = [point(n, lexical={5: 1.0}, **payload) for n, payload in enumerate(PAYLOADS)]
    for where, expected in FILTERS:
        store.upsert(points)
        assert store.count(where) == len(expected), where
        assert sorted(numbers(store.scroll(where))) == expected, where
        assert sorted(numbers(store.search(query(), limit=9, where=where))) == expected, where
        assert sorted(numbers(store.nearest(np.ones(DIM, "f4"), limit=9, where=where))) == expected, where
        assert sorted(numbers(store.nearest(sparse({5: 1.0}), limit=9, where=where))) == expected, where
        store.delete_where(where)
        assert sorted(numbers(store.scroll())) == sorted({0, 1, 2, 3} - set(expected)), where


def test_filter_matches_keys_of_objects_in_lists(store):
    store.upsert(
        [
            point(1, meta=[{"year": 2024}, {"year": 2025, "by": "Ann"}, "loose"]),
            point(2, meta=[{"year": 2025, "by": {"name": ["Bo", "Cy"]}}], regions=[{"kind": "chart"}]),
            point(3, meta={"year": 2023, "list": [{"deep": [{"x": True}]}, None, []]}),
        ]
    )
    for where, expected in [
        ({"meta.year": 2025}, [1, 2]),
        ({"meta.year": 2024}, [1]),
        ({"meta.year": [2023, 2024]}, [1, 3]),
        ({"meta.by": "Ann"}, [1]),
        ({"meta.by": "Bo"}, []),
        ({"meta.by.name": "Cy"}, [2]),
        ({"meta": "loose"}, [1]),
        ({"meta.list.deep.x": True}, [3]),
        ({"meta.list.deep.x": 1}, []),
        ({"kind": "chart"}, []),
    ]:
        assert sorted(numbers(store.scroll(where))) == expected, where
        assert sorted(numbers(store.search(query(), limit=9, where=where))) == expected, where
    with pytest.raises(InvalidInputError):
        store.count({"regions.kind": "chart"})


NUMBER_PAYLOADS = [
    {"page": 3, "doc_id": "a", "meta": [{"year": 2019, 'x.y " z[0]': 1.5}, {"year": 2024}]},
    {"page": 7, "doc_id": "a", "meta": [{"year": 2021.5, "deep": [{"er": [-4, 40]}]}]},
    {"page": 12.0, "doc_id": "b", "meta": {"year": "2020", "draft": True, "deep": {"er": 0}}},
    {"page": -1, "doc_id": "b", "meta": [{"year": None}, {"huge": 2**70, 'x.y " z[0]': -0.0}], "text": "5"},
    {"page": 1e300, "doc_id": "c", "meta": []},
]
RANGES = [
    ({"page": Range(gte=3)}, [0, 1, 2, 4]),
    ({"page": Range(gt=3)}, [1, 2, 4]),
    ({"page": Range(gte=3, lte=12)}, [0, 1, 2]),
    ({"page": Range(gt=3, lt=12)}, [1]),
    ({"page": Range(gte=0, gt=3, lte=99, lt=12)}, [1]),
    ({"page": Range(lt=0)}, [3]),
    ({"page": Range(gte=np.int64(7), lte=np.float32(7.0))}, [1]),
    ({"page": Range(lte=-1)}, [3]),
    ({"meta.year": Range(gte=2019, lt=2022)}, [0, 1]),
    # One number of the first point is above the range and one below, but none within.
    ({"meta.year": Range(gt=2019, lt=2024)}, [1]),
    ({"meta.year": Range(gte=0)}, [0, 1]),
    ({"meta.deep.er": Range(gte=0)}, [1, 2]),
    ({"meta.deep.er": Range(lt=0)}, [1]),
    ({"meta.draft": Range(gte=0)}, []),
    ({"meta.huge": Range(gte=2**70)}, [3]),
    ({'meta.x.y " z[0]': Range(gte=0)}, [0, 3]),
    ({'meta.x.y " z[0]': Range(gte=-0.0, lt=1)}, [3]),
    ({"missing": Range(gte=0)}, []),
    ({"doc_id": Range(gte=0)}, []),
    ({"page": Range(gt=5, lt=4)}, []),
    ({"page": Range(gt=7, lte=7)}, []),
    ({"page": Range(gte=7, lt=7)}, []),
    ({"page": Range(gte=7, lte=7)}, [1]),
    ({"page": Range(gte=0), "doc_id": "a"}, [0, 1]),
    ({"page": Range(gte=0), "doc_id": ["b", "c"]}, [2, 4]),
    ({"page": Range(gte=4), "meta.year": Range(lt=2030)}, [1]),
    ({"page": Range(gte=4), "doc_id": []}, []),
]


def test_range_filter_matches_expected_points(store):
    points = [point(n, lexical={5: 1.0}, **payload) for n, payload in enumerate(NUMBER_PAYLOADS)]
    query_vectors = {"dense": np.ones(DIM, "f4"), "lexical": sparse({5: 1.0})}
    for where, expected in RANGES:
        store.upsert(points)
        assert store.count(where) == len(expected), where
        assert sorted(numbers(store.scroll(where))) == expected, where
        assert sorted(numbers(store.search(query(), limit=9, where=where))) == expected, where
        assert sorted(numbers(store.nearest(np.ones(DIM, "f4"), limit=9, where=where))) == expected, where
        assert sorted(numbers(store.nearest(sparse({5: 1.0}), limit=9, where=where))) == expected, where
        hits = store.search(query(), limit=9, where=where, prefetch=Prefetch(9, 9, 0), **query_vectors)
        assert sorted(numbers(hits)) == expected, where
        store.delete_where(where)
        assert sorted(numbers(store.scroll())) == sorted(set(range(5)) - set(expected)), where
    store.upsert(points)
    assert store.fetch([point_id(0)])[0].payload == {"n": 0, **NUMBER_PAYLOADS[0]}, (
        "filter keys are not part of the payload"
    )
    assert "_numbers" not in store.search(query(), limit=1)[0].payload


def test_range_filter_applies_before_candidate_selection(store):
    points = [point(n, lexical={1: 9.0 if n < 10 else 1.0}, kind="chart" if n % 2 else "page") for n in range(20)]
    for n, item in enumerate(points):
        item.dense[:] = 5 if n < 10 else 1
    store.upsert(points)
    query_vectors = {"dense": np.ones(DIM, "f4"), "lexical": sparse({1: 1.0})}
    for sizes in (Prefetch(3, 0, 0), Prefetch(0, 3, 0), Prefetch(0, 0, 3)):
        hits = store.search(query(), limit=99, where={"n": Range(gte=10)}, prefetch=sizes, **query_vectors)
        assert len(hits) == 3
        assert min(numbers(hits)) >= 10


def test_range_filter_uses_updated_payloads(store):
    store.upsert([point(n, page=n, meta=[{"year": 2020 + n}]) for n in range(4)])
    store.update_payload(
        {
            point_id(0): {"meta": [{"year": 1999, "pages": 7}]},
            point_id(1): {"meta": None},
            point_id(2): {"meta": [{"year": "2022"}], "page": 9},
        }
    )
    for where, expected in [
        ({"meta.year": Range(gte=2020)}, [3]),
        ({"meta.year": Range(lt=2020)}, [0]),
        ({"meta.pages": Range(gt=6)}, [0]),
        ({"page": Range(gte=2)}, [2, 3]),
        ({"page": Range(gte=0, lte=1)}, [0, 1]),
    ]:
        assert sorted(numbers(store.scroll(where))) == expected, where
        assert sorted(numbers(store.search(query(), limit=9, where=where))) == expected, where
    with pytest.raises(InvalidInputError, match="reserved for the store"):
        store.update_payload({point_id(0): {"_numbers": {}}})


finite = st.one_of(
    st.integers(-5, 5), st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False), st.just(-0.0)
)
bounds = st.one_of(st.none(), finite)


# The store is emptied at the start of each example.
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(st.one_of(finite, st.booleans(), st.text(max_size=2), st.lists(finite, max_size=3)), max_size=8),
    limits=st.lists(st.tuples(bounds, bounds, bounds, bounds).filter(has_bound), min_size=1, max_size=4),
    include_values=st.booleans(),
)
def test_range_filter_equals_python_comparison(store, values, limits, include_values):
    if include_values and values and type(values[0]) in (int, float):
        limits = [*limits, (values[0], None, None, None), (None, None, values[0], None)]
    store.delete_where({})
    store.upsert([point(n, rows=1, v=value) for n, value in enumerate(values)])
    for gte, lte, gt, lt in limits:
        expected = [
            n
            for n, value in enumerate(values)
            if any(
                (gte is None or one >= gte)
                and (lte is None or one <= lte)
                and (gt is None or one > gt)
                and (lt is None or one < lt)
                for one in (value if isinstance(value, list) else [value])
                if isinstance(one, int | float) and not isinstance(one, bool)
            )
        ]
        where = {"v": Range(gte, lte, gt, lt)}
        assert sorted(numbers(store.scroll(where))) == expected, where
        assert store.count(where) == len(expected), where


DAY = dt.date(2025, 1, 31)
UTC, BERLIN = dt.UTC, dt.timezone(dt.timedelta(hours=1))
MORNING = dt.datetime(2025, 1, 31, 9, 30, tzinfo=BERLIN)
DATES = {
    0: DAY,
    1: MORNING,
    2: "2025-01-31T08:30:00Z",
    3: dt.datetime(2025, 1, 31, 23, 59, 59, 999_999),
    4: "2025-02-01",
    5: dt.datetime(2025, 2, 1, 0, 30, tzinfo=BERLIN),  # still January 31 in UTC
    6: "31.1.2025",
    7: 20250131,
    8: dt.time(9, 30),
    9: [np.datetime64("1969-12-31T23:59:59.5", "ns"), "text", 5],
    10: {"signed": [DAY, None]},
}


def test_dates_and_times_match_by_value_and_by_range(store):
    store.upsert([point(n, rows=1, v=value) for n, value in DATES.items()])
    for where, expected in [
        (DAY, [0, 1, 2, 3, 5]),
        ("2025-01-31", [0, 1, 2, 3, 5]),
        (np.datetime64("2025-01-31"), [0, 1, 2, 3, 5]),
        (MORNING, [1, 2]),
        ("2025-01-31 08:30", [1, 2]),
        (dt.datetime(2025, 1, 31, 9, 30), []),
        (dt.datetime(2025, 1, 31), [0]),
        ([dt.date(2025, 2, 1), "31.1.2025"], [4, 6]),
        (20250131, [7]),
        ("09:30", [8]),
        (Range(gte=DAY), [0, 1, 2, 3, 4, 5]),
        (Range(gt=DAY), [4]),
        (Range(lte="2025-01-31"), [0, 1, 2, 3, 5, 9]),
        (Range(lt=DAY), [9]),
        (Range(gt=MORNING, lte=DAY), [3, 5]),
        (Range(gte="2025-01-31T09:30:00+01:00", lt="2025-01-31T23:30Z"), [1, 2]),
        (Range(gte=np.datetime64("2025-01-31T23:30:00"), lt=dt.datetime(2025, 2, 1)), [3, 5]),
        (Range(gte="0001-01-01", lte="9999-12-31"), [0, 1, 2, 3, 4, 5, 9]),
        (Range(gte=0), [7, 9]),
        (Range(gte="09:00", lt=dt.time(10)), [8]),
        (Range(gt="2025-02-01", lt="2025-01-01"), []),
    ]:
        assert sorted(numbers(store.scroll({"v": where}))) == expected, where
        assert store.count({"v": where}) == len(expected), where
    assert numbers(store.scroll({"v.signed": Range(lte=DAY)})) == numbers(store.scroll({"v.signed": DAY})) == [10]
    stored = {hit.payload["n"]: hit.payload["v"] for hit in store.scroll()}
    assert (stored[0], stored[1]) == ("2025-01-31", "2025-01-31T09:30:00+01:00")
    assert (stored[3], stored[8]) == ("2025-01-31T23:59:59.999999+00:00", "09:30:00")
    assert stored[9] == ["1969-12-31T23:59:59.500000+00:00", "text", 5]
    assert stored[10] == {"signed": ["2025-01-31", None]}
    store.update_payload({point_id(4): {"v": dt.date(2030, 5, 1)}})
    assert numbers(store.scroll({"v": Range(gte="2030-05-01T00:00:00Z")})) == [4]
    assert store.count({"v": "2025-02-01"}) == 0


def test_names_are_not_dates(store):
    store.upsert([point(1, rows=1, doc_id="2025-01-31"), point(2, rows=1, doc_id=["2025-01-31T00:00:00Z"])])
    assert numbers(store.scroll({"doc_id": "2025-01-31"})) == [1]
    assert numbers(store.scroll({"doc_id": "2025-01-31T00:00:00Z"})) == [2]
    assert store.count({"doc_id": Range(gte="2020-01-01")}) == 0


offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)))
datetimes = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1), timezones=st.one_of(st.none(), offsets))


# The store is emptied at the start of each example.
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(datetimes, min_size=1, max_size=6), limits=st.lists(st.tuples(datetimes, datetimes), max_size=3))
def test_datetime_range_equals_python_comparison(store, values, limits):
    def utc(value):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value

    store.delete_where({})
    store.upsert([point(n, rows=1, v=value) for n, value in enumerate(values)])
    for low, high in [*limits, (values[0], values[-1])]:
        expected = [n for n, value in enumerate(values) if utc(low) <= utc(value) < utc(high)]
        for where in (Range(gte=low, lt=high), Range(gte=low.isoformat(), lt=high.isoformat(" "))):
            assert sorted(numbers(store.scroll({"v": where}))) == expected, where
        expected = [n for n, value in enumerate(values) if utc(value) == utc(low)]
        assert sorted(numbers(store.scroll({"v": low}))) == expected
        day = utc(low).astimezone(UTC).date()
        expected = [n for n, value in enumerate(values) if utc(value).astimezone(UTC).date() <= day]
        assert sorted(numbers(store.scroll({"v": Range(lte=day)}))) == expected


def test_invalid_filter_raises_invalid_input_error(store):
    calls = [
        store.count,
        store.delete_where,
        lambda where: list(store.scroll(where)),
        lambda where: store.search(query(), limit=1, where=where),
        lambda where: store.nearest(np.ones(DIM, "f4"), limit=1, where=where),
    ]
    invalid = [
        {"text": "x"},
        {"grid": "x"},
        {"": "x"},
        {1: "x"},
        {"a": None},
        {"a": float("nan")},
        {"a": {"b": 1}},
        {"text": Range(gte=1)},
        {"a": Range()},
        {"a": Range(gte=float("nan"))},
        {"a": Range(lt=float("inf"))},
        {"a": Range(gt=True)},
        {"a": Range(gte="January")},
        {"a": Range(gte="2024-02-30")},
        {"a": Range(gte="2024-01-31", lt=5)},
        {"a": Range(gte="2024-01-31", lt="09:30")},
        {"a": Range(gte=np.datetime64("NaT"))},
        {"a": [dt.timedelta(1)]},
        {"a": Range(gte=10**400)},
        {"a": [Range(gte=1)]},
    ]
    for where, call in itertools.product(invalid, calls):
        with pytest.raises(InvalidInputError):
            call(where)


def test_scroll_yields_every_point_once(store):
    store.upsert([point(n, rows=1, half=n % 2) for n in range(600)])
    assert sorted(numbers(store.scroll())) == list(range(600))
    assert sorted(numbers(store.scroll({"half": 1}))) == list(range(1, 600, 2))
    assert {hit.score for hit in store.scroll()} == {0.0}


# The store is emptied at the start of each example.
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    shift=st.sampled_from([0.0, -2.0]),
    seed=st.integers(0, 10**6),
)
def test_search_scores_equal_maxsim_including_negative_scores(store, lengths, shift, seed):
    rng = np.random.default_rng(seed)
    query = np.abs(rng.normal(size=(3, MULTI_DIM))).astype("f4")
    documents = [(rng.normal(size=(n, MULTI_DIM)) + shift).astype("f4") for n in lengths]
    store.delete_where({})
    store.upsert([Point(point_id(n), multi=rows, payload={"n": n}) for n, rows in enumerate(documents)])
    exact = scoring.maxsim_many(query, documents)
    hits = store.search(query, limit=len(documents))
    assert sorted(numbers(hits)) == [n for n, rows in enumerate(documents) if len(rows)]
    np.testing.assert_allclose([hit.score for hit in hits], exact[numbers(hits)], atol=3e-2)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_search_limit_and_order_of_ties(store):
    store.upsert([point(n, seed=1) for n in (3, 1, 2)] + [point(9, seed=2)])
    hits = store.search(query(), limit=9)
    assert len(hits) == 4
    tied = [hit.id for hit in hits if hit.payload["n"] != 9]
    assert tied == sorted(tied)
    assert [hit.id for hit in store.search(query(), limit=1)] == [hits[0].id] or hits[0].score == hits[1].score
    assert len(store.search(query(), limit=2)) == 2
    assert len(store.search(query(), limit=10**12)) == 4
    for limit in (0, -1):
        with pytest.raises(InvalidInputError, match="at least 1"):
            store.search(query(), limit=limit)
        with pytest.raises(InvalidInputError, match="at least 1"):
            store.nearest(np.ones(DIM, "f4"), limit=limit)


def test_points_without_multi_vector_are_stored_but_not_searched(store):
    empty = Point(point_id(5), dense=np.full(DIM, 9, "f4"), multi=np.zeros((0, MULTI_DIM), "f4"), payload={"n": 5})
    store.upsert([point(1), point(2, rows=0, lexical={1: 1.0}), empty])
    assert numbers(store.search(query(), limit=9)) == [1]
    query_options = {"dense": np.ones(DIM, "f4"), "lexical": sparse({1: 1.0}), "prefetch": Prefetch(9, 9, 0)}
    assert numbers(store.search(query(), limit=9, **query_options)) == [1]
    assert numbers(store.nearest(np.ones(DIM, "f4"), limit=1)) == [5]
    assert store.count() == 3
    assert store.fetch([point_id(5)])[0].multi is None


def test_prefetch_scores_the_union_of_dense_and_lexical_candidates(store):
    points = [point(n, lexical={1: float(n + 1)} if n % 4 == 0 else None) for n in range(24)]
    store.upsert(points)
    dense, lexical = np.ones(DIM, "f4"), sparse({1: 1.0})
    all_scores = {hit.payload["n"]: hit.score for hit in store.search(query(), limit=99)}
    nearest_dense = set(np.argsort([-float(p.dense @ dense) for p in points])[:5].tolist())
    for sizes, query_vectors, expected in [
        (Prefetch(5, 3, 0), {"dense": dense, "lexical": lexical}, nearest_dense | {20, 16, 12}),
        (Prefetch(5, 0, 0), {"dense": dense, "lexical": lexical}, nearest_dense),
        (Prefetch(5, 3, 0), {"dense": dense}, nearest_dense),
        (Prefetch(5, 3, 0), {"lexical": lexical}, {20, 16, 12}),
        (Prefetch(0, 2, 0), {"dense": dense, "lexical": lexical}, {20, 16}),
        (Prefetch(99, 0, 0), {"dense": dense}, set(range(24))),
        (Prefetch(5, 5, 0), {"lexical": sparse({77: 1.0})}, set()),
        (Prefetch(5, 5, 0), {"lexical": sparse({})}, set()),
    ]:
        hits = store.search(query(), limit=99, prefetch=sizes, **query_vectors)
        assert set(numbers(hits)) == expected
        for hit in hits:
            assert hit.score == pytest.approx(all_scores[hit.payload["n"]], abs=1e-4)
    with pytest.raises(InvalidInputError, match="requires a query vector"):
        store.search(query(), limit=9, prefetch=Prefetch(60, 50, 0))


def test_region_candidates_do_not_displace_page_candidates(store):
    kinds = ["page", "chart", "table", "figure"]
    points = [point(n, kind=kinds[n % 4], lexical={1: float(n)}) for n in range(1, 25)]
    store.upsert(points)
    dense, lexical = np.ones(DIM, "f4"), sparse({1: 1.0})
    query_options = {"dense": dense, "lexical": lexical}

    def nearest(count, pages):
        kind_points = [p for p in points if (p.payload["kind"] == "page") is pages]
        return {p.payload["n"] for p in sorted(kind_points, key=lambda p: -float(p.dense @ dense))[:count]}

    def hit_numbers(prefetch, **options):
        return set(numbers(store.search(query(), limit=99, prefetch=prefetch, **query_options, **options)))

    assert hit_numbers(Prefetch(2, 0, 5)) == nearest(2, True) | nearest(5, False)
    assert hit_numbers(Prefetch(0, 2, 1)) == {24, 20} | nearest(1, False)
    assert hit_numbers(Prefetch(6, 0, 5), where={"kind": "page"}) == nearest(6, True)


def test_filter_applies_before_candidate_selection(store):
    points = [point(n, lexical={1: 9.0 if n < 10 else 1.0}, doc_id="a" if n < 10 else "b") for n in range(20)]
    for n, item in enumerate(points):
        item.dense[:] = 5 if n < 10 else 1
    store.upsert(points)
    query_options = {"dense": np.ones(DIM, "f4"), "lexical": sparse({1: 1.0}), "prefetch": Prefetch(3, 3, 0)}
    assert set(numbers(store.search(query(), limit=99, where={"doc_id": "b"}, **query_options))) <= set(range(10, 20))
    assert len(store.search(query(), limit=99, where={"doc_id": "b"}, **query_options)) >= 3


def test_dense_score_is_the_dot_product(store):
    points = [point(n) for n in range(8)]
    store.upsert(points)
    dense_query = np.linspace(-1, 2, DIM, dtype="f4")
    exact = [float(p.dense @ dense_query) for p in points]
    hits = store.nearest(dense_query, limit=8)
    assert numbers(hits) == np.argsort(exact)[::-1].tolist()
    np.testing.assert_allclose([hit.score for hit in hits], sorted(exact, reverse=True), rtol=1e-5)


def test_lexical_score_weights_terms_by_idf(store):
    """IDF is ln((N - n + 0.5) / (n + 0.5) + 1), where N is the number of points with terms."""
    store.upsert([point(n, lexical={1: 1.0}) for n in range(6)])
    store.upsert([point(6, lexical={1: 1.0, 2: 0.5}), point(7, lexical={3: 2.0}), point(8)])
    hits = store.nearest(sparse({1: 1.0, 2: 1.0}), limit=9)
    common, rare = np.log((8 - 7 + 0.5) / 7.5 + 1), np.log((8 - 1 + 0.5) / 1.5 + 1)
    assert numbers(hits)[0] == 6
    assert sorted(numbers(hits)) == [0, 1, 2, 3, 4, 5, 6]
    assert hits[0].score == pytest.approx(common + 0.5 * rare, rel=1e-4)
    assert hits[1].score == pytest.approx(common, rel=1e-4)
    # A filter does not change the IDF of a term.
    (rare_hit,) = store.nearest(sparse({2: 1.0}), limit=9, where={"n": 6})
    assert rare_hit.score == pytest.approx(0.5 * rare, rel=1e-4)


def test_query_batch_returns_the_hits_of_each_query(store):
    store.upsert([point(n, lexical={1: 1.0, 10 + n: 1.0}, doc_id="ab"[n % 2]) for n in range(20)])
    dense_query, terms, where = np.linspace(-1, 2, DIM, dtype="f4"), sparse({1: 1.0, 14: 2.0}), {"doc_id": "a"}
    queries = [
        StoreQuery(dense_query, 5, keys=None),
        StoreQuery(terms, 30, where, keys=("n",)),
        StoreQuery(query(), 4, where),
        StoreQuery(sparse({}), 4),
        StoreQuery(query(), 30, {"doc_id": []}),
        StoreQuery(query(rows=7, seed=1), 20, keys=("n", "doc_id")),
    ]
    assert store.query_batch(queries) == [
        store.nearest(dense_query, limit=5),
        store.nearest(terms, limit=30, where=where, keys=("n",)),
        store.search(query(), limit=4, where=where, keys=()),
        [],
        [],
        store.search(query(rows=7, seed=1), limit=20, keys=("n", "doc_id")),
    ]
    assert [hits for each in queries for hits in store.query_batch([each])] == store.query_batch(queries)
    assert store.query_batch([]) == []


def test_query_batch_ranks_only_the_points_of_ids(store):
    store.upsert([point(n, lexical={1: 1.0 + n, 20: 1.0}, doc_id="ab"[n % 2]) for n in range(12)])
    ids = [point_id(n) for n in (3, 4, 99, 8, 3)]
    for vector in (np.ones(DIM, "f4"), sparse({1: 1.0}), query()):
        everything = store.query_batch([StoreQuery(vector, 99, keys=("n",))])[0]
        few, best, none, filtered = store.query_batch(
            [
                StoreQuery(vector, 99, ids=ids, keys=("n",)),
                StoreQuery(vector, 1, ids=[point_id(4).upper(), point_id(8)], keys=("n",)),
                StoreQuery(vector, 99, ids=[]),
                StoreQuery(vector, 99, {"doc_id": "a"}, ids, keys=("n",)),
            ]
        )
        expected = [hit for hit in everything if hit.payload["n"] in (3, 4, 8)]
        assert few == expected
        assert best == [hit for hit in expected if hit.payload["n"] != 3][:1]
        assert none == []
        assert filtered == [hit for hit in expected if hit.payload["n"] != 3]


@pytest.mark.parametrize(
    "invalid",
    [
        StoreQuery(np.ones(DIM + 1, "f4"), 1),
        StoreQuery(np.ones((2, MULTI_DIM + 1), "f4"), 1),
        StoreQuery(np.ones((0, MULTI_DIM), "f4"), 1),
        StoreQuery(np.full(DIM, np.nan, "f4"), 1),
        StoreQuery(np.ones(DIM, "f4"), 0),
        StoreQuery(np.ones(DIM, "f4"), 1, {"text": "x"}),
        StoreQuery(np.ones(DIM, "f4"), 1, ids=["nonsense"]),
    ],
)
def test_query_batch_with_an_invalid_query_raises(store, invalid):
    store.upsert([point(1)])
    with pytest.raises(InvalidInputError):
        store.query_batch([StoreQuery(np.ones(DIM, "f4"), 1), invalid])


def test_multi_vector_above_the_limit_fails_the_upsert_call(store):
    max_rows = (schema.MULTI_LIMIT - 1) // MULTI_DIM
    with pytest.raises(InvalidInputError, match="too large for one point"):
        store.upsert([point(2), Point(point_id(1), multi=np.ones((max_rows + 1, MULTI_DIM), "f4"))])
    assert store.count() == 0
    store.upsert([Point(point_id(1), multi=np.ones((max_rows, MULTI_DIM), "f4"))])
    assert store.count() == 1


def test_delete_removes_many_points_in_one_call(store):
    store.upsert([point(n, rows=1) for n in range(400)])
    store.delete([point_id(n) for n in range(300)])
    assert sorted(numbers(store.scroll())) == list(range(300, 400))


def test_bytes_by_part_reports_disk_usage(store):
    store.upsert([point(1)])
    sizes = store.bytes_by_part()
    assert all(isinstance(name, str) and isinstance(size, int) for name, size in sizes.items())
    if isinstance(store, EdgeStore):
        assert sizes["multi"] > 0
    else:
        assert sizes == {}


def test_invalid_point_fails_the_upsert_call(store):
    invalid = [
        Point(point_id(1), dense=np.ones(DIM + 1, "f4")),
        Point(point_id(1), multi=np.ones((2, MULTI_DIM + 1), "f4")),
        Point(point_id(1), multi=np.ones(MULTI_DIM, "f4")),
        Point(point_id(1), dense=np.full(DIM, np.nan, "f4")),
        Point(point_id(1), multi=np.full((1, MULTI_DIM), np.inf, "f4")),
        Point("not a uuid"),
        Point(point_id(1), payload={"x": float("nan")}),
        Point(point_id(1), payload={"x": object()}),
        Point(point_id(1), payload={"_where": []}),
        Point(point_id(1), payload={"_numbers": {}}),
    ]
    for bad in invalid:
        with pytest.raises(InvalidInputError):
            store.upsert([point(2), bad])
        assert store.count() == 0, bad


def test_query_vector_of_wrong_shape_raises_invalid_input_error(store):
    store.upsert([point(1)])
    for multi in (np.ones((1, MULTI_DIM + 1), "f4"), np.ones(MULTI_DIM, "f4"), np.ones((0, MULTI_DIM), "f4")):
        with pytest.raises(InvalidInputError):
            store.search(multi, limit=1)
    with pytest.raises(InvalidInputError):
        store.nearest(np.ones(DIM - 1, "f4"), limit=1)
    with pytest.raises(InvalidInputError):
        store.fetch(["nonsense"])


def test_payload_with_lone_surrogates_is_stored(store):
    store.upsert([point(1, text="half \ud83d pair", meta={"t": (1, np.float32(2.0))}, huge=2**80)])
    payload = store.fetch([point_id(1)])[0].payload
    assert payload["text"] == "half \ufffd pair"
    assert payload["meta"] == {"t": [1, 2.0]}
    assert payload["huge"] == pytest.approx(2**80)


def test_closed_store_raises_index_state_error(store):
    store.close()
    store.close()
    for call in (
        store.count,
        store.flush,
        lambda: store.upsert([point(1)]),
        lambda: store.delete([point_id(1)]),
        lambda: store.delete_where({}),
        lambda: store.update_payload({point_id(1): {"n": 2}}),
        lambda: store.search(query(), limit=1),
        lambda: store.nearest(np.ones(DIM, "f4"), limit=1),
        lambda: store.query_batch([StoreQuery(np.ones(DIM, "f4"), 1)]),
        lambda: store.fetch([point_id(1)]),
        lambda: list(store.scroll()),
    ):
        with pytest.raises(IndexStateError, match="is closed"):
            call()


def test_hits_contain_only_the_requested_payload_keys(store):
    store.upsert([point(1, text="long", page=4, lexical={3: 1.0})])
    for call in (
        lambda **keys: store.search(query(), limit=1, **keys),
        lambda **keys: store.search(query(), limit=1, dense=np.ones(DIM, "f4"), prefetch=Prefetch(9, 9, 0), **keys),
        lambda **keys: store.nearest(np.ones(DIM, "f4"), limit=1, **keys),
        lambda **keys: store.nearest(sparse({3: 1.0}), limit=1, **keys),
    ):
        assert call(keys=("page",))[0].payload == {"page": 4}
        assert call(keys=("absent",))[0].payload == {}
        assert call(keys=())[0].payload == {}
        assert call()[0].payload == {"n": 1, "text": "long", "page": 4}
