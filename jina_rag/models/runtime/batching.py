"""Batching of model inputs within a token budget.

Three stages overlap: threads prepare the next batches, the device computes a batch, and the results of the batch before
are read. A batch is submitted to the device before the results of the previous batch are read, so the device always has
work. After an out-of-memory error, the remaining inputs are computed in smaller batches.
"""

from __future__ import annotations

import logging
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from types import TracebackType
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from jina_rag.errors import ModelError
from jina_rag.models.runtime.devices import Placement, is_out_of_memory, release_memory, to_device
from jina_rag.ocr.interruption import check_interruption

_log = logging.getLogger("jina_rag")
_CALL_TOKENS = 64
"""Approximate fixed cost of one forward pass on a CPU, expressed in tokens."""
_CUDA_CALL_TOKENS = 512
"""The same on CUDA, where launching the kernels of a pass takes longer than computing a few hundred tokens. Estimated
from the number of kernels and the matrix rate of a data center GPU, not measured."""
_AHEAD = 2
"""Number of batches that are prepared ahead. On a CPU, a batch may contain one page only, so two batches keep two
preparation threads at work."""

Prepared = TypeVar("Prepared")
Result = TypeVar("Result")
Reader: TypeAlias = "Callable[[], Sequence[Result]]"
"""Function that waits for the results of a submitted batch and returns one result for each input."""


def fill_batches(lengths: Sequence[int], tokens: int, *, call_tokens: int = _CALL_TOKENS) -> list[list[int]]:
    """Group input indices into batches of at most `tokens` tokens, padding included, in order of decreasing length.

    Each input is padded to the length of the longest input in the batch, so inputs of similar length share a batch. The
    batches minimize the number of tokens, padding included, plus `call_tokens` for each batch: many small batches have
    less padding, but each batch has a fixed cost. An input longer than `tokens` is the only input of a batch.

    Args:
        lengths: Length of each input in tokens.
        tokens: Token budget of one batch, padding included.
        call_tokens: Fixed cost of one batch, expressed in tokens.

    Returns:
        Batches of indices into `lengths`; each index occurs once.

    >>> fill_batches([3, 100, 4, 90, 5], tokens=200)
    [[1, 3], [4, 2, 0]]
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    widths = np.array([lengths[index] for index in order], dtype=np.int64)
    # For the first `stop` inputs of `order`: the lowest cost, and the start of the last batch. A batch is a range of
    # `order`, and its first input is the longest.
    positions = np.arange(len(order))
    costs = np.zeros(len(order) + 1, dtype=np.int64)
    starts = np.zeros(len(order) + 1, dtype=np.int64)
    first = 0
    for stop in range(1, len(order) + 1):
        while first < stop - 1 and widths[first] * (stop - first) > tokens:
            first += 1
        candidates = costs[first:stop] + widths[first:stop] * (stop - positions[first:stop])
        best = int(candidates.argmin())
        costs[stop], starts[stop] = candidates[best] + call_tokens, first + best
    batches: list[list[int]] = []
    stop = len(order)
    while stop:
        batches.append(order[starts[stop] : stop])
        stop = int(starts[stop])
    return batches[::-1]


def without_padding(states: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Return the states of all tokens but padding, one input after the other, without waiting for the device.

    Args:
        states: States of a batch that is padded on the right, shape (batch, longest, width).
        lengths: Length of each input in tokens.

    Returns:
        Shape (sum of `lengths`, width), in the dtype of `states`.
    """
    flat = states.flatten(0, 1)
    if sum(lengths) == len(flat):
        return flat
    longest = states.shape[1]
    index = np.concatenate([np.arange(length, dtype=np.int64) + row * longest for row, length in enumerate(lengths)])
    return flat[to_device(index, states.device)]


def split_rows(rows: npt.NDArray[Any], lengths: Sequence[int]) -> list[npt.NDArray[Any]]:
    """Return a copy of the rows of each input, so that no input keeps the memory of the batch alive.

    Args:
        rows: Rows of all inputs, shape (sum of `lengths`, width), any dtype.
        lengths: Number of rows of each input.
    """
    stops = np.cumsum(lengths)
    return [rows[stop - length : stop].copy() for stop, length in zip(stops, lengths, strict=True)]


