"""Batching of model inputs within a token budget.

A second thread prepares the next batch while the model computes the current batch. After an out-of-memory error, the
remaining inputs are computed in smaller batches.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Generic, TypeVar

from jina_rag.errors import ModelError
from jina_rag.models.runtime.devices import Placement, is_out_of_memory, release_memory

_log = logging.getLogger("jina_rag")
_WASTE = 0.15
"""Largest fraction of padding in a batch (0 to 1). Above this fraction, two smaller batches are faster than one
batch."""
_CALL_TOKENS = 64
"""Approximate fixed cost of one forward pass, expressed in tokens."""

Prepared = TypeVar("Prepared")
Result = TypeVar("Result")


def fill_batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Group input indices into batches of at most `tokens` tokens, padding included, in order of decreasing length.

    An input longer than `tokens` is the only input of a batch. Inputs of similar length share a batch, because each
    input is padded to the length of the longest input in the batch.

    Args:
        lengths: Length of each input in tokens.
        tokens: Token budget of one batch, padding included.

    Returns:
        Batches of indices into `lengths`; each index occurs once.

    >>> fill_batches([3, 100, 4, 90, 5], tokens=200)
    [[1, 3], [4, 2, 0]]
    """
    batches: list[list[int]] = []
    widest = used_tokens = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[index]
        current = batches[-1] if batches else []
        full = widest * (len(current) + 1) > tokens
        padding = widest * (len(current) + 1) - used_tokens - length
        if not current or full or (padding > _CALL_TOKENS and padding > _WASTE * widest * (len(current) + 1)):
            batches.append([index])
            widest, used_tokens = length, length
        else:
            current.append(index)
            used_tokens += length
    return batches


class BatchRunner(Generic[Prepared, Result]):
    """Computes the outputs of a model for inputs of known lengths, in batches.

    Attributes:
        batch_tokens: Token budget of one batch, padding included; reduced when the device runs out of memory.
    """

    def __init__(self, placement: Placement, *, name: str) -> None:
        """Create a runner.

        Args:
            placement: Device of the model and the initial token budget.
            name: Name of the model, for messages.
        """
        self._device, self.batch_tokens = placement.device, placement.batch_tokens
        self._name = name
        self._warned = False

    def run(
        self,
        lengths: Sequence[int],
        prepare: Callable[[Sequence[int]], Prepared],
        compute: Callable[[Prepared], Sequence[Result]],
        *,
        batch_tokens: int | None = None,
        on_oom: Callable[[], bool] | None = None,
        sizes: Sequence[int] | None = None,
    ) -> list[Result]:
        """Compute all inputs and return the results in the order of the inputs.

        Args:
            lengths: Cost of each input in tokens, which counts towards the token budget of a batch.
            prepare: Function that converts the indices of a batch into the input of `compute`; runs in a second thread,
                one batch ahead.
            compute: Function that runs the model on a prepared batch and returns one result for each index.
            batch_tokens: Token budget of one batch in this call, padding included; None for the budget of the runner.
            on_oom: Function that frees memory after an out-of-memory error and returns whether any memory was freed.
                If memory was freed, the batch is retried once before the budget is halved.
            sizes: Length of each input in tokens, for messages; None if equal to `lengths`.

        Raises:
            ModelError: If a single input does not fit into memory.
        """
        budget = batch_tokens or self.batch_tokens
        results: dict[int, Result] = {}
        is_retry = False
        batches = fill_batches(lengths, budget)
        batches.reverse()  # because `pop` removes the last batch
        with ThreadPoolExecutor(1, thread_name_prefix="jina-rag-prepare") as executor:
            upcoming = executor.submit(prepare, batches[-1]) if batches else None
            while upcoming is not None:
                batch, prepared = batches.pop(), upcoming.result()
                upcoming = executor.submit(prepare, batches[-1]) if batches else None
                try:
                    outputs = compute(prepared)
                except (RuntimeError, MemoryError) as exc:
                    if not is_out_of_memory(exc):
                        raise
                    del prepared
                    if upcoming is not None and not upcoming.cancel():
                        wait_for([upcoming])  # otherwise the thread could allocate the freed memory
                    upcoming = None
                    # One retry per batch: cached prefixes may refill the freed memory, so retries could loop forever.
                    is_retry = not is_retry and on_oom is not None and on_oom()
                    if not is_retry:
                        budget = self._halve(batch, lengths, sizes or lengths, exc)
                else:
                    is_retry = False
                    results.update(zip(batch, outputs, strict=True))
                    continue
                # Free memory outside of `except`, because the traceback keeps the tensors of the failed batch alive.
                release_memory(self._device)
                remaining = [*batch, *(index for other in batches for index in other)]
                groups = fill_batches([lengths[index] for index in remaining], budget)
                batches = [[remaining[i] for i in group] for group in reversed(groups)]
                upcoming = executor.submit(prepare, batches[-1])
        return [results[index] for index in range(len(lengths))]

    def _halve(self, batch: Sequence[int], lengths: Sequence[int], sizes: Sequence[int], exc: BaseException) -> int:
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
