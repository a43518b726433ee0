"""Offloading of idle models on a device that is too small for all models; most tests use a fake device."""

from __future__ import annotations

import gc
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.paths import DATA

from jina_rag import load_embedder, load_reranker
from jina_rag.errors import InvalidInputError, ModelError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402  # behind the check for torch

from jina_rag.models.jina.reranker_m0 import RerankerM0  # noqa: E402
from jina_rag.models.runtime import offload  # noqa: E402
from jina_rag.models.runtime.checkpoints import open_checkpoint  # noqa: E402
from jina_rag.models.runtime.devices import free_memory, place  # noqa: E402
from jina_rag.models.runtime.offload import OffloadedWeights, SharedDevice, shared_device  # noqa: E402
from jina_rag.models.runtime.prefix_cache import PrefixCache  # noqa: E402

IMAGE = DATA / "golden" / "images" / "photo_320x240.png"
CPU = torch.device("cpu")
TIMEOUT = 30
"""Seconds after which a thread counts as blocked."""


pytestmark = pytest.mark.usefixtures("one_thread")


class FakeDevice(SharedDevice):
    """A device of `capacity` bytes. The weights of an offloaded model are NaN until they are loaded again.

    Attributes:
        moves: Pairs ("load" or "offload", module) of all moves, in order.
    """

    def __init__(self, capacity):
        super().__init__(CPU, margin=0)
        self.capacity = capacity
        self.moves = []
        self._offloaded = {}

    def free(self):
        return self.capacity - sum(model.bytes for model in self.models if model.present)

    def move(self, module, *, to_device):
        if to_device == (id(module) not in self._offloaded):
            return  # already in place
        if to_device:
            for value, stored in zip(tensors_of(module), self._offloaded.pop(id(module)), strict=True):
                value.copy_(stored)
        else:
            self._offloaded[id(module)] = [value.clone() for value in tensors_of(module)]
            for value in tensors_of(module):
                value.fill_(float("nan") if value.is_floating_point() else -1)
        self.moves.append(("load" if to_device else "offload", module))

    def offload_models(self, *models):
        for model in models:
            self.move_weights(model, to_device=False)
        self.moves.clear()

    def count(self, direction):
        return sum(kind == direction for kind, _ in self.moves)


def tensors_of(module):
    return [*module.parameters(), *module.buffers()]


@pytest.fixture
def card(monkeypatch):
    """The CPU as a device with separate memory. Each test sets the capacity."""
    device = FakeDevice(10**12)
    monkeypatch.setitem(offload._devices, "cpu", device)
    return device


