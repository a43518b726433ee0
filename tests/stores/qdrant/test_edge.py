"""Embedded store: persistence, locking, crashes, damaged files and vector storage."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager

import numpy as np
import pytest

from jina_rag._files import size_on_disk
from jina_rag.config import Storage
from jina_rag.errors import (
    IndexCorruptError,
    IndexLockedError,
    IndexMismatchError,
    IndexNotFoundError,
    IndexStateError,
    MissingDependencyError,
)
from jina_rag.scoring import maxsim_many, normalise
from jina_rag.stores.qdrant import base, edge, edge_folder, edge_optimization
from jina_rag.stores.qdrant.edge import EdgeStore
from jina_rag.testing import MemoryStore
from jina_rag.types import Point, Prefetch, Range, SparseVector

WRITER = """
import sys, uuid
import numpy as np
from jina_rag.stores.qdrant.edge import EdgeStore
from jina_rag.types import Point

store = EdgeStore.open(sys.argv[1], dim=4, multi_dim=8)
for call in range(10**6):
    rows = np.full((300, 8), call, "f4")
    ids = [str(uuid.UUID(int=call * 5 + i + 1)) for i in range(5)]
    points = [Point(one, multi=rows, payload={"call": call}) for one in ids]
    store.upsert(points)
    print(call, flush=True)
