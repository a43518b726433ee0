"""Devices and memory: autocast of the caller, memory of deleted models, memory limits of containers."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from jina_rag import load_embedder, load_reranker

torch = pytest.importorskip("torch")

from jina_rag.models.runtime import devices  # noqa: E402  # behind the check for torch

LONG = "Revenue grew in the north, and fell in the south. " * 8
GIB = 1024**3


pytestmark = pytest.mark.usefixtures("one_thread")


def test_caller_autocast_changes_neither_scores_nor_cached_prefixes(tiny):
    model, other = (load_reranker(tiny["m0"], device="cpu", dtype="float32") for _ in range(2))
    expected = [other.score(query, [LONG], raw=True) for query in ("q", "why?")]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(model.score("q", [LONG], raw=True), expected[0])
    np.testing.assert_array_equal(model.score("why?", [LONG], raw=True), expected[1])


@pytest.mark.parametrize("family", ["v4", "colbert-v2", "v1"])
def test_caller_autocast_does_not_change_vectors(tiny, family):
    model = load_embedder(tiny[family], device="cpu", dtype="float32")
    expected = model.encode_document([LONG]).single
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(model.encode_document([LONG]).single, expected)


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_deleting_model_frees_weights_and_prefix_cache_at_once(tiny, prefix_cache):
    """Memory is freed without the cyclic garbage collector, because the next model on a GPU needs the memory."""
    model = load_reranker(tiny["m0"], device="cpu", dtype="float32", prefix_cache=prefix_cache)
    model.score("q", [LONG])
    gc.collect()
    gc.disable()
    try:
        references = [weakref.ref(model._model.module), weakref.ref(model._scorer)]
        references += [weakref.ref(model.prefix_cache)] if prefix_cache else []
        del model
        assert [reference() for reference in references] == [None] * len(references)
    finally:
        gc.enable()


@pytest.fixture
def write_kernel_files(tmp_path, monkeypatch):
    """Return a function that writes the kernel files of a machine with 8 GiB of available memory."""
    monkeypatch.setattr(devices, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(devices, "_CGROUP", tmp_path / "groups")

    def write(files):
        for name, text in {"proc/meminfo": f"MemTotal: 99 kB\nMemAvailable: {8 * GIB // 1024} kB\n", **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def cgroup_files(folder, limit, used, cached="", version=2):
    names = ("memory.max", "memory.current")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    return {f"{folder}/{names[0]}": f"{limit}\n", f"{folder}/{names[1]}": f"{used}\n", f"{folder}/memory.stat": cached}


CGROUP_V2, CGROUP_V1 = "0::/a/b\n", "9:name=systemd:/\n4:cpu,memory:/a/b\n0::/\n"


@pytest.mark.parametrize(
    ("files", "gib"),
    [
        ({}, 8),
        ({"proc/self/cgroup": CGROUP_V2}, 8),
        ({"proc/self/cgroup": "nonsense\n"}, 8),
        ({"proc/self/cgroup": CGROUP_V2, **cgroup_files("groups/a/b", 4 * GIB, GIB)}, 3),
        ({"proc/self/cgroup": CGROUP_V2, **cgroup_files("groups/a/b", "max", GIB)}, 8),
        ({"proc/self/cgroup": CGROUP_V2, **cgroup_files("groups/a/b", 90 * GIB, GIB)}, 8),
        (
            {
                "proc/self/cgroup": CGROUP_V2,
                **cgroup_files("groups/a/b", "max", GIB),
                **cgroup_files("groups/a", 3 * GIB, 2 * GIB),
            },
            1,
        ),
        ({"proc/self/cgroup": CGROUP_V2, **cgroup_files("groups", 3 * GIB, 2 * GIB)}, 1),
        ({"proc/self/cgroup": CGROUP_V2, **cgroup_files("groups/a/b", GIB, 2 * GIB)}, 0),
        (
            {
                "proc/self/cgroup": CGROUP_V2,
                **cgroup_files("groups/a/b", 4 * GIB, 3 * GIB, f"inactive_file {GIB}\nanon 5\n"),
            },
            2,
        ),
        ({"proc/self/cgroup": CGROUP_V1, **cgroup_files("groups/memory/a/b", 4 * GIB, GIB, version=1)}, 3),
        (
            {
                "proc/self/cgroup": CGROUP_V1,
                **cgroup_files("groups/memory", 2 * GIB, GIB, f"total_active_file {GIB}\n", 1),
            },
            2,
        ),
        ({"proc/self/cgroup": CGROUP_V1, **cgroup_files("groups/cpu", GIB, 0, version=1)}, 8),
    ],
)
def test_available_memory_respects_cgroup_limits(write_kernel_files, files, gib):
    write_kernel_files(files)
    assert devices.available_memory() == gib * GIB


def test_available_memory_without_proc_files_is_estimated(write_kernel_files):
    assert devices.available_memory() >= GIB // 8
