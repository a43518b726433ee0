"""Models that take turns on a device too small for all of them; without a GPU, on a memory that only counts."""

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

PICTURE = DATA / "golden" / "images" / "photo_320x240.png"
CPU = torch.device("cpu")
GONE = 30
"""Seconds after which a thread counts as stuck."""


pytestmark = pytest.mark.usefixtures("one_thread")


class SmallCard(SharedDevice):
    """A device of `capacity` bytes. What is away is not lost, but cannot be used: its weights are NaN.

    Attributes:
        moves: ("bring" or "take", module), in order.
    """

    def __init__(self, capacity):
        super().__init__(CPU, margin=0)
        self.capacity = capacity
        self.moves = []
        self._away = {}

    def free(self):
        return self.capacity - sum(model.bytes for model in self.models if model.present)

    def move(self, module, *, here):
        if here == (id(module) not in self._away):
            return  # it is there already
        if here:
            for value, stored in zip(all_of(module), self._away.pop(id(module)), strict=True):
                value.copy_(stored)
        else:
            self._away[id(module)] = [value.clone() for value in all_of(module)]
            for value in all_of(module):
                value.fill_(float("nan") if value.is_floating_point() else -1)
        self.moves.append(("bring" if here else "take", module))

    def send_away(self, *models):
        for model in models:
            self.move_weights(model, here=False)
        self.moves.clear()

    def count(self, what):
        return sum(kind == what for kind, _ in self.moves)


def all_of(module):
    return [*module.parameters(), *module.buffers()]


@pytest.fixture
def card(monkeypatch):
    """The CPU as a device with a memory of its own; a test sets its capacity."""
    device = SmallCard(10**12)
    monkeypatch.setitem(offload._devices, "cpu", device)
    return device


