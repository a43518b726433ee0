"""Our models behind mteb's protocols: sides, adapters, what is filed, what is kept."""

import json

import mteb
import numpy as np
import pytest
from datasets import Features, Image, Value
from helpers.mteb_tasks import Counting, PairsTask, SmallTask, metadata, text_task
from mteb.types import PromptType
from PIL import Image as Images

from jina_rag import load_embedder, load_reranker
from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.mteb import JinaRagEncoder, JinaRagReranker, ModelOptions, VectorCache
from jina_rag.evaluation.mteb.contents import content_key, inputs_of, text_of_document, text_of_query
from jina_rag.evaluation.mteb.encoders import task_of
from jina_rag.evaluation.mteb.loading import EmbedderSource, RerankerSource
from jina_rag.scoring import maxsim
from jina_rag.testing import FakeEmbedder, FakeReranker

WHERE = {"hf_split": "test", "hf_subset": "default"}
FLOAT32 = ModelOptions(dtype="float32")
QUERY, DOCUMENT = PromptType.query, PromptType.document


def image(shade: int, mode: str = "RGB") -> Images.Image:
    return Images.new("RGB", (84, 84), (shade, 40, 90)).convert(mode)


def evaluate(model, task):
    return mteb.evaluate(model, task, cache=None, show_progress_bar=False, co2_tracker=False).task_results[0]


def loader(*texts: str) -> list[dict[str, list[str]]]:
    return [{"text": list(texts)}]


# -- what mteb asks of models ----------------------------------------------------------------------------------


def test_they_are_what_mteb_asks_for() -> None:
    encoder, judge = JinaRagEncoder(FakeEmbedder()), JinaRagReranker(FakeReranker())
    assert isinstance(encoder, mteb.EncoderProtocol)
    assert not isinstance(encoder, mteb.SearchProtocol)
    assert isinstance(judge, mteb.CrossEncoderProtocol)
    assert not isinstance(judge, mteb.EncoderProtocol)
    for model in (encoder, judge):
        assert mteb.models.ModelMeta.model_validate(model.mteb_model_meta.model_dump())


@pytest.mark.parametrize("vectors", ["single", "multi"])
def test_questions_and_documents_go_to_their_sides(vectors) -> None:
    fake = FakeEmbedder()
    model = JinaRagEncoder(fake, vectors=vectors)
    task = metadata("T")
    query = model.encode(loader("a b"), task_metadata=task, prompt_type=QUERY, **WHERE)
    documents = model.encode(loader("a", "b c d"), task_metadata=task, prompt_type=DOCUMENT, **WHERE)
    neither = model.encode(loader("a b"), task_metadata=task, **WHERE)
    assert [side for side, _ in fake.history] == ["query", "document", "query"]
    assert len(documents) == 2
    np.testing.assert_array_equal(query[0], neither[0])
    if vectors == "single":
        assert documents.shape == (2, fake.dim)
    else:
        assert [len(rows) for rows in documents] == [1, 3]
        expected = [maxsim(query[0], rows) for rows in documents]
        np.testing.assert_allclose(model.similarity(query, documents)[0], expected, rtol=1e-5)


def test_an_empty_question_has_no_vector_and_does_not_end_the_run() -> None:
    model = JinaRagEncoder(FakeEmbedder(), vectors="multi")
    outcome = model.encode(loader("a b", " ", "c"), task_metadata=metadata("T"), prompt_type=QUERY, **WHERE)
    assert [len(rows) for rows in outcome] == [2, 0, 1]
    result = evaluate(model, text_task(["apples", "pears"], ["apples", ""]))
    assert 0.5 <= result.get_score() <= 1
    with pytest.raises(InvalidInputError, match="no words"):
        model.encode(loader("???"), task_metadata=metadata("T"), prompt_type=QUERY, **WHERE)