def make_weights(name, size):
    """Return the weights of a model of `size` bytes (a multiple of 4), on the device."""
    module = nn.Module()
    module.weight = nn.Parameter(torch.arange(size // 4, dtype=torch.float32), requires_grad=False)
    return OffloadedWeights(name, module, CPU)


def use(model):
    with model.on_device():
        assert model.present
        assert torch.isfinite(model.module.weight).all()


# Order of offloading


def test_models_that_fit_together_are_not_moved(card):
    first, second = make_weights("a", 40), make_weights("b", 60)
    card.capacity = 100
    for model in (first, second, second, first):
        use(model)
    assert card.moves == []


def test_least_recently_used_model_is_offloaded_first(card):
    models = [make_weights(name, 40) for name in "abc"]
    card.capacity = 120
    card.offload_models(models[2])
    other = make_weights("d", 40)
    use(models[0])
    use(other)
    use(models[2])
    assert [(kind, module) for kind, module in card.moves] == [
        ("offload", models[1].module),
        ("load", models[2].module),
    ]


def test_margin_is_kept_free_by_offloading_other_models(card):
    """The margin stays free for activations."""
    first, second = make_weights("a", 40), make_weights("b", 40)
    card.capacity, card.margin = 100, 30
    card.offload_models(first)
    use(first)
    assert not second.present
    # A model that is alone on the device may use the margin.
    card.capacity = 50
    use(second)
    assert not first.present


def test_model_larger_than_device_raises_model_error(card):
    first, second = make_weights("a", 40), make_weights("b", 80)
    card.offload_models(second)
    card.capacity = 60
    with pytest.raises(ModelError, match=r"b needs 0\.0 GB on cpu; 0\.0 GB are free\. Close other programs"):
        use(second)
    # The queue is not blocked.
    use(first)


def test_deleted_model_uses_no_device_memory(card):
    first, second = make_weights("a", 40), make_weights("b", 40)
    card.capacity = 60
    card.offload_models(second)
    del first
    gc.collect()
    use(second)
    assert card.moves == [("load", second.module)]


def test_failed_move_leaves_weights_usable(card, monkeypatch):
    """A driver may refuse memory that it reports as free, and host memory may be full."""
    first, second = make_weights("a", 40), make_weights("b", 40)
    card.capacity = 60
    card.offload_models(second)

    def refuse(direction):
        def move(module, *, to_device):
            if to_device == direction:
                raise torch.OutOfMemoryError("CUDA out of memory")
            FakeDevice.move(card, module, to_device=to_device)

        return move

    with monkeypatch.context() as patch:
        patch.setattr(card, "move", refuse(True))
        with pytest.raises(ModelError, match=r"b does not fit into the memory of cpu\. Close other programs"):
            use(second)
    assert not second.present
    use(first)
    with monkeypatch.context() as patch:
        patch.setattr(card, "move", refuse(False))
        with pytest.raises(ModelError, match="a does not fit into host memory"):
            use(second)
    use(first)
    use(second)


def test_offload_warning_is_logged_once(card, caplog):
    first, second = make_weights("a", 40), make_weights("b", 40)
    card.capacity = 60
    with caplog.at_level(logging.WARNING, "jina_rag"):
        card.offload_models(second)
        for model in (second, first, second, first):
            use(model)
    assert [record.message for record in caplog.records] == [
        "b and a do not fit into the memory of cpu together. Each switch between the models copies weights, which "
        "takes time."
    ]


# Callbacks


def test_on_offload_is_called_at_each_offload(card):
    first, second = make_weights("a", 40), make_weights("b", 40)
    card.capacity = 60
    calls = []
    first.on_offload = lambda: calls.append(first.present)
    card.offload_models(second)
    use(second)
    assert calls == [False]
    use(first)
    assert calls == [False]
    use(second)
    assert calls == [False, False]


# Threads


def test_model_in_use_is_not_offloaded(card):
    first, second = make_weights("a", 40), make_weights("b", 40)
    card.capacity = 60
    card.offload_models(second)
    entered = threading.Event()

    def other():
        with second.on_device():
            entered.set()

    thread = threading.Thread(target=other, daemon=True)
    with first.on_device():
        thread.start()
        assert not entered.wait(0.1)
        assert first.present
    assert entered.wait(TIMEOUT)
    thread.join(TIMEOUT)
    assert not first.present


def test_waiting_thread_gets_its_model_despite_busy_model(card):
    """A waiting thread can use a model, although other threads use another model continuously."""
    first, second = make_weights("a", 40), make_weights("b", 40)
    card.capacity = 60
    card.offload_models(second)
    is_served, stop = threading.Event(), threading.Event()
    barrier = threading.Barrier(3)

    def busy():
        barrier.wait(TIMEOUT)
        while not stop.is_set():
            with first.on_device():
                stop.wait(0.002)

    def once():
        barrier.wait(TIMEOUT)
        stop.wait(0.01)
        use(second)
        is_served.set()

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(busy), pool.submit(busy), pool.submit(once)]
        served = is_served.wait(TIMEOUT)
        stop.set()
        for future in futures:
            future.result(TIMEOUT)
    assert served


def test_many_threads_share_device_without_deadlock(card):
    models = [make_weights(name, 40) for name in "abcd"]
    card.offload_models(*models[2:])
    card.capacity = 80
    lock, inside, most = threading.Lock(), set(), []

    def run(number):
        rng = np.random.default_rng(number)
        for _ in range(40):
            model = models[int(rng.integers(0, 4))]
            with model.on_device():
                with lock:
                    inside.add((model.name, number))
                    most.append(len({name for name, _ in inside}))
                assert torch.isfinite(model.module.weight).all()
                with lock:
                    inside.discard((model.name, number))

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(run, number) for number in range(8)]:
            future.result(TIMEOUT)
    assert max(most) <= 2
    assert card.count("load") > 4


# Out of memory


