"""Batches of the torch models: order of submission and reading, preparation ahead, out-of-memory errors, results."""

from __future__ import annotations

import gc
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jina_rag.errors import ModelError
from jina_rag.ocr.interruption import interruptible

torch = pytest.importorskip("torch")

from jina_rag.models.runtime.batching import BatchRunner, fill_batches, split_rows, without_padding  # noqa: E402
from jina_rag.models.runtime.devices import Placement  # noqa: E402  # behind the check for torch


def runner(tokens, **options):
    return BatchRunner(Placement(torch.device("cpu"), torch.float32, tokens), name="m", **options)


def cost(lengths, batches, call_tokens):
    return sum(max(lengths[i] for i in batch) * len(batch) + call_tokens for batch in batches)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 100), st.integers(0, 40))
def test_batches_have_the_lowest_cost_of_padding_and_calls(lengths, tokens, call_tokens):
    """No other way to cut the inputs, sorted by length, costs less."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])

    def cuts(rest):
        if not rest:
            yield []
        for size in range(1, len(rest) + 1):
            if size == 1 or lengths[rest[0]] * size <= tokens:
                yield from ([rest[:size], *others] for others in cuts(rest[size:]))

    batches = fill_batches(lengths, tokens, call_tokens=call_tokens)
    assert cost(lengths, batches, call_tokens) == min(cost(lengths, other, call_tokens) for other in cuts(order))


def test_short_queries_have_little_padding():
    """Queries of 2 to 60 tokens: less padding in several batches, or one batch where a batch is expensive."""
    lengths = np.clip(np.random.default_rng(0).lognormal(np.log(12), 0.4, 200), 2, 60).astype(int).tolist()
    batches = fill_batches(lengths, 16_384)
    assert sum(lengths) > 0.9 * cost(lengths, batches, 0)
    assert len(fill_batches(lengths, 16_384, call_tokens=10_000)) == 1


class Stream:
    """Stand-in for the stream of a device: records submissions and reads; any of these can fail once."""

    def __init__(self, *failures):
        self.events, self.failures = [], list(failures)

    def note(self, kind, batch):
        self.events.append((kind, tuple(batch)))
        if (kind, tuple(batch)) in self.failures:
            self.failures.remove((kind, tuple(batch)))
            raise torch.OutOfMemoryError("CUDA out of memory")

    def launch(self, batch):
        self.note("submit", batch)

        def read():
            self.note("read", batch)
            return [10 * index for index in batch]

        return read

    def run(self, count, tokens, **options):
        return runner(tokens).run([10] * count, list, self.launch, **options)


def test_next_batch_is_submitted_before_last_one_is_read():
    stream = Stream()
    assert stream.run(4, 10) == [0, 10, 20, 30]
    assert stream.events == [
        ("submit", (0,)), ("submit", (1,)), ("read", (0,)), ("submit", (2,)), ("read", (1,)), ("submit", (3,)),
        ("read", (2,)), ("read", (3,)),
    ]  # fmt: skip


def test_out_of_memory_at_submission_keeps_results_of_previous_batch():
    stream, freed = Stream(("submit", (2, 3))), []
    assert stream.run(4, 20, on_oom=lambda: not freed.append(len(stream.events))) == [0, 10, 20, 30]
    # The previous batch is read, and leaves the device, before memory is freed.
    assert stream.events == [
        ("submit", (0, 1)), ("submit", (2, 3)), ("read", (0, 1)), ("submit", (2, 3)), ("read", (2, 3))
    ]  # fmt: skip
    assert freed == [3]


def test_out_of_memory_at_read_repeats_only_that_batch():
    stream = Stream(("read", (0, 1)))
    assert stream.run(4, 20, on_oom=lambda: True) == [0, 10, 20, 30]
    assert stream.events == [
        ("submit", (0, 1)), ("submit", (2, 3)), ("read", (0, 1)), ("read", (2, 3)), ("submit", (0, 1)),
        ("read", (0, 1)),
    ]  # fmt: skip


def test_out_of_memory_at_read_halves_batches_and_fails_for_one_input():
    stream = Stream(("read", (0, 1)), ("read", (2, 3)))
    assert stream.run(4, 20) == [0, 10, 20, 30]
    assert [batch for kind, batch in stream.events if kind == "submit"] == [(0, 1), (2, 3), (0,), (1,), (2,), (3,)]
    with pytest.raises(ModelError, match="An input of 10 tokens does not fit into the memory of cpu") as info:
        Stream(("read", (1,))).run(2, 10)
    assert isinstance(info.value.__cause__, torch.OutOfMemoryError)


def test_other_error_at_read_is_raised():
    def launch(batch):
        def read():
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        return read

    with pytest.raises(RuntimeError, match="illegal memory access"):
        runner(10).run([10, 10], list, launch)


@given(
    st.lists(st.integers(1, 50), max_size=30),
    st.integers(1, 200),
    st.integers(5, 60),
    st.lists(st.sampled_from(["submit", "read"]), max_size=40),
)
def test_results_are_complete_and_in_order_wherever_memory_runs_out(lengths, tokens, capacity, places):
    """Each batch that is too large fails at its submission or when it is read."""
    places = iter(places)

    def launch(batch):
        is_too_large = max(lengths[i] for i in batch) * len(batch) > capacity
        place = next(places, "read") if is_too_large else ""

        def fail(at):
            if place == at:
                raise torch.OutOfMemoryError("full")

        fail("submit")
        return lambda: fail("read") or [10 * index for index in batch]

    if max(lengths, default=0) > capacity:
        with pytest.raises(ModelError, match="does not fit"):
            runner(tokens).run(lengths, list, launch)
    else:
        assert runner(tokens).run(lengths, list, launch) == [10 * index for index in range(len(lengths))]


def test_tensors_of_failed_batch_are_freed_before_other_models_are_offloaded():
    references = []

    def launch(batch):
        activations = torch.zeros(10)
        references.append(weakref.ref(activations))
        if len(references) == 1:
            raise torch.OutOfMemoryError("full")
        return lambda: list(batch)

    def on_oom():
        gc.collect()
        assert references[0]() is None
        return True

    assert runner(100).run([10, 10], list, launch, on_oom=on_oom) == [0, 1]


def test_preparation_runs_ahead_of_device_by_a_bounded_number_of_batches():
    prepared, ahead = [], []
    is_full = threading.Event()

    def prepare(batch):
        prepared.append(batch)
        if len(prepared) == 3:
            is_full.set()
        return batch

    def launch(batch):
        assert is_full.wait(10)
        ahead.append(len(prepared) - batch[0] - 1)
        return lambda: list(batch)

    assert runner(10, ahead=2).run([10] * 8, prepare, launch) == list(range(8))
    assert ahead[0] == 2
    assert max(ahead) <= 2


def test_two_batches_are_prepared_at_the_same_time():
    """On a CPU, a batch has few pages, so the threads of one batch do not use all cores."""
    both = threading.Barrier(2, timeout=10)

    def prepare(batch):
        if batch[0] in (0, 1):
            both.wait()
        return batch

    assert runner(10).run([10] * 4, prepare, lambda batch: lambda: list(batch)) == [0, 1, 2, 3]


def test_single_batch_is_prepared_without_a_thread():
    threads = []

    def prepare(batch):
        threads.append(threading.current_thread())
        return batch

    runner(100).run([10, 10], prepare, lambda batch: lambda: list(batch))
    assert threads == [threading.current_thread()]


def test_error_of_preparation_is_raised_after_running_preparations():
    def prepare(batch):
        if batch == [1]:
            raise ValueError("damaged")
        return batch

    with pytest.raises(ValueError, match="damaged"):
        runner(10).run([10] * 4, prepare, lambda batch: lambda: list(batch))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("jina-rag-prepare")]


def test_rows_without_padding_are_split_by_input():
    states = torch.arange(24.0).view(2, 4, 3)
    rows = without_padding(states, [4, 2])
    np.testing.assert_array_equal(rows, torch.cat([states[0], states[1, :2]]))
    assert without_padding(states, [4, 4]).data_ptr() == states.data_ptr()
    first, second = split_rows(rows.numpy(), [4, 2])
    np.testing.assert_array_equal(first, states[0])
    np.testing.assert_array_equal(second, states[1, :2])
    assert first.base is None  # keeps no other rows in memory


def test_interruption_ends_a_call_between_two_batches():
    launched = []

    def launch(batch):
        launched.append(batch)
        return lambda: batch

    def check():
        if len(launched) == 2:
            raise KeyboardInterrupt

    with interruptible(check), pytest.raises(KeyboardInterrupt):
        runner(10).run([10] * 8, list, launch)
    assert len(launched) == 2
