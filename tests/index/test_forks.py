"""index: open indexes in forked children. Each test runs a script, in which an alarm ends a process that waits."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="requires fork")

PRELUDE = """
import asyncio, ctypes, gc, os, signal, sys, threading, time
from jina_rag import DocumentIndex
from jina_rag.errors import IndexLockedError, IndexStateError
from jina_rag.testing import FakeEmbedder

def open_index():
    return DocumentIndex.open("kb", embedder=FakeEmbedder())

def in_child(work, fork=os.fork):
    # Run a function in a forked child; an error or a wait of more than 20 seconds fails the test.
    pid = fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(20)
            work()
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid

def wait(pid):
    assert os.waitpid(pid, 0)[1] == 0, "the child failed"

def error_of(work):
    try:
        work()
    except IndexStateError as error:
        return error
    raise AssertionError("no error")

def is_usable(index):
    return index.search("pump", k=1)[0].doc_id == "p0" and index.add(["more"], ids=["more"]) and not index.verify()
"""


def run(folder, script):
    code = PRELUDE + textwrap.dedent(script)
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr
    assert not process.stderr


def test_inherited_index_raises_at_once_and_leaves_the_parent_unharmed(tmp_path):
    """Other threads hold the locks of the store, the manifest and the session at the fork."""
    (tmp_path / "page.txt").write_text("text")
    run(
        tmp_path,
        """
        index = open_index()
        index.add(["pump"], ids=["p0"])
        hit = index.search("pump")[0]
        calls = {
            "search": lambda: index.search("pump"),
            "asearch": lambda: asyncio.run(index.asearch("pump")),
            "add": lambda: index.add(["child"], ids=["child"]),
            "ingest": lambda: index.ingest(["page.txt"]),
            "delete": lambda: index.delete("p0"),
            "documents": index.documents, "info": index.info, "verify": index.verify,
            "get": lambda: index.get(["p0"]),
            "cite": lambda: index.cite("pump", hit),
            "copy": lambda: index.copy("other"),
            "close": index.close,
            "embedder": lambda: index.embedder,
        }
        resources = index._session.resources
        is_locked, is_done = threading.Event(), threading.Event()

        def hold_locks():
            with resources.store._write_lock, resources.store._engine_lock, index._session.write_lock:
                is_locked.set()
                is_done.wait()

        def child():
            global index, resources
            for name, call in calls.items():
                start = time.monotonic()
                error = error_of(call)
                assert str(os.getppid()) in str(error), (name, error)
                assert not isinstance(error, IndexLockedError), (name, error)
            assert "kb" in repr(index)
            with index:  # the end of the block raises no error
                pass
            calls.clear()
            del index, resources
            gc.collect()

        threading.Thread(target=hold_locks).start()
        is_locked.wait()
        children = [in_child(child)]
        pid = os.fork()
        if pid == 0:  # a child that ends with the destruction of all objects
            signal.alarm(20)
            sys.exit(0)
        for each in (*children, pid):
            wait(each)
        is_done.set()
        assert is_usable(index)
        assert {record.doc_id for record in index.documents()} == {"p0", "more"}
        index.close()
        with open_index() as again:
            assert is_usable(again) and not again.get(["child"])
        """,
    )


def test_path_opens_in_a_child_after_the_parent_has_closed_the_index(tmp_path):
    """While either process has the index open, the error of the other one names the process."""
    run(
        tmp_path,
        """
        index = open_index()
        index.add(["pump"], ids=["p0"])
        may_open, has_opened, may_close = os.pipe(), os.pipe(), os.pipe()

        def child():
            error = error_of(open_index)
            assert isinstance(error, IndexLockedError) and f"process {os.getppid()} (" in str(error), error
            os.write(has_opened[1], b"1")
            os.read(may_open[0], 1)
            with open_index() as own:
                os.write(has_opened[1], b"1")
                os.read(may_close[0], 1)
                assert is_usable(own)

        pid = in_child(child)
        os.read(has_opened[0], 1)
        index.close()
        os.write(may_open[1], b"1")
        os.read(has_opened[0], 1)
        error = error_of(open_index)
        assert isinstance(error, IndexLockedError), error
        if sys.platform == "linux":
            assert f"process {pid} (" in str(error), error
        os.write(may_close[1], b"1")
        wait(pid)
        with open_index() as again:
            assert again.get(["more"])
        """,
    )


def test_index_reopens_while_a_child_lives(tmp_path):
    """A child that was forked without Python's hooks, by a library for example, keeps the log of the store open."""
    run(
        tmp_path,
        """
        index = open_index()
        index.add(["pump"], ids=["p0"])
        end = os.pipe()
        children = [in_child(lambda: os.read(end[0], 1))]
        index.close()
        with open_index() as again:
            assert is_usable(again)
            unhooked = in_child(lambda: os.read(end[0], 1), ctypes.CDLL(None).fork)
        error = error_of(open_index)
        assert isinstance(error, IndexLockedError), error
        if sys.platform == "linux":
            assert f"process {unhooked} (" in str(error), error
        os.write(end[1], b"12")
        for pid in (*children, unhooked):
            wait(pid)
        with open_index() as again:
            assert is_usable(again)
        """,
    )


