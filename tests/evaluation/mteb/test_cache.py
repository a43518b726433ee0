"""Vectors on disk: exact, bounded, whole after a kill."""

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from jina_rag.errors import InvalidInputError, JinaRagError
from jina_rag.evaluation.mteb import VectorCache
from jina_rag.evaluation.mteb.cache import Vectors, key_of


def single(value: float, size: int = 4) -> Vectors:
    return Vectors(single=np.full(size, value, np.float32))


@pytest.mark.parametrize(
    "vectors",
    [
        single(0.1),
        Vectors(multi=np.arange(6, dtype=np.float32).reshape(2, 3) / 7),
        Vectors(single=np.zeros(0, np.float32), multi=np.zeros((0, 5), np.float32)),
        Vectors(single=np.full(3, -np.pi, np.float32), multi=np.ones((1, 2), np.float32)),
    ],
)
def test_vectors_come_back_exactly(tmp_path, vectors) -> None:
    with VectorCache(tmp_path / "v.sqlite3") as cache:
        cache.put({b"key": vectors})
    with VectorCache(tmp_path / "v.sqlite3") as cache:
        result = cache.get([b"key", b"other"])
    assert list(result) == [b"key"]
    for name in ("single", "multi"):
        before, after = getattr(vectors, name), getattr(result[b"key"], name)
        assert (before is None) == (after is None)
        if before is not None:
            assert after.dtype == np.float32
            assert after.shape == before.shape
            np.testing.assert_array_equal(after, before)


def test_keys_of_parts_do_not_run_into_each_other() -> None:
    assert key_of("ab", "c") != key_of("a", "bc")
    assert key_of("a") == key_of(b"a")


def test_what_was_not_used_for_the_longest_time_makes_room(tmp_path) -> None:
    path, room = tmp_path / "v.sqlite3", 10 * len(single(0).to_bytes())
    with VectorCache(path, max_bytes=room) as cache:
        cache.put({f"old {i}".encode(): single(i) for i in range(8)})
    with VectorCache(path, max_bytes=room) as cache:
        assert cache.get([b"old 0"])  # used again: newer than the others
        cache.put({f"new {i}".encode(): single(i) for i in range(6)})
        assert len(cache) <= 10
        assert set(cache.get([b"old 0", b"new 0", b"new 5"])) == {b"old 0", b"new 0", b"new 5"}
        assert not cache.get([b"old 1", b"old 2"])
    size = path.stat().st_size
    with VectorCache(path, max_bytes=room) as cache:
        for round_ in range(30):
            cache.put({f"{round_} {i}".encode(): single(i) for i in range(6)})
        assert len(cache) <= 10
    assert path.stat().st_size <= size + 8192


def test_many_keys_at_once(tmp_path) -> None:
    with VectorCache(tmp_path / "v.sqlite3") as cache:
        keys = [str(i).encode() for i in range(1203)]
        cache.put({key: single(i) for i, key in enumerate(keys)})
        result = cache.get([*keys, *keys])
    assert [result[key].single[0] for key in keys] == list(range(1203))


def test_a_file_that_is_something_else_is_one_sentence(tmp_path) -> None:
    (tmp_path / "v.sqlite3").write_bytes(b"no database, but a file of some length" * 50)
    with pytest.raises(JinaRagError, match="cannot be used"):
        VectorCache(tmp_path / "v.sqlite3")
    with pytest.raises(InvalidInputError, match="positive"):
        VectorCache(tmp_path / "w.sqlite3", max_bytes=0)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch) -> None:
    with VectorCache(tmp_path / "v.sqlite3", max_bytes=10) as cache:
        monkeypatch.setattr(VectorCache, "_make_room", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cache.put({b"a": single(1), b"b": single(2)})
        assert len(cache) == 0


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal")
def test_after_a_kill_what_was_put_is_there(tmp_path) -> None:
    script = f"""
        import os, signal, sys, types
        import numpy as np
        package = types.ModuleType("jina_rag.evaluation.mteb")  # without mteb, which takes seconds
        package.__path__ = [{os.path.dirname(sys.modules["jina_rag.evaluation.mteb"].__file__)!r}]
        sys.modules[package.__name__] = package
        from jina_rag.evaluation.mteb.cache import VectorCache, Vectors
        cache = VectorCache(__import__("pathlib").Path({str(tmp_path / "v.sqlite3")!r}))
        for i in range(5):
            cache.put({{bytes([i]): Vectors(single=np.full(3, i, np.float32))}})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with sqlite3.connect(tmp_path / "v.sqlite3") as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    file.close()
    with VectorCache(tmp_path / "v.sqlite3") as cache:
        assert len(cache.get([bytes([i]) for i in range(5)])) == 5
