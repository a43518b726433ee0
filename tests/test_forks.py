"""Forked children: renewed locks, files, worker processes and models. An alarm ends a child that waits."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from jina_rag.testing import sample_pdf

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="requires fork")

PRELUDE = """
import os, signal, sys, threading
from jina_rag import _forks, load_embedder, load_pages
from jina_rag.config import IngestSettings
from jina_rag.errors import IndexStateError

def check_child(work):
    # The child destroys all objects at its end.
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        work()
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0, "the child failed"
"""


def run(folder, script):
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(script)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    assert not process.stderr


def test_renewed_lock_is_free_in_a_child(tmp_path):
    run(
        tmp_path,
        """
        lock = _forks.RenewedLock()
        is_locked, is_done = threading.Event(), threading.Event()

        def hold():
            with lock:
                is_locked.set()
                is_done.wait()

        def child():
            with lock:
                pass

        threading.Thread(target=hold).start()
        is_locked.wait()
        check_child(child)
        is_done.set()
        """,
    )


def test_files_of_the_parent_are_closed_in_a_child(tmp_path):
    """The child shares no lock of the file, and closing its descriptor closes no other file."""
    run(
        tmp_path,
        """
        import fcntl

        owned = _forks.OwnedFiles("kb", "data")
        stream = open("data", "wb")
        fcntl.flock(stream, fcntl.LOCK_EX)

        def child():
            assert os.fstat(stream.fileno()).st_rdev == os.stat(os.devnull).st_rdev
            fcntl.flock(stream, fcntl.LOCK_UN)
            stream.write(b"child")
            stream.close()

        check_child(child)
        with open("data") as other, __import__("contextlib").suppress(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            sys.exit("the child has released the lock")
        stream.close()
        assert os.stat("data").st_size == 0
        """,
    )


def test_files_changed_by_another_thread_at_the_fork_cannot_be_opened_in_the_child(tmp_path):
    run(
        tmp_path,
        """
        owned = _forks.OwnedFiles("kb", "data", quiet=True)
        is_locked, is_done = threading.Event(), threading.Event()

        def hold():
            with owned.lock:
                is_locked.set()
                is_done.wait()

        def child():
            try:
                _forks.OwnedFiles("kb", "data")
            except IndexStateError as error:
                assert "spawn" in str(error)
            else:
                sys.exit("no error")

        threading.Thread(target=hold).start()
        is_locked.wait()
        check_child(child)
        is_done.set()
        """,
    )


def test_pages_are_read_in_a_child_and_by_the_parent(tmp_path):
    """The child cannot go on with the loop of the parent, and does not end the workers of the parent."""
    sample_pdf(tmp_path / "a.pdf", [f"page{n}" for n in range(6)])
    run(
        tmp_path,
        """
        settings = IngestSettings(ocr="never", dpi=40, processes=2)
        pages = load_pages("a.pdf", settings=settings)
        next(pages)

        def child():
            try:
                next(pages)
            except IndexStateError as error:
                assert str(os.getppid()) in str(error)
            else:
                sys.exit("no error")
            assert len(list(load_pages("a.pdf", settings=settings))) == 6

        check_child(child)
        check_child(lambda: None)
        assert [page.number for page in pages] == [2, 3, 4, 5, 6]
        """,
    )


@pytest.mark.parametrize("model", ["lite", "v1"])
def test_model_of_the_parent_works_in_a_child(request, tmp_path, model):
    """The threads of onnxruntime and OpenMP do not exist in the child."""
    name = model if model == "lite" else request.getfixturevalue("tiny")[model]
    run(
        tmp_path,
        f"""
        import warnings
        import numpy as np

        texts = [f"text {{n}} about rivers and bridges " * 20 for n in range(4)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            embedder = load_embedder({name!r})
        expected = embedder.encode_document(texts).single
        check_child(lambda: np.testing.assert_allclose(embedder.encode_document(texts).single, expected, atol=1e-5))
        """,
    )


def test_child_ends_although_pymupdf_has_sessions(tmp_path):
    """The module of PyMuPDF that analyzes layouts opens sessions of onnxruntime, whose destructors wait for threads."""
    run(
        tmp_path,
        """
        import pymupdf

        check_child(lambda: None)
        """,
    )