def loaded(name, size):
    """A model of `size` bytes (a multiple of 4) that lies on the card."""
    module = nn.Module()
    module.weight = nn.Parameter(torch.arange(size // 4, dtype=torch.float32), requires_grad=False)
    return OffloadedWeights(name, module, CPU)


def use(model):
    with model.on_device():
        assert model.present
        assert torch.isfinite(model.module.weight).all()


# -- who leaves ---------------------------------------------------------------------------------------------------


def test_where_all_fit_nothing_moves(card):
    first, second = loaded("a", 40), loaded("b", 60)
    card.capacity = 100
    for model in (first, second, second, first):
        use(model)
    assert card.moves == []


def test_the_least_recently_used_leaves_first_and_no_more_than_needed(card):
    models = [loaded(name, 40) for name in "abc"]
    card.capacity = 120
    card.send_away(models[2])
    other = loaded("d", 40)
    use(models[0])
    use(other)
    use(models[2])
    assert [(kind, module) for kind, module in card.moves] == [("take", models[1].module), ("bring", models[2].module)]


def test_a_margin_is_kept_if_another_can_leave_for_it(card):
    """Without room for what flows through a model its weights are of no use."""
    first, second = loaded("a", 40), loaded("b", 40)
    card.capacity, card.margin = 100, 30
    card.send_away(first)
    use(first)
    assert not second.present
    # Alone, a model may use the margin: it is a wish.
    card.capacity = 50
    use(second)
    assert not first.present


def test_a_model_too_large_for_the_device_alone_ends_in_a_sentence(card):
    first, second = loaded("a", 40), loaded("b", 80)
    card.send_away(second)
    card.capacity = 60
    with pytest.raises(ModelError, match=r"b needs 0\.0 GB on cpu, and 0\.0 GB are free there: close what else"):
        use(second)
    # Nothing is stuck after it.
    use(first)


def test_a_model_that_is_gone_counts_no_more(card):
    first, second = loaded("a", 40), loaded("b", 40)
    card.capacity = 60
    card.send_away(second)
    del first
    gc.collect()
    use(second)
    assert card.moves == [("bring", second.module)]


def test_weights_that_cannot_move_after_all_stay_usable(card, monkeypatch):
    """A driver may count memory as free and refuse it; main memory may be full."""
    first, second = loaded("a", 40), loaded("b", 40)
    card.capacity = 60
    card.send_away(second)

    def refuse(direction):
        def move(module, *, here):
            if here == direction:
                raise torch.OutOfMemoryError("CUDA out of memory")
            SmallCard.move(card, module, here=here)

        return move

    with monkeypatch.context() as patch:
        patch.setattr(card, "move", refuse(True))
        with pytest.raises(ModelError, match="b does not fit into cpu: close what else uses it"):
            use(second)
    assert not second.present
    use(first)
    with monkeypatch.context() as patch:
        patch.setattr(card, "move", refuse(False))
        with pytest.raises(ModelError, match="a does not fit into main memory"):
            use(second)
    use(first)
    use(second)


def test_it_is_said_once(card, caplog):
    first, second = loaded("a", 40), loaded("b", 40)
    card.capacity = 60
    with caplog.at_level(logging.WARNING, "jina_rag"):
        card.send_away(second)
        for model in (second, first, second, first):
            use(model)
    assert [record.message for record in caplog.records] == [
        "b and a do not fit into the memory of cpu together: they take turns, which costs a copy of the weights each "
        "time."
    ]


# -- what else lies on the device ---------------------------------------------------------------------------------


def test_what_else_a_model_keeps_there_is_released_with_it(card):
    first, second = loaded("a", 40), loaded("b", 40)
    card.capacity = 60
    calls = []
    first.on_offload = lambda: calls.append(first.present)
    card.send_away(second)
    use(second)
    assert calls == [False]
    use(first)
    assert calls == [False]
    use(second)
    assert calls == [False, False]


# -- threads ------------------------------------------------------------------------------------------------------


def test_a_model_in_use_does_not_leave(card):
    first, second = loaded("a", 40), loaded("b", 40)
    card.capacity = 60
    card.send_away(second)
    entered = threading.Event()

    def other():
        with second.on_device():
            entered.set()

    thread = threading.Thread(target=other, daemon=True)
    with first.on_device():
        thread.start()
        assert not entered.wait(0.1)
        assert first.present
    assert entered.wait(GONE)
    thread.join(GONE)
    assert not first.present


def test_who_waits_is_not_overtaken_for_ever(card):
    """A model that is always in use by one of its threads must leave all the same when its turn is over."""
    first, second = loaded("a", 40), loaded("b", 40)
    card.capacity = 60
    card.send_away(second)
    done, stop = threading.Event(), threading.Event()
    barrier = threading.Barrier(3)

    def busy():
        barrier.wait(GONE)
        while not stop.is_set():
            with first.on_device():
                stop.wait(0.002)

    def once():
        barrier.wait(GONE)
        stop.wait(0.01)
        use(second)
        done.set()

    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(busy), pool.submit(busy), pool.submit(once)]
        served = done.wait(GONE)
        stop.set()
        for job in jobs:
            job.result(GONE)
    assert served


def test_many_threads_and_models_neither_meet_nor_wait_for_each_other(card):
    models = [loaded(name, 40) for name in "abcd"]
    card.send_away(*models[2:])
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
        for job in [pool.submit(run, number) for number in range(8)]:
            job.result(GONE)
    assert max(most) <= 2
    assert card.count("bring") > 4


# -- when memory runs out in the middle ---------------------------------------------------------------------------


def test_memory_that_runs_out_sends_the_idle_away(card):
    first, second = loaded("a", 40), loaded("b", 40)
    card.capacity = 100
    with first.on_device():
        assert card.offload_idle("a")
        assert (first.present, second.present) == (True, False)
        assert not card.offload_idle("a")  # nobody is left


# -- loading ------------------------------------------------------------------------------------------------------


def test_loading_makes_room_and_lets_nobody_come_meanwhile(card):
    first, second = loaded("a", 40), loaded("b", 40)
    card.capacity = 100
    entered = threading.Event()

    def back():
        with first.on_device():
            entered.set()

    with card.loading("c", 60):
        assert (first.present, second.present) == (False, True)
        use(second)  # who is there may go on
        thread = threading.Thread(target=back, daemon=True)
        thread.start()
        assert not entered.wait(0.05)
        third = loaded("c", 60)
        assert not card.offload_idle("b")  # not complete yet: it stays
    thread.join(GONE)
    assert entered.is_set()
    assert (first.present, second.present, third.present) == (True, False, True)


def test_a_model_too_large_to_load_is_refused_before_it_is_read(card):
    card.capacity = 100
    with pytest.raises(ModelError, match="c needs"), card.loading("c", 200):
        raise AssertionError("not reached")
    with pytest.raises(ModelError, match="c does not fit onto cpu"), card.loading("c", 60):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with card.loading("d", 60):  # nothing is stuck
        pass


def test_loading_waits_for_a_model_in_use(card):
    first = loaded("a", 40)
    card.capacity = 60
    is_loaded = threading.Event()

    def load():
        with card.loading("c", 40):
            is_loaded.set()

    thread = threading.Thread(target=load, daemon=True)
    with first.on_device():
        thread.start()
        assert not is_loaded.wait(0.05)
    thread.join(GONE)
    assert is_loaded.is_set()
    assert not first.present


def test_a_model_that_waits_for_room_keeps_no_other_device_waiting(tiny, card, monkeypatch):
    """A second device stands in for another card: what loads there is not behind the queue of this one."""
    in_use, waits, is_loaded = loaded("a", 4 * 10**7), threading.Event(), threading.Event()
    card.capacity = in_use.bytes + 1000
    has_room = card.has_room
    monkeypatch.setattr(card, "has_room", lambda *args: waits.set() or has_room(*args))

    def load():
        load_reranker(tiny["m0"], device="cpu", dtype="float32")
        is_loaded.set()

    thread = threading.Thread(target=load, daemon=True)
    with in_use.on_device():
        thread.start()
        assert waits.wait(GONE)
        other = SharedDevice(CPU)
        with monkeypatch.context() as patch, ThreadPoolExecutor(1) as pool:
            patch.setitem(offload._devices, "cpu", other)
            pool.submit(load_embedder, tiny["colbert-v2"], device="cpu", dtype="float32").result(GONE)
        assert not is_loaded.is_set()
    assert is_loaded.wait(GONE)
    thread.join(GONE)


@pytest.mark.parametrize("error", [InvalidInputError, RuntimeError])
def test_other_errors_while_loading_pass(card, error):
    with pytest.raises(error, match="as it was"), card.loading("c", 60):
        raise error("as it was")
    with card.loading("d", 60):
        pass


# -- the models themselves ----------------------------------------------------------------------------------------


@pytest.fixture
def pair(tiny, card):
    """v4 with two adapters beside its weights, and m0, on a card that holds one of them; and what they give there."""
    v4 = load_embedder(tiny["v4"], device="cpu", dtype="float32", task=("retrieval", "code"))
    m0 = load_reranker(tiny["m0"], device="cpu", dtype="float32")
    assert card.moves == []
    inputs = ["a text", PICTURE, ["both", PICTURE]]
    vectors = {task: v4.encode_document(inputs, task=task) for task in v4.tasks}
    scores = m0.score("a question?", inputs, raw=True)
    sizes = [model._model.weights.bytes for model in (v4, m0)]
    assert 0 < max(sizes) < sum(sizes)
    card.capacity = max(sizes) + 1000
    card.send_away(m0._model.weights)
    return v4, m0, inputs, vectors, scores


def test_v4_and_m0_take_turns_and_give_what_they_gave(pair, card):
    v4, m0, inputs, vectors, scores = pair
    for _ in range(2):
        for task in v4.tasks:
            done = v4.encode_document(inputs, task=task)
            np.testing.assert_array_equal(done.single, vectors[task].single)
            for rows, expected in zip(done.multi, vectors[task].multi, strict=True):
                np.testing.assert_array_equal(rows, expected)
        np.testing.assert_allclose(m0.explain("a question?", PICTURE).score, scores[1], atol=1e-5)
        np.testing.assert_allclose(m0.score("a question?", inputs, raw=True), scores, atol=1e-5)
    # Calls that follow each other on one model move nothing.
    v4_moves, m0_moves = ([kind for kind, module in card.moves if module is model._model.module] for model in (v4, m0))
    assert v4_moves == ["take", "bring", "take"]
    assert m0_moves == ["bring", "take", "bring"]


def test_what_m0_keeps_of_pages_leaves_the_card_with_it(tiny, card):
    """And serves from main memory when it is back."""
    v4 = load_embedder(tiny["v4"], device="cpu", dtype="float32")
    memory = PrefixCache(device_bytes=10**8, host_bytes=10**8)
    m0 = RerankerM0(open_checkpoint(Path(tiny["m0"]), name="m0"), place("cpu", "float32"), prefix_cache=memory)
    scores = m0.score("a question?", [PICTURE], raw=True)
    assert (m0.prefix_cache.use.device_entries, m0.prefix_cache.use.host_entries) == (1, 0)
    card.capacity = max(model._model.weights.bytes for model in (v4, m0)) + 1000
    card.send_away(v4._model.weights)
    v4.encode_query(["a text"])
    assert (m0.prefix_cache.use.device_entries, m0.prefix_cache.use.host_entries) == (0, 1)
    np.testing.assert_allclose(m0.score("a question?", [PICTURE], raw=True), scores, atol=1e-5)
    assert m0.prefix_cache.use.hits == 1


def test_an_explanation_may_have_the_whole_card(pair, card):
    """It needs more memory than a score does; what lies idle there leaves for it."""
    v4, m0, *_ = pair
    card.capacity = 10**12
    m0.score("q", ["a text"])
    assert v4._model.weights.present

    def full(*_):
        if v4._model.weights.present:
            raise torch.OutOfMemoryError("CUDA out of memory")

    m0._model.module.model.language_model.layers[1].register_forward_pre_hook(full)
    assert np.isfinite(m0.explain("q", PICTURE).weights).all()
    assert not v4._model.weights.present


def test_v4_and_m0_in_two_threads(pair, card):
    v4, m0, inputs, vectors, scores = pair

    def encode():
        for _ in range(3):
            done = v4.encode_document(inputs, task="code", batch_tokens=1)
            np.testing.assert_allclose(done.single, vectors["code"].single, atol=1e-5)

    def rank():
        for _ in range(3):
            np.testing.assert_allclose(m0.score("a question?", inputs, raw=True, batch_tokens=1), scores, atol=1e-4)

    with ThreadPoolExecutor(4) as pool:
        for job in [pool.submit(work) for work in (encode, rank, encode, rank)]:
            job.result(GONE)
    assert card.count("take") >= 2


def test_a_second_model_loads_onto_a_full_card(tiny, card):
    v4 = load_embedder(tiny["v4"], device="cpu", dtype="float32")
    expected = v4.encode_query(["a text"]).single
    card.capacity = v4._model.weights.bytes + 1000
    m0 = load_reranker(tiny["m0"], device="cpu", dtype="float32")
    assert [kind for kind, _ in card.moves] == ["take"]
    assert np.isfinite(m0.score("q", ["a text"])).all()
    np.testing.assert_array_equal(v4.encode_query(["a text"]).single, expected)
    # The other way round, and where nothing would help.
    card.moves.clear()
    other = load_embedder(tiny["v4"], device="cpu", dtype="float32")
    assert [kind for kind, _ in card.moves] == ["take"]
    np.testing.assert_array_equal(other.encode_query(["a text"]).single, expected)
    card.capacity = 1000
    for load, family in ((load_reranker, "m0"), (load_embedder, "v4")):
        with pytest.raises(ModelError, match=r"needs 0\.0 GB on cpu"):
            load(tiny[family], device="cpu", dtype="float32")


def test_no_model_stays_alive_for_its_turns(tiny, card):
    model = load_reranker(tiny["m0"], device="cpu", dtype="float32")
    model.score("q", ["a text"])
    assert len([m for m in card.models if m.present]) == 1
    del model
    gc.collect()
    assert [m for m in card.models if m.present] == []


@pytest.mark.parametrize("runs", ["v4", "m0"])
def test_a_batch_that_runs_out_of_memory_is_tried_again_without_the_idle_models(pair, card, runs):
    v4, m0, inputs, *_ = pair
    card.capacity = 10**12
    m0.score("q", ["a text"])
    v4.encode_query(["a text"])
    model, other, runner = (v4, m0, v4._runner) if runs == "v4" else (m0, v4, m0._scorer._reader)
    budget, calls = runner.batch_tokens, []

    def full(*_):
        calls.append(other._model.weights.present)
        if other._model.weights.present:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model._model.module.model.language_model.layers[1].register_forward_pre_hook(full)
    if runs == "v4":
        v4.encode_document(inputs)
    else:
        m0.score("a question?", inputs)
    assert calls[:2] == [True, False]
    assert runner.batch_tokens == budget


def test_on_the_cpu_nothing_is_offloaded(tiny):
    assert free_memory(CPU) > 0
    model = load_reranker(tiny["m0"], device="cpu", dtype="float32")
    other = load_reranker(tiny["m0"], device="cpu", dtype="float32")
    with model._model.weights.on_device(), shared_device(CPU).loading("c", 10**18):
        pass
    assert not model._model.offload_others()
    assert other._model.weights.present


# -- real devices, as far as they can be stood in for -------------------------------------------------------------


@pytest.mark.parametrize(("load", "family"), [(load_embedder, "v4"), (load_reranker, "m0")])
def test_all_of_a_model_moves(tiny, load, family):
    """Weights, adapters and buffers; the device without memory shows what stayed behind."""
    options = {"task": ("retrieval", "code")} if family == "v4" else {}
    model = load(tiny[family], device="cpu", dtype="float32", **options)._model.weights
    assert family != "v4" or any("lora_B.code" in name for name, _ in model.module.named_parameters())
    size = model.bytes
    SharedDevice(torch.device("meta")).move(model.module, here=True)
    assert {value.device.type for value in all_of(model.module)} == {"meta"}
    assert model.bytes == size


def test_a_module_that_left_is_in_main_memory(monkeypatch):
    module, released = nn.Linear(3, 3), []
    monkeypatch.setattr(offload, "release_memory", released.append)
    SharedDevice(CPU).move(module, here=False)
    assert module.weight.device == CPU
    assert released == [CPU]


def test_free_memory_counts_what_is_held_without_use(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (500, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 300)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 900)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 200)
    assert SharedDevice(torch.device("cuda:0")).free() == 700
    assert SharedDevice(torch.device("mps")).free() == 700


