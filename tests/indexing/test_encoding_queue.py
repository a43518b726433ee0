"""Queue of batches that threads encode: order of the results, limit of the batches, errors and stops."""

from __future__ import annotations

import contextvars
import threading

import pytest

from jina_rag.indexing.encoding_queue import EncodingQueue
from jina_rag.ocr.interruption import check_interruption


def take_all(queue):
    results = []
    while len(queue):
        queue.wait(lambda: None)
        results += queue.finished()
    return results


def test_results_have_the_order_of_the_batches(monkeypatch):
    second_is_finished = threading.Event()

    def encode(batch):
        if batch == [1]:
            assert second_is_finished.wait(30), "the second batch waits for the first batch"
        elif batch == [2]:
            second_is_finished.set()
        return [-number for number in batch]

    with EncodingQueue(encode, threads=2, max_batches=3) as queue:
        for number in (1, 2, 3):
            queue.put([number])
        assert take_all(queue) == [[-1], [-2], [-3]]


def test_queue_is_full_until_results_are_taken():
    with EncodingQueue(lambda batch: batch, threads=1, max_batches=2) as queue:
        queue.put([1])
        assert not queue.is_full
        queue.put([2])
        assert queue.is_full, "finished batches count until they are taken"
        assert take_all(queue) == [[1], [2]]
        assert not queue.is_full


def test_error_is_raised_after_the_results_of_earlier_batches():
    def encode(batch):
        if batch == [2]:
            raise RuntimeError("broken")
        return batch

    with EncodingQueue(encode, threads=2, max_batches=3) as queue:
        for number in (1, 2, 3):
            queue.put([number])
        results = iter(queue.finished())
        queue.wait(lambda: None)
        assert next(results) == [1]
        queue.wait(lambda: None)
        with pytest.raises(RuntimeError, match="broken"):
            next(results)
        assert take_all(queue) == [[3]]


def test_check_ends_the_wait_and_the_batch_stays():
    may_continue, calls = threading.Event(), []

    def check():
        calls.append(1)
        if len(calls) == 3:
            may_continue.set()
            raise KeyboardInterrupt

    with EncodingQueue(lambda batch: may_continue.wait(30) and batch, threads=1, max_batches=1) as queue:
        queue.put([1])
        assert list(queue.finished()) == []
        with pytest.raises(KeyboardInterrupt):
            queue.wait(check)
        assert take_all(queue) == [[1]]


def test_check_may_take_the_results_during_the_wait():
    may_continue, results = threading.Event(), []

    def check():
        may_continue.set()
        results.extend(queue.finished())

    with EncodingQueue(lambda batch: may_continue.wait(30) and batch, threads=1, max_batches=2) as queue:
        queue.put([1])
        queue.put([2])
        while len(queue):
            queue.wait(check)
            check()
    assert results == [[1], [2]]


def test_exit_completes_running_batches_and_discards_waiting_batches():
    first_is_running, may_continue, started = threading.Event(), threading.Event(), []

    def encode(batch):
        started.append(batch)
        first_is_running.set()
        assert may_continue.wait(30)
        return batch

    with EncodingQueue(encode, threads=1, max_batches=3) as queue:
        for number in (1, 2, 3):
            queue.put([number])
        assert first_is_running.wait(30)
        threading.Timer(0.1, may_continue.set).start()
    assert started == [[1]]
    assert list(queue.finished()) == [[1]]


def test_exit_interrupts_a_batch_between_two_forward_passes():
    is_running, passes = threading.Event(), []

    def encode(batch):
        while True:
            check_interruption()
            passes.append(batch)
            is_running.set()

    with EncodingQueue(encode, threads=1, max_batches=1) as queue:
        queue.put([1])
        assert is_running.wait(30)
    with pytest.raises(KeyboardInterrupt):
        list(queue.finished())


def test_functions_run_with_the_context_variables_of_the_caller():
    variable = contextvars.ContextVar("variable", default="default")
    variable.set("set by the caller")
    with EncodingQueue(lambda batch: [variable.get() for _ in batch], threads=1, max_batches=1) as queue:
        queue.put([1])
        assert take_all(queue) == [["set by the caller"]]
