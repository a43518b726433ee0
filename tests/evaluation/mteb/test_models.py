"""mteb encoders and cross-encoders: query and document sides, adapters, metadata, inputs and the vector cache."""

import json

import mteb
import numpy as np
import pytest
from datasets import Features, Image, Value
from helpers.mteb_tasks import CountingEmbedder, PairsTask, SmallTask, metadata, text_task
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

SPLIT = {"hf_split": "test", "hf_subset": "default"}
FLOAT32 = ModelOptions(dtype="float32")
QUERY, DOCUMENT = PromptType.query, PromptType.document


def image(shade: int, mode: str = "RGB") -> Images.Image:
    return Images.new("RGB", (84, 84), (shade, 40, 90)).convert(mode)


def evaluate(model, task):
    return mteb.evaluate(model, task, cache=None, show_progress_bar=False, co2_tracker=False).task_results[0]


def text_batches(*texts: str) -> list[dict[str, list[str]]]:
    return [{"text": list(texts)}]


# Protocols and task adapters


def test_models_implement_the_mteb_protocols() -> None:
    encoder, reranker = JinaRagEncoder(FakeEmbedder()), JinaRagReranker(FakeReranker())
    assert isinstance(encoder, mteb.EncoderProtocol)
    assert not isinstance(encoder, mteb.SearchProtocol)
    assert isinstance(reranker, mteb.CrossEncoderProtocol)
    assert not isinstance(reranker, mteb.EncoderProtocol)
    for model in (encoder, reranker):
        assert mteb.models.ModelMeta.model_validate(model.mteb_model_meta.model_dump())


@pytest.mark.parametrize("vectors", ["single", "multi"])
def test_encode_uses_the_side_of_the_prompt_type(vectors) -> None:
    fake = FakeEmbedder()
    model = JinaRagEncoder(fake, vectors=vectors)
    task = metadata("T")
    query = model.encode(text_batches("a b"), task_metadata=task, prompt_type=QUERY, **SPLIT)
    documents = model.encode(text_batches("a", "b c d"), task_metadata=task, prompt_type=DOCUMENT, **SPLIT)
    without_side = model.encode(text_batches("a b"), task_metadata=task, **SPLIT)
    assert [side for side, _ in fake.history] == ["query", "document", "query"]
    assert len(documents) == 2
    np.testing.assert_array_equal(query[0], without_side[0])
    if vectors == "single":
        assert documents.shape == (2, fake.dim)
    else:
        assert [len(rows) for rows in documents] == [1, 3]
        expected = [maxsim(query[0], rows) for rows in documents]
        np.testing.assert_allclose(model.similarity(query, documents)[0], expected, rtol=1e-5)


def test_encode_empty_query_gives_an_empty_multi_vector() -> None:
    model = JinaRagEncoder(FakeEmbedder(), vectors="multi")
    outcome = model.encode(text_batches("a b", " ", "c"), task_metadata=metadata("T"), prompt_type=QUERY, **SPLIT)
    assert [len(rows) for rows in outcome] == [2, 0, 1]
    result = evaluate(model, text_task(["apples", "pears"], ["apples", ""]))
    assert 0.5 <= result.get_score() <= 1
    with pytest.raises(InvalidInputError, match="no words"):
        model.encode(text_batches("???"), task_metadata=metadata("T"), prompt_type=QUERY, **SPLIT)


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
def test_task_of_selects_the_adapter(changes, task) -> None:
    assert task_of(metadata("T", **changes)) == task


def test_task_of_agrees_with_the_mteb_wrapper() -> None:
    names = {"AppsRetrieval": "code", "STSBenchmark": "text-matching", "SciFact": "retrieval"}
    assert {name: task_of(mteb.get_task(name).metadata) for name in names} == names


# Tiny checkpoints of v4, colbert-v2, v1 and m0