def test_one_card_is_one_device_whatever_it_is_called(monkeypatch):
    monkeypatch.setattr(offload, "_devices", {})
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    devices = [shared_device(torch.device(name)) for name in ("cuda", "cuda:1", "cuda:0", "mps")]
    assert devices[0] is devices[1]
    assert len({id(device) for device in devices}) == 3


# -- when a move is stopped half-way --------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("stops_here", [False, True])
def test_a_move_that_is_interrupted_is_undone(card, monkeypatch, stops_here, error):
    first, second = loaded("a", 40), loaded("b", 40)
    card.capacity = 60
    card.send_away(second)
    moves = []

    def move(module, *, here):
        moves.append((module, here))
        if here == stops_here and len(moves) <= 1 + stops_here:
            raise error
        SmallCard.move(card, module, here=here)

    monkeypatch.setattr(card, "move", move)
    with pytest.raises(error), second.on_device():
        pass
    # What had left comes back, and what had come takes no room.
    assert moves[-1] == ((second.module, False) if stops_here else (first.module, True))
    assert (first.present, second.present) == (not stops_here, False)
    for model in (first, second, first):
        use(model)
    assert not card.queue


def test_what_raises_while_a_model_leaves_keeps_the_device_right(card):
    first, second = loaded("a", 40), loaded("b", 40)
    card.capacity = 60
    card.send_away(second)

    def broken():
        raise RuntimeError("broken")

    first.on_offload = broken
    with pytest.raises(RuntimeError, match="broken"), second.on_device():
        pass
    assert not first.present
    use(second)
    assert not card.queue
