"""The last stage: what a reranker is shown, in which order, at what cost, and what becomes of the rest."""

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
WORDS = "rain snow hail wind storm fog frost sun cloud thunder".split()


class Preferring:
    """Scores by a word of the text, or by how dark a picture is; counts and can take its time."""

    def __init__(self, modality="text", clock=None, seconds=0.0):
        self.name, self.modality = "preferring", modality
        self.calls, self.clock, self.seconds = [], clock, seconds

    def score(self, query, documents):
        self.calls.append(list(documents))
        if self.clock is not None:
            self.clock.now += self.seconds * len(documents)
        found = []
        for document in documents:
            if isinstance(document, dict):
                words = document["text"].split()
                found.append(WORDS.index(next(w for w in words if w in WORDS)) / 10)
            else:
                image = open_image(document).load().convert("L")
                found.append(1 - float(np.asarray(image).mean()) / 255)
        return np.array(found, np.float32)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture(scope="module")
def kb(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    sample_pdf(folder / "weather.pdf", [f"{word} weather report of the north" for word in WORDS])
    with DocumentIndex.open(tmp_path_factory.mktemp("kb") / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(folder, settings=NO_OCR)
        yield index


def pages(hits):
    return [hit.page for hit in hits]


def test_the_best_pages_are_judged_and_the_others_follow_as_they_were(kb):
    before = kb.search("weather report", k=10)
    reranker = Preferring()
    hits = kb.search("weather report", k=10, stages=[Rerank(model=reranker, limit=4)])
    judged, rest = pages(before)[:4], pages(before)[4:]
    assert pages(hits) == sorted(judged, reverse=True) + rest
    assert [hit.stage for hit in hits] == ["rerank"] * 4 + ["rescore"] * 6
    for hit in hits[:4]:
        assert hit.score == hit.scores["rerank"] == pytest.approx((hit.page - 1) / 10)
        assert "maxsim" in hit.scores
    assert "rerank" not in hits[4].scores
    assert reranker.calls == [[{"text": f"{WORDS[page - 1]} weather report of the north"} for page in judged]]
    assert hits.complete
    assert "rerank" in hits.milliseconds


def test_pages_of_results_are_cut_from_one_ranking(kb):
    stages = [Rerank(model=Preferring(), limit=6)]
    whole = pages(kb.search("weather report", k=10, stages=stages))
    parts = [kb.search("weather report", k=3, offset=at, stages=stages) for at in (0, 3, 6, 9)]
    assert [page for hits in parts for page in pages(hits)] == whole


def test_an_index_is_opened_with_a_reranker_or_a_search_names_one(kb, tmp_path):
    reranker = FakeReranker()
    with DocumentIndex.open(kb.location, embedder=kb.embedder, reranker=reranker) as index:
        assert index.reranker is reranker
        hits = index.search("storm weather", k=2)
        assert (hits[0].page, hits[0].stage) == (5, "rerank")
        assert len(reranker.history[-1][1]) == 10, "as many as there are, 20 at most"
        off = index.search("storm weather", k=2, stages=[Rerank(limit=0)])
        assert off[0].stage == "rescore"
        assert kb.reranker is None, "each handle has its own"
    with pytest.raises(InvalidInputError, match="no reranker"):
        kb.search("storm", stages=[Rerank()])


def test_a_reranker_that_looks_at_pixels_is_shown_pictures(kb):
    reranker = Preferring("image")
    hits = kb.search("weather report", k=3, stages=[Rerank(model=reranker, limit=3)])
    assert {document.suffix for document in reranker.calls[0]} == {".jpg"}
    assert {hit.image_path for hit in hits} == set(reranker.calls[0])


def test_a_page_counts_by_its_best_part(kb):
    reranker = Preferring("image")
    hits = kb.search("weather report", k=10, stages=[Rerank(model=reranker, limit=10, shows=("page", "text"))])
    [shown] = reranker.calls
    assert [isinstance(document, dict) for document in shown] == [False, True] * 10
    for hit in hits:
        image, text = hit.scores.get("rerank:page"), hit.scores.get("rerank:text")
        assert hit.score == (image or text)
    assert pages(hits)[0] == 10


def test_no_more_images_than_allowed_and_it_is_said(kb):
    reranker = Preferring("image")
    hits = kb.search("weather report", k=10, stages=[Rerank(model=reranker, limit=8, max_images=3)])
    assert len(reranker.calls[0]) == 3
    assert [hit.stage for hit in hits].count("rerank") == 3
    assert len(hits) == 10
    assert not hits.complete
    assert "5 images were not judged (max_images=3)" in hits.notes[0]
    none = kb.search("weather report", k=10, stages=[Rerank(model=reranker, max_images=0)])
    assert len(none) == 10
    assert len(reranker.calls) == 1, "a reranker with nothing to judge is not called"


@pytest.mark.parametrize(("max_ms", "judged"), [(0, 0), (150, 2), (350, 3), (650, 6), (750, 7), (10_000, 10)])
def test_time_that_runs_out_ends_the_stage_with_what_it_has(kb, max_ms, judged):
    clock = Clock()
    reranker = Preferring(clock=clock, seconds=0.1)
    [query] = kb._searcher.embed(["weather report"])
    candidates = kb._searcher._ranker.rank(query, {}, 10, _stages())
    points = {point.id: point for point in kb._session.resources.store.fetch([c.page_id for c in candidates])}
    found = rerank(
        query, candidates, points, kb._session.resources.images, reranker, Rerank(limit=10, max_ms=max_ms), clock=clock
    )
    assert found.count == judged
    assert clock.now <= max(max_ms / 1000, 0.2) + 1e-9, "nothing is begun that does not fit"
    assert {c.page_id for c in found.candidates} == {c.page_id for c in candidates}, "nobody is lost"
    scores = [c.scores["rerank"] for c in found.candidates[:judged]]
    assert scores == sorted(scores, reverse=True)
    assert [c.page_id for c in found.candidates[judged:]] == [c.page_id for c in candidates[judged:]]
    if judged < 10:
        assert f"{10 - judged} pages were not judged in full (max_ms={max_ms})" in found.notes[0]
    else:
        assert found.notes == ()


def test_a_search_says_that_time_ran_out(kb):
    hits = kb.search("weather report", k=10, stages=[Rerank(model=Preferring(), max_ms=0)])
    assert not hits.complete
    assert len(hits) == 10
    assert [hit.stage for hit in hits] == ["rescore"] * 10
    assert hits[0].snippet
    assert hits[0].image_path.is_file()


def test_scores_are_calibrated_by_what_was_shown(kb):
    labelled = [("text", x / 40, x > 30) for x in range(40)] + [("image", x / 40, x > 2) for x in range(40)]
    calibration = fit_calibration(labelled)
    reranker = Preferring("image")
    stage = Rerank(model=reranker, limit=10, shows=("page", "text"), calibration=calibration)
    for hit in kb.search("weather report", k=10, stages=[stage]):
        raw = np.array([(hit.page - 1) / 10], np.float32)
        as_text = float(calibration.apply(raw, ["text"])[0])
        assert hit.score >= as_text - 1e-6
        if "rerank:text" in hit.scores:
            assert hit.score == pytest.approx(as_text, abs=1e-6)


def test_pages_without_what_is_to_be_shown_keep_their_place(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    Image.new("RGB", (80, 80), "red").save(folder / "rain.png")
    sample_pdf(folder / "rain2.pdf", ["rain again"])
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(folder, settings=NO_OCR)
        hits = index.search("rain", k=5, stages=[Rerank(model=Preferring())])
        assert [hit.doc_id for hit in hits] == ["rain2.pdf", "rain.png"]
        assert "1 page was not judged, with nothing to show (text)" in hits.notes[0]


def test_a_minimum_score_is_one_of_the_reranker(kb):
    hits = kb.search("weather report", k=10, min_score=0.45, stages=[Rerank(model=Preferring(), limit=8)])
    assert [hit.stage for hit in hits] == ["rerank"] * len(hits)
    assert all(hit.score >= 0.45 for hit in hits)
    assert hits


def test_explained_hits_tell_what_the_reranker_saw(kb):
    stages = [Rescore(), Rerank(model=Preferring(), limit=3)]
    hits = kb.search("weather report", k=5, stages=stages, explain=True)
    last = hits[0].steps[-1]
    assert (last.stage, last.rank) == ("rerank", 1)
    assert "text" in last.note
    assert hits[4].steps[-1].stage == "rescore"


class Faulty:
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
def test_a_reranker_that_gives_no_score_for_each_is_named(kb, answer):
    with pytest.raises(ModelError, match="'faulty' gave scores"):
        kb.search("weather report", k=3, stages=Rerank(model=Faulty(answer)))


def test_a_reranker_may_give_a_list(kb):
    hits = kb.search("weather report", k=3, stages=Rerank(model=Faulty(lambda n: [0.1 * i for i in range(n)])))
    assert hits[0].score == pytest.approx(0.9)


def test_words_that_look_like_an_image_are_words_all_the_same(tmp_path):
    sample_pdf(tmp_path / "a.pdf", ["data:image/png;base64,AAAA"])
    sample_pdf(tmp_path / "b.pdf", ["the data of an image"])
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder(), reranker="lite") as index:
        index.ingest([tmp_path / "a.pdf", tmp_path / "b.pdf"], settings=NO_OCR)
        assert {hit.stage for hit in index.search("data image", k=2)} == {"rerank"}


@pytest.mark.parametrize("damage", [lambda data: b"junk", lambda data: data[: len(data) // 2]])
def test_a_damaged_picture_costs_its_page_only(tmp_path, damage):
    sample_pdf(tmp_path / "a.pdf", ["rain in the north", "rain in the south"])
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(tmp_path / "a.pdf", settings=NO_OCR)
        first = index.search("rain north", k=1)[0]
        first.image_path.write_bytes(damage(first.image_path.read_bytes()))
        hits = index.search("rain north", k=2, stages=Rerank(model=Preferring("image")))
        assert [(hit.page, hit.stage) for hit in hits] == [(2, "rerank"), (1, "rescore")]
        assert "1 page was not judged, with a damaged picture" in hits.notes[0]


def test_where_every_picture_is_damaged_nothing_is_judged(tmp_path):
    sample_pdf(tmp_path / "a.pdf", ["rain in the north"])
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        index.ingest(tmp_path / "a.pdf", settings=NO_OCR)
        index.search("rain", k=1)[0].image_path.write_bytes(b"junk")
        hits = index.search("rain", k=1, stages=Rerank(model=Preferring("image")))
        assert [hit.stage for hit in hits] == ["rescore"]


def test_a_question_that_a_reranker_refuses_is_refused(kb):
    class Strict(Preferring):
        def score(self, query, documents):
            raise InvalidInputError("No questions today.")

    with pytest.raises(InvalidInputError, match="today"):
        kb.search("rain", stages=Rerank(model=Strict("image")))


def test_a_model_is_a_reranker_a_name_or_a_folder(kb, tiny):
    hits = kb.search("weather report", k=2, stages=Rerank(model=Path(tiny["m0"]), limit=2))
    assert hits[0].stage == "rerank"
    for wrong in (5, ["lite"]):
        with pytest.raises(InvalidInputError, match=r"Rerank\.model"):
            Rerank(model=wrong)


def _stages():
    from jina_rag.search.stages import Stages

    return Stages()
