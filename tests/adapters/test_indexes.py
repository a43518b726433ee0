"""The index behind an adapter: one handle, opened at its first use, released, and gone with the adapter."""

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
def handles(monkeypatch):
    """Handles that were opened and not closed again."""
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


def test_threads_that_ask_first_get_one_handle(tmp_path, handles):
    adapter, barrier, indexes = Adapter(tmp_path / "kb"), threading.Barrier(6), []
    assert not (tmp_path / "kb").exists()

    def ask():
        barrier.wait()
        indexes.append(adapter.index)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(indexes) == 6
    assert len({id(index) for index in indexes}) == len(handles) == 1
    adapter.close()
    assert not handles
    assert adapter.index is not indexes[0]  # opens it again
    adapter.close()
    adapter.close()
    assert not handles


def test_an_index_that_is_passed_open_stays_open(tmp_path):
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        with Adapter(index) as adapter:
            assert adapter.index is index
            assert adapter.opening.location == str(tmp_path / "kb")
        assert index.info().documents == 0
        with pytest.raises(InvalidInputError, match="storage is for opening an index, and this one is open already"):
            Adapter(index, assets_dir=None, storage="exact")


def test_the_folder_is_free_when_the_adapter_is_gone(tmp_path):
    adapter = Adapter(tmp_path / "kb")
    adapter.index.add(["whales sing"], ids=["a"])
    assert is_locked(tmp_path / "kb")
    del adapter
    gc.collect()
    assert not is_locked(tmp_path / "kb")


def test_no_handle_and_no_key_is_pickled_or_shown(tmp_path):
    lazy = LazyIndex()
    opening = IndexOpening(str(tmp_path / "kb"), FakeEmbedder(), create=True, api_key=SecretStr("sesame"))
    assert "sesame" not in repr(opening)
    index = lazy.get(IndexOpening(str(tmp_path / "kb"), FakeEmbedder(), create=True))
    assert str(tmp_path) not in repr(lazy)
    again = pickle.loads(pickle.dumps(lazy))
    assert again == lazy
    assert again.external is None
    assert LazyIndex(index) != lazy
    assert LazyIndex(index) == LazyIndex(index)
    lazy.close()


def test_the_handle_follows_every_argument_of_the_opening(tmp_path, handles):
    lazy, embedder = LazyIndex(), FakeEmbedder()
    opening = IndexOpening(str(tmp_path / "a"), embedder, create=True)
    index = lazy.get(opening)
    assert lazy.get(replace(opening)) is lazy.get(replace(opening, create=False)) is index
    others = [
        replace(opening, location=str(tmp_path / "b")),
        replace(opening, embedder=FakeEmbedder()),
        replace(opening, reranker=FakeReranker()),
        replace(opening, storage="exact"),
    ]
    assert len({id(lazy.get(other)) for other in [opening, *others]}) == len(handles) == 5
    assert lazy.get(others[0]).info().location == str(tmp_path / "b")
    assert lazy.get(others[2]).reranker is others[2].reranker
    assert lazy.get(opening) is index
    lazy.close()
    assert not handles


@pytest.mark.parametrize(("name", "value"), [("assets_dir", "files"), ("api_key", SecretStr("sesame"))])
def test_the_handle_follows_what_goes_with_a_server(monkeypatch, name, value):
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


def test_the_handle_follows_the_options_of_its_model(monkeypatch, tmp_path):
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


def test_another_place_or_other_options_are_not_those_of_the_callers_index(tmp_path):
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        opening, lazy = LazyIndex.of(index)
        other = replace(opening, location=str(tmp_path / "other"), embedder=FakeEmbedder(), create=True)
        assert lazy.get(other).info().location == str(tmp_path / "other")
        assert lazy.get(opening) is index
        with pytest.raises(InvalidInputError, match="reranker is for opening an index, and this one is open already"):
            lazy.get(replace(opening, reranker="lite"))
        lazy.close()
        assert index.info().documents == 0


def test_an_index_that_is_gone_is_told_of_and_not_made_again(tmp_path):
    adapter = Adapter(tmp_path / "kb")
    adapter.index.add(["whales sing"], ids=["a"])
    adapter.close()
    assert len(adapter.index.search("whales")) == 1
    adapter.close()
    shutil.rmtree(tmp_path / "kb")
    with pytest.raises(IndexNotFoundError, match="No index at"):
        _ = adapter.index
    assert not (tmp_path / "kb").exists()


def test_an_opening_is_pickled_without_its_key_and_loaded_models_and_makes_nothing(tmp_path):
    opening = IndexOpening(str(tmp_path), FakeEmbedder(), "lite", "compact", True, None, SecretStr("sesame"))
    stored = pickle.dumps(opening)
    assert b"sesame" not in stored
    assert b"Fake" not in stored
    assert pickle.loads(stored) == IndexOpening(str(tmp_path), None, "lite", "compact", False)
    assert copy.deepcopy(opening).embedder is opening.embedder
    assert copy.copy(Adapter(tmp_path)).opening.create


def test_paths_are_those_of_the_working_directory_at_the_time(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    opening, _ = LazyIndex.of("kb", embedder="model", assets_dir="files", api_key="sesame")
    monkeypatch.chdir(os.sep)
    assert (opening.location, opening.assets_dir) == (str(tmp_path / "kb"), str(tmp_path / "files"))
    assert opening.embedder == os.path.realpath(tmp_path / "model")
    assert opening.api_key == SecretStr("sesame")


@pytest.mark.parametrize("empty", ["", " "])
def test_empty_places_and_names_are_refused(tmp_path, monkeypatch, empty):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match="index is empty: give a name or a path"):
        LazyIndex.of(empty, embedder=FakeEmbedder(), create=True)
    for name in ("embedder", "reranker", "assets_dir"):
        with pytest.raises(InvalidInputError, match=f"{name} is empty"):
            LazyIndex.of("kb", **{name: empty})
    check_not_empty(a=None, b=".", c=tmp_path, d=FakeEmbedder())
    assert not list(tmp_path.iterdir())
