"""Reranking in search: inputs of the reranker, order of the hits, budgets, and failures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jina_rag import DocumentIndex, Rerank, Rescore
from jina_rag.config import IngestSettings
from jina_rag.errors import InvalidInputError, ModelError
from jina_rag.images import open_image
from jina_rag.search.calibration import fit_calibration
from jina_rag.search.reranking import rerank
from jina_rag.testing import FakeEmbedder, FakeReranker, sample_pdf

NO_OCR = IngestSettings(ocr="never")
WEATHER = "rain snow hail wind storm fog frost sun cloud thunder".split()


class WordOrDarknessReranker:
    """Scores a text by its weather word and an image by its darkness; records calls and advances a clock."""

    def __init__(self, modality="text", clock=None, seconds=0.0):
        self.name, self.modality = "preferring", modality
        self.calls, self.clock, self.seconds = [], clock, seconds

    def score(self, query, documents):
        self.calls.append(list(documents))
        if self.clock is not None:
            self.clock.now += self.seconds * len(documents)
        scores = []
        for document in documents:
            if isinstance(document, dict):
                words = document["text"].split()
                scores.append(WEATHER.index(next(w for w in words if w in WEATHER)) / 10)
            else:
                image = open_image(document).load().convert("L")
                scores.append(1 - float(np.asarray(image).mean()) / 255)
        return np.array(scores, np.float32)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    sample_pdf(folder / "weather.pdf", [f"{word} weather report of the north" for word in WEATHER])
    with DocumentIndex.open(tmp_path_factory.mktemp("kb") / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(folder, settings=NO_OCR)
        yield index


def page_numbers(hits):
    return [hit.page for hit in hits]


def test_reranked_pages_come_first_and_the_rest_keep_their_order(index):
    hits_before = index.search("weather report", k=10)
    reranker = WordOrDarknessReranker()
    hits = index.search("weather report", k=10, stages=[Rerank(model=reranker, limit=4)])
    scored_pages, unscored_pages = page_numbers(hits_before)[:4], page_numbers(hits_before)[4:]
    assert page_numbers(hits) == sorted(scored_pages, reverse=True) + unscored_pages
    assert [hit.stage for hit in hits] == ["rerank"] * 4 + ["rescore"] * 6
    for hit in hits[:4]:
        assert hit.score == hit.scores["rerank"] == pytest.approx((hit.page - 1) / 10)
        assert "maxsim" in hit.scores
    assert "rerank" not in hits[4].scores
    assert reranker.calls == [[{"text": f"{WEATHER[page - 1]} weather report of the north"} for page in scored_pages]]
    assert hits.complete
    assert "rerank" in hits.milliseconds


def test_offset_pages_through_one_reranked_list(index):
    stages = [Rerank(model=WordOrDarknessReranker(), limit=6)]
    all_pages = page_numbers(index.search("weather report", k=10, stages=stages))
    result_pages = [index.search("weather report", k=3, offset=offset, stages=stages) for offset in (0, 3, 6, 9)]
    assert [page for hits in result_pages for page in page_numbers(hits)] == all_pages


def test_default_reranker_belongs_to_one_instance_and_can_be_disabled(index, tmp_path):
    reranker = FakeReranker()
    with DocumentIndex.open(index.location, embedder=index.embedder, reranker=reranker) as reranking_index:
        assert reranking_index.reranker is reranker
        hits = reranking_index.search("storm weather", k=2)
        assert (hits[0].page, hits[0].stage) == (5, "rerank")
        assert len(reranker.history[-1][1]) == 10, "all pages, at most 20"
        hits_without_reranking = reranking_index.search("storm weather", k=2, stages=[Rerank(limit=0)])
        assert hits_without_reranking[0].stage == "rescore"
        assert index.reranker is None, "each instance has its own reranker"
    with pytest.raises(InvalidInputError, match="no reranker"):
        index.search("storm", stages=[Rerank()])


def test_image_reranker_receives_image_files(index):
    reranker = WordOrDarknessReranker("image")
    hits = index.search("weather report", k=3, stages=[Rerank(model=reranker, limit=3)])
    assert {document.suffix for document in reranker.calls[0]} == {".jpg"}
    assert {hit.image_path for hit in hits} == set(reranker.calls[0])


def test_page_score_is_the_score_of_its_best_view(index):
    reranker = WordOrDarknessReranker("image")
    hits = index.search("weather report", k=10, stages=[Rerank(model=reranker, limit=10, shows=("page", "text"))])
    [documents] = reranker.calls
    assert [isinstance(document, dict) for document in documents] == [False, True] * 10
    for hit in hits:
        image, text = hit.scores.get("rerank:page"), hit.scores.get("rerank:text")
        assert hit.score == (image or text)
    assert page_numbers(hits)[0] == 10


def test_max_images_limits_calls_and_adds_a_note(index):
    reranker = WordOrDarknessReranker("image")
    hits = index.search("weather report", k=10, stages=[Rerank(model=reranker, limit=8, max_images=3)])
    assert len(reranker.calls[0]) == 3
    assert [hit.stage for hit in hits].count("rerank") == 3
    assert len(hits) == 10
    assert not hits.complete
    assert "5 images were not scored (max_images=3)" in hits.notes[0]
    unscored_hits = index.search("weather report", k=10, stages=[Rerank(model=reranker, max_images=0)])
    assert len(unscored_hits) == 10
    assert len(reranker.calls) == 1, "a reranker without input is not called"


@pytest.mark.parametrize(("max_ms", "scored_count"), [(0, 0), (150, 2), (350, 3), (650, 6), (750, 7), (10_000, 10)])
def test_max_ms_stops_reranking_and_keeps_all_candidates(index, max_ms, scored_count):
    clock = Clock()
    reranker = WordOrDarknessReranker(clock=clock, seconds=0.1)
    [query] = index._searcher.embed(["weather report"])
    candidates = index._searcher._ranker.rank(query, {}, 10, default_stages())
    points = {point.id: point for point in index._session.resources.store.fetch([c.page_id for c in candidates])}
    result = rerank(
        query,
        candidates,
        points,
        index._session.resources.images,
        reranker,
        Rerank(limit=10, max_ms=max_ms),
        clock=clock,
    )
    assert result.count == scored_count
    assert clock.now <= max(max_ms / 1000, 0.2) + 1e-9, "no call starts that would exceed the budget"
    assert {c.page_id for c in result.candidates} == {c.page_id for c in candidates}, "no candidate is lost"
    scores = [c.scores["rerank"] for c in result.candidates[:scored_count]]
    assert scores == sorted(scores, reverse=True)
    assert [c.page_id for c in result.candidates[scored_count:]] == [c.page_id for c in candidates[scored_count:]]
    if scored_count < 10:
        assert f"{10 - scored_count} pages were not fully scored (max_ms={max_ms})" in result.notes[0]
    else:
        assert result.notes == ()


def test_search_with_exhausted_time_budget_is_incomplete(index):
    hits = index.search("weather report", k=10, stages=[Rerank(model=WordOrDarknessReranker(), max_ms=0)])
    assert not hits.complete
    assert len(hits) == 10
    assert [hit.stage for hit in hits] == ["rescore"] * 10
    assert hits[0].snippet
    assert hits[0].image_path.is_file()


def test_calibration_applies_to_the_modality_of_each_view(index):
    labels = [("text", x / 40, x > 30) for x in range(40)] + [("image", x / 40, x > 2) for x in range(40)]
    calibration = fit_calibration(labels)
    reranker = WordOrDarknessReranker("image")
    stage = Rerank(model=reranker, limit=10, shows=("page", "text"), calibration=calibration)
    for hit in index.search("weather report", k=10, stages=[stage]):
        raw = np.array([(hit.page - 1) / 10], np.float32)
        as_text = float(calibration.apply(raw, ["text"])[0])
        assert hit.score >= as_text - 1e-6
        if "rerank:text" in hit.scores:
            assert hit.score == pytest.approx(as_text, abs=1e-6)


def test_pages_without_the_requested_view_keep_their_order(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    Image.new("RGB", (80, 80), "red").save(folder / "rain.png")
    sample_pdf(folder / "rain2.pdf", ["rain again"])
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(folder, settings=NO_OCR)
        hits = index.search("rain", k=5, stages=[Rerank(model=WordOrDarknessReranker())])
        assert [hit.doc_id for hit in hits] == ["rain2.pdf", "rain.png"]
        assert "1 page was not scored: no text view" in hits.notes[0]


def test_min_score_applies_to_reranker_scores(index):
    hits = index.search(
        "weather report", k=10, min_score=0.45, stages=[Rerank(model=WordOrDarknessReranker(), limit=8)]
    )
    assert [hit.stage for hit in hits] == ["rerank"] * len(hits)
    assert all(hit.score >= 0.45 for hit in hits)
    assert hits


def test_explain_names_the_view_that_the_reranker_scored(index):
    stages = [Rescore(), Rerank(model=WordOrDarknessReranker(), limit=3)]
    hits = index.search("weather report", k=5, stages=stages, explain=True)
    last = hits[0].steps[-1]
    assert (last.stage, last.rank) == ("rerank", 1)
    assert "text" in last.note
    assert hits[4].steps[-1].stage == "rescore"


class FixedReranker:
    name, modality = "faulty", "text"

    def __init__(self, answer):
        self.answer = answer

    def score(self, query, documents):
        return self.answer(len(documents))


@pytest.mark.parametrize(
    "answer",
    [
        lambda n: np.zeros(n - 1, np.float32),
        lambda n: np.zeros(n + 1, np.float32),
        lambda n: np.zeros((n, 1), np.float32),
        lambda n: np.full(n, np.nan, np.float32),
        lambda n: np.array([0.5] * (n - 1) + [np.inf], np.float32),
    ],
)
def test_wrong_number_of_scores_or_non_finite_scores_raise(index, answer):
    with pytest.raises(ModelError, match="'faulty' returned scores"):
        index.search("weather report", k=3, stages=Rerank(model=FixedReranker(answer)))


def test_reranker_may_return_a_list(index):
    hits = index.search(
        "weather report", k=3, stages=Rerank(model=FixedReranker(lambda n: [0.1 * i for i in range(n)]))
    )
    assert hits[0].score == pytest.approx(0.9)


def test_text_that_looks_like_a_data_uri_is_scored_as_text(tmp_path):
    sample_pdf(tmp_path / "a.pdf", ["data:image/png;base64,AAAA"])
    sample_pdf(tmp_path / "b.pdf", ["the data of an image"])
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder(), reranker="lite") as index:
        index.ingest([tmp_path / "a.pdf", tmp_path / "b.pdf"], settings=NO_OCR)
        assert {hit.stage for hit in index.search("data image", k=2)} == {"rerank"}


@pytest.mark.parametrize("damage", [lambda data: b"junk", lambda data: data[: len(data) // 2]])
def test_damaged_image_skips_only_its_page(tmp_path, damage):
    sample_pdf(tmp_path / "a.pdf", ["rain in the north", "rain in the south"])
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(tmp_path / "a.pdf", settings=NO_OCR)
        first = index.search("rain north", k=1)[0]
        first.image_path.write_bytes(damage(first.image_path.read_bytes()))
        hits = index.search("rain north", k=2, stages=Rerank(model=WordOrDarknessReranker("image")))
        assert [(hit.page, hit.stage) for hit in hits] == [(2, "rerank"), (1, "rescore")]
        assert "1 page was not scored: damaged image" in hits.notes[0]


def test_all_images_damaged_scores_nothing(tmp_path):
    sample_pdf(tmp_path / "a.pdf", ["rain in the north"])
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(tmp_path / "a.pdf", settings=NO_OCR)
        index.search("rain", k=1)[0].image_path.write_bytes(b"junk")
        hits = index.search("rain", k=1, stages=Rerank(model=WordOrDarknessReranker("image")))
        assert [hit.stage for hit in hits] == ["rescore"]


def test_query_rejected_by_the_reranker_raises(index):
    class RejectingReranker(WordOrDarknessReranker):
        def score(self, query, documents):
            raise InvalidInputError("No queries today.")

    with pytest.raises(InvalidInputError, match="today"):
        index.search("rain", stages=Rerank(model=RejectingReranker("image")))


def test_rerank_model_accepts_a_folder_and_rejects_other_types(index, tiny):
    hits = index.search("weather report", k=2, stages=Rerank(model=Path(tiny["m0"]), limit=2))
    assert hits[0].stage == "rerank"
    for wrong in (5, ["lite"]):
        with pytest.raises(InvalidInputError, match=r"Rerank\.model"):
            Rerank(model=wrong)


def default_stages():
    from jina_rag.search.stages import Stages

    return Stages()