def test_offload_idle_moves_idle_models_only(card):
    first, second = make_weights("a", 40), make_weights("b", 40)
    card.capacity = 100
    with first.on_device():
        assert card.offload_idle("a")
        assert (first.present, second.present) == (True, False)
        assert not card.offload_idle("a")  # no idle model remains


# Loading


def test_loading_frees_memory_and_blocks_other_loads(card):
    first, second = make_weights("a", 40), make_weights("b", 40)
    card.capacity = 100
    entered = threading.Event()

    def reload():
        with first.on_device():
            entered.set()

    with card.loading("c", 60):
        assert (first.present, second.present) == (False, True)
        use(second)  # a model on the device can still be used
        thread = threading.Thread(target=reload, daemon=True)
        thread.start()
        assert not entered.wait(0.05)
        third = make_weights("c", 60)
        assert not card.offload_idle("b")  # a model that is being loaded is not offloaded
    thread.join(TIMEOUT)
    assert entered.is_set()
    assert (first.present, second.present, third.present) == (True, False, True)


def test_oversized_model_is_refused_before_reading_weights(card):
    card.capacity = 100
    with pytest.raises(ModelError, match="c needs"), card.loading("c", 200):
        raise AssertionError("not reached")
    with pytest.raises(ModelError, match="c does not fit into the memory of cpu"), card.loading("c", 60):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with card.loading("d", 60):  # the queue is not blocked
        pass


def test_loading_waits_for_model_in_use(card):
    first = make_weights("a", 40)
    card.capacity = 60
    is_loaded = threading.Event()

    def load():
        with card.loading("c", 40):
            is_loaded.set()

    thread = threading.Thread(target=load, daemon=True)
    with first.on_device():
        thread.start()
        assert not is_loaded.wait(0.05)
    thread.join(TIMEOUT)
    assert is_loaded.is_set()
    assert not first.present


def test_waiting_for_memory_does_not_block_other_devices(tiny, card, monkeypatch):
    """Loading on a second device does not wait in the queue of the first device."""
    in_use, is_waiting, is_loaded = make_weights("a", 4 * 10**7), threading.Event(), threading.Event()
    card.capacity = in_use.bytes + 1000
    has_room = card.has_room
    monkeypatch.setattr(card, "has_room", lambda *args: is_waiting.set() or has_room(*args))

    def load():
        load_reranker(tiny["m0"], device="cpu", dtype="float32")
        is_loaded.set()

    thread = threading.Thread(target=load, daemon=True)
    with in_use.on_device():
        thread.start()
        assert is_waiting.wait(TIMEOUT)
        other = SharedDevice(CPU)
        with monkeypatch.context() as patch, ThreadPoolExecutor(1) as pool:
            patch.setitem(offload._devices, "cpu", other)
            pool.submit(load_embedder, tiny["colbert-v2"], device="cpu", dtype="float32").result(TIMEOUT)
        assert not is_loaded.is_set()
    assert is_loaded.wait(TIMEOUT)
    thread.join(TIMEOUT)


@pytest.mark.parametrize("error", [InvalidInputError, RuntimeError])
def test_other_errors_during_loading_are_unchanged(card, error):
    with pytest.raises(error, match="as it was"), card.loading("c", 60):
        raise error("as it was")
    with card.loading("d", 60):
        pass


# V4 and m0


@pytest.fixture
def v4_and_m0(tiny, card):
    """Models v4 (two adapters) and m0 on a device that holds only one model, with the expected outputs."""
    v4 = load_embedder(tiny["v4"], device="cpu", dtype="float32", task=("retrieval", "code"))
    m0 = load_reranker(tiny["m0"], device="cpu", dtype="float32")
    assert card.moves == []
    inputs = ["a text", IMAGE, ["both", IMAGE]]
    vectors = {task: v4.encode_document(inputs, task=task) for task in v4.tasks}
    scores = m0.score("a question?", inputs, raw=True)
    sizes = [model._model.weights.bytes for model in (v4, m0)]
    assert 0 < max(sizes) < sum(sizes)
    card.capacity = max(sizes) + 1000
    card.offload_models(m0._model.weights)
    return v4, m0, inputs, vectors, scores


