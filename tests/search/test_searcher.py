"""Search stages: scores, paging, grouping, filters, identifiers, invalid arguments and coroutines."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jina_rag import DocumentIndex, Prefetch, Range, Rerank, Rescore, SearchResults
from jina_rag.config import IngestSettings
from jina_rag.errors import InvalidInputError
from jina_rag.search.exact_match import identifiers
from jina_rag.search.late_interaction import Ranking
from jina_rag.search.stages import Stages, parse_stage
from jina_rag.testing import FakeEmbedder, FakeReranker, sample_pdf

NO_OCR = IngestSettings(ocr="never")
TEXTS = [
    "rain falls on the green hills of the north",
    "rain and snow in the mountains",
    "the river carries rain to the sea",
    "no drop fell in the desert this year",
    "rain rain rain over the harbour town",
    "cats sleep while the storm passes",
    "sun over the bay",
]


@pytest.fixture(scope="module")
def docs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    sample_pdf(folder / "weather.pdf", TEXTS)
    sample_pdf(folder / "parts.pdf", [f"pump number KX-44{n}1-B needs oil and rain cover" for n in range(8)])
    sample_pdf(folder / "law.pdf", ["§ 12 rain on neighbouring land", "§ 12a snow on neighbouring land"])
    return folder


@pytest.fixture(scope="module")
def index(docs, tmp_path_factory):
    with DocumentIndex.open(tmp_path_factory.mktemp("kb") / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(docs, settings=NO_OCR, metadata=lambda path: {"year": 2000 + len(path.stem)})
        yield index


def page_keys(hits):
    return [(hit.doc_id, hit.page) for hit in hits]


def test_results_are_a_list_with_search_attributes(index):
    hits = index.search("rain on the hills", k=3)
    assert isinstance(hits, list)
    assert isinstance(hits, SearchResults)
    assert len(hits) == 3
    assert hits.complete
    assert hits.more
    assert hits.notes == ()
    assert hits.query == "rain on the hills"
    assert {"encode", "candidates", "show"} <= set(hits.milliseconds)
    assert not index.search("rain", k=500).more


def test_hits_have_scores_by_stage(index):
    first = index.search("rain on the hills", k=1)[0]
    assert first.stage == "rescore"
    assert first.score == first.scores["rescore"]
    assert {"dense", "lexical", "maxsim", "rescore"} <= set(first.scores)
    assert first.steps == (), "explain is off"
    [query] = index._searcher.embed(["rain on the hills"])
    point = index._session.resources.store.fetch([first.page_id])[0]
    assert first.scores["dense"] == pytest.approx(float(query.dense @ point.dense), abs=1e-3)
    best = (point.multi @ query.multi.T).max(axis=0).mean()
    assert first.scores["maxsim"] == pytest.approx(float(best), abs=1e-3)


def test_explain_adds_rank_and_score_of_each_stage(index):
    hits = index.search("rain on the hills", k=4, explain=True)
    assert [step.stage for step in hits[0].steps if step.rank is not None] == ["maxsim", "rescore"]
    assert "every page is scored" in hits[0].steps[0].note
    staged_hits = index.search("rain on the hills", k=4, explain=True, stages=[Prefetch(exhaustive=0)])
    assert page_keys(staged_hits) == page_keys(hits)
    steps = {step.stage: step for step in staged_hits[0].steps}
    assert steps["dense"].rank == 1
    assert steps["lexical"].rank == 1
    assert [hit.steps[-1].rank for hit in staged_hits] == [1, 2, 3, 4]
    rain_hits = {
        (hit.doc_id, hit.page): hit
        for hit in index.search("rain", k=99, explain=True, stages=[Prefetch(3, exhaustive=0)])
    }
    desert = rain_hits.get(("weather.pdf", 4))
    assert desert is None or desert.steps[0].rank is None


def test_longer_result_list_starts_with_the_shorter_one(index):
    narrow = Prefetch(limit=3, lexical=2, regions=0, exhaustive=0)
    for stages in (
        None,
        Prefetch(exhaustive=0),
        Rescore(limit=3),
        [Prefetch(exhaustive=0), Rescore(limit=2)],
        narrow,
        [narrow, Rescore(limit=2, dense=0.5)],
    ):
        all_pages = page_keys(index.search("rain in the north", k=17, stages=stages))
        assert len(set(all_pages)) == 17
        for k in (1, 2, 5, 11):
            assert page_keys(index.search("rain in the north", k=k, stages=stages)) == all_pages[:k]
        result_pages = [
            page_keys(index.search("rain in the north", k=4, offset=offset, stages=stages))
            for offset in range(0, 20, 4)
        ]
        assert [key for result_page in result_pages for key in result_page] == all_pages
        hits = index.search("rain in the north", k=17, stages=stages, explain=True)
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)
        assert [hit.steps[-1].rank for hit in hits] == list(range(1, 18))
        grouped_hits = index.search("rain in the north", k=9, stages=stages, group_by="document")
        one_by_one = [
            index.search("rain in the north", k=1, offset=n, stages=stages, group_by="document") for n in range(3)
        ]
        assert [page_keys(hits) for hits in one_by_one] == [[key] for key in page_keys(grouped_hits)]


def test_offset_past_the_end_returns_no_hits(index):
    hits = index.search("rain", k=5, offset=17)
    assert hits == []
    assert not hits.more


def test_group_by_document_returns_the_best_page_of_each_document(index):
    hits = index.search("rain", k=5, group_by="document")
    assert len({hit.doc_id for hit in hits}) == len(hits) == 3
    assert not hits.more
    weather = next(hit for hit in hits if hit.doc_id == "weather.pdf")
    pages = [page for doc, page in page_keys(index.search("rain", k=99)) if doc == "weather.pdf"]
    assert (weather.page, *weather.other_pages) == tuple(pages)
    assert len(index.search("rain", k=1, group_by="document")) == 1
    assert index.search("rain", k=1, group_by="document").more


def test_min_score_drops_lower_hits(index):
    all_hits = index.search("rain on the hills", k=99)
    limit = all_hits[3].score
    filtered_hits = index.search("rain on the hills", k=99, min_score=limit)
    assert page_keys(filtered_hits) == page_keys([hit for hit in all_hits if hit.score >= limit])
    assert index.search("rain", min_score=99.0) == []


def test_min_score_ends_the_search_early(index, monkeypatch):
    rank_limits = []
    extend = Ranking.extend
    monkeypatch.setattr(Ranking, "extend", lambda self, need: rank_limits.append(need) or extend(self, need))
    narrow = Prefetch(limit=3, lexical=2, regions=0, exhaustive=0)
    assert index.search("rain", k=5, min_score=99.0, stages=narrow) == []
    reranked_hits = index.search("rain", k=9, min_score=0.1, stages=[narrow, Rerank(model=FakeReranker(), limit=3)])
    assert len(reranked_hits) == 3
    assert max(rank_limits) == 10, "no search ranks more pages than the first time"


def test_filters_apply_before_ranking(index):
    assert {hit.doc_id for hit in index.search("rain", k=99, filter={"path": "l*.pdf"})} == {"law.pdf"}
    assert {hit.doc_id for hit in index.search("rain", k=99, filter={"year": Range(gte=2004)})} == {
        "weather.pdf",
        "parts.pdf",
    }
    assert {hit.page for hit in index.search("rain", k=99, filter={"page": Range(gt=2, lte=4)})} == {3, 4}
    assert index.search("rain", filter={"year": Range(gt=2100)}) == []
    assert index.search("rain", filter={"path": "nothing*"}) == []
    assert index.search("rain", filter={"page": [], "year": []}) == []
    assert {hit.page for hit in index.search("rain", k=99, filter={"page": {1, 2}, "doc_id": Path("law.pdf")})} == {
        1,
        2,
    }


@pytest.mark.parametrize(
    "invalid",
    [
        {"has": "picture"},
        {"has": 3},
        {"has": [["chart"]]},
        {"has": Range(gte=1)},
        {"path": Range(gte=1)},
        {"path": 3},
        {"path": "*", "doc_id": None},
        {"path": "*", "doc_id": [["a"]]},
        {"doc_id": Range(gte=1)},
        {"doc_id": b"x"},
        {"page": "1"},
        {"page": True},
        {"path": "nothing", "year": Range()},
        {"year": {"gte": 1}},
        {"year": float("nan")},
        {None: 1},
        {"": 1},
        {5: 1},
        "year",
        [("year", 1)],
    ],
)
def test_invalid_filters_raise(index, invalid):
    with pytest.raises(InvalidInputError):
        index.search("rain", filter=invalid)


def test_metadata_keys_may_collide_with_hit_keys(tmp_path, docs):
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(docs, settings=NO_OCR, metadata=lambda path: {"page": 99 if path.stem == "law" else 1, "has": "x"})
        assert {hit.doc_id for hit in index.search("rain", k=99, filter={"meta.page": 99})} == {"law.pdf"}
        assert len(index.search("rain", k=99, filter={"meta.has": "x"})) == 17
        assert {hit.page for hit in index.search("rain", k=99, filter={"page": 1, "meta.page": 1})} == {1}


def test_identifiers_in_the_query_match_exactly(index):
    """The pages differ only in the part number, so that the page vectors of the fake embedder are nearly equal."""
    for number in range(8):
        hits = index.search(f"pump number KX-44{number}1-B", k=2)
        assert hits[0].page == number + 1
        assert hits[0].scores["identifiers"] == pytest.approx(1.0)
    assert index.search("pump kx4431b", k=1)[0].page == 4, "spelled without hyphens"
    assert page_keys(index.search("§ 12a", k=1)) == [("law.pdf", 2)]
    assert page_keys(index.search("§12", k=1)) == [("law.pdf", 1)]
    hits_without_identifiers = index.search("pump KX-4431-B", k=1, stages=[Rescore(identifiers=0)])
    assert "identifiers" not in hits_without_identifiers[0].scores


def test_page_found_only_by_identifier_is_ranked(index):
    narrow = [Prefetch(limit=1, lexical=False, regions=False, exhaustive=0), Rescore(limit=1)]
    hits = index.search("oil cover of KX-4471-B", k=1, stages=narrow)
    assert hits[0].page == 8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What torque does KX-4471-B need?", ["kx-4471-b"]),
        ("error 0x80070057 or ERR_CONN_RESET", ["0x80070057", "err_conn_reset"]),
        ("the 3rd of May 2019, 25 people", []),
        ("article 4.3.2 and § 12 Abs. 3", ["4.3.2", "§12"]),
        ("Part 471199", ["471199"]),
        ("e-mail to well-known people", []),
        ("東京都", []),
        ("", []),
    ],
)
def test_identifiers_returns_the_identifiers_of_a_text(text, expected):
    assert identifiers(text) == expected


@given(st.text(max_size=80))
def test_identifiers_returns_at_most_eight(text):
    assert len(identifiers(text)) <= 8


def test_rescore_adds_scaled_dense_scores(index):
    base = {hit.page_id: hit for hit in index.search("rain on the hills", k=99)}
    mixed_hits = index.search("rain on the hills", k=99, stages=[Rescore(dense=0.5)])
    assert set(base) == {hit.page_id for hit in mixed_hits}
    late = np.array([base[hit.page_id].score for hit in mixed_hits])
    dense = np.array([hit.scores["dense"] for hit in mixed_hits])
    expected = late + 0.5 * (dense - dense.mean()) / dense.std() * late.std()
    np.testing.assert_allclose([hit.score for hit in mixed_hits], expected, atol=1e-4)
    assert [hit.score for hit in mixed_hits] == sorted((hit.score for hit in mixed_hits), reverse=True)


def test_hubness_comes_from_the_stage_or_the_embedder(tmp_path, docs):
    class HubnessEmbedder(FakeEmbedder):
        hubness = 0.5

    with DocumentIndex.open(tmp_path / "kb", embedder=HubnessEmbedder(name="hubby")) as index:
        index.ingest(docs, settings=NO_OCR)
        for stages, share in ((None, 0.5), ([Rescore(hubness=0)], 0.0), ([Rescore(hubness=0.2)], 0.2)):
            for hit in index.search("rain", k=9, stages=stages):
                expected = hit.scores["maxsim"] - share * hit.scores["background"]
                assert hit.score == pytest.approx(expected, abs=1e-6)


def test_search_many_embeds_queries_in_one_batch(index):
    queries = ["rain", "cats sleep", "oil for the pump"]
    embedder = index.embedder
    embedder.history.clear()
    together = index.search_many(queries, k=4)
    assert embedder.history == [("query", tuple(queries))]
    assert [page_keys(hits) for hits in together] == [page_keys(index.search(q, k=4)) for q in queries]
    assert index.search_many([], k=4) == []


def test_query_of_several_parts_equals_the_joined_text(index):
    assert page_keys(index.search(["rain on", {"text": "the hills"}], k=2)) == page_keys(
        index.search("rain on\nthe hills", k=2)
    )


@pytest.mark.parametrize("query", ["", "  \n\t", {"text": ""}, ["", " "], []])
def test_empty_query_raises(index, query):
    with pytest.raises(InvalidInputError, match=r"empty|words|part"):
        index.search(query)


def test_search_many_names_the_empty_query(index):
    with pytest.raises(InvalidInputError, match="Query 2 of 3"):
        index.search_many(["rain", " ", "snow"])


@pytest.mark.parametrize(
    "options",
    [
        {"k": 0},
        {"k": "5"},
        {"k": 5.5},
        {"k": None},
        {"k": True},
        {"offset": -1},
        {"offset": 1.5},
        {"min_score": "a"},
        {"min_score": 10**400},
        {"group_by": "chapter"},
        {"min_score": float("nan")},
        {"stages": ["prefetch"]},
        {"stages": [Rescore(), Rescore()]},
        {"stages": [Rerank()]},
    ],
)
def test_invalid_search_options_raise(index, options):
    with pytest.raises(InvalidInputError):
        index.search("rain", **options)


@pytest.mark.parametrize(
    "make_stage",
    [
        lambda: Prefetch(limit=-1),
        lambda: Prefetch(lexical=-1),
        lambda: Prefetch(limit=1.5),
        lambda: Rescore(limit=0),
        lambda: Rescore(dense=-1),
        lambda: Rescore(dense=float("inf")),
        lambda: Rescore(hubness=True),
        lambda: Rerank(limit=-1),
        lambda: Rerank(max_ms=-1),
        lambda: Rerank(max_images=1.5),
        lambda: Rerank(shows=()),
        lambda: Rerank(shows=("chapter",)),
        lambda: parse_stage("search"),
        lambda: parse_stage("rescore:weight=3"),
        lambda: parse_stage("rescore:window=1"),
        lambda: parse_stage("rescore:dense"),
        lambda: parse_stage("rescore:dense=much"),
    ],
)
def test_invalid_stages_raise(make_stage):
    with pytest.raises(InvalidInputError):
        make_stage()


def test_parse_stage_reads_options_and_override_replaces_stages():
    assert parse_stage("prefetch:limit=300,lexical=false") == Prefetch(limit=300, lexical=False)
    assert parse_stage("Rescore: dense=0.3, limit=48") == Rescore(dense=0.3, limit=48)
    assert parse_stage("rerank:max_ms=500,shows=page+region,model=x/y") == Rerank(
        max_ms=500, shows=("page", "region"), model="x/y"
    )
    assert parse_stage("rescore:hubness=none") == parse_stage("rescore") == Rescore()
    stages = Stages().override([Rescore(dense=1)])
    assert (stages.prefetch, stages.rescore.dense, stages.rerank) == (Prefetch(), 1, None)


class ThreadRecordingEmbedder(FakeEmbedder):
    """Embedder that records the threads in which encoding runs."""

    def __init__(self):
        super().__init__(name="watched")
        self.threads = set()

    def _encode(self, *args):
        self.threads.add(threading.get_ident())
        return super()._encode(*args)


class ThreadRecordingReranker(FakeReranker):
    def __init__(self):
        super().__init__()
        self.threads = set()

    def score(self, query, documents):
        self.threads.add(threading.get_ident())
        return super().score(query, documents)


def test_concurrent_coroutines_match_sequential_calls(tmp_path, docs):
    embedder, reranker = ThreadRecordingEmbedder(), ThreadRecordingReranker()
    words = "rain snow oil pump cats hills harbour desert river storm".split()
    queries = [f"{words[i % 10]} and {words[i // 5]}" for i in range(50)]

    async def run(index):
        report = await index.aingest(docs, settings=NO_OCR)
        assert report.pages == 17
        concurrent_results = await asyncio.gather(*(index.asearch(query, k=4) for query in queries))
        batch_results = await index.asearch_many(queries, k=4)
        hit = await index.aexplain(queries[0], concurrent_results[0][0])
        citation = await index.acite(queries[0], concurrent_results[0][0])
        context = await index.abuild_context(queries[0], concurrent_results[0], max_images=1)
        return concurrent_results, batch_results, (hit, citation, context), threading.get_ident()

    with DocumentIndex.open(tmp_path / "kb", embedder=embedder, reranker=reranker) as index:
        concurrent_results, batch_results, (explanation, citation, context), loop = asyncio.run(run(index))
        assert embedder.threads
        assert reranker.threads
        assert loop not in embedder.threads
        assert loop not in reranker.threads
        expected = [index.search(query, k=4) for query in queries]
        assert [list(hits) for hits in concurrent_results] == [list(hits) for hits in expected]
        assert [list(hits) for hits in batch_results] == [list(hits) for hits in expected]
        assert explanation.brightest == index.explain(queries[0], expected[0][0]).brightest
        assert citation == index.cite(queries[0], expected[0][0])
        assert context == index.build_context(queries[0], expected[0], max_images=1)


def test_cancelled_aingest_leaves_a_resumable_index(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(30):
        sample_pdf(folder / f"{n:02}.pdf", [f"rain number{n}"])

    async def run(index):
        started = threading.Event()
        loop = asyncio.get_running_loop()
        first_page_stored = asyncio.Event()

        def progress(state):
            if state.pages and not started.is_set():
                started.set()
                loop.call_soon_threadsafe(first_page_stored.set)

        task = asyncio.create_task(index.aingest(folder, settings=NO_OCR, progress=progress))
        await first_page_stored.wait()
        task.cancel()
        loop.call_later(0.01, task.cancel)  # a second cancellation, as from a closing task group
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not index._session.write_lock.locked(), "the run must have ended"

    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        asyncio.run(run(index))
        finished_documents = index.info().documents
        assert 0 < finished_documents < 30, "the run stopped early and kept finished documents"
        assert index.search("rain")
        assert index.ingest(folder, settings=NO_OCR).documents == 30 - finished_documents
        assert index.verify() == []
