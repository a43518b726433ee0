"""Registry of open indexes: one shared session and one lock per location."""

from __future__ import annotations

import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from jina_rag import DocumentIndex
from jina_rag.errors import IndexLockedError, IndexStateError
from jina_rag.index import registry
from jina_rag.index.session import IndexSession
from jina_rag.stores.qdrant.edge import EdgeStore
from jina_rag.testing import FakeEmbedder

TIMEOUT = 60
"""Number of seconds after which a hanging test fails. A passing test never waits this long."""


class OpeningGate:
    """Blocks the opening of one folder: sets `opening_started`, and waits until `may_open` is set."""

    def __init__(self, monkeypatch, name: str) -> None:
        self.opening_started, self.may_open = threading.Event(), threading.Event()
        self.calls: list[str] = []
        open_folder = registry.open_folder

        def gated_open(root, options):
            self.calls.append(root.name)
            if root.name == name:
                self.opening_started.set()
                assert self.may_open.wait(TIMEOUT)
            return open_folder(root, options)

        monkeypatch.setattr(registry, "open_folder", gated_open)


def is_locked(folder) -> bool:
    """Return whether the embedded store of an index is open."""
    try:
        EdgeStore.open(folder / "vectors", dim=128, multi_dim=64).close()
    except IndexLockedError:
        return True
    return False


@pytest.fixture
def threads():
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_opening_a_folder_does_not_block_other_folders(tmp_path, monkeypatch, threads):
    gate = OpeningGate(monkeypatch, "slow")
    slow_opening = threads.submit(DocumentIndex.open, tmp_path / "slow", embedder=FakeEmbedder())
    assert gate.opening_started.wait(TIMEOUT)
    try:
        threads.submit(DocumentIndex.open, tmp_path / "quick", embedder=FakeEmbedder()).result(TIMEOUT).close()
        assert not slow_opening.done()
    finally:
        gate.may_open.set()
    slow_opening.result(TIMEOUT).close()


def test_threads_opening_one_location_share_a_session(tmp_path, monkeypatch, threads):
    gate = OpeningGate(monkeypatch, "kb")
    embedder = FakeEmbedder()
    first = threads.submit(DocumentIndex.open, tmp_path / "kb", embedder=embedder)
    assert gate.opening_started.wait(TIMEOUT)
    second = threads.submit(DocumentIndex.open, tmp_path / "kb", embedder=embedder)
    gate.may_open.set()
    indexes = first.result(TIMEOUT), second.result(TIMEOUT)
    assert gate.calls == ["kb"]
    assert indexes[0]._session is indexes[1]._session
    for index in indexes:
        assert is_locked(tmp_path / "kb")
        index.close()
    assert not is_locked(tmp_path / "kb")


def test_failed_opening_does_not_affect_the_next_thread(tmp_path, monkeypatch, threads):
    opening_started, may_continue = threading.Event(), threading.Event()
    open_folder, calls = registry.open_folder, []

    def fail_first_open(root, options):
        calls.append(root)
        if len(calls) == 1:
            opening_started.set()
            assert may_continue.wait(TIMEOUT)
            raise IndexStateError("the disk is not mounted")
        return open_folder(root, options)

    monkeypatch.setattr(registry, "open_folder", fail_first_open)
    first = threads.submit(DocumentIndex.open, tmp_path / "kb", embedder=FakeEmbedder())
    assert opening_started.wait(TIMEOUT)
    second = threads.submit(DocumentIndex.open, tmp_path / "kb", embedder=FakeEmbedder())
    may_continue.set()
    with pytest.raises(IndexStateError, match="the disk is not mounted"):
        first.result(TIMEOUT)
    second.result(TIMEOUT).close()
    assert len(calls) == 2


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege on Windows")
def test_all_spellings_of_a_folder_share_a_session(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("kb")
    with DocumentIndex.open("kb", embedder=FakeEmbedder()) as index:
        for name in ("kb/", "./kb", "link", "link/../kb", tmp_path / "kb"):
            with DocumentIndex.open(name) as other:
                assert other._session is index._session, name


def test_garbage_collected_index_is_closed(tmp_path):
    index = DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder())
    second = DocumentIndex.open(tmp_path / "kb")
    assert is_locked(tmp_path / "kb")
    del index
    gc.collect()
    assert is_locked(tmp_path / "kb"), "the second instance is open"
    del second
    gc.collect()
    assert not is_locked(tmp_path / "kb")


def test_garbage_collection_while_holding_the_lock_does_not_deadlock(tmp_path, monkeypatch):
    embedder = FakeEmbedder()
    unreferenced_indexes = [DocumentIndex.open(tmp_path / "kb", embedder=embedder)]
    check = IndexSession.check

    def collect_garbage_and_check(session, options):
        unreferenced_indexes.clear()
        gc.collect()
        check(session, options)

    monkeypatch.setattr(IndexSession, "check", collect_garbage_and_check)
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        assert index.search("anything") == []
        assert is_locked(tmp_path / "kb")
    assert not is_locked(tmp_path / "kb")


def test_running_search_keeps_the_index_open(tmp_path, threads):
    search_started, may_continue = threading.Event(), threading.Event()

    class BlockingEmbedder(FakeEmbedder):
        def encode_query(self, queries, **options):
            search_started.set()
            assert may_continue.wait(TIMEOUT)
            return super().encode_query(queries, **options)

    index = DocumentIndex.open(tmp_path / "kb", embedder=BlockingEmbedder())
    index.add(["whales sing"])
    search_future = threads.submit(index.search, "whales")
    del index
    assert search_started.wait(TIMEOUT)
    gc.collect()
    may_continue.set()
    assert len(search_future.result(TIMEOUT)) == 1
    del search_future
    threads.shutdown()  # a finished worker thread may still reference its arguments
    gc.collect()
    assert not is_locked(tmp_path / "kb")


def test_session_is_dropped_even_if_closing_the_store_fails(tmp_path, monkeypatch):
    close = EdgeStore.close

    def close_and_fail(store):
        close(store)
        raise IndexStateError("the disk is full")

    index = DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder())
    manifest = index._session.resources.manifest
    with monkeypatch.context() as patch:
        patch.setattr(EdgeStore, "close", close_and_fail)
        with pytest.raises(IndexStateError, match="the disk is full"):
            index.close()
    index.close()
    with pytest.raises(Exception, match="closed"):
        manifest.settings()
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        assert index.info().documents == 0