def test_pickled_index_and_adapter_report_the_lock_in_a_process_pool(tmp_path):
    """The error is the result of the call. An error while unpickling would end the processes of the pool."""
    run(
        tmp_path,
        """
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        from jina_rag.adapters.indexes import LazyIndex

        def search(lazy, opening):
            return [hit.doc_id for hit in lazy.get(opening).search("pump", k=1)]

        with DocumentIndex.open("kb") as index:
            index.add(["pump"], ids=["p0"])
            passed, lazy = LazyIndex.of(index), LazyIndex.of("kb")
            assert search(lazy[1], lazy[0]) == ["p0"]
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
                for call in ((index.search, "pump"), (search, passed[1], passed[0]), (search, lazy[1], lazy[0])):
                    error = error_of(lambda: pool.submit(*call).result(60))
                    assert isinstance(error, IndexLockedError) and str(os.getpid()) in str(error), error
                # The adapter of the parent, as a global variable of the child.
                wait(in_child(lambda: error_of(lambda: search(lazy[1], lazy[0]))))
                lazy[1].close()
                index.close()
                assert pool.submit(search, lazy[1], lazy[0]).result(60) == ["p0"]
        """,
    )


@pytest.mark.parametrize("hooks", ["none", "child"])
@pytest.mark.parametrize("is_used", [False, True])
def test_child_of_a_server_that_forks_without_all_hooks_leaves_the_parent_unharmed(tmp_path, hooks, is_used):
    """A server in C, such as uWSGI, forks its workers itself. The child ends with the destruction of all objects."""
    run(
        tmp_path,
        f"""
        index = open_index()
        index.add(["pump"], ids=["p0"])
        pid = ctypes.PyDLL(None).fork()
        if pid == 0:
            signal.alarm(20)
            if {hooks!r} == "child":
                ctypes.pythonapi.PyOS_AfterFork_Child()
            if {is_used}:
                assert str(os.getppid()) in str(error_of(lambda: index.search("pump")))
                assert str(os.getppid()) in str(error_of(lambda: index.add(["child"], ids=["child"])))
                error = error_of(open_index)
                assert isinstance(error, IndexLockedError) and str(os.getppid()) in str(error), error
                with DocumentIndex.open("other", embedder=FakeEmbedder()) as other:
                    other.add(["pump"], ids=["p0"])
                    assert is_usable(other)
            del index
            gc.collect()
            sys.exit(0)
        wait(pid)
        assert is_usable(index)
        index.close()
        with open_index() as again:
            assert is_usable(again)
        """,
    )
