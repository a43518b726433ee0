"""Queue of page batches that threads encode, while the caller renders the next pages and stores the previous ones."""

from __future__ import annotations

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Self, TypeVar

from jina_rag.ocr.interruption import interruptible
from jina_rag.parsing.workers.cancellation import wait_for

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class EncodingQueue(Generic[_Item, _Result]):
    """Calls a function with each batch of items in a few threads, and returns the results in the order of the batches.

    Only one thread may use the queue. As a context manager, the queue stops its threads on exit: batches that wait for
    a thread are discarded, and calls that run are completed.
    """

    def __init__(self, encode: Callable[[Sequence[_Item]], _Result], *, threads: int, max_batches: int) -> None:
        """Create a queue.

        Args:
            encode: Function that is called with each batch, in the threads of the queue.
            threads: Number of concurrent calls of `encode`, at least 1.
            max_batches: Maximum number of batches in the queue, which wait, run, or are finished but not taken. The
                limit bounds the memory. At least `threads`.
        """
        self._encode = encode
        self._max_batches = max_batches
        self._futures: deque[Future[_Result]] = deque()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="jina-rag-embed")
        self._is_closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        for future in self._futures:
            if not future.cancelled():
                wait_for(future, lambda: None)

    def __len__(self) -> int:
        """Return the number of batches whose result was not taken."""
        return len(self._futures)

    @property
    def is_full(self) -> bool:
        """Whether the queue has the maximum number of batches."""
        return len(self._futures) >= self._max_batches

    def put(self, batch: Sequence[_Item]) -> None:
        """Append a batch. The caller takes results until the queue is not full."""
        assert not self.is_full
        # A function runs with the context variables of the caller, as it would in the thread of the caller.
        self._futures.append(self._pool.submit(contextvars.copy_context().run, self._run, batch))

    def wait(self, check: Callable[[], None]) -> None:
        """Wait until the first batch is finished.

        Args:
            check: Called every 0.05 seconds during the wait. `check` may take results. An exception from `check` ends
                the wait.
        """
        if self._futures:
            wait_for(self._futures[0], check)

    def finished(self) -> Iterator[_Result]:
        """Remove the first batches and yield the results, without waiting, up to the first batch that is not finished.

        A batch is removed before its result is yielded.

        Raises:
            BaseException: If `encode` failed. The exception of the thread is re-raised.
        """
        while self._futures and self._futures[0].done() and not self._futures[0].cancelled():
            yield self._futures.popleft().result()

    def _run(self, batch: Sequence[_Item]) -> _Result:
        with interruptible(self._check_closed):
            return self._encode(batch)

    def _check_closed(self) -> None:
        if self._is_closed.is_set():
            raise KeyboardInterrupt
