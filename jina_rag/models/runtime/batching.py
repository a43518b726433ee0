"""Fills batches by tokens, prepares the next one while the device works, and halves what does not fit into memory."""

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
"""The share of a batch that may be padding: more, and two batches are quicker than one."""
_CALL_TOKENS = 64
"""A call costs about as much as so many tokens, however little is in it."""

Prepared = TypeVar("Prepared")
Result = TypeVar("Result")


def fill_batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Indices grouped so that no group costs more than `tokens`, padding included; the longest come first.

    An input that is longer than `tokens` is a batch of its own. Inputs of similar lengths come together, because a
    batch is as wide as its longest.

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
    """Runs inputs of known lengths through a model.

    Attributes:
        batch_tokens: The budget; it shrinks when the device runs out of memory.
    """

    def __init__(self, placement: Placement, *, name: str) -> None:
        """Nothing run yet.

        Args:
            placement: Where the model is, and the budget to begin with.
            name: Of the model, for messages.
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
        relieve: Callable[[], bool] | None = None,
        sizes: Sequence[int] | None = None,
    ) -> list[Result]:
        """Results in the order of the inputs.

        Args:
            lengths: What each input costs, in tokens.
            prepare: From indices to what the device needs; runs in a second thread, one batch ahead.
            compute: The device's work, one result for each index.
            batch_tokens: Budget of this call; None for the runner's.
            relieve: Frees memory that could be done without, and says whether there was any; a batch that did not
                fit is then tried once more before it is halved.
            sizes: Tokens of each input, for messages; None for `lengths`.

        Raises:
            ModelError: If a single input does not fit into memory.
        """
        budget = batch_tokens or self.batch_tokens
        results: dict[int, Result] = {}
        has_relief = False
        batches = fill_batches(lengths, budget)
        batches.reverse()  # the next one is at the end
        with ThreadPoolExecutor(1, thread_name_prefix="jina-rag-prepare") as ahead:
            upcoming = ahead.submit(prepare, batches[-1]) if batches else None
            while upcoming is not None:
                batch, prepared = batches.pop(), upcoming.result()
                upcoming = ahead.submit(prepare, batches[-1]) if batches else None
                try:
                    outputs = compute(prepared)
                except (RuntimeError, MemoryError) as exc:
                    if not is_out_of_memory(exc):
                        raise
                    del prepared
                    if upcoming is not None and not upcoming.cancel():
                        wait_for([upcoming])  # it may bring back what is to be freed
                    upcoming = None
                    # Once for each batch: what was freed may come back, and would be freed again without end.
                    has_relief = not has_relief and relieve is not None and relieve()
                    if not has_relief:
                        budget = self._shrunk(batch, lengths, sizes or lengths, exc)
                else:
                    has_relief = False
                    results.update(zip(batch, outputs, strict=True))
                    continue
                # Behind `except`, because the error holds what was computed so far.
                release_memory(self._device)
                remaining = [*batch, *(index for other in batches for index in other)]
                groups = fill_batches([lengths[index] for index in remaining], budget)
                batches = [[remaining[i] for i in group] for group in reversed(groups)]
                upcoming = ahead.submit(prepare, batches[-1])
        return [results[index] for index in range(len(lengths))]

    def _shrunk(self, batch: Sequence[int], lengths: Sequence[int], sizes: Sequence[int], exc: BaseException) -> int:
        """The budget after a batch that did not fit: half of what that one cost."""
        longest = max(sizes[index] for index in batch)
        if len(batch) == 1:
            raise ModelError(
                f"An input of {longest} tokens does not fit into the memory of {self._device} with {self._name}: lower "
                "max_length or max_pixels, load with dtype='bfloat16', or use a device with more memory."
            ) from exc
        budget = max(1, max(lengths[index] for index in batch) * len(batch) // 2)
        self.batch_tokens = min(self.batch_tokens, budget)
        if not self._warned:
            self._warned = True
            _log.warning(
                "%s ran out of memory on %s with %d tokens at once; it goes on with %d.",
                self._name,
                self._device,
                longest * len(batch),
                longest * len(batch) // 2,
            )
        return budget