"""


def open_store(folder, **changes):
    return EdgeStore.open(folder, **{"dim": 4, "multi_dim": 8, **changes})


def point(n, **payload):
    multi = np.full((2, 8), n, "f4")
    return Point(str(uuid.UUID(int=n + 1)), dense=np.ones(4, "f4"), multi=multi, payload={"n": n, **payload})


def fail_at(store, step, monkeypatch):
    """Let one method of the shard fail, also after a reload; return the list of the shards."""
    shards = [FailingShard(store._shard, step)]
    store._shard = shards[0]

    def load(*args, **options):
        shards.append(FailingShard(edge_folder.load_shard(*args, **options), step))
        return shards[-1]

    monkeypatch.setattr(edge, "load_shard", load)
    return shards


def test_points_persist_after_reopening(tmp_path):
    with open_store(tmp_path / "a") as store:
        store.upsert([point(n) for n in range(3)])
    with open_store(tmp_path / "a", create=False) as store:
        store.delete([point(0).id])
    with open_store(tmp_path / "a") as store:
        assert sorted(hit.payload["n"] for hit in store.scroll({"n": [0, 1, 2]})) == [1, 2]
        np.testing.assert_array_equal(store.fetch([point(2).id])[0].multi, point(2).multi)


def number_indexes(store):
    return {path for path in store._shard.info().payload_schema if path != "_where"}


@pytest.mark.parametrize("log", [True, False])
def test_number_indexes_are_created_on_first_use_and_persist(tmp_path, log):
    with open_store(tmp_path, storage=Storage(log=log)) as store:
        assert number_indexes(store) == set()
        store.upsert([point(n, name="x") for n in range(40)])
        first = number_indexes(store)
        assert len(first) == 1
        store.update_payload({point(3).id: {"meta": [{"a key.": 5}]}})
        assert len(number_indexes(store)) == 2
        store.delete([point(0).id])
        store.optimize()
        store.upsert([point(40, name="x")])
        assert store.count({"n": Range(gte=39)}) == 2
    with open_store(tmp_path) as store:
        assert len(number_indexes(store)) == 2
        store.upsert([point(41)])
        assert len(number_indexes(store)) == 2
        assert [hit.payload["n"] for hit in store.scroll({"meta.a key.": Range(gt=4)})] == [3]
        assert store.count({"n": Range(lt=2)}) == 1
        assert store.count({"n": Range(gte=39)}) == 3


def test_range_filter_matches_keys_without_an_index(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "MAX_INDEXED_KEYS", 3)
    with open_store(tmp_path) as store:
        store.upsert([point(n, **{f"k{i}": n + i for i in range(6)}) for n in range(5)])
        assert len(number_indexes(store)) == 3
        for i in range(6):
            assert store.count({f"k{i}": Range(gte=i + 3)}) == 2


def test_updated_payloads_persist_after_reopening(tmp_path):
    with open_store(tmp_path / "a") as store:
        store.upsert([point(n, kind="page", old=1) for n in range(3)])
    with open_store(tmp_path / "a") as store:
        store.update_payload({point(1).id: {"kind": "chart", "old": None}})
    with open_store(tmp_path / "a") as store:
        assert [hit.payload for hit in store.scroll({"kind": "chart"})] == [{"n": 1, "kind": "chart"}]
        assert store.count({"kind": "page", "old": 1}) == 2
        np.testing.assert_array_equal(store.fetch([point(1).id])[0].multi, point(1).multi)


class RecordingShard:
    """A shard that records the names of its method calls."""

    def __init__(self, shard):
        self._shard, self.calls = shard, []

    def __getattr__(self, name):
        self.calls.append(name)
        return getattr(self._shard, name)


def test_close_writes_an_empty_log_record_only_after_changes(tmp_path):
    """Opening replays the last log record, which takes 100 ms for a batch of pages."""
    store = open_store(tmp_path / "a")
    store.upsert([point(0)])
    writer = store._shard = RecordingShard(store._shard)
    store.close()
    assert writer.calls == ["update", "flush", "close"]
    store = open_store(tmp_path / "a")
    assert store.count() == 1
    reader = store._shard = RecordingShard(store._shard)
    store.close()
    assert reader.calls == ["close"]


class FailingShard(RecordingShard):
    """A shard on which calls of the listed methods fail."""

    def __init__(self, shard, *names):
        super().__init__(shard)
        self._names = names

    def __getattr__(self, name):
        if name in self._names:
            raise RuntimeError(f"the disk fails at {name}")
        return super().__getattr__(name)


@pytest.mark.parametrize("step", ["flush", "close", "load"])
def test_failed_reload_releases_the_lock(tmp_path, monkeypatch, step):
    store = open_store(tmp_path)
    store.upsert([point(0)])
    monkeypatch.setattr(edge, "_RELOAD_BYTES", 0)
    if step == "load":
        monkeypatch.setattr(edge, "load_shard", lambda *_, **__: 1 / 0)
    else:
        store._shard = FailingShard(store._shard, step)
    with pytest.raises(IndexStateError, match="be written to"):
        store.upsert([point(1)])
    if step == "load":
        with pytest.raises(IndexStateError, match="is closed"):
            store.count()
        store.close()
    else:
        with pytest.raises(IndexStateError, match="be closed"):
            store.close()
    store.close()
    monkeypatch.undo()
    with open_store(tmp_path, create=False) as reopened:
        assert reopened.count() == 2


def interrupt_at(number, *codes):
    """Let functions raise KeyboardInterrupt at step `number`: before a line, or before a function returns.

    Returns:
        The list of the lines of the steps; it has fewer than `number` entries if nothing was interrupted.
    """
    steps = []

    def trace(frame, event, arg):
        del arg  # the traceback of the interruption must not refer to a returned shard
        if frame.f_code in codes and event in ("line", "return"):
            steps.append(frame.f_lineno)
            if len(steps) == number:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    return steps


def test_store_works_after_an_interruption_at_any_line_of_a_reload(tmp_path):
    codes = (EdgeStore._reload_shard.__code__, edge_folder.load_shard.__code__)
    tracer = sys.gettrace()
    with open_store(tmp_path) as store:
        for number in range(1, 100):
            store.upsert([point(number)])
            try:
                steps = interrupt_at(number, *codes)
                try:
                    store._reload()
                finally:
                    sys.settrace(tracer)
            except KeyboardInterrupt:
                # The traceback refers to the frames of the reload, as in the handler of an ingestion.
                store.flush()
                assert store.count() == number
            else:
                break
        assert 10 < len(steps) < number
        assert store.count() == number


@pytest.mark.parametrize("step", ["close", "load"])
@pytest.mark.parametrize("call", ["flush", "search", "upsert", "optimize", "close"])
def test_interrupted_reload_is_repeated_by_the_next_call(tmp_path, monkeypatch, step, call):
    """A signal that arrives during an engine call raises KeyboardInterrupt after the call."""
    store = open_store(tmp_path)
    store.upsert([point(0)])
    monkeypatch.setattr(edge, "_RELOAD_BYTES", 0)

    def interrupted(function):
        def call_and_raise(*args, **options):
            function(*args, **options)
            raise KeyboardInterrupt

        return call_and_raise

    if step == "load":
        monkeypatch.setattr(edge, "load_shard", interrupted(edge_folder.load_shard))
    else:
        shard = RecordingShard(store._shard)
        shard.close = interrupted(store._shard.close)
        store._shard = shard
    with pytest.raises(KeyboardInterrupt):
        store.upsert([point(1)])
    monkeypatch.undo()
    if step == "close":
        del shard.close
    count = 2
    if call == "search":
        assert len(store.search(np.ones((2, 8), "f4"), limit=9)) == 2
    elif call == "upsert":
        store.upsert([point(2)])
        count = 3
    else:
        getattr(store, call)()
    if call != "close":
        assert store.count() == count
    store.close()
    with pytest.raises(IndexStateError, match="is closed"):
        store.count()
    with open_store(tmp_path, create=False) as reopened:
        assert reopened.count() == count


def test_failed_repetition_of_an_interrupted_reload_closes_the_store(tmp_path, monkeypatch):
    store = open_store(tmp_path)
    store.upsert([point(0)])
    monkeypatch.setattr(edge, "_RELOAD_BYTES", 0)
    errors = iter([KeyboardInterrupt(), RuntimeError("the disk fails")])

    def load(*_args, **_options):
        raise next(errors)

    monkeypatch.setattr(edge, "load_shard", load)
    with pytest.raises(KeyboardInterrupt):
        store.upsert([point(1)])
    with pytest.raises(IndexStateError, match="the disk fails"):
        store.count()
    with pytest.raises(IndexStateError, match="is closed"):
        store.count()
    store.close()
    monkeypatch.undo()
    with open_store(tmp_path, create=False) as reopened:
        assert reopened.count() == 2


@pytest.mark.parametrize("step", ["count", "optimize", "update", "flush", "close"])
def test_failed_close_releases_the_lock(tmp_path, monkeypatch, step):
    monkeypatch.setattr(edge, "_MIN_VACUUM_POINTS", 1)
    store = open_store(tmp_path)
    store.upsert([point(n) for n in range(3)])
    store.delete([point(0).id, point(1).id])
    fail_at(store, step, monkeypatch)
    with pytest.raises(IndexStateError, match="the disk fails"):
        store.close()
    store.close()
    monkeypatch.undo()  # nothing else refers to the shard that was not closed
    with open_store(tmp_path, create=False) as reopened:
        assert reopened.count() == 1


@pytest.mark.parametrize("step", ["count", "optimize", "update", "flush"])
def test_close_closes_the_shard_if_an_earlier_step_fails(tmp_path, monkeypatch, step):
    """An unclosed shard holds the lock of the engine until it is garbage-collected."""
    monkeypatch.setattr(edge, "_MIN_VACUUM_POINTS", 1)
    store = open_store(tmp_path)
    store.upsert([point(n) for n in range(3)])
    store.delete([point(0).id, point(1).id])
    shards = fail_at(store, step, monkeypatch)
    with pytest.raises(IndexStateError, match="the disk fails"):
        store.close()
    assert shards[-1].calls[-1] == "close"
    with open_store(tmp_path, create=False) as reopened:
        assert reopened.count() == 1


@pytest.mark.parametrize("deleted_path", ["data", "data/shard", "data/shard/segments", "data/shard/segments/*"])
def test_missing_vectors_raise_index_not_found_error_without_create(tmp_path, deleted_path):
    with open_store(tmp_path) as store:
        store.upsert([point(0)])
    for folder in tmp_path.glob(deleted_path):
        shutil.rmtree(folder)
    with pytest.raises(IndexNotFoundError, match=r"has no vectors\. Restore .*, or ingest into a new folder"):
        open_store(tmp_path, create=False)


@pytest.mark.parametrize("step", ["_create", "_check_facts", "load_shard", "indexed_paths", "_read_ahead"])
def test_failed_open_releases_the_lock(tmp_path, monkeypatch, step):
    storage = Storage("int4")  # opening a store with this storage reads the files ahead
    if step != "_create":
        open_store(tmp_path, storage=storage).close()
    monkeypatch.setattr(edge_folder, step, lambda *_, **__: 1 / 0)
    with pytest.raises((IndexStateError, ZeroDivisionError)) as caught:
        open_store(tmp_path, storage=storage)
    monkeypatch.undo()
    open_store(tmp_path, storage=storage).close()
    assert caught.value.__traceback__, "the test holds the traceback, whose frames must not hold the lock"


def test_open_without_create_creates_nothing(tmp_path):
    with pytest.raises(IndexNotFoundError, match="ingest"):
        open_store(tmp_path / "a", create=False)
    assert not (tmp_path / "a").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no POSIX permissions")
def test_folder_is_readable_by_the_owner_only(tmp_path):
    open_store(tmp_path / "new").close()
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("dims", [{"dim": 5}, {"multi_dim": 9}])
def test_dimension_mismatch_raises_and_releases_the_lock(tmp_path, dims):
    open_store(tmp_path).close()
    with pytest.raises(IndexMismatchError, match="dimensions") as caught:
        open_store(tmp_path, **dims)
    open_store(tmp_path).close()
    assert caught.value.__traceback__, "the test holds the traceback, whose frames must not hold the lock"


def test_newer_format_raises_index_mismatch_error(tmp_path):
    open_store(tmp_path).close()
    facts = tmp_path / "data" / "store.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "format": 99}))
    with pytest.raises(IndexMismatchError, match="version"):
        open_store(tmp_path)


def test_second_process_gets_locked_error_with_the_path(tmp_path):
    script = (
        "import sys; from jina_rag.errors import IndexLockedError\n"
        "from jina_rag.stores.qdrant.edge import EdgeStore\n"
        "try: EdgeStore.open(sys.argv[1], dim=4, multi_dim=8)\n"
        "except IndexLockedError as exc: print(exc); sys.exit(7)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with open_store(tmp_path):
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert second.returncode == 7, second.stderr
        assert str(tmp_path) in second.stdout
        assert "Close the index" in second.stdout
        with pytest.raises(IndexLockedError):
            open_store(tmp_path)
    assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize("error", ["folder", "log"])
@pytest.mark.parametrize("is_ending", [True, False])
def test_open_waits_for_the_locks_of_a_process_that_is_ending(tmp_path, monkeypatch, error, is_ending):
    """The operating system keeps the locks of a killed process until it has freed the memory of the process."""
    open_store(tmp_path).close()
    release = time.monotonic() + 0.5
    acquire_lock, load = edge_folder.acquire_lock, edge_folder.engine_errors

    def acquire(*args):
        if error == "folder" and time.monotonic() < release:
            raise IndexLockedError("locked")
        return acquire_lock(*args)

    @contextmanager
    def fail_open(folder, action):
        with load(folder, action):
            if error == "log" and time.monotonic() < release:
                raise RuntimeError("failed to open WAL: WouldBlock")
            yield

    monkeypatch.setattr(edge_folder, "acquire_lock", acquire)
    monkeypatch.setattr(edge_folder, "engine_errors", fail_open)
    monkeypatch.setattr(edge_folder, "has_live_user", lambda *_: not is_ending)
    monkeypatch.setattr(edge_folder, "_LOG_LOCK_SECONDS", 0.1)
    if is_ending:
        open_store(tmp_path).close()
        assert time.monotonic() >= release
    else:
        with pytest.raises(IndexLockedError):
            open_store(tmp_path)
        assert time.monotonic() < release


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("acknowledged_calls", [1, 25])
def test_killed_writer_loses_no_acknowledged_upsert(tmp_path, acknowledged_calls):
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        last = next(int(line) for line in writer.stdout if int(line) >= acknowledged_calls)
        writer.send_signal(signal.SIGKILL)
        last = max([last, *(int(line) for line in writer.stdout if line.endswith("\n"))])
    with open_store(tmp_path) as store:
        calls = [hit.payload["call"] for hit in store.scroll()]
        counts = {call: calls.count(call) for call in set(calls)}
        assert set(range(last + 1)) <= set(counts)
        assert set(counts.values()) == {5}, "a call was stored partially"
        for start in range(0, (max(counts) + 1) * 5, 50):
            for stored_point in store.fetch([str(uuid.UUID(int=n + 1)) for n in range(start, start + 50)]):
                assert (stored_point.multi == stored_point.payload["call"]).all()
        store.upsert([point(0)])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("step", ["edge_folder._config", "pathlib.Path.rename"])
def test_kill_during_creation_leaves_no_store(tmp_path, step):
    script = (
        "import os, pathlib, sys; from jina_rag.stores.qdrant import edge, edge_folder, edge_optimization\n"
        f"{step} = lambda *_: os.kill(os.getpid(), 9)\n"
        "edge.EdgeStore.open(sys.argv[1], dim=4, multi_dim=8)"
    )
    process_result = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert process_result.returncode == -signal.SIGKILL
    assert (tmp_path / "data.new").is_dir()
    with pytest.raises(IndexNotFoundError):
        open_store(tmp_path, create=False)
    with open_store(tmp_path) as store:
        store.upsert([point(1)])
        assert store.count() == 1
    assert not (tmp_path / "data.new").exists()


@pytest.mark.parametrize("damage", ["no store.json", "half store.json", "no shard", "no segments", "no config"])
def test_damaged_files_raise_index_corrupt_error_and_release_the_lock(tmp_path, damage):
    with open_store(tmp_path) as store:
        store.upsert([point(1)])
    data = tmp_path / "data"
    if damage == "no store.json":
        (data / "store.json").unlink()
    elif damage == "half store.json":
        (data / "store.json").write_text('{"dim"')
    elif damage == "no shard":
        (data / "shard").rename(tmp_path / "elsewhere")
    elif damage == "no config":
        (data / "shard" / "edge_config.json").write_text("{")
    else:
        for file in (data / "shard" / "segments").rglob("*.json"):
            file.write_text("{")
    for _ in range(2):
        with pytest.raises(IndexCorruptError, match=r"Restore|again") as caught:
            open_store(tmp_path)
        assert str(tmp_path) in str(caught.value)
        assert caught.value.__cause__ is not None


def test_uncreatable_folder_raises_index_state_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(IndexStateError, match="writable"):
        open_store(tmp_path / "file")


def test_engine_errors_and_panics_become_index_errors(tmp_path):
    class PanicException(BaseException):
        pass

    for engine_error, expected in [
        (RuntimeError("disk"), IndexStateError),
        (PanicException("lib.rs"), IndexCorruptError),
    ]:
        with (
            pytest.raises(expected, match="be searched") as caught,
            edge_folder.engine_errors(tmp_path, "be searched"),
        ):
            raise engine_error
        assert caught.value.__cause__ is engine_error
        assert str(engine_error) in str(caught.value)
    with pytest.raises(KeyboardInterrupt), edge_folder.engine_errors(tmp_path, "be searched"):
        raise KeyboardInterrupt


def test_missing_engine_error_contains_the_pip_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "qdrant_edge", None)
    with pytest.raises(MissingDependencyError, match="pip install qdrant-edge-py"):
        open_store(tmp_path)


@pytest.mark.parametrize(("deleted_count", "expected"), [(999, 0), (1000, 1)])
def test_close_reclaims_space_of_many_deleted_points(tmp_path, monkeypatch, deleted_count, expected):
    calls = []
    optimize = EdgeStore.optimize
    monkeypatch.setattr(EdgeStore, "optimize", lambda self: (calls.append(self), optimize(self)))
    with open_store(tmp_path) as store:
        store.upsert([point(n, out=n < deleted_count) for n in range(1500)])
        store.delete([point(0).id])
        store.delete_where({"out": True, "n": list(range(1, deleted_count))})
        assert not calls
    assert len(calls) == expected
    with open_store(tmp_path) as store:
        assert store.count() == 1500 - deleted_count
        assert len(store.search(np.ones((2, 8), "f4"), limit=2000)) == 1500 - deleted_count
        store.upsert([point(3000)])
        assert store.count({"n": 3000}) == 1


def test_concurrent_writes_and_searches_from_threads(tmp_path):
    errors = []
    with open_store(tmp_path) as store:

        def work(worker):
            try:
                for n in range(30):
                    store.upsert([point(worker * 100 + n, worker=worker)])
                    assert store.search(np.ones((1, 8), "f4"), limit=3)
                    assert store.count({"worker": worker}) == n + 1
            except Exception as exc:
                errors.append(exc)

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert store.count() == 120


# Segments


@pytest.fixture
def small_segments(monkeypatch):
    """Let the store seal the growing segment after about 25 points, and merge segments above 4."""
    monkeypatch.setattr(edge, "_RELOAD_BYTES", 100_000)
    monkeypatch.setattr(edge, "GROWING_LIMIT", 0)
    optimizers = {
        **edge_folder._OPTIMIZERS,
        "indexing_threshold": 1,
        "default_segment_number": 4,
        "max_segment_size": 9,
    }
    monkeypatch.setattr(edge_folder, "_OPTIMIZERS", optimizers)


def sealed_segments(folder):
    segments = {file.parent for file in folder.glob("data/shard/segments/*/segment.json")}
    return [segment for segment in segments if not (segment / "mutable_id_tracker.mappings").exists()]


def shard_settings(folder):
    return json.loads((folder / "data" / "shard" / "edge_config.json").read_text())


def random_point(n, rng):
    terms = np.sort(rng.choice(30, size=6, replace=False)).astype(np.uint32)
    return Point(
        str(uuid.UUID(int=n + 1)),
        dense=unit_rows(1, 16, n)[0] if n % 7 else None,
        multi=unit_rows(4, 8, n),
        lexical=SparseVector(terms, np.ones(6, "f4")) if n % 5 else None,
        payload={"n": n, "kind": ["page", "chart"][n % 2], "year": 2000 + n % 10},
    )


def test_sealed_segments_answer_as_the_exact_store(tmp_path, small_segments):
    """Points are added, replaced, changed and deleted in sealed segments; the exact store gets the same calls."""
    rng = np.random.default_rng(3)
    dims = {"dim": 16, "multi_dim": 8}
    with EdgeStore.open(tmp_path, **dims) as store, MemoryStore(**dims) as exact:

        def both(name, *args):
            for each in (store, exact):
                getattr(each, name)(*args)

        def check(lexical_error=2e-3):
            dense, multi = unit_rows(1, 16, 900)[0], unit_rows(3, 8, 901)
            terms = SparseVector(np.arange(0, 30, 4, dtype=np.uint32), np.ones(8, "f4"))
            prefetch = {"dense": dense, "lexical": terms, "prefetch": Prefetch(limit=400)}
            for where in ({}, {"kind": "chart"}, {"year": Range(gte=2003, lt=2006)}, {"changed": True}):
                assert store.count(where) == exact.count(where)
                for name, query, options in (
                    ("search", multi, {}),
                    ("search", multi, prefetch),
                    ("nearest", dense, {}),
                    ("nearest", terms, {}),
                ):
                    hits, expected = (
                        getattr(each, name)(query, limit=20, where=where, **options) for each in (store, exact)
                    )
                    error = lexical_error if query is terms else 2e-3
                    np.testing.assert_allclose([h.score for h in hits], [h.score for h in expected], atol=error)
                    if query is not terms:  # lexical scores have many ties
                        # float16 rows may change the order of nearly equal scores.
                        assert len({h.id for h in hits} & {h.id for h in expected}) >= len(expected) - 2
            points, expected_points = ({h.id: h.payload for h in each.scroll()} for each in (store, exact))
            assert points == expected_points

        for start in range(0, 300, 20):
            both("upsert", [random_point(n, rng) for n in range(start, start + 20)])
        assert 2 <= len(sealed_segments(tmp_path)) <= 12
        check()
        both("upsert", [random_point(n + 1000 if n % 2 else n, rng) for n in range(0, 60)])
        both("update_payload", {str(uuid.UUID(int=n + 1)): {"changed": True, "kind": "page"} for n in range(50, 90)})
        both("delete", [str(uuid.UUID(int=n + 1)) for n in range(100, 140)])
        both("delete_where", {"year": 2004})
        # The document frequencies of the terms include deleted points until the engine rewrites their segment.
        check(lexical_error=0.3)
        store.optimize()
        check(lexical_error=0.3)
        count = exact.count()
    with EdgeStore.open(tmp_path, **dims) as reopened:
        assert reopened.count() == count


def test_growing_segment_is_sealed_when_it_is_large_only(tmp_path, monkeypatch):
    with open_store(tmp_path) as store:
        monkeypatch.setattr(edge, "_RELOAD_BYTES", 0)
        calls = store._shard = RecordingShard(store._shard)
        store.upsert([point(0)])
        assert "optimize" not in calls.calls
        monkeypatch.setattr(edge, "GROWING_LIMIT", 0)
        monkeypatch.setattr(edge, "optimize_closed_shard", lambda shard: calls.calls.append(shard))
        calls = store._shard = RecordingShard(store._shard)
        store.upsert([point(1)])
        shard = tmp_path / "data" / "shard"
        assert calls.calls == ["update", "update", "flush", "close", shard, "close"]
        assert store.count() == 2


@pytest.mark.parametrize("call", ["upsert", "optimize", "close"])
@pytest.mark.parametrize(
    ("boot", "reason"),
    [
        ("import sys; sys.exit('the disk fails')", "the optimization failed: the disk fails"),
        ("import os; os._exit(7)", "the optimization failed: exit code 7"),
    ],
)
def test_store_is_usable_after_a_failed_optimization_in_another_process(
    tmp_path, small_segments, monkeypatch, call, boot, reason
):
    with open_store(tmp_path) as store:
        store.upsert([point(0)])
        monkeypatch.setattr(edge_optimization, "_BOOT", boot)
        if call == "upsert":
            monkeypatch.setattr(edge, "_RELOAD_BYTES", 0)
        with pytest.raises(IndexStateError, match=reason):
            store.upsert([point(1)]) if call == "upsert" else getattr(store, call)()
        monkeypatch.undo()
        if call != "close":
            store.upsert([point(2)])
            assert shard_settings(tmp_path)["optimizers"]["deleted_threshold"] == 1
    with open_store(tmp_path, create=False) as reopened:
        assert reopened.count() == {"upsert": 3, "optimize": 2, "close": 1}[call]


def test_interrupted_optimization_in_another_process_leaves_a_usable_store(tmp_path, small_segments, monkeypatch):
    processes = []

    def communicate(process):
        processes.append(process)
        raise KeyboardInterrupt

    with open_store(tmp_path) as store:
        store.upsert([point(0)])
        monkeypatch.setattr(subprocess.Popen, "communicate", communicate)
        with pytest.raises(KeyboardInterrupt):
            store.optimize()
        assert processes[0].returncode == -signal.SIGKILL
        monkeypatch.undo()
        store.upsert([point(1)])
        assert store.count() == 2
        assert shard_settings(tmp_path)["optimizers"]["deleted_threshold"] == 1


SLEEPER = """
import os, sys, time
from jina_rag.stores.qdrant import edge_optimization