def test_alternating_v4_and_m0_keep_their_outputs(v4_and_m0, card):
    v4, m0, inputs, vectors, scores = v4_and_m0
    for _ in range(2):
        for task in v4.tasks:
            embeddings = v4.encode_document(inputs, task=task)
            np.testing.assert_array_equal(embeddings.single, vectors[task].single)
            for rows, expected in zip(embeddings.multi, vectors[task].multi, strict=True):
                np.testing.assert_array_equal(rows, expected)
        np.testing.assert_allclose(m0.explain("a question?", IMAGE).score, scores[1], atol=1e-5)
        np.testing.assert_allclose(m0.score("a question?", inputs, raw=True), scores, atol=1e-5)
    # Consecutive calls of one model move nothing.
    v4_moves, m0_moves = ([kind for kind, module in card.moves if module is model._model.module] for model in (v4, m0))
    assert v4_moves == ["offload", "load", "offload"]
    assert m0_moves == ["load", "offload", "load"]


def test_m0_prefix_cache_moves_to_host_with_its_weights(tiny, card):
    """Cached pages are used from host memory after the model is loaded again."""
    v4 = load_embedder(tiny["v4"], device="cpu", dtype="float32")
    memory = PrefixCache(device_bytes=10**8, host_bytes=10**8)
    m0 = RerankerM0(open_checkpoint(Path(tiny["m0"]), name="m0"), place("cpu", "float32"), prefix_cache=memory)
    scores = m0.score("a question?", [IMAGE], raw=True)
    assert (m0.prefix_cache.use.device_entries, m0.prefix_cache.use.host_entries) == (1, 0)
    card.capacity = max(model._model.weights.bytes for model in (v4, m0)) + 1000
    card.offload_models(v4._model.weights)
    v4.encode_query(["a text"])
    assert (m0.prefix_cache.use.device_entries, m0.prefix_cache.use.host_entries) == (0, 1)
    np.testing.assert_allclose(m0.score("a question?", [IMAGE], raw=True), scores, atol=1e-5)
    assert m0.prefix_cache.use.hits == 1


def test_explain_offloads_idle_models(v4_and_m0, card):
    """Explaining needs more memory than scoring, and offloads idle models."""
    v4, m0, *_ = v4_and_m0
    card.capacity = 10**12
    m0.score("q", ["a text"])
    assert v4._model.weights.present

    def full(*_):
        if v4._model.weights.present:
            raise torch.OutOfMemoryError("CUDA out of memory")

    m0._model.module.model.language_model.layers[1].register_forward_pre_hook(full)
    assert np.isfinite(m0.explain("q", IMAGE).weights).all()
    assert not v4._model.weights.present


def test_v4_and_m0_in_parallel_threads_keep_their_outputs(v4_and_m0, card):
    v4, m0, inputs, vectors, scores = v4_and_m0

    def encode():
        for _ in range(3):
            embeddings = v4.encode_document(inputs, task="code", batch_tokens=1)
            np.testing.assert_allclose(embeddings.single, vectors["code"].single, atol=1e-5)

    def rank():
        for _ in range(3):
            np.testing.assert_allclose(m0.score("a question?", inputs, raw=True, batch_tokens=1), scores, atol=1e-4)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work) for work in (encode, rank, encode, rank)]:
            future.result(TIMEOUT)
    assert card.count("offload") >= 2


def test_second_model_loads_onto_full_device(tiny, card):
    v4 = load_embedder(tiny["v4"], device="cpu", dtype="float32")
    expected = v4.encode_query(["a text"]).single
    card.capacity = v4._model.weights.bytes + 1000
    m0 = load_reranker(tiny["m0"], device="cpu", dtype="float32")
    assert [kind for kind, _ in card.moves] == ["offload"]
    assert np.isfinite(m0.score("q", ["a text"])).all()
    np.testing.assert_array_equal(v4.encode_query(["a text"]).single, expected)
    # Load in reverse order, then with too little memory for any model.
    card.moves.clear()
    other = load_embedder(tiny["v4"], device="cpu", dtype="float32")
    assert [kind for kind, _ in card.moves] == ["offload"]
    np.testing.assert_array_equal(other.encode_query(["a text"]).single, expected)
    card.capacity = 1000
    for load, family in ((load_reranker, "m0"), (load_embedder, "v4")):
        with pytest.raises(ModelError, match=r"needs 0\.0 GB on cpu"):
            load(tiny[family], device="cpu", dtype="float32")


