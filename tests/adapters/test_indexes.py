"""Index of an adapter: opened at first use, one open index per `IndexOpening`, closed with the adapter, never
pickled."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import shutil
import threading
from dataclasses import replace

import pytest

pytest.importorskip("pydantic")

from helpers.index_locks import is_locked
from pydantic import SecretStr

from jina_rag import DocumentIndex, InvalidInputError
from jina_rag.adapters import EmbedderOptions, EmbedderSource, IndexOpening, IndexOwner, LazyIndex, check_not_empty
from jina_rag.errors import IndexNotFoundError
from jina_rag.testing import FakeEmbedder, FakeReranker


class Adapter(IndexOwner):
    def __init__(self, index, **options):
        options |= {} if isinstance(index, DocumentIndex) else {"embedder": FakeEmbedder()}
        self.opening, self._index = LazyIndex.of(index, create=True, **options)

    @property
    def index(self):
        return self._index.get(self.opening)


@pytest.fixture
def open_handles(monkeypatch):
    """Return a list of the indexes that are open."""
    handles, lock = [], threading.Lock()
    real_open, real_close = DocumentIndex.open, DocumentIndex.close

    def open_index(*args, **options):
        index = real_open(*args, **options)
        with lock:
            handles.append(index)
        return index

    def close(index):
        if index in handles:
            handles.remove(index)
        real_close(index)

    monkeypatch.setattr(DocumentIndex, "open", open_index)
    monkeypatch.setattr(DocumentIndex, "close", close)
    return handles


def test_concurrent_first_calls_share_one_handle(tmp_path, open_handles):
    adapter, barrier, indexes = Adapter(tmp_path / "kb"), threading.Barrier(6), []
    assert not (tmp_path / "kb").exists()

    def open_index():
        barrier.wait()
        indexes.append(adapter.index)

    threads = [threading.Thread(target=open_index) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(indexes) == 6
    assert len({id(index) for index in indexes}) == len(open_handles) == 1
    adapter.close()
    assert not open_handles
    assert adapter.index is not indexes[0]  # reopened
    adapter.close()
    adapter.close()
    assert not open_handles


def test_passed_open_index_stays_open(tmp_path):
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        with Adapter(index) as adapter:
            assert adapter.index is index
            assert adapter.opening.location == str(tmp_path / "kb")
        assert index.info().documents == 0
        with pytest.raises(InvalidInputError, match="storage cannot be set for an index that is already open"):
            Adapter(index, assets_dir=None, storage="exact")


def test_deleted_adapter_releases_index_lock(tmp_path):
    adapter = Adapter(tmp_path / "kb")
    adapter.index.add(["whales sing"], ids=["a"])
    assert is_locked(tmp_path / "kb")
    del adapter
    gc.collect()
    assert not is_locked(tmp_path / "kb")


def test_lazy_index_pickle_and_repr_exclude_handle_and_key(tmp_path):
    lazy = LazyIndex()
    opening = IndexOpening(str(tmp_path / "kb"), FakeEmbedder(), create=True, api_key=SecretStr("sesame"))
    assert "sesame" not in repr(opening)
    index = lazy.get(IndexOpening(str(tmp_path / "kb"), FakeEmbedder(), create=True))
    assert str(tmp_path) not in repr(lazy)
    unpickled = pickle.loads(pickle.dumps(lazy))
    assert unpickled == lazy
    assert unpickled.external is None
    assert LazyIndex(index) != lazy
    assert LazyIndex(index) == LazyIndex(index)
    lazy.close()


def test_each_opening_has_its_own_handle(tmp_path, open_handles):
    lazy, embedder = LazyIndex(), FakeEmbedder()
    opening = IndexOpening(str(tmp_path / "a"), embedder, create=True)
    index = lazy.get(opening)
    assert lazy.get(replace(opening)) is lazy.get(replace(opening, create=False)) is index
    variants = [
        replace(opening, location=str(tmp_path / "b")),
        replace(opening, embedder=FakeEmbedder()),
        replace(opening, reranker=FakeReranker()),
        replace(opening, storage="exact"),
    ]
    assert len({id(lazy.get(variant)) for variant in [opening, *variants]}) == len(open_handles) == 5
    assert lazy.get(variants[0]).info().location == str(tmp_path / "b")
    assert lazy.get(variants[2]).reranker is variants[2].reranker
    assert lazy.get(opening) is index
    lazy.close()
    assert not open_handles


@pytest.mark.parametrize(("name", "value"), [("assets_dir", "files"), ("api_key", SecretStr("sesame"))])
def test_handle_depends_on_assets_dir_and_api_key(monkeypatch, name, value):
    calls = []

    def open_index(location, **options):
        calls.append((location, options))
        return object()

    monkeypatch.setattr(DocumentIndex, "open", open_index)
    lazy, opening = LazyIndex(), IndexOpening("http://localhost:6333/kb")
    first, second = lazy.get(opening), lazy.get(replace(opening, **{name: value}))
    assert first is not second
    assert (lazy.get(opening), lazy.get(replace(opening, **{name: value}))) == (first, second)
    assert [options[name] for _, options in calls] == [None, "sesame" if name == "api_key" else "files"]


def test_handle_depends_on_model_options(monkeypatch, tmp_path):
    class Embeddings(EmbedderOptions):
        model: EmbedderSource = "a"

    monkeypatch.setattr("jina_rag.adapters.models.load_embedder", lambda name, **options: FakeEmbedder(name=name))
    options = Embeddings()
    lazy, opening = LazyIndex(), IndexOpening(str(tmp_path / "kb"), options, create=True)
    assert lazy.get(opening).embedder.name == "a"
    options.model = "b"
    with pytest.raises(Exception, match="was built with"):
        lazy.get(opening)
    options.model = "a"
    assert lazy.get(opening).embedder.name == "a"
    lazy.close()


def test_passed_index_rejects_other_options(tmp_path):
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        opening, lazy = LazyIndex.of(index)
        variant = replace(opening, location=str(tmp_path / "other"), embedder=FakeEmbedder(), create=True)
        assert lazy.get(variant).info().location == str(tmp_path / "other")
        assert lazy.get(opening) is index
        with pytest.raises(InvalidInputError, match="reranker cannot be set for an index that is already open"):
            lazy.get(replace(opening, reranker="lite"))
        lazy.close()
        assert index.info().documents == 0


def test_deleted_index_raises_and_is_not_recreated(tmp_path):
    adapter = Adapter(tmp_path / "kb")
    adapter.index.add(["whales sing"], ids=["a"])
    adapter.close()
    assert len(adapter.index.search("whales")) == 1
    adapter.close()
    shutil.rmtree(tmp_path / "kb")
    with pytest.raises(IndexNotFoundError, match="No index at"):
        _ = adapter.index
    assert not (tmp_path / "kb").exists()


def test_opening_pickle_excludes_key_models_and_create(tmp_path):
    opening = IndexOpening(str(tmp_path), FakeEmbedder(), "lite", "compact", True, None, SecretStr("sesame"))
    pickled = pickle.dumps(opening)
    assert b"sesame" not in pickled
    assert b"Fake" not in pickled
    assert pickle.loads(pickled) == IndexOpening(str(tmp_path), None, "lite", "compact", False)
    assert copy.deepcopy(opening).embedder is opening.embedder
    assert copy.copy(Adapter(tmp_path)).opening.create


def test_paths_resolve_against_initial_working_directory(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    opening, _ = LazyIndex.of("kb", embedder="model", assets_dir="files", api_key="sesame")
    monkeypatch.chdir(os.sep)
    assert (opening.location, opening.assets_dir) == (str(tmp_path / "kb"), str(tmp_path / "files"))
    assert opening.embedder == os.path.realpath(tmp_path / "model")
    assert opening.api_key == SecretStr("sesame")


@pytest.mark.parametrize("empty_value", ["", " "])
def test_empty_paths_and_names_raise_invalid_input_error(tmp_path, monkeypatch, empty_value):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match="index is empty; expected a name or a path"):
        LazyIndex.of(empty_value, embedder=FakeEmbedder(), create=True)
    for name in ("embedder", "reranker", "assets_dir"):
        with pytest.raises(InvalidInputError, match=f"{name} is empty"):
            LazyIndex.of("kb", **{name: empty_value})
    check_not_empty(a=None, b=".", c=tmp_path, d=FakeEmbedder())
    assert not list(tmp_path.iterdir())