class BatchRunner(Generic[Prepared, Result]):
    """Computes the outputs of a model for inputs of known lengths, in batches. Thread-safe.

    Attributes:
        batch_tokens: Token budget of one batch, padding included; reduced when the device runs out of memory.
    """

    def __init__(self, placement: Placement, *, name: str, ahead: int = _AHEAD) -> None:
        """Create a runner.

        Args:
            placement: Device of the model and the initial token budget.
            name: Name of the model, for messages.
            ahead: Maximum number of batches that are prepared ahead, each in a thread of its own.
        """
        self._device, self.batch_tokens = placement.device, placement.batch_tokens
        self._name, self._ahead = name, ahead
        self._call_tokens = _CUDA_CALL_TOKENS if placement.device.type == "cuda" else _CALL_TOKENS
        self._warned = False

    def run(
        self,
        lengths: Sequence[int],
        prepare: Callable[[Sequence[int]], Prepared],
        launch: Callable[[Prepared], Reader[Result]],
        *,
        batch_tokens: int | None = None,
        on_oom: Callable[[], bool] | None = None,
        sizes: Sequence[int] | None = None,
    ) -> list[Result]:
        """Compute all inputs and return the results in the order of the inputs.

        At most two batches are submitted to the device and not yet read. Their results must be in host memory, or on
        the way to it (see `HostCopy`): the second batch then reuses the device memory of the first one.

        Args:
            lengths: Cost of each input in tokens, which counts towards the token budget of a batch.
            prepare: Function that converts the indices of a batch into the input of `launch`; runs in other threads,
                except for a single batch.
            launch: Function that submits a prepared batch to the device and returns the function that reads the
                results, one for each index. Runs in the calling thread, as does the returned function.
            batch_tokens: Token budget of one batch in this call, padding included; None for the budget of the runner.
            on_oom: Function that frees memory after an out-of-memory error and returns whether any memory was freed.
                If memory was freed, the batch is retried once before the budget is halved.
            sizes: Length of each input in tokens, for messages; None if equal to `lengths`.

        Raises:
            ModelError: If a single input does not fit into memory.
            BaseException: If the call runs in `ocr.interruption.interruptible`, and the check raises an exception
                between two batches.
        """
        budget = batch_tokens or self.batch_tokens
        results: dict[int, Result] = {}
        is_retry = False
        with _PreparedBatches(prepare, self._ahead) as upcoming:
            upcoming.schedule(fill_batches(lengths, budget, call_tokens=self._call_tokens))
            submitted: deque[tuple[list[int], Reader[Result]]] = deque()
            while upcoming.batches or submitted:
                check_interruption()
                failures: list[tuple[list[int], Exception]] = []
                if upcoming.batches:
                    batch, prepared = upcoming.take()
                    try:
                        submitted.append((batch, launch(prepared)))
                    except (RuntimeError, MemoryError) as exc:
                        failures.append((batch, _checked(exc)))
                    del prepared
                # Read the older batch while the device computes the newer one. After an error, read all.
                while submitted and (len(submitted) > 1 or failures or not upcoming.batches):
                    batch, read = submitted.popleft()
                    try:
                        results.update(zip(batch, read(), strict=True))
                        is_retry = False
                    except (RuntimeError, MemoryError) as exc:
                        failures.append((batch, _checked(exc)))
                    del read
                if failures:
                    upcoming.wait()  # otherwise the threads could allocate the freed memory
                    # One retry per batch: cached prefixes may refill the freed memory, so retries could loop forever.
                    is_retry = not is_retry and on_oom is not None and on_oom()
                    if not is_retry:
                        budget = self._halve(*failures[0], lengths, sizes or lengths)
                    release_memory(self._device)
                    remaining = [index for failed, _ in failures for index in failed]
                    remaining += [index for group in upcoming.batches for index in group]
                    costs = [lengths[index] for index in remaining]
                    groups = fill_batches(costs, budget, call_tokens=self._call_tokens)
                    upcoming.schedule([[remaining[i] for i in group] for group in groups])
        return [results[index] for index in range(len(lengths))]

    def _halve(self, batch: Sequence[int], exc: Exception, lengths: Sequence[int], sizes: Sequence[int]) -> int:
        """Return the reduced token budget, which is half the cost of the batch that did not fit into memory."""
        longest = max(sizes[index] for index in batch)
        if len(batch) == 1:
            raise ModelError(
                f"An input of {longest} tokens does not fit into the memory of {self._device} with {self._name}. Lower "
                "max_length or max_pixels, pass dtype='bfloat16' (--dtype), or use a device with more memory."
            ) from exc
        budget = max(1, max(lengths[index] for index in batch) * len(batch) // 2)
        self.batch_tokens = min(self.batch_tokens, budget)
        if not self._warned:
            self._warned = True
            _log.warning(
                "%s ran out of memory on %s with batches of %d tokens; continuing with batches of %d tokens.",
                self._name,
                self._device,
                longest * len(batch),
                longest * len(batch) // 2,
            )
        return budget


class _PreparedBatches(Generic[Prepared]):
    """Batches in the order of `schedule`, which threads prepare ahead. A single batch is prepared by `take`.

    Attributes:
        batches: Batches that were not taken yet.
    """

    def __init__(self, prepare: Callable[[Sequence[int]], Prepared], ahead: int) -> None:
        self._prepare, self._ahead = prepare, ahead
        self._executor: ThreadPoolExecutor | None = None
        self._futures: deque[Future[Prepared]] = deque()
        self.batches: deque[list[int]] = deque()

    def __enter__(self) -> _PreparedBatches[Prepared]:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def schedule(self, batches: Sequence[list[int]]) -> None:
        """Replace the batches that were not taken. Call `wait` before any call but the first one."""
        self.batches = deque(batches)
        self._start()

    def take(self) -> tuple[list[int], Prepared]:
        """Remove the next batch, and return the batch and the result of its preparation, after starting others."""
        if not self._futures:
            batch = self.batches.popleft()
            return batch, self._prepare(batch)
        prepared = self._futures[0].result()
        self._futures.popleft()
        batch = self.batches.popleft()
        self._start()
        return batch, prepared

    def wait(self) -> None:
        """Cancel the preparations that have not started, wait for the other ones, and drop the prepared batches."""
        wait_for([future for future in self._futures if not future.cancel()])
        self._futures.clear()

    def _start(self) -> None:
        """Start the preparation of the next batches. No batch but the first one could overlap with a single batch."""
        if self._executor is None:
            if len(self.batches) < 2:
                return
            self._executor = ThreadPoolExecutor(self._ahead, thread_name_prefix="jina-rag-prepare")
        for batch in list(self.batches)[len(self._futures) : self._ahead]:
            self._futures.append(self._executor.submit(self._prepare, batch))


def _checked(exc: Exception) -> Exception:
    """Return an out-of-memory error without the local variables of its frames; raise any other error.

    The local variables keep the tensors of the failed batch alive.
    """
    if not is_out_of_memory(exc):
        raise exc
    traceback.clear_frames(exc.__traceback__)
    return exc