def test_device_does_not_keep_deleted_model_alive(tiny, card):
    model = load_reranker(tiny["m0"], device="cpu", dtype="float32")
    model.score("q", ["a text"])
    assert len([m for m in card.models if m.present]) == 1
    del model
    gc.collect()
    assert [m for m in card.models if m.present] == []


@pytest.mark.parametrize("active", ["v4", "m0"])
def test_out_of_memory_batch_is_retried_after_offloading_idle_models(v4_and_m0, card, active):
    v4, m0, inputs, *_ = v4_and_m0
    card.capacity = 10**12
    m0.score("q", ["a text"])
    v4.encode_query(["a text"])
    model, other, runner = (v4, m0, v4._runner) if active == "v4" else (m0, v4, m0._scorer._whole_runner)
    budget, calls = runner.batch_tokens, []

    def full(*_):
        calls.append(other._model.weights.present)
        if other._model.weights.present:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model._model.module.model.language_model.layers[1].register_forward_pre_hook(full)
    if active == "v4":
        v4.encode_document(inputs)
    else:
        m0.score("a question?", inputs)
    assert calls[:2] == [True, False]
    assert runner.batch_tokens == budget


def test_cpu_models_are_never_offloaded(tiny):
    assert free_memory(CPU) > 0
    model = load_reranker(tiny["m0"], device="cpu", dtype="float32")
    other = load_reranker(tiny["m0"], device="cpu", dtype="float32")
    with model._model.weights.on_device(), shared_device(CPU).loading("c", 10**18):
        pass
    assert not model._model.offload_others()
    assert other._model.weights.present


# Real devices


@pytest.mark.parametrize(("load", "family"), [(load_embedder, "v4"), (load_reranker, "m0")])
def test_move_includes_weights_adapters_and_buffers(tiny, load, family):
    """After a move to the meta device, no tensor is on another device."""
    options = {"task": ("retrieval", "code")} if family == "v4" else {}
    model = load(tiny[family], device="cpu", dtype="float32", **options)._model.weights
    assert family != "v4" or any("lora_B.code" in name for name, _ in model.module.named_parameters())
    size = model.bytes
    SharedDevice(torch.device("meta")).move(model.module, to_device=True)
    assert {value.device.type for value in tensors_of(model.module)} == {"meta"}
    assert model.bytes == size


def test_offloaded_module_is_in_host_memory(monkeypatch):
    module, released = nn.Linear(3, 3), []
    monkeypatch.setattr(offload, "release_memory", released.append)
    SharedDevice(CPU).move(module, to_device=False)
    assert module.weight.device == CPU
    assert released == [CPU]


def test_free_memory_includes_unused_reserved_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (500, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 300)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 900)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 200)
    assert SharedDevice(torch.device("cuda:0")).free() == 700
    assert SharedDevice(torch.device("mps")).free() == 700


def test_device_aliases_share_one_device(monkeypatch):
    monkeypatch.setattr(offload, "_devices", {})
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    devices = [shared_device(torch.device(name)) for name in ("cuda", "cuda:1", "cuda:0", "mps")]
    assert devices[0] is devices[1]
    assert len({id(device) for device in devices}) == 3


# Interrupted moves


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("interrupt_load", [False, True])
def test_interrupted_move_is_undone(card, monkeypatch, interrupt_load, error):
    first, second = make_weights("a", 40), make_weights("b", 40)
    card.capacity = 60
    card.offload_models(second)
    moves = []

    def move(module, *, to_device):
        moves.append((module, to_device))
        if to_device == interrupt_load and len(moves) <= 1 + interrupt_load:
            raise error
        FakeDevice.move(card, module, to_device=to_device)

    monkeypatch.setattr(card, "move", move)
    with pytest.raises(error), second.on_device():
        pass
    # The first model is on the device again, and the second uses no memory there.
    assert moves[-1] == ((second.module, False) if interrupt_load else (first.module, True))
    assert (first.present, second.present) == (not interrupt_load, False)
    for model in (first, second, first):
        use(model)
    assert not card.queue


def test_error_in_on_offload_leaves_device_usable(card):
    first, second = make_weights("a", 40), make_weights("b", 40)
    card.capacity = 60
    card.offload_models(second)

    def broken():
        raise RuntimeError("broken")

    first.on_offload = broken
    with pytest.raises(RuntimeError, match="broken"), second.on_device():
        pass
    assert not first.present
    use(second)
    assert not card.queue