@pytest.mark.parametrize(
    ("changes", "task"),
    [
        ({}, "retrieval"),
        ({"type": "DocumentUnderstanding", "category": "t2i", "modalities": ["text", "image"]}, "retrieval"),
        ({"type": "STS"}, "text-matching"),
        ({"type": "Classification"}, "retrieval"),
        ({"domains": ["Programming"]}, "code"),
        ({"eval_langs": ["python-Code"]}, "code"),
    ],
)
def test_the_adapter_follows_the_task(changes, task) -> None:
    assert task_of(metadata("T", **changes)) == task


def test_tasks_of_mteb_have_the_adapters_that_its_own_wrapper_takes() -> None:
    names = {"AppsRetrieval": "code", "STSBenchmark": "text-matching", "SciFact": "retrieval"}
    assert {name: task_of(mteb.get_task(name).metadata) for name in names} == names


# -- v4, colbert-v2, v1, m0: tiny checkpoints ------------------------------------------------------------------


@pytest.mark.usefixtures("one_thread")
class TestTiny:
    """Random weights: what is shown is that vectors are the models' own."""

    def test_v4_reads_images_and_texts_in_both_kinds(self, tiny) -> None:
        own = load_embedder(tiny["v4"], dtype="float32", max_pixels=20_000)
        images = [image(10), image(200, "L")]
        expected = own.encode_document([image.convert("RGB") for image in images])
        expected_query = own.encode_query(["which?"])
        for kind in ("single", "multi"):
            model = JinaRagEncoder(tiny["v4"], vectors=kind, options=ModelOptions(dtype="float32", max_pixels=20_000))
            task = metadata("T", type="DocumentUnderstanding", category="t2i", modalities=["text", "image"])
            outcome = model.encode([{"image": images}], task_metadata=task, prompt_type=DOCUMENT, **WHERE)
            query = model.encode(loader("which?"), task_metadata=task, prompt_type=QUERY, **WHERE)
            for i in range(2):
                np.testing.assert_allclose(outcome[i], getattr(expected, kind)[i], atol=1e-5)
            np.testing.assert_allclose(query[0], getattr(expected_query, kind)[0], atol=1e-5)

    def test_v4_loads_the_adapter_of_the_task_and_one_at_a_time(self, tiny) -> None:
        model = JinaRagEncoder(tiny["v4"], options=FLOAT32)
        for task, changes in (
            ("retrieval", {}),
            ("text-matching", {"type": "STS"}),
            ("code", {"domains": ["Programming"]}),
        ):
            outcome = model.encode(
                loader("def f(): pass"), task_metadata=metadata("T", **changes), prompt_type=DOCUMENT, **WHERE
            )
            expected = load_embedder(tiny["v4"], dtype="float32", task=task).encode_document(
                ["def f(): pass"], multi=False
            )
            np.testing.assert_allclose(outcome, expected.single, atol=1e-5)

    def test_a_precision_that_is_left_to_the_model_stays_that_of_the_first_run(
        self, tiny, tmp_path, monkeypatch
    ) -> None:
        # It is measured on a CPU, and may come out otherwise in the next process.
        seen = []
        for measured in (9.0, 0.1):
            monkeypatch.setattr("jina_rag.models.runtime.devices.bfloat16_gain", lambda gain=measured: gain)
            with VectorCache(tmp_path / "v.sqlite3") as cache:
                source = EmbedderSource(tiny["v4"], ModelOptions(device="cpu"), cache=cache)
                seen.append(str(source.load("retrieval").placement.dtype))
                judge = RerankerSource(tiny["m0"], ModelOptions(device="cpu"), cache=cache)
                seen.append(str(judge.load().placement.dtype))
        assert seen == ["torch.bfloat16"] * 4
        free = EmbedderSource(tiny["v4"], ModelOptions(device="cpu"))
        assert str(free.load("retrieval").placement.dtype) == "torch.float32"

    def test_an_embedder_that_was_handed_over_is_asked_for_the_task(self, tiny) -> None:
        several = load_embedder(tiny["v4"], dtype="float32", task=["retrieval", "code"])
        model = JinaRagEncoder(several)
        outcome = model.encode(
            loader("x"), task_metadata=metadata("T", domains=["Programming"]), prompt_type=QUERY, **WHERE
        )
        np.testing.assert_allclose(outcome, several.encode_query(["x"], task="code").single, atol=1e-6)
        with pytest.raises(InvalidInputError, match="text-matching"):
            model.encode(loader("x"), task_metadata=metadata("T", type="STS"), **WHERE)

    def test_colbert_v1_and_sts(self, tiny) -> None:
        task = text_task(["apples and pears", "hammers", "rivers"], ["apples", "hammers", "rivers"])
        colbert = JinaRagEncoder(tiny["colbert-v2"], vectors="multi", options=FLOAT32)
        assert 0 <= evaluate(colbert, task).get_score() <= 1
        # Questions are cut to 32 tokens; a text that is compared with its like is none.
        long = "word " * 60
        outcome = colbert.encode(loader(long), task_metadata=metadata("T", type="STS"), **WHERE)
        assert len(outcome[0]) > 32
        v1 = JinaRagEncoder(tiny["v1"], options=FLOAT32)
        assert v1.mteb_model_meta.modalities == ["text"]
        pairs = PairsTask([("a b", "a b", 5.0), ("a b", "c d", 1.0), ("e", "f", 0.0), ("g h", "g i", 3.0)])
        result = evaluate(v1, pairs)
        assert -1 <= result.get_score() <= 1

    def test_m0_judges_what_a_first_stage_found(self, tiny, tmp_path) -> None:
        images = [image(shade) for shade in (0, 120, 240)]
        task = SmallTask(
            [{"id": f"d{i}", "image": image} for i, image in enumerate(images)],
            [{"id": "q0", "text": "dark"}, {"id": "q1", "text": "light"}],
            {"q0": {"d0": 1}, "q1": {"d2": 1}},
            type="DocumentUnderstanding",
            category="t2i",
            modalities=["text", "image"],
            features=Features({"id": Value("string"), "image": Image()}),
            top_ranked={"q0": ["d0", "d1"], "q1": ["d2", "d0", "d1"]},
        )
        own = load_reranker(tiny["m0"], dtype="float32", max_pixels=20_000)
        with VectorCache(tmp_path / "v.sqlite3") as cache:
            model = JinaRagReranker(tiny["m0"], options=ModelOptions(dtype="float32", max_pixels=20_000), cache=cache)
            result = mteb.evaluate(
                model, task, cache=None, show_progress_bar=False, co2_tracker=False, prediction_folder=tmp_path
            )
            assert result.task_results[0].scores["test"][0]["hit_rate_at_3"] == 1.0
            scores = json.loads((tmp_path / "SmallTask_predictions.json").read_text())["default"]["test"]
            expected = own.score("light", [images[2], images[0], images[1]])
            np.testing.assert_allclose([scores["q1"][d] for d in ("d2", "d0", "d1")], expected, atol=1e-4)
            assert len(cache) == 5

    def test_results_of_a_folder_are_not_filed_as_the_published_model(self, tiny) -> None:
        meta = JinaRagEncoder(tiny["v4"], vectors="multi", options=ModelOptions(max_pixels=20_000)).mteb_model_meta
        assert meta.name == "jina_rag/v4"
        assert meta.experiment_kwargs == {"vectors": "multi", "max_pixels": 20_000}
        assert len(meta.revision) == 16
        assert JinaRagReranker(tiny["m0"]).mteb_model_meta.is_cross_encoder


