"""The open indexes of a process: one session for each location, and a lock for each."""

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

PATIENCE = 60
"""Seconds after which a test that hangs fails; nothing that passes waits for them."""


class Gate:
    """Stands before the opening of one folder: tells that it was reached, and waits to be opened."""

    def __init__(self, monkeypatch, name: str) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        self.calls: list[str] = []
        open_folder = registry.open_folder

        def gated(root, options):
            self.calls.append(root.name)
            if root.name == name:
                self.reached.set()
                assert self.opened.wait(PATIENCE)
            return open_folder(root, options)

        monkeypatch.setattr(registry, "open_folder", gated)


def is_locked(folder) -> bool:
    """Whether somebody has the embedded store of an index open."""
    try:
        EdgeStore.open(folder / "vectors", dim=128, multi_dim=64).close()
    except IndexLockedError:
        return True
    return False


@pytest.fixture
def threads():
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_opening_one_folder_waits_for_no_other(tmp_path, monkeypatch, threads):
    gate = Gate(monkeypatch, "slow")
    slow = threads.submit(DocumentIndex.open, tmp_path / "slow", embedder=FakeEmbedder())
    assert gate.reached.wait(PATIENCE)
    try:
        threads.submit(DocumentIndex.open, tmp_path / "quick", embedder=FakeEmbedder()).result(PATIENCE).close()
        assert not slow.done()
    finally:
        gate.opened.set()
    slow.result(PATIENCE).close()


def test_two_threads_that_open_one_location_share_a_session(tmp_path, monkeypatch, threads):
    gate = Gate(monkeypatch, "kb")
    embedder = FakeEmbedder()
    first = threads.submit(DocumentIndex.open, tmp_path / "kb", embedder=embedder)
    assert gate.reached.wait(PATIENCE)
    second = threads.submit(DocumentIndex.open, tmp_path / "kb", embedder=embedder)
    gate.opened.set()
    indexes = first.result(PATIENCE), second.result(PATIENCE)
    assert gate.calls == ["kb"]
    assert indexes[0]._session is indexes[1]._session
    for index in indexes:
        assert is_locked(tmp_path / "kb")
        index.close()
    assert not is_locked(tmp_path / "kb")


def test_where_the_first_fails_the_second_tries_itself(tmp_path, monkeypatch, threads):
    reached, go_on = threading.Event(), threading.Event()
    open_folder, calls = registry.open_folder, []

    def failing_once(root, options):
        calls.append(root)
        if len(calls) == 1:
            reached.set()
            assert go_on.wait(PATIENCE)
            raise IndexStateError("the disk is away")
        return open_folder(root, options)

    monkeypatch.setattr(registry, "open_folder", failing_once)
    first = threads.submit(DocumentIndex.open, tmp_path / "kb", embedder=FakeEmbedder())
    assert reached.wait(PATIENCE)
    second = threads.submit(DocumentIndex.open, tmp_path / "kb", embedder=FakeEmbedder())
    go_on.set()
    with pytest.raises(IndexStateError, match="the disk is away"):
        first.result(PATIENCE)
    second.result(PATIENCE).close()
    assert len(calls) == 2


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_every_spelling_of_a_folder_is_one_location(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("kb")
    with DocumentIndex.open("kb", embedder=FakeEmbedder()) as index:
        for name in ("kb/", "./kb", "link", "link/../kb", tmp_path / "kb"):
            with DocumentIndex.open(name) as other:
                assert other._session is index._session, name


def test_an_index_that_nothing_refers_to_is_closed(tmp_path):
    index = DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder())
    second = DocumentIndex.open(tmp_path / "kb")
    assert is_locked(tmp_path / "kb")
    del index
    gc.collect()
    assert is_locked(tmp_path / "kb"), "the second one is at work"
    del second
    gc.collect()
    assert not is_locked(tmp_path / "kb")


def test_the_collector_may_run_while_its_thread_holds_the_lock(tmp_path, monkeypatch):
    embedder = FakeEmbedder()
    abandoned = [DocumentIndex.open(tmp_path / "kb", embedder=embedder)]
    check = IndexSession.check

    def collecting(session, options):
        abandoned.clear()
        gc.collect()
        check(session, options)

    monkeypatch.setattr(IndexSession, "check", collecting)
    with DocumentIndex.open(tmp_path / "kb", embedder=embedder) as index:
        assert index.search("anything") == []
        assert is_locked(tmp_path / "kb")
    assert not is_locked(tmp_path / "kb")


def test_work_in_flight_keeps_an_index_open(tmp_path, threads):
    started, go_on = threading.Event(), threading.Event()

    class Slow(FakeEmbedder):
        def encode_query(self, queries, **options):
            started.set()
            assert go_on.wait(PATIENCE)
            return super().encode_query(queries, **options)

    index = DocumentIndex.open(tmp_path / "kb", embedder=Slow())
    index.add(["whales sing"])
    running = threads.submit(index.search, "whales")
    del index
    assert started.wait(PATIENCE)
    gc.collect()
    go_on.set()
    assert len(running.result(PATIENCE)) == 1
    del running
    threads.shutdown()  # a thread that has just answered may still hold what it was called with
    gc.collect()
    assert not is_locked(tmp_path / "kb")


def test_a_store_that_cannot_be_closed_is_forgotten_all_the_same(tmp_path, monkeypatch):
    close = EdgeStore.close

    def failing(store):
        close(store)
        raise IndexStateError("the disk is full")

    index = DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder())
    manifest = index._session.resources.manifest
    with monkeypatch.context() as patch:
        patch.setattr(EdgeStore, "close", failing)
        with pytest.raises(IndexStateError, match="the disk is full"):
            index.close()
    index.close()
    with pytest.raises(Exception, match="closed"):
        manifest.settings()
    with DocumentIndex.open(tmp_path / "kb", embedder=FakeEmbedder()) as index:
        assert index.info().documents == 0
