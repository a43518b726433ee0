"""The index behind an adapter: one handle, opened at its first use, released, and gone with the adapter."""

from __future__ import annotations

import gc
import pickle
import threading

import pytest

pytest.importorskip("pydantic")

from helpers.index_locks import is_locked
from pydantic import SecretStr

from jina_rag import DocumentIndex, InvalidInputError
from jina_rag.adapters import IndexOpening, IndexOwner, LazyIndex
from jina_rag.testing import FakeEmbedder


class Adapter(IndexOwner):
    def __init__(self, index, **options):
        location, self._index = LazyIndex.of(index, **options)
        self.opening = IndexOpening(location, FakeEmbedder(), create=True)

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
