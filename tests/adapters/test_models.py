"""Models of adapters: loaded once and at their first use, a lock for each, shared by equal options, in no pickle."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref

import pytest

pytest.importorskip("pydantic")

from pydantic import Field, ValidationError

from jina_rag import InvalidInputError
from jina_rag.adapters import EmbedderOptions, EmbedderSource, RerankerOptions, RerankerSource, model_argument
from jina_rag.testing import FakeEmbedder, FakeReranker


class Embeddings(EmbedderOptions):
    model: EmbedderSource = Field(default="lite")


class Rerank(RerankerOptions):
    model: RerankerSource = Field(default="lite")


@pytest.fixture
def loads(monkeypatch):
    """What was loaded, with fakes in the place of models."""
    calls = []

    def load_embedder(name, **options):
        calls.append((name, options))
        return FakeEmbedder(name=name)

    def load_reranker(name, **options):
        calls.append((name, options))
        return FakeReranker(name=name)

    monkeypatch.setattr("jina_rag.adapters.models.load_embedder", load_embedder)
    monkeypatch.setattr("jina_rag.adapters.models.load_reranker", load_reranker)
    return calls


def in_threads(function, count=6):
    """The results of a function that several threads call at once."""
    barrier, results = threading.Barrier(count), []

    def call():
        barrier.wait()
        results.append(function())

    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_a_model_is_loaded_at_its_first_use_and_once(loads):
    options = Embeddings(model="a", device="cpu", truncate_dim=8)
    assert not loads
    assert len({id(model) for model in in_threads(lambda: options.embedder)}) == 1
    assert loads == [
        (
            "a",
            {
                "device": "cpu",
                "dtype": "auto",
                "task": "retrieval",
                "revision": None,
                "local_files_only": False,
                "truncate_dim": 8,
                "max_pixels": None,
                "max_length": None,
            },
        )
    ]


def test_equal_options_share_a_model_and_others_do_not(loads):
    first = Embeddings(model="a")
    models = in_threads(lambda: Embeddings(model="a").embedder)
    assert {id(model) for model in models} == {id(first.embedder)}
    assert len(models) == 6
    assert len(loads) == 1
    assert Embeddings(model="a", device="cpu").embedder is not first.embedder
    assert Embeddings(model="b").embedder is not first.embedder
    assert Rerank(model="a").reranker.name == "a"
    assert [name for name, _ in loads] == ["a", "a", "b", "a"]


def test_a_model_that_nobody_uses_is_let_go(loads):
    options = Embeddings(model="a")
    model = weakref.ref(options.embedder)
    assert model() is not None
    del options
    gc.collect()
    assert model() is None
    assert Embeddings(model="a").embedder.name == "a"
    assert len(loads) == 2


@pytest.mark.parametrize("kind", ["embedder", "reranker"])
def test_a_loaded_model_answers_while_another_one_loads(monkeypatch, kind):
    loading, go_on = threading.Event(), threading.Event()

    def load(name, **options):
        if name == "slow":
            loading.set()
            assert go_on.wait(30)
        return FakeEmbedder(name=name) if kind == "embedder" else FakeReranker(name=name)

    monkeypatch.setattr(f"jina_rag.adapters.models.load_{kind}", load)
    adapter = Embeddings if kind == "embedder" else Rerank
    loaded, slow = adapter(model="loaded"), adapter(model="slow")
    assert getattr(loaded, kind).name == "loaded"
    slow_thread = threading.Thread(target=lambda: getattr(slow, kind))
    slow_thread.start()
    names = []
    try:
        assert loading.wait(30)
        # In a thread of its own, so that a lock that is held shows as a missing answer and not as a test that hangs.
        other = threading.Thread(
            target=lambda: names.extend(getattr(one, kind).name for one in (loaded, adapter(model="third")))
        )
        other.start()
        other.join(10)
        assert names == ["loaded", "third"]
        assert slow_thread.is_alive()
    finally:
        go_on.set()
        slow_thread.join(30)


def test_loading_that_fails_is_tried_again(monkeypatch):
    failures = [OSError("no network"), None]

    def load(name, **options):
        if failure := failures.pop(0):
            raise failure
        return FakeReranker(name=name)

    monkeypatch.setattr("jina_rag.adapters.models.load_reranker", load)
    rerank = Rerank(model="a")
    with pytest.raises(OSError, match="no network"):
        _ = rerank.reranker
    assert rerank.reranker.name == "a"


def test_a_passed_model_is_kept_and_pickles_are_without_it():
    class Unpicklable(FakeEmbedder):
        def __reduce__(self):
            raise AssertionError("weights are not pickled")

    model = Unpicklable(name="lite")
    options = Embeddings(model=model, max_length=5)
    assert options.embedder is model
    assert copy.deepcopy(options).embedder is options.model_copy(update={"max_length": 4}).embedder is model
    again = pickle.loads(pickle.dumps(options))
    assert (again.model, again.max_length) == ("lite", 5)
    assert "Unpicklable" not in repr(options) + repr(options._lazy_model) + options.model_dump_json()
    assert again != options
    assert again == Embeddings(model="lite", max_length=5)


def test_what_concerns_loading_is_refused_beside_a_loaded_model():
    with pytest.raises(ValidationError, match="dtype is for loading a model, and 'fake' is loaded: leave it out"):
        Embeddings(model=FakeEmbedder(), dtype="float16")
    with pytest.raises(ValidationError, match="max_length is for loading a model"):
        Rerank(model=FakeReranker(), max_length=5)
    with pytest.raises(
        ValidationError, match="model is a FakeReranker; it is the name or folder of a model, or an emb"
    ):
        Embeddings(model=FakeReranker())
    with pytest.raises(InvalidInputError, match="model_name is for loading a model, and 'fake' is loaded"):
        model_argument("model_name", "lite", FakeEmbedder())
    assert model_argument("model", None, None) == {}
    assert model_argument("model", "lite", None) == {"model": "lite"}


def test_limits_of_a_call_reach_a_passed_model():
    options = Embeddings(model=FakeEmbedder(), truncate_dim=16)
    assert len(options.dense_vectors("query", ["whales"])[0]) == 16
    assert options.dense_vectors("document", []) == []
    assert not options.matches_fingerprint
    assert Embeddings(model=FakeEmbedder()).matches_fingerprint
    assert Embeddings(model="lite", max_length=5).matches_fingerprint


@pytest.mark.parametrize("kind", ["embedder", "reranker"])
def test_the_model_follows_its_options(loads, kind):
    first = (Embeddings if kind == "embedder" else Rerank)(model="a")
    model = getattr(first, kind)
    second = first.model_copy(update={"model": "b"})
    third = first.model_copy(update={"device": "cpu"})
    assert [getattr(one, kind).name for one in (first, second, third)] == ["a", "b", "a"]
    assert getattr(first, kind) is model is not getattr(third, kind)
    assert [(name, options["device"]) for name, options in loads] == [("a", "auto"), ("b", "auto"), ("a", "cpu")]
    assert getattr(first.model_copy(update={}), kind) is model
    first.model = "c"
    assert getattr(first, kind).name == "c"
    assert getattr(second, kind).name == "b"
    assert len(loads) == 4


def test_a_passed_model_is_not_that_of_another_name(loads):
    model = FakeEmbedder()
    options = Embeddings(model=model, truncate_dim=16)
    other = options.model_copy(update={"model": "a"})
    assert other.embedder.name == "a"
    assert other.matches_fingerprint
    assert options.embedder is model
    assert not options.matches_fingerprint
    with pytest.raises(InvalidInputError, match="device is for loading a model, and 'fake' is loaded: leave it out"):
        _ = options.model_copy(update={"device": "cpu"}).embedder
    other.model = "fake"
    assert other.embedder is model


@pytest.mark.parametrize("adapter", [Embeddings, Rerank])
def test_an_empty_name_is_refused(adapter):
    with pytest.raises(ValidationError, match="model is empty: give a name or a path"):
        adapter(model="")