# -- rerankers -------------------------------------------------------------------------------------------------


def test_pairs_are_judged_in_their_order_and_once(tmp_path) -> None:
    fake = FakeReranker()
    queries = [{"text": ["a b", "a b"]}, {"text": ["c", "a b", "  "]}]
    documents = [{"text": ["a", "b a"]}, {"text": ["c d", "a", "x"]}]
    with VectorCache(tmp_path / "v.sqlite3") as cache:
        for _ in range(2):
            model = JinaRagReranker(fake, cache=cache)
            scores = model.predict(queries, documents, task_metadata=metadata("T"), **WHERE)
            assert scores.tolist() == [0.5, 1.0, 1.0, 0.5, 0.0]
    assert [(query, list(documents)) for query, documents in fake.history[:2]] == [
        ("a b", ["a", "b a"]),
        ("c", ["c d"]),
    ]
    assert len(fake.history) == 3  # the empty question is refused by the fake, and asked once


# -- the cache -------------------------------------------------------------------------------------------------


def test_what_was_embedded_is_not_embedded_again(tmp_path) -> None:
    task = metadata("T")
    with VectorCache(tmp_path / "v.sqlite3") as cache:
        first = Counting()
        model = JinaRagEncoder(first, vectors="multi", cache=cache)
        one = model.encode(
            [{"text": ["a", "b", "a"]}, {"text": ["b", "c"]}], task_metadata=task, prompt_type=DOCUMENT, **WHERE
        )
        assert sorted(first.seen) == ["a", "b", "c"]
        assert model.embedded == 3
    with VectorCache(tmp_path / "v.sqlite3") as cache:
        second = Counting()
        again = JinaRagEncoder(second, vectors="multi", cache=cache)
        two = again.encode(loader("a", "b", "a", "b", "c"), task_metadata=task, prompt_type=DOCUMENT, **WHERE)
        assert second.seen == []
        for before, after in zip(one, two, strict=True):
            np.testing.assert_array_equal(before, after)
        # Another side, kind of vectors, model or length is another vector.
        again.encode(loader("a"), task_metadata=task, prompt_type=QUERY, **WHERE)
        JinaRagEncoder(second, vectors="single", cache=cache).encode(
            loader("a"), task_metadata=task, prompt_type=DOCUMENT, **WHERE
        )
        assert second.seen == ["a", "a"]
        other = Counting(name="other")
        JinaRagEncoder(other, vectors="multi", cache=cache).encode(
            loader("a"), task_metadata=task, prompt_type=DOCUMENT, **WHERE
        )
        assert other.seen == ["a"]
        source = EmbedderSource(second, ModelOptions(max_length=3))
        JinaRagEncoder(source, vectors="multi", cache=cache).encode(
            loader("a"), task_metadata=task, prompt_type=DOCUMENT, **WHERE
        )
        assert second.seen == ["a", "a", "a"]