@pytest.mark.usefixtures("one_thread")
class TestTinyCheckpoints:
    """Tests with random weights: the wrappers return the vectors and scores of the wrapped models."""

    def test_v4_encodes_images_and_texts_with_both_kinds_of_vectors(self, tiny) -> None:
        embedder = load_embedder(tiny["v4"], dtype="float32", max_pixels=20_000)
        images = [image(10), image(200, "L")]
        expected = embedder.encode_document([image.convert("RGB") for image in images])
        expected_query = embedder.encode_query(["which?"])
        for kind in ("single", "multi"):
            model = JinaRagEncoder(tiny["v4"], vectors=kind, options=ModelOptions(dtype="float32", max_pixels=20_000))
            task = metadata("T", type="DocumentUnderstanding", category="t2i", modalities=["text", "image"])
            outcome = model.encode([{"image": images}], task_metadata=task, prompt_type=DOCUMENT, **SPLIT)
            query = model.encode(text_batches("which?"), task_metadata=task, prompt_type=QUERY, **SPLIT)
            for i in range(2):
                np.testing.assert_allclose(outcome[i], getattr(expected, kind)[i], atol=1e-5)
            np.testing.assert_allclose(query[0], getattr(expected_query, kind)[0], atol=1e-5)

    def test_v4_loads_the_adapter_of_each_task(self, tiny) -> None:
        model = JinaRagEncoder(tiny["v4"], options=FLOAT32)
        for task, changes in (
            ("retrieval", {}),
            ("text-matching", {"type": "STS"}),
            ("code", {"domains": ["Programming"]}),
        ):
            outcome = model.encode(
                text_batches("def f(): pass"), task_metadata=metadata("T", **changes), prompt_type=DOCUMENT, **SPLIT
            )
            expected = load_embedder(tiny["v4"], dtype="float32", task=task).encode_document(
                ["def f(): pass"], multi=False
            )
            np.testing.assert_allclose(outcome, expected.single, atol=1e-5)

    def test_automatic_dtype_is_stored_in_the_cache(self, tiny, tmp_path, monkeypatch) -> None:
        # On a CPU, the automatic dtype depends on a speed measurement, which may differ between processes.
        dtypes = []
        for speedup in (9.0, 0.1):
            monkeypatch.setattr("jina_rag.models.runtime.devices.bfloat16_gain", lambda gain=speedup: gain)
            with VectorCache(tmp_path / "v.sqlite3") as cache:
                source = EmbedderSource(tiny["v4"], ModelOptions(device="cpu"), cache=cache)
                dtypes.append(str(source.load("retrieval").placement.dtype))
                reranker = RerankerSource(tiny["m0"], ModelOptions(device="cpu"), cache=cache)
                dtypes.append(str(reranker.load().placement.dtype))
        assert dtypes == ["torch.bfloat16"] * 4
        uncached_source = EmbedderSource(tiny["v4"], ModelOptions(device="cpu"))
        assert str(uncached_source.load("retrieval").placement.dtype) == "torch.float32"

    def test_embedder_object_encodes_with_the_task_of_the_benchmark(self, tiny) -> None:
        embedder = load_embedder(tiny["v4"], dtype="float32", task=["retrieval", "code"])
        model = JinaRagEncoder(embedder)
        outcome = model.encode(
            text_batches("x"), task_metadata=metadata("T", domains=["Programming"]), prompt_type=QUERY, **SPLIT
        )
        np.testing.assert_allclose(outcome, embedder.encode_query(["x"], task="code").single, atol=1e-6)
        with pytest.raises(InvalidInputError, match="text-matching"):
            model.encode(text_batches("x"), task_metadata=metadata("T", type="STS"), **SPLIT)

    def test_colbert_and_v1_run_retrieval_and_sts_tasks(self, tiny) -> None:
        task = text_task(["apples and pears", "hammers", "rivers"], ["apples", "hammers", "rivers"])
        colbert = JinaRagEncoder(tiny["colbert-v2"], vectors="multi", options=FLOAT32)
        assert 0 <= evaluate(colbert, task).get_score() <= 1
        # jina-colbert-v2 truncates queries to 32 tokens; STS texts are encoded as documents.
        long = "word " * 60
        outcome = colbert.encode(text_batches(long), task_metadata=metadata("T", type="STS"), **SPLIT)
        assert len(outcome[0]) > 32
        v1 = JinaRagEncoder(tiny["v1"], options=FLOAT32)
        assert v1.mteb_model_meta.modalities == ["text"]
        pairs = PairsTask([("a b", "a b", 5.0), ("a b", "c d", 1.0), ("e", "f", 0.0), ("g h", "g i", 3.0)])
        result = evaluate(v1, pairs)
        assert -1 <= result.get_score() <= 1

    def test_m0_reranks_first_stage_candidates(self, tiny, tmp_path) -> None:
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
        reranker = load_reranker(tiny["m0"], dtype="float32", max_pixels=20_000)
        with VectorCache(tmp_path / "v.sqlite3") as cache:
            model = JinaRagReranker(tiny["m0"], options=ModelOptions(dtype="float32", max_pixels=20_000), cache=cache)
            result = mteb.evaluate(
                model, task, cache=None, show_progress_bar=False, co2_tracker=False, prediction_folder=tmp_path
            )
            assert result.task_results[0].scores["test"][0]["hit_rate_at_3"] == 1.0
            scores = json.loads((tmp_path / "SmallTask_predictions.json").read_text())["default"]["test"]
            expected = reranker.score("light", [images[2], images[0], images[1]])
            np.testing.assert_allclose([scores["q1"][d] for d in ("d2", "d0", "d1")], expected, atol=1e-4)
            assert len(cache) == 5

    def test_local_checkpoint_has_its_own_model_name(self, tiny) -> None:
        meta = JinaRagEncoder(tiny["v4"], vectors="multi", options=ModelOptions(max_pixels=20_000)).mteb_model_meta
        assert meta.name == "jina_rag/v4"
        assert meta.experiment_kwargs == {"vectors": "multi", "max_pixels": 20_000}
        assert len(meta.revision) == 16
        assert JinaRagReranker(tiny["m0"]).mteb_model_meta.is_cross_encoder


