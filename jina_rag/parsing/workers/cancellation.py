"""Cancellation: a stop signal that kills worker processes, and interruptible waiting."""

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
    """A thread-safe stop signal that kills registered processes. A set signal cannot be reset.

    Attributes:
        is_set: Whether the stop was requested.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._kill_callbacks: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def set(self) -> None:
        """Request the stop: kill all registered processes, and each process registered later."""
        with self._lock:
            self.is_set = True
            for kill in self._kill_callbacks:
                with suppress(OSError):  # the process has exited; the others must still be killed
                    kill()

    @contextmanager
    def kill_on_stop(self, kill: Callable[[], None]) -> Iterator[None]:
        """Call `kill` if the stop is requested during the context, or was requested before.

        Args:
            kill: Function that kills a process. Called from any thread, but never after the end of the context. It must
                not block, because the call holds a lock. The lock prevents killing a process that already does other
                work.
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


def wait_for(future: Future[_Result], check: Callable[[], None]) -> None:
    """Wait for the completion of a future.

    Args:
        future: The future to wait for.
        check: Called every 0.05 seconds during the wait; an exception from it stops the wait.
    """
    while not wait([future], timeout=POLL_SECONDS).done:
        check()


def call_in_thread(function: Callable[[], _Result], check: Callable[[], None]) -> _Result:
    """Return the result of a function that runs in a separate thread.

    Args:
        function: The function. An exception from it is raised in the calling thread.
        check: Called every 0.05 seconds during the wait. An exception from it stops the wait; the thread continues in
            the background.
    """
    future: Future[_Result] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # raised in the waiting thread
            future.set_exception(error)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name="jina-rag-load", daemon=True).start()
    wait_for(future, check)
    return future.result()
