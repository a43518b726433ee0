"""Models that take turns on a device too small for all of them; without a GPU, on a memory that only counts."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
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
from jina_rag.models.runtime import device_memory, offload  # noqa: E402
from jina_rag.models.runtime.checkpoints import open_checkpoint  # noqa: E402
from jina_rag.models.runtime.devices import free_memory, place  # noqa: E402
from jina_rag.models.runtime.offload import Register, Seat  # noqa: E402
from jina_rag.models.runtime.prefix_cache import PrefixCache  # noqa: E402

PICTURE = DATA / "golden" / "images" / "photo_320x240.png"
CPU = torch.device("cpu")
GONE = 30
"""Seconds after which a thread counts as stuck."""


pytestmark = pytest.mark.usefixtures("one_thread")


class SmallCard:
    """A device memory of `capacity` bytes. What is away is not lost, but cannot be used: its weights are NaN.

    Attributes:
        moves: ("bring" or "take", module), in order.
    """

    def __init__(self, capacity):
        self.capacity, self.margin = capacity, 0
        self.register = Register(CPU, self)
        self.moves = []
        self._away = {}

    def free(self):
        return self.capacity - sum(seat.bytes for seat in self.register._present())

    def bring(self, module):
        for value, kept in zip(all_of(module), self._away.pop(id(module)), strict=True):
            value.copy_(kept)
        self.moves.append(("bring", module))

    def take(self, module):
        self._away[id(module)] = [value.clone() for value in all_of(module)]
        for value in all_of(module):
            value.fill_(float("nan") if value.is_floating_point() else -1)
        self.moves.append(("take", module))

    def send_away(self, *seats):
        for seat in seats:
            self.register._take(seat)
        self.moves.clear()

    def count(self, what):
        return sum(kind == what for kind, _ in self.moves)


def all_of(module):
    return [*module.parameters(), *module.buffers()]


@pytest.fixture
def card(monkeypatch):
    """The CPU as a device with a memory of its own; a test sets its capacity."""
    memory = SmallCard(10**12)
    monkeypatch.setitem(offload._registers, "cpu", memory.register)
    return memory


def seated(name, size):
    """A model of `size` bytes (a multiple of 4) that lies on the card."""
    module = nn.Module()
    module.weight = nn.Parameter(torch.arange(size // 4, dtype=torch.float32), requires_grad=False)
    return Seat(name, module, CPU)


def held(seat):
    with seat.turn():
        assert seat.present
        assert torch.isfinite(seat.module.weight).all()


# -- who leaves ---------------------------------------------------------------------------------------------------


def test_where_all_fit_nothing_moves(card):
    first, second = seated("a", 40), seated("b", 60)
    card.capacity = 100
    for seat in (first, second, second, first):
        held(seat)
    assert card.moves == []


def test_the_least_recently_used_leaves_first_and_no_more_than_needed(card):
    seats = [seated(name, 40) for name in "abc"]
    card.capacity = 120
    card.send_away(seats[2])
    other = seated("d", 40)
    held(seats[0])
    held(other)
    held(seats[2])
    assert [(kind, module) for kind, module in card.moves] == [("take", seats[1].module), ("bring", seats[2].module)]


def test_a_margin_is_kept_if_another_can_leave_for_it(card):
    """Without room for what flows through a model its weights are of no use."""
    first, second = seated("a", 40), seated("b", 40)
    card.capacity, card.margin = 100, 30
    card.send_away(first)
    held(first)
    assert not second.present
    # Alone, a model may use the margin: it is a wish.
    card.capacity = 50
    held(second)
    assert not first.present


def test_a_model_too_large_for_the_device_alone_ends_in_a_sentence(card):
    first, second = seated("a", 40), seated("b", 80)
    card.send_away(second)
    card.capacity = 60
    with pytest.raises(ModelError, match=r"b needs 0\.0 GB on cpu, and 0\.0 GB are free there: close what else"):
        held(second)
    # Nothing is stuck after it.
    held(first)


def test_a_model_that_is_gone_counts_no_more(card):
    first, second = seated("a", 40), seated("b", 40)
    card.capacity = 60
    card.send_away(second)
    del first
    gc.collect()
    held(second)
    assert card.moves == [("bring", second.module)]


def test_weights_that_cannot_move_after_all_stay_usable(card, monkeypatch):
    """A driver may count memory as free and refuse it; main memory may be full."""
    first, second = seated("a", 40), seated("b", 40)
    card.capacity = 60
    card.send_away(second)

    def refuse(_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(card, "bring", refuse)
        patch.setattr(card, "take", lambda module: module is second.module or SmallCard.take(card, module))
        with pytest.raises(ModelError, match="b does not fit onto cpu any more"):
            held(second)
    assert not second.present
    held(first)
    with monkeypatch.context() as patch:
        patch.setattr(card, "take", refuse)
        patch.setattr(card, "bring", lambda module: None)
        with pytest.raises(ModelError, match="a cannot leave cpu for another model, because main memory"):
            held(second)
    held(first)
    held(second)


def test_it_is_said_once(card, caplog):
    first, second = seated("a", 40), seated("b", 40)
    card.capacity = 60
    with caplog.at_level(logging.WARNING, "jina_rag"):
        card.send_away(second)
        for seat in (second, first, second, first):
            held(seat)
    assert [record.message for record in caplog.records] == [
        "b and a do not fit into the memory of cpu together: they take turns, which costs a copy of the weights each "
        "time."
    ]


# -- what else lies on the device ---------------------------------------------------------------------------------


class Memory:
    """Something that a model keeps on its device beside its weights."""

    def __init__(self):
        self.released = 0

    def release(self):
        self.released += 1


def test_what_else_a_model_keeps_there_is_released_with_it(card):
    first, second = seated("a", 40), seated("b", 40)
    card.capacity = 60
    kept, calls = Memory(), []
    first.on_leave(kept.release)
    first.on_leave(lambda: calls.append(first.present))
    card.send_away(second)
    held(second)
    assert kept.released == 1
    assert calls == [False]
    held(first)
    assert kept.released == 1
    # The register keeps nothing alive.
    kept_too = Memory()
    second.on_leave(kept_too.release)
    gone = weakref.ref(kept_too)
    del kept_too
    assert gone() is None
    held(second)
    held(first)
    assert kept.released == 2


# -- threads ------------------------------------------------------------------------------------------------------


def test_a_model_in_use_does_not_leave(card):
    first, second = seated("a", 40), seated("b", 40)
    card.capacity = 60
    card.send_away(second)
    entered = threading.Event()

    def other():
        with second.turn():
            entered.set()

    thread = threading.Thread(target=other, daemon=True)
    with first.turn():
        thread.start()
        assert not entered.wait(0.1)
        assert first.present
    assert entered.wait(GONE)
    thread.join(GONE)
    assert not first.present


def test_turns_nest_in_a_thread_even_while_another_waits(card):
    first, second = seated("a", 40), seated("b", 40)
    card.capacity = 60
    card.send_away(second)
    thread = threading.Thread(target=held, args=(second,), daemon=True)
    with first.turn():
        thread.start()
        while not offload._registers["cpu"]._queue:  # the other thread waits now
            threading.Event().wait(0.001)
        with first.turn():
            assert first.present
        assert first.present
    thread.join(GONE)
    assert not thread.is_alive()


def test_who_waits_is_not_overtaken_for_ever(card):
    """A model that is always in use by one of its threads must leave all the same when its turn is over."""
    first, second = seated("a", 40), seated("b", 40)
    card.capacity = 60
    card.send_away(second)
    done, stop = threading.Event(), threading.Event()
    barrier = threading.Barrier(3)

    def busy():
        barrier.wait(GONE)
        while not stop.is_set():
            with first.turn():
                stop.wait(0.002)

    def once():
        barrier.wait(GONE)
        stop.wait(0.01)
        held(second)
        done.set()

    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(busy), pool.submit(busy), pool.submit(once)]
        served = done.wait(GONE)
        stop.set()
        for job in jobs:
            job.result(GONE)
    assert served


def test_many_threads_and_models_neither_meet_nor_wait_for_each_other(card):
    seats = [seated(name, 40) for name in "abcd"]
    card.send_away(*seats[2:])
    card.capacity = 80
    lock, inside, most = threading.Lock(), set(), []

    def run(number):
        rng = np.random.default_rng(number)
        for _ in range(40):
            seat = seats[int(rng.integers(0, 4))]
            with seat.turn():
                with lock:
                    inside.add((seat.name, number))
                    most.append(len({name for name, _ in inside}))
                assert torch.isfinite(seat.module.weight).all()
                with lock:
                    inside.discard((seat.name, number))

    with ThreadPoolExecutor(8) as pool:
        for job in [pool.submit(run, number) for number in range(8)]:
            job.result(GONE)
    assert max(most) <= 2
    assert card.count("bring") > 4


# -- when memory runs out in the middle ---------------------------------------------------------------------------


def test_memory_that_runs_out_sends_the_idle_away_and_tries_again(card):
    first, second = seated("a", 40), seated("b", 40)
    card.capacity = 100
    calls = []

    def compute(value):
        calls.append(value)
        if card.free() < 50:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return value + 1

    with first.turn():
        assert first.roomy(compute)(1) == 2
    assert calls == [1, 1]
    assert not second.present
    # With nobody left to send away, it is an error like any other.
    card.capacity = 60
    with first.turn(), pytest.raises(torch.OutOfMemoryError):
        first.roomy(compute)(1)
    assert len(calls) == 3


def test_other_errors_send_nobody_away(card):
    first, second = seated("a", 40), seated("b", 40)

    def wrong(_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with first.turn(), pytest.raises(RuntimeError, match="mat1"):
        first.roomy(wrong)(1)
    assert second.present


# -- loading ------------------------------------------------------------------------------------------------------


def test_loading_makes_room_and_lets_nobody_come_meanwhile(card):
    first, second = seated("a", 40), seated("b", 40)
    card.capacity = 100
    entered = threading.Event()

    def back():
        with first.turn():
            entered.set()

    with offload.loading("c", CPU, 60):
        assert (first.present, second.present) == (False, True)
        held(second)  # who is there may go on
        thread = threading.Thread(target=back, daemon=True)
        thread.start()
        assert not entered.wait(0.05)
        third = seated("c", 60)
        assert not offload._registers["cpu"].clear(second)  # not complete yet: it stays
    thread.join(GONE)
    assert entered.is_set()
    assert (first.present, second.present, third.present) == (True, False, True)


def test_a_model_too_large_to_load_is_refused_before_it_is_read(card):
    card.capacity = 100
    with pytest.raises(ModelError, match="c needs"), offload.loading("c", CPU, 200):
        raise AssertionError("not reached")
    with pytest.raises(ModelError, match="c does not fit onto cpu"), offload.loading("c", CPU, 60):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with offload.loading("d", CPU, 60):  # nothing is stuck
        pass


def test_loading_waits_for_a_model_in_use(card):
    first = seated("a", 40)
    card.capacity = 60
    loaded = threading.Event()

    def load():
        with offload.loading("c", CPU, 40):
            loaded.set()

    thread = threading.Thread(target=load, daemon=True)
    with first.turn():
        thread.start()
        assert not loaded.wait(0.05)
    thread.join(GONE)
    assert loaded.is_set()
    assert not first.present


@pytest.mark.parametrize("error", [InvalidInputError, RuntimeError])
def test_other_errors_while_loading_pass(card, error):
    with pytest.raises(error, match="as it was"), offload.loading("c", CPU, 60):
        raise error("as it was")
    with offload.loading("d", CPU, 60):
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
    sizes = [model._model.seat.bytes for model in (v4, m0)]
    assert 0 < max(sizes) < sum(sizes)
    card.capacity = max(sizes) + 1000
    card.send_away(m0._model.seat)
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
    card.capacity = max(model._model.seat.bytes for model in (v4, m0)) + 1000
    card.send_away(v4._model.seat)
    v4.encode_query(["a text"])
    assert (m0.prefix_cache.use.device_entries, m0.prefix_cache.use.host_entries) == (0, 1)
    np.testing.assert_allclose(m0.score("a question?", [PICTURE], raw=True), scores, atol=1e-5)
    assert m0.prefix_cache.use.hits == 1


def test_an_explanation_may_have_the_whole_card(pair, card):
    """It needs more memory than a score does; what lies idle there leaves for it."""
    v4, m0, *_ = pair
    card.capacity = 10**12
    m0.score("q", ["a text"])
    assert v4._model.seat.present

    def full(*_):
        if v4._model.seat.present:
            raise torch.OutOfMemoryError("CUDA out of memory")

    m0._model.module.model.language_model.layers[1].register_forward_pre_hook(full)
    assert np.isfinite(m0.explain("q", PICTURE).weights).all()
    assert not v4._model.seat.present


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
    card.capacity = v4._model.seat.bytes + 1000
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
    assert len(card.register._present()) == 1
    del model
    gc.collect()
    assert card.register._present() == []


def test_on_the_cpu_there_is_nothing_to_take_turns_for(tiny):
    assert offload.register_of(CPU) is None
    assert free_memory(CPU) > 0
    model = load_reranker(tiny["m0"], device="cpu", dtype="float32")
    with model._model.seat.turn(), offload.loading("c", CPU, 10**18):
        pass
    assert model._model.seat.roomy(len) is len


# -- real devices, as far as they can be stood in for -------------------------------------------------------------


@pytest.mark.parametrize(("load", "family"), [(load_embedder, "v4"), (load_reranker, "m0")])
def test_all_of_a_model_moves(tiny, load, family):
    """Weights, adapters and buffers; the device without memory shows what stayed behind."""
    options = {"task": ("retrieval", "code")} if family == "v4" else {}
    seat = load(tiny[family], device="cpu", dtype="float32", **options)._model.seat
    assert family != "v4" or any("lora_B.code" in name for name, _ in seat.module.named_parameters())
    size = seat.bytes
    device_memory.CardMemory(torch.device("meta")).bring(seat.module)
    assert {value.device.type for value in all_of(seat.module)} == {"meta"}
    assert seat.bytes == size


def test_a_module_that_left_is_in_main_memory(monkeypatch):
    module, released = nn.Linear(3, 3), []
    monkeypatch.setattr(device_memory, "release_memory", released.append)
    device_memory.CardMemory(CPU).take(module)
    assert module.weight.device == CPU
    assert released == [CPU]


def test_free_memory_counts_what_is_held_without_use(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (500, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 300)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 900)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 200)
    assert device_memory.CardMemory(torch.device("cuda:0")).free() == 700
    assert device_memory.CardMemory(torch.device("mps")).free() == 700


def test_one_card_has_one_register_whatever_it_is_called(monkeypatch):
    monkeypatch.setattr(offload, "_registers", {})
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    registers = [offload.register_of(torch.device(name)) for name in ("cuda", "cuda:1", "cuda:0", "mps")]
    assert registers[0] is registers[1]
    assert len({id(register) for register in registers}) == 3


# -- when a move is stopped half-way --------------------------------------------------------------------------------


def stopped(card, kind, error):
    """Let the next move of a kind stop at its first tensor."""
    real = getattr(card, kind)

    def stop(module):
        setattr(card, kind, real)
        module.half = True
        raise error

    setattr(card, kind, stop)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("kind", ["take", "bring"])
def test_a_move_that_is_interrupted_spoils_no_weights(card, monkeypatch, kind, error):
    first, second = seated("a", 40), seated("b", 40)
    card.capacity = 60
    card.send_away(second)
    if kind == "take":
        stopped(card, "take", error)
        with pytest.raises(error), second.turn():
            pass
        assert not first.present  # half of it may be away: what comes next brings all of it
    else:
        taken = []
        monkeypatch.setattr(card, "take", _unless_away(card, card.take, taken))
        stopped(card, "bring", error)
        with pytest.raises(error), second.turn():
            pass
        assert taken == [first.module, second.module]  # what had come takes no room
        assert not second.present
    for seat in (first, second, first):
        held(seat)
    assert not card.register._queue


def _unless_away(card, take, taken):
    """Moving to main memory what lies there already is nothing."""

    def move(module):
        taken.append(module)
        if id(module) not in card._away:
            take(module)

    return move


def test_what_raises_while_a_model_leaves_keeps_the_register_right(card):
    first, second = seated("a", 40), seated("b", 40)
    card.capacity = 60
    card.send_away(second)
    called = []

    def broken():
        called.append("broken")
        raise RuntimeError("broken")

    first.on_leave(broken)
    first.on_leave(lambda: called.append("other"))
    with pytest.raises(RuntimeError, match="broken"), second.turn():
        pass
    assert called == ["broken", "other"]
    assert not first.present
    held(second)
    assert not card.register._queue
