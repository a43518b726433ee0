"""Store calls: the number of calls of a search, scores that are asked only once, and searches that share calls.

The calls are counted by a wrapper around a real store: the embedded engine, and the in-memory store with its points.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from jina_rag import DocumentIndex, Prefetch, Range, Rerank, Rescore
from jina_rag.catalog.manifest import Manifest
from jina_rag.config import IngestSettings, Storage
from jina_rag.search.late_interaction import PageRanker
from jina_rag.search.query import Query
from jina_rag.search.searcher import Searcher, SearchRequest
from jina_rag.search.stages import default_stages
from jina_rag.search.store_calls import VECTOR_BATCH, StoreRequest, run_together
from jina_rag.stores import schema
from jina_rag.testing import FakeEmbedder, FakeReranker, MemoryStore, sample_pdf
from jina_rag.types import Point, SparseVector, StoreHit, StoreQuery

ENTRIES = 460
"""Entries in the index: more than `Prefetch.exhaustive`, so that a default search selects candidates."""
WORDS = "rain snow oil pump cats hills harbour desert river storm".split()
CODE_QUERY = "pump KX-4431-B and KX-4421-B"


class CountingStore:
    """A store that records the calls of another store."""

    def __init__(self, store):
        self.store = store
        self.calls = []
        self.queries = []
        self.fetched_ids = []

    def __getattr__(self, name):
        method = getattr(self.store, name)

        def call(*args, **options):
            self.calls.append(name)
            if name == "query_batch":
                self.queries += args[0]
            if name == "fetch":
                self.fetched_ids += args[0]
            return method(*args, **options)

        return call

    def queries_of(self, kind):
        kinds = {1: "dense", 2: "multi"}
        return [
            query
            for query in self.queries
            if ("lexical" if isinstance(query.vector, SparseVector) else kinds[query.vector.ndim]) == kind
        ]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    sample_pdf(folder / "parts.pdf", [f"pump number KX-44{n}1-B needs oil and rain cover" for n in range(8)])
    with DocumentIndex.open(tmp_path_factory.mktemp("kb") / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(folder, settings=IngestSettings(ocr="never"), metadata=lambda path: {"year": 1999})
        texts = [f"{WORDS[n % 10]} and {WORDS[n // 10 % 10]} in place{n % 37} {'x ' * (n % 5)}" for n in range(ENTRIES)]
        index.add(texts, metadata=[{"year": 2000 + n % 20} for n in range(ENTRIES)])
        yield index


@pytest.fixture(scope="module")
def memory_store(index):
    store = index._session.resources.store
    points = store.fetch([hit.id for hit in store.scroll()])
    with MemoryStore(dim=store.dim, multi_dim=store.multi_dim) as copy:
        copy.upsert(points)
        yield copy


@pytest.fixture(params=["edge", "memory"])
def counted(request, index, memory_store):
    """Return a searcher of the index, and the store that counts its calls."""
    resources = index._session.resources
    store = CountingStore(memory_store if request.param == "memory" else resources.store)
    return searcher_of(index, replace(resources, store=store)), store


def searcher_of(index, resources, storage=None):
    return Searcher(resources=resources, embedder=index.embedder, dim=index.dim, storage=storage)


def request_of(index, *stages, **options):
    return SearchRequest(**{"k": 5} | options, stages=default_stages(index.embedder, False).override(stages))


@pytest.mark.parametrize(
    ("query", "stages", "options"),
    [
        ("rain on the hills", [], {}),
        (CODE_QUERY, [], {}),
        ("rain on the hills", [], {"where": {"year": Range(gte=2003, lt=2009)}}),
        ("rain on the hills", [], {"where": {"path": "*.pdf"}}),
        (CODE_QUERY, [Rescore(dense=0.3)], {"where": {"year": [1999, 2003]}}),
        ("rain on the hills", [Rescore(dense=0.3)], {}),
        ("rain on the hills", [], {"explain": True}),
        ("rain on the hills", [], {"details": False}),
        ("rain on the hills", [], {"group_by": "document", "dedup": True}),
        ("rain on the hills", [Prefetch(regions=False, lexical=False)], {"explain": True}),
        ("rain on the hills", [Rerank(model=FakeReranker())], {"reranker": FakeReranker}),
        ("zebra", [], {}),
    ],
)
def test_a_search_makes_at_most_three_store_calls(index, counted, query, stages, options):
    searcher, store = counted
    [hits] = searcher.search([query], request_of(index, *stages, **options))
    assert len(hits) == 5
    assert store.calls == ["query_batch", "query_batch", "fetch"]


def test_search_that_scores_every_page_makes_two_store_calls(index, counted):
    searcher, store = counted
    stages = [Prefetch(exhaustive=1000), Rescore(dense=0.3)]
    [hits] = searcher.search([CODE_QUERY], request_of(index, *stages, explain=True))
    assert len(hits) == 5
    assert store.calls == ["query_batch", "fetch"]


@pytest.mark.parametrize(
    ("stages", "options"),
    [
        ([], {}),
        ([Rescore(dense=0.3)], {"explain": True}),
        ([Prefetch(exhaustive=1000)], {"where": {"year": Range(gte=2003)}}),
        ([Rerank(model=FakeReranker(), limit=4)], {"reranker": FakeReranker}),
    ],
)
def test_twenty_queries_share_three_store_calls_and_match_single_searches(index, counted, stages, options):
    searcher, store = counted
    queries = [f"{WORDS[n % 10]} over {WORDS[(3 * n + 1) % 10]} place{n}" for n in range(18)] + [CODE_QUERY, "zebra"]
    request = request_of(index, *stages, **options)
    together = searcher.search(queries, request)
    assert len(store.calls) <= 3
    single = [searcher.search([query], request)[0] for query in queries]
    assert [list(hits) for hits in together] == [list(hits) for hits in single], "hits, scores and order"
    for attribute in ("query", "notes", "more", "complete"):
        assert [getattr(hits, attribute) for hits in together] == [getattr(hits, attribute) for hits in single]


def test_many_queries_are_searched_in_groups(index, counted):
    searcher, store = counted
    queries = [f"rain place{n}" for n in range(40)]
    results = searcher.search(queries, request_of(index))
    assert [hits.query for hits in results] == queries
    assert len(store.calls) == 6


def test_deepening_asks_for_no_score_and_no_page_twice(index, counted):
    searcher, store = counted
    narrow = Prefetch(limit=3, lexical=2, regions=2)
    request = request_of(index, narrow, Rescore(limit=4, dense=0.4), k=150, offset=10)
    [hits] = searcher.search(["rain on the hills"], request)
    assert len(hits) == 150
    scored_ids = [point_id for query in store.queries_of("multi") for point_id in query.ids]
    assert len(store.queries_of("multi")) > 3
    assert len(scored_ids) == len(set(scored_ids)), "no page gets MaxSim twice"
    assert len(store.fetched_ids) == len(set(store.fetched_ids)), "no page is fetched twice"
    dense_ids = [point_id for query in store.queries_of("dense") for point_id in query.ids or ()]
    assert len(dense_ids) == len(set(dense_ids))
    limits = [query.limit for query in store.queries_of("dense") if query.ids is None]
    assert sorted(limits) == [2, *(3 * 2**n for n in range(len(limits) - 1))], "the regions (limit 2) are asked once"
    one_by_one = [searcher.search(["rain on the hills"], replace(request, k=1, offset=n))[0][0] for n in (10, 60, 159)]
    assert one_by_one == [hits[0], hits[50], hits[149]]


@pytest.mark.parametrize("regions", [False, True, 8])
def test_deepening_continues_when_a_doubled_limit_returns_only_regions_of_ranked_pages(index, regions):
    def unit(*values):
        vector = np.array(values, dtype=np.float32)
        return vector / np.linalg.norm(vector)

    page_ids = [schema.point_id("r", page) for page in range(1, 21)]
    points = []
    for number, page_id in enumerate(page_ids):
        vector = unit(1, 0.3 + 0.1 * number, 0, 0)
        payload = {schema.KIND: "page", schema.PAGE_ID: page_id, schema.REVISION: "r", schema.PAGE: number + 1}
        points.append(Point(page_id, dense=vector, multi=vector[None], payload=payload))
    for number in range(12):  # more regions than the first two limits, all nearer to the query than the second page
        vector = unit(1, 0.01 * number, 0, 0)
        payload = {schema.KIND: "chart", schema.PAGE_ID: page_ids[0], schema.PAGE: 1}
        points.append(Point(schema.point_id("r", 1, f"chart{number}"), vector, vector[None], payload=payload))
    store = MemoryStore(dim=4, multi_dim=4)
    store.upsert(points)
    embedder = FakeEmbedder(dim=4, multi_dim=4)
    stages = default_stages(embedder, False).override(
        [Prefetch(limit=4, lexical=False, regions=regions, exhaustive=0), Rescore(identifiers=0)]
    )
    ranker = PageRanker(replace(index._session.resources, store=store), embedder)
    ranking = ranker.rank(Query("", "", unit(1, 0, 0, 0), unit(1, 0, 0, 0)[None]), {}, 10, stages)
    assert [candidate.page_id for candidate in ranking[:10]] == page_ids[:10]


def test_scores_of_candidates_come_with_the_candidates(index, counted):
    searcher, store = counted
    [hits] = searcher.search(["rain on the hills"], request_of(index, Rescore(dense=0.3)))
    candidate_queries = [query for query in store.queries_of("dense") if query.ids is None]
    [missing] = [query for query in store.queries_of("dense") if query.ids is not None]
    found_ids = {hit.id for query in candidate_queries[:1] for hit in store.store.query_batch([query])[0]}
    assert found_ids.isdisjoint(missing.ids)
    assert all({"dense", "lexical", "maxsim", "rescore"} <= set(hit.scores) for hit in hits[:1])


def test_search_with_the_manifest_elsewhere_counts_a_large_index_once(index, counted, tmp_path):
    _, store = counted
    manifest = Manifest(tmp_path / "empty.sqlite3")
    searcher = searcher_of(index, replace(index._session.resources, store=store, manifest=manifest))
    first, second = (searcher.search([CODE_QUERY], request_of(index))[0] for _ in range(2))
    assert store.calls == ["count", "count", *["query_batch", "query_batch", "fetch"] * 2]
    assert [hit.page_id for hit in first] == [hit.page_id for hit in second]
    [expected] = searcher_of(index, replace(index._session.resources, store=store)).search(
        [CODE_QUERY], request_of(index)
    )
    assert [(hit.page_id, hit.score) for hit in first] == [(hit.page_id, hit.score) for hit in expected]
    manifest.close()


def test_near_duplicates_are_found_without_a_store_call(tmp_path):
    text = "the quarterly report of the harbour lists twelve ships and their cargo of grain and timber"
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        folder = tmp_path / "docs"
        folder.mkdir()
        for name in ("a", "b"):
            sample_pdf(folder / f"{name}.pdf", [text, f"cover {name}"])
        index.ingest(folder, settings=IngestSettings(ocr="never"))
        store = CountingStore(index._session.resources.store)
        resources = replace(index._session.resources, store=store)
        [hits] = searcher_of(index, resources).search(["harbour report"], request_of(index))
        assert [hit.near_duplicate_of for hit in hits[:2] if hit.doc_id == "b.pdf"] == [("a.pdf", 1)]
        assert store.calls == ["query_batch", "fetch"]
        store.calls.clear()
        manifest = Manifest(tmp_path / "empty.sqlite3")
        searcher = searcher_of(index, replace(resources, manifest=manifest))
        [elsewhere] = searcher.search(["harbour report"], request_of(index))
        assert {hit.page_id: hit.near_duplicate_of for hit in elsewhere} == {
            hit.page_id: hit.near_duplicate_of for hit in hits
        }
        manifest.close()


def test_run_together_answers_each_search_and_shares_the_calls():
    points = [Point(schema.point_id("0" * 64, n), np.full(2, n + 1, "f4"), payload={"n": n}) for n in range(40)]
    with MemoryStore(dim=2, multi_dim=2) as inner:
        inner.upsert(points)
        store = CountingStore(inner)

        def search(rounds, vectors):
            values = []
            for n in range(rounds):
                query = StoreQuery(np.ones(2, "f4"), n + 1, keys=("n",))
                answer = yield StoreRequest([query], [points[n].id], vectors)
                assert answer.seconds >= 0
                assert (answer.points[points[n].id].dense is not None) == vectors
                values.append([hit.payload["n"] for hit in answer.hits[0]])
            return values

        results = run_together([search(1, False), search(3, False), search(0, False), search(2, True)], store)
        assert results == [[[39]], [[39], [39, 38], [39, 38, 37]], [], [[39], [39, 38]]]
        assert store.calls.count("query_batch") == 3
        assert store.calls.count("fetch") == 3 + 2, "points with and without vectors are fetched separately"
        store.calls.clear()

        def fetch_all():
            answer = yield StoreRequest(page_ids=[point.id for point in points], vectors=True)
            return len(answer.points)

        assert run_together([fetch_all()], store) == [40]
        assert store.calls == ["fetch"] * -(-40 // VECTOR_BATCH)
        assert run_together([], store) == []


def test_stage_times_do_not_include_the_other_searches(index, counted, monkeypatch):
    searcher, _ = counted

    class SlowReranker(FakeReranker):
        def score(self, query, documents):
            time.sleep(0.05 if "slow" in query else 0)
            return super().score(query, documents)

    request = request_of(index, Rerank(model=SlowReranker(), limit=3), reranker=SlowReranker)
    slow, fast = searcher.search(["slow rain", "rain"], request)
    assert slow.milliseconds["rerank"] > fast.milliseconds["rerank"]
    assert set(slow.milliseconds) == {"encode", "candidates", "rerank", "show"}


def test_storage_without_sign_codes_fetches_vectors_once(index, counted):
    _, store = counted
    resources = replace(index._session.resources, store=store)
    searcher = searcher_of(index, resources, Storage(sign_codes=False))
    [hits] = searcher.search(["rain on the hills"], request_of(index))
    assert hits[0].snippet
    assert store.calls == ["query_batch", "query_batch", "fetch"]


def test_store_hits_have_no_payload_unless_keys_are_requested(index, counted):
    _, store = counted
    [hits] = store.query_batch([StoreQuery(np.ones(index.dim, "f4"), 3)])
    assert all(isinstance(hit, StoreHit) and hit.payload == {} for hit in hits)
