"""Vector cache of mteb runs: exact round trips, size limit, eviction and killed processes."""

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
def test_cache_returns_stored_vectors_exactly(tmp_path, vectors) -> None:
    with VectorCache(tmp_path / "v.sqlite3") as cache:
        cache.put({b"key": vectors})
    with VectorCache(tmp_path / "v.sqlite3") as cache:
        result = cache.get([b"key", b"other"])
    assert list(result) == [b"key"]
    for name in ("single", "multi"):
        expected, cached = getattr(vectors, name), getattr(result[b"key"], name)
        assert (expected is None) == (cached is None)
        if expected is not None:
            assert cached.dtype == np.float32
            assert cached.shape == expected.shape
            np.testing.assert_array_equal(cached, expected)


def test_key_of_separates_parts() -> None:
    assert key_of("ab", "c") != key_of("a", "bc")
    assert key_of("a") == key_of(b"a")


def test_cache_evicts_least_recently_used_vectors(tmp_path) -> None:
    path, max_bytes = tmp_path / "v.sqlite3", 10 * len(single(0).to_bytes())
    with VectorCache(path, max_bytes=max_bytes) as cache:
        cache.put({f"old {i}".encode(): single(i) for i in range(8)})
    with VectorCache(path, max_bytes=max_bytes) as cache:
        assert cache.get([b"old 0"])  # makes "old 0" the most recently used of the old vectors
        cache.put({f"new {i}".encode(): single(i) for i in range(6)})
        assert len(cache) <= 10
        assert set(cache.get([b"old 0", b"new 0", b"new 5"])) == {b"old 0", b"new 0", b"new 5"}
        assert not cache.get([b"old 1", b"old 2"])
    size = path.stat().st_size
    with VectorCache(path, max_bytes=max_bytes) as cache:
        for batch in range(30):
            cache.put({f"{batch} {i}".encode(): single(i) for i in range(6)})
        assert len(cache) <= 10
    assert path.stat().st_size <= size + 8192


def test_get_accepts_many_and_repeated_keys(tmp_path) -> None:
    with VectorCache(tmp_path / "v.sqlite3") as cache:
        keys = [str(i).encode() for i in range(1203)]
        cache.put({key: single(i) for i, key in enumerate(keys)})
        result = cache.get([*keys, *keys])
    assert [result[key].single[0] for key in keys] == list(range(1203))


def test_non_sqlite_file_or_invalid_max_bytes_raises(tmp_path) -> None:
    (tmp_path / "v.sqlite3").write_bytes(b"no database, but a file of some length" * 50)
    with pytest.raises(JinaRagError, match="cannot be used"):
        VectorCache(tmp_path / "v.sqlite3")
    with pytest.raises(InvalidInputError, match="positive"):
        VectorCache(tmp_path / "w.sqlite3", max_bytes=0)


def test_failed_put_stores_nothing(tmp_path, monkeypatch) -> None:
    with VectorCache(tmp_path / "v.sqlite3", max_bytes=10) as cache:
        monkeypatch.setattr(VectorCache, "_evict", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cache.put({b"a": single(1), b"b": single(2)})
        assert len(cache) == 0


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="requires SIGKILL")
def test_killed_process_keeps_stored_vectors(tmp_path) -> None:
    script = f"""
        import os, signal, sys, types
        import numpy as np
        package = types.ModuleType("jina_rag.evaluation.mteb")  # avoids the slow import of mteb
        package.__path__ = [{os.path.dirname(sys.modules["jina_rag.evaluation.mteb"].__file__)!r}]
        sys.modules[package.__name__] = package
        from jina_rag.evaluation.mteb.cache import VectorCache, Vectors
        cache = VectorCache(__import__("pathlib").Path({str(tmp_path / "v.sqlite3")!r}))
        for i in range(5):
            cache.put({{bytes([i]): Vectors(single=np.full(3, i, np.float32))}})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    process = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    with sqlite3.connect(tmp_path / "v.sqlite3") as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    file.close()
    with VectorCache(tmp_path / "v.sqlite3") as cache:
        assert len(cache.get([bytes([i]) for i in range(5)])) == 5
