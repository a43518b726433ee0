"""Models of adapters: loaded once at first use, shared by equal options, excluded from pickles."""

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
def load_calls(monkeypatch):
    """Replace model loading by fakes and return the list of (name, options) of each load."""
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


def run_in_threads(function, count=6):
    """Call `function` from `count` threads at once and return the results."""
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


def test_equal_lists_of_devices_share_one_model(load_calls):
    first, second = (
        Embeddings(model="a", device=["cuda:0", "cuda:1"]),
        Embeddings(model="a", device=("cuda:0", "cuda:1")),
    )
    assert first.embedder is second.embedder
    assert Embeddings(**first.model_dump(mode="json")).embedder is first.embedder
    assert pickle.loads(pickle.dumps(first)).device == ("cuda:0", "cuda:1")
    assert Embeddings(model="a", device=["cuda:1", "cuda:0"]).embedder is not first.embedder
    assert [options["device"] for _, options in load_calls] == [("cuda:0", "cuda:1"), ("cuda:1", "cuda:0")]


def test_model_is_loaded_once_at_first_use(load_calls):
    options = Embeddings(model="a", device="cpu", truncate_dim=8)
    assert not load_calls
    assert len({id(model) for model in run_in_threads(lambda: options.embedder)}) == 1
    assert load_calls == [
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


def test_equal_options_share_one_model(load_calls):
    first = Embeddings(model="a")
    models = run_in_threads(lambda: Embeddings(model="a").embedder)
    assert {id(model) for model in models} == {id(first.embedder)}
    assert len(models) == 6
    assert len(load_calls) == 1
    assert Embeddings(model="a", device="cpu").embedder is not first.embedder
    assert Embeddings(model="b").embedder is not first.embedder
    assert Rerank(model="a").reranker.name == "a"
    assert [name for name, _ in load_calls] == ["a", "a", "b", "a"]


def test_unused_model_is_garbage_collected(load_calls):
    options = Embeddings(model="a")
    model = weakref.ref(options.embedder)
    assert model() is not None
    del options
    gc.collect()
    assert model() is None
    assert Embeddings(model="a").embedder.name == "a"
    assert len(load_calls) == 2


@pytest.mark.parametrize("kind", ["embedder", "reranker"])
def test_loaded_model_is_available_while_another_loads(monkeypatch, kind):
    loading, proceed = threading.Event(), threading.Event()

    def load(name, **options):
        if name == "slow":
            loading.set()
            assert proceed.wait(30)
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
        # The call runs in a separate thread, so that a held lock fails the assertion instead of blocking the test.
        other = threading.Thread(
            target=lambda: names.extend(getattr(options, kind).name for options in (loaded, adapter(model="third")))
        )
        other.start()
        other.join(10)
        assert names == ["loaded", "third"]
        assert slow_thread.is_alive()
    finally:
        proceed.set()
        slow_thread.join(30)


def test_failed_load_is_retried(monkeypatch):
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


def test_passed_model_is_used_and_not_pickled():
    class Unpicklable(FakeEmbedder):
        def __reduce__(self):
            raise AssertionError("weights must not be pickled")

    model = Unpicklable(name="lite")
    options = Embeddings(model=model, max_length=5)
    assert options.embedder is model
    assert copy.deepcopy(options).embedder is options.model_copy(update={"max_length": 4}).embedder is model
    unpickled = pickle.loads(pickle.dumps(options))
    assert (unpickled.model, unpickled.max_length) == ("lite", 5)
    assert "Unpicklable" not in repr(options) + repr(options._lazy_model) + options.model_dump_json()
    assert unpickled != options
    assert unpickled == Embeddings(model="lite", max_length=5)


def test_passed_model_rejects_loading_options():
    with pytest.raises(ValidationError, match="dtype cannot be set for 'fake', which is already loaded"):
        Embeddings(model=FakeEmbedder(), dtype="float16")
    with pytest.raises(ValidationError, match="max_length cannot be set for"):
        Rerank(model=FakeReranker(), max_length=5)
    with pytest.raises(ValidationError, match="model is a FakeReranker; expected a model name, a folder or an emb"):
        Embeddings(model=FakeReranker())
    with pytest.raises(InvalidInputError, match="model_name cannot be set for 'fake', which is already loaded"):
        model_argument("model_name", "lite", FakeEmbedder())
    assert model_argument("model", None, None) == {}
    assert model_argument("model", "lite", None) == {"model": "lite"}


def test_call_limits_apply_to_passed_model():
    options = Embeddings(model=FakeEmbedder(), truncate_dim=16)
    assert len(options.dense_vectors("query", ["whales"])[0]) == 16
    assert options.dense_vectors("document", []) == []
    assert not options.matches_fingerprint
    assert Embeddings(model=FakeEmbedder()).matches_fingerprint
    assert Embeddings(model="lite", max_length=5).matches_fingerprint


@pytest.mark.parametrize("kind", ["embedder", "reranker"])
def test_changed_options_load_another_model(load_calls, kind):
    first = (Embeddings if kind == "embedder" else Rerank)(model="a")
    model = getattr(first, kind)
    second = first.model_copy(update={"model": "b"})
    with_device = first.model_copy(update={"device": "cpu"})
    assert [getattr(options, kind).name for options in (first, second, with_device)] == ["a", "b", "a"]
    assert getattr(first, kind) is model is not getattr(with_device, kind)
    assert [(name, options["device"]) for name, options in load_calls] == [("a", "auto"), ("b", "auto"), ("a", "cpu")]
    assert getattr(first.model_copy(update={}), kind) is model
    first.model = "c"
    assert getattr(first, kind).name == "c"
    assert getattr(second, kind).name == "b"
    assert len(load_calls) == 4


def test_changed_model_name_replaces_passed_model(load_calls):
    model = FakeEmbedder()
    options = Embeddings(model=model, truncate_dim=16)
    other = options.model_copy(update={"model": "a"})
    assert other.embedder.name == "a"
    assert other.matches_fingerprint
    assert options.embedder is model
    assert not options.matches_fingerprint
    with pytest.raises(InvalidInputError, match="device cannot be set for 'fake', which is already loaded"):
        _ = options.model_copy(update={"device": "cpu"}).embedder
    other.model = "fake"
    assert other.embedder is model


@pytest.mark.parametrize("adapter", [Embeddings, Rerank])
def test_empty_model_name_raises_validation_error(adapter):
    with pytest.raises(ValidationError, match="model is empty; expected a name or a path"):
        adapter(model="")