edge_optimization._exit_with_parent(int(sys.argv[1]))
print(os.getpid(), flush=True)
time.sleep(60)
"""
PARENT_OF_SLEEPER = """
import os, subprocess, sys

subprocess.run([sys.executable, "-c", sys.argv[1], str(os.getpid())])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_optimization_process_ends_with_its_parent(tmp_path):
    """A process that goes on would hold the shard, so that the index could not be opened again."""
    command = [sys.executable, "-c", PARENT_OF_SLEEPER, SLEEPER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        status = pathlib.Path("/proc", parent.stdout.readline().strip(), "status")
        assert status.exists()
        parent.kill()
        deadline = time.monotonic() + 30
        while status.exists() and "State:\tZ" not in status.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_opening_a_folder_of_an_earlier_version_updates_the_settings(tmp_path):
    with open_store(tmp_path) as store:
        store.upsert([point(n) for n in range(3)])
    file = tmp_path / "data" / "shard" / "edge_config.json"
    settings = shard_settings(tmp_path)
    earlier = {key: shard_settings(tmp_path)[key] for key in ("vectors", "sparse_vectors")}
    earlier["vectors"]["dense"].pop("hnsw_config")
    earlier["sparse_vectors"]["lexical"].pop("memory")
    file.write_text(json.dumps(earlier))
    open_store(tmp_path).close()
    assert shard_settings(tmp_path) == settings
    with open_store(tmp_path) as store:
        assert store.count() == 3


SEALING_WRITER = """
import sys, uuid
import numpy as np
from jina_rag.stores.qdrant import edge, edge_folder
from jina_rag.types import Point

edge.GROWING_LIMIT, edge._RELOAD_BYTES = 0, 4_000_000
edge_folder._OPTIMIZERS["indexing_threshold"] = 1
store = edge.EdgeStore.open(sys.argv[1], dim=4, multi_dim=8)
for call in range(10**6):
    rows = np.full((300, 8), call, "f4")
    store.upsert([Point(str(uuid.UUID(int=call * 50 + i + 1)), multi=rows, payload={"call": call}) for i in range(50)])
    print(call, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("sealings", [0, 1, 3])
def test_kill_while_a_segment_is_sealed_loses_no_acknowledged_upsert(tmp_path, sealings):
    temporary = tmp_path / "data" / "shard" / "temp_segments"
    with subprocess.Popen(
        [sys.executable, "-c", SEALING_WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        deadline = time.monotonic() + 60
        while len(sealed_segments(tmp_path)) < sealings or not any(temporary.glob("*")):
            assert time.monotonic() < deadline
        writer.send_signal(signal.SIGKILL)
        last = max([-1, *(int(line) for line in writer.stdout if line.endswith("\n"))])
    with open_store(tmp_path) as store:
        calls = [hit.payload["call"] for hit in store.scroll()]
        counts = {call: calls.count(call) for call in set(calls)}
        assert set(range(last + 1)) <= set(counts)
        assert set(counts.values()) == {50}, "a call was stored partially, or a point is in two segments"
        assert store.count() == len(calls)
        assert all(
            (p.multi == p.payload["call"]).all() for p in store.fetch([point(n).id for n in range(0, 50 * last, 97)])
        )
        store.upsert([point(10**6)])
        store.optimize()
        assert store.count() == len(calls) + 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems flush all segments")
def test_flush_syncs_the_log_from_which_a_store_without_its_last_segment_writes_is_restored(tmp_path, monkeypatch):
    """After a power failure, the segments may lack the writes since the last flush of the segments."""
    shard, saved = tmp_path / "a" / "data" / "shard", tmp_path / "saved"
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (synced.append(os.readlink(f"/proc/self/fd/{file}")), fsync(file)))
    with open_store(tmp_path / "a") as store:
        store.upsert([point(n) for n in range(3)])
        store._flush_segments()
        shutil.copytree(shard / "segments", saved / "segments")
        recorder = store._shard = RecordingShard(store._shard)
        store.upsert([point(n) for n in range(3, 6)])
        store.delete([point(0).id])
        store.update_payload({point(1).id: {"new": 1}})
        synced.clear()
        store.flush()
        assert "flush" not in recorder.calls
        assert {os.path.dirname(file) for file in synced} == {str(shard), str(shard / "wal")}
        shutil.copytree(shard / "wal", saved / "wal")
    for name in ("segments", "wal"):
        shutil.rmtree(shard / name)
        (saved / name).rename(shard / name)
    with open_store(tmp_path / "a", create=False) as store:
        assert sorted(hit.payload["n"] for hit in store.scroll()) == [1, 2, 3, 4, 5]
        assert store.count({"new": 1}) == 1
        assert len(store.search(np.ones((2, 8), "f4"), limit=10)) == 5


@pytest.mark.parametrize("reason", ["long log", "no log", "no fsync of maps"])
def test_flush_includes_the_segments(tmp_path, monkeypatch, reason):
    """A short log limits the time of the replay; without a log, only the segments have the changes."""
    with open_store(tmp_path, storage=Storage(log=reason != "no log")) as store:
        store.upsert([point(0)])
        if reason == "long log":
            monkeypatch.setattr(edge, "_REPLAY_BYTES", 0)
        elif reason == "no fsync of maps":
            monkeypatch.setattr(sys, "platform", "darwin")
        recorder = store._shard = RecordingShard(store._shard)
        store.flush()
        assert recorder.calls == ["flush"]


# Vector storage


def unit_rows(count, dim=64, seed=0):
    return normalise(np.random.default_rng(seed).normal(size=(count, dim)))


def make_pages(count, rows=40, dim=64):
    return [Point(str(uuid.UUID(int=n + 1)), multi=unit_rows(rows, dim, n), payload={"n": n}) for n in range(count)]


STORAGES = [
    (Storage(), 1e-3),
    (Storage("int8"), 5e-3),
    (Storage("int4"), 5e-2),
    (Storage.named("balanced"), 5e-2),
    (Storage.named("compact"), 5e-2),
    (Storage(quantization="binary"), 1e-3),
    (Storage("int4", quantization="int8"), 5e-2),
]


@pytest.mark.parametrize(("storage", "error"), STORAGES, ids=[str(storage) for storage, _ in STORAGES])
def test_scores_and_rows_match_the_vectors_for_every_storage(tmp_path, storage, error):
    points, query = make_pages(20), unit_rows(5, seed=99)
    exact = dict(zip([point.id for point in points], maxsim_many(query, [p.multi for p in points]), strict=True))
    with open_store(tmp_path, multi_dim=64, storage=storage) as store:
        store.upsert(points)
        first_hits = store.search(query, limit=20)
    for reopened_storage in (None, storage):
        with open_store(tmp_path, multi_dim=64, storage=reopened_storage) as store:
            assert store.storage == storage
            hits = store.search(query, limit=20)
            assert [(hit.id, hit.score) for hit in hits] == [(hit.id, hit.score) for hit in first_hits]
            assert {hit.id: hit.score for hit in hits} == pytest.approx(exact, abs=5 * error)
            hits_by_dense = store.search(query, limit=3, dense=np.ones(4, "f4"), prefetch=Prefetch(5, 0, 0))
            assert hits_by_dense == []
            np.testing.assert_allclose(store.fetch([points[3].id])[0].multi, points[3].multi, atol=2 * error)


@pytest.mark.parametrize(("storage", "error"), STORAGES, ids=[str(storage) for storage, _ in STORAGES])
def test_sealed_segments_keep_scores_and_rows_for_every_storage(tmp_path, small_segments, storage, error):
    points, query = make_pages(60), unit_rows(5, seed=99)
    exact = dict(zip([point.id for point in points], maxsim_many(query, [p.multi for p in points]), strict=True))
    with open_store(tmp_path, multi_dim=64, storage=storage) as store:
        for start in range(0, 60, 10):
            store.upsert(points[start : start + 10])
        assert len(sealed_segments(tmp_path)) >= 2
    for _ in range(2):
        with open_store(tmp_path, multi_dim=64) as store:
            hits = store.search(query, limit=60)
            assert {hit.id: hit.score for hit in hits} == pytest.approx(exact, abs=5 * error)
            for point_, stored in zip(points, store.fetch([point.id for point in points]), strict=True):
                np.testing.assert_allclose(stored.multi, point_.multi, atol=2 * error)


def test_storage_mismatch_error_names_both_storages(tmp_path):
    open_store(tmp_path, storage=Storage.named("compact")).close()
    for other in (Storage(), Storage.named("balanced")):
        with pytest.raises(IndexMismatchError, match=f"storage compact, not {other}"):
            open_store(tmp_path, storage=other)
    open_store(tmp_path).close()


@pytest.mark.parametrize("storage_record", [None, 3, {"datatype": 7}, {"holographic": True}])
def test_unreadable_storage_record_raises_an_index_error(tmp_path, storage_record):
    open_store(tmp_path).close()
    facts = tmp_path / "data" / "store.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "storage": storage_record}))
    with pytest.raises((IndexCorruptError, IndexMismatchError), match=r"Restore|Update jina-rag"):
        open_store(tmp_path)


@pytest.mark.parametrize("older", [{"format": 1}, {"format": 2, "storage": {}}])
def test_older_format_raises_index_mismatch_error(tmp_path, older):
    with open_store(tmp_path) as store:
        store.upsert([point(1)])
    (tmp_path / "data" / "store.json").write_text(json.dumps({"dim": 4, "multi_dim": 8, **older}))
    with pytest.raises(IndexMismatchError, match="from another jina-rag version"):
        open_store(tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="Windows does not report the allocated size of a sparse file")
def test_bytes_by_part_matches_disk_usage(tmp_path):
    sizes = {}
    for name in ("exact", "compact"):
        with open_store(tmp_path / name, multi_dim=64, storage=Storage.named(name)) as store:
            empty = store.bytes_by_part()
            store.upsert(make_pages(50, rows=400))
        with open_store(tmp_path / name, multi_dim=64) as store:
            sizes[name] = store.bytes_by_part()
        assert set(sizes[name]) == {"dense", "multi", "lexical", "payload", "log", "other"}
        assert sizes[name]["multi"] > empty["multi"] + 50 * 400 * 64 / 2
        assert sum(sizes[name].values()) == size_on_disk(tmp_path / name)
    assert sizes["compact"]["multi"] < sizes["exact"]["multi"] / 3
    assert sizes["exact"]["log"] > 50 * 400 * 64
    assert sizes["compact"]["log"] == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("acknowledged_calls", [1, 25])
def test_killed_writer_without_log_loses_no_acknowledged_upsert(tmp_path, acknowledged_calls):
    script = WRITER.replace("multi_dim=8)", "multi_dim=8, storage=Storage('int4', log=False))")
    script = "from jina_rag.config import Storage\n" + script
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:
        last = next(int(line) for line in writer.stdout if int(line) >= acknowledged_calls)
        writer.send_signal(signal.SIGKILL)
        last = max([last, *(int(line) for line in writer.stdout if line.endswith("\n"))])
    assert not list(tmp_path.rglob("wal"))
    with open_store(tmp_path) as store:
        calls = [hit.payload["call"] for hit in store.scroll()]
        assert {call: calls.count(call) for call in range(last + 1)} == dict.fromkeys(range(last + 1), 5)
        for number in range(last + 1):
            (stored_point,) = store.fetch([str(uuid.UUID(int=number * 5 + 1))])
            # int4 stores a constant row with a large error.
            np.testing.assert_allclose(stored_point.multi, number, atol=0.2 * number + 1e-6)
        store.upsert([point(0)])


def test_store_without_log_flushes_once_per_call(tmp_path):
    with open_store(tmp_path, storage=Storage(log=False)) as store:
        store.upsert([point(n) for n in range(3)])
        shard = store._shard = RecordingShard(store._shard)
        store.upsert([point(3)])
        assert shard.calls == ["update", "flush"]
        shard.calls.clear()
        store.update_payload({point(n).id: {"n": n + 10} for n in range(4)})
        assert shard.calls == ["retrieve", *["update"] * 4, "flush"]
        shard.calls.clear()
        store.delete([point(0).id])
        assert shard.calls == ["update", "flush"]
        shard.calls.clear()
        store.delete([point(n).id for n in range(100, 900)])
        assert shard.calls == ["update", "flush"], "one engine call for all ids"
    with open_store(tmp_path) as store:
        assert sorted(hit.payload["n"] for hit in store.scroll()) == [11, 12, 13]


def test_shard_reload_after_byte_limit_loses_no_points(tmp_path, monkeypatch):
    """Mapped files count as process memory, which grows with the index if the shard is never reloaded."""
    monkeypatch.setattr("jina_rag.stores.qdrant.edge._RELOAD_BYTES", 20_000)
    rng = np.random.default_rng(0)
    points = [Point(str(uuid.UUID(int=n + 1)), multi=rng.normal(size=(20, 8)).astype("f4")) for n in range(12)]
    with EdgeStore.open(tmp_path / "store", dim=4, multi_dim=8) as store:
        shards = [store._shard]
        for point in points:
            store.upsert([point])
            if store._shard is not shards[-1]:
                shards.append(store._shard)
            assert store.count() == int(uuid.UUID(point.id))
        assert store._mapped_bytes <= 20_000
        assert len(shards) > 1
        for point, stored_point in zip(points, store.fetch([point.id for point in points]), strict=True):
            np.testing.assert_allclose(stored_point.multi, point.multi, atol=5e-3)