# -- what is read ----------------------------------------------------------------------------------------------


def test_what_is_read_of_text_and_image() -> None:
    shade, both = image(5), {"text": ["words", " "], "image": [image(5), image(6)]}
    assert inputs_of(both, modality="text")[0] == "words"
    assert inputs_of(both, modality="text")[1].size == (84, 84)  # nothing to read but the picture
    fused = inputs_of(both, modality="image")
    assert fused[0][1] == "words"
    assert fused[1].size == (84, 84)
    assert inputs_of(both, modality="image", parts="text") == ["words", " "]
    assert inputs_of(both, modality="text", parts="image")[0].size == (84, 84)
    of_files = both | {"path": ["a", "b"], "page": [1, 2]}
    assert inputs_of(of_files, modality="image")[0].size == (84, 84)  # the words are the picture's own
    with pytest.raises(InvalidInputError, match="audio"):
        inputs_of({"audio": [1]}, modality="text")
    assert content_key(shade) == content_key(image(5)) != content_key(image(6))
    assert content_key("5") != content_key(["5"])


def test_texts_are_put_together_as_mteb_does() -> None:
    assert text_of_document({"title": "T", "text": " x "}) == "T  x"
    assert text_of_document({"title": "", "text": " x "}) == "x"
    assert text_of_document({"image": 1}) is None
    assert text_of_query({"text": "q", "instruction": "find"}) == "q find"
    assert text_of_query({"text": ["a", "b"]}) == "a; b"
    assert text_of_query({"text": [{"role": "user", "content": "a"}], "instruction": "find"}) == "find user: a"