# Rerankers


def test_predict_scores_pairs_in_order_and_caches_scores(tmp_path) -> None:
    fake = FakeReranker()
    queries = [{"text": ["a b", "a b"]}, {"text": ["c", "a b", "  "]}]
    documents = [{"text": ["a", "b a"]}, {"text": ["c d", "a", "x"]}]
    with VectorCache(tmp_path / "v.sqlite3") as cache:
        for _ in range(2):
            model = JinaRagReranker(fake, cache=cache)
            scores = model.predict(queries, documents, task_metadata=metadata("T"), **SPLIT)
            assert scores.tolist() == [0.5, 1.0, 1.0, 0.5, 0.0]
    assert [(query, list(documents)) for query, documents in fake.history[:2]] == [
        ("a b", ["a", "b a"]),
        ("c", ["c d"]),
    ]
    assert len(fake.history) == 3  # FakeReranker rejects the empty query; the score 0 is cached after one call


# Vector cache


def test_encode_reads_repeated_inputs_from_the_cache(tmp_path) -> None:
    task = metadata("T")
    with VectorCache(tmp_path / "v.sqlite3") as cache:
        first = CountingEmbedder()
        model = JinaRagEncoder(first, vectors="multi", cache=cache)
        computed_vectors = model.encode(
            [{"text": ["a", "b", "a"]}, {"text": ["b", "c"]}], task_metadata=task, prompt_type=DOCUMENT, **SPLIT
        )
        assert sorted(first.inputs) == ["a", "b", "c"]
        assert model.embedded == 3
    with VectorCache(tmp_path / "v.sqlite3") as cache:
        second = CountingEmbedder()
        model = JinaRagEncoder(second, vectors="multi", cache=cache)
        cached_vectors = model.encode(
            text_batches("a", "b", "a", "b", "c"), task_metadata=task, prompt_type=DOCUMENT, **SPLIT
        )
        assert second.inputs == []
        for expected, actual in zip(computed_vectors, cached_vectors, strict=True):
            np.testing.assert_array_equal(expected, actual)
        # Side, kind of vectors, model and maximum length are part of the cache key.
        model.encode(text_batches("a"), task_metadata=task, prompt_type=QUERY, **SPLIT)
        JinaRagEncoder(second, vectors="single", cache=cache).encode(
            text_batches("a"), task_metadata=task, prompt_type=DOCUMENT, **SPLIT
        )
        assert second.inputs == ["a", "a"]
        other = CountingEmbedder(name="other")
        JinaRagEncoder(other, vectors="multi", cache=cache).encode(
            text_batches("a"), task_metadata=task, prompt_type=DOCUMENT, **SPLIT
        )
        assert other.inputs == ["a"]
        source = EmbedderSource(second, ModelOptions(max_length=3))
        JinaRagEncoder(source, vectors="multi", cache=cache).encode(
            text_batches("a"), task_metadata=task, prompt_type=DOCUMENT, **SPLIT
        )
        assert second.inputs == ["a", "a", "a"]


# Inputs


def test_inputs_of_selects_text_image_or_both() -> None:
    shade, both = image(5), {"text": ["words", " "], "image": [image(5), image(6)]}
    assert inputs_of(both, modality="text")[0] == "words"
    assert inputs_of(both, modality="text")[1].size == (84, 84)  # without a text, only the image remains
    parts_of_both = inputs_of(both, modality="image")
    assert parts_of_both[0][1] == "words"
    assert parts_of_both[1].size == (84, 84)
    assert inputs_of(both, modality="image", parts="text") == ["words", " "]
    assert inputs_of(both, modality="text", parts="image")[0].size == (84, 84)
    folder_rows = both | {"path": ["a", "b"], "page": [1, 2]}
    assert inputs_of(folder_rows, modality="image")[0].size == (84, 84)  # the text repeats the words of the image
    with pytest.raises(InvalidInputError, match="audio"):
        inputs_of({"audio": [1]}, modality="text")
    assert content_key(shade) == content_key(image(5)) != content_key(image(6))
    assert content_key("5") != content_key(["5"])


def test_query_and_document_texts_match_mteb() -> None:
    assert text_of_document({"title": "T", "text": " x "}) == "T  x"
    assert text_of_document({"title": "", "text": " x "}) == "x"
    assert text_of_document({"image": 1}) is None
    assert text_of_query({"text": "q", "instruction": "find"}) == "q find"
    assert text_of_query({"text": ["a", "b"]}) == "a; b"
    assert text_of_query({"text": [{"role": "user", "content": "a"}], "instruction": "find"}) == "find user: a"
