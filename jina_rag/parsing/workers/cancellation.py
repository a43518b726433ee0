"""Cancellation: a stop signal that kills worker processes, and functions that wait and can be interrupted."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from typing import TypeVar

_Result = TypeVar("_Result")
POLL_SECONDS = 0.05
"""Interval between two checks for a stop, in seconds."""


class Stop:
    """A thread-safe stop signal that kills registered processes. The signal cannot be reset.

    Attributes:
        is_set: Whether the stop was requested.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._kill_callbacks: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def set(self) -> None:
        """Request the stop: kill all registered processes, and later each process that is registered afterwards."""
        with self._lock:
            self.is_set = True
            for kill in self._kill_callbacks:
                # OSError is ignored, so that an exited process does not prevent the other processes from being killed.
                with suppress(OSError):
                    kill()

    @contextmanager
    def kill_on_stop(self, kill: Callable[[], None]) -> Iterator[None]:
        """Keep `kill` registered until the context exits.

        `kill` is called if a stop is requested or was requested before.

        Args:
            kill: Function that kills a process. `kill` may be called from any thread, and must not block, because the
                call holds a lock. The lock ensures that `kill` is not called after the context exits, when the process
                may already do other work.
        """
        with self._lock:
            self._kill_callbacks.append(kill)
            if self.is_set:
                with suppress(OSError):
                    kill()
        try:
            yield
        finally:
            with self._lock:
                self._kill_callbacks.remove(kill)


@contextmanager
def stopping(stop: Stop) -> Iterator[None]:
    """Set a stop signal when the context exits.

    Args:
        stop: The signal.
    """
    try:
        yield
    finally:
        stop.set()


def wait_for(future: Future[_Result], check: Callable[[], None]) -> None:
    """Wait for the completion of a future.

    Args:
        future: The future to wait for.
        check: Called every 0.05 seconds during the wait. An exception from `check` ends the wait.
    """
    while not wait([future], timeout=POLL_SECONDS).done:
        check()


def call_in_thread(function: Callable[[], _Result], check: Callable[[], None]) -> _Result:
    """Run a function in a separate thread and return the result of the function.

    Args:
        function: The function. An exception from `function` is re-raised in the calling thread.
        check: Called every 0.05 seconds during the wait. An exception from `check` ends the wait, but the function
            continues to run in the separate thread.
    """
    future: Future[_Result] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # re-raised in the calling thread
            future.set_exception(error)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name="jina-rag-load", daemon=True).start()
    wait_for(future, check)
    return future.result()
