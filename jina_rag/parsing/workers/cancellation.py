"""How a stream of pages is stopped while other programs work for it: they are ended, not waited for."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from typing import TypeVar

_Result = TypeVar("_Result")
PATIENCE = 0.05
"""Seconds between two looks at whether to stop."""


class Stop:
    """Whether the work is to end, and how to end what is in work.

    Any thread may set it; it stays set.

    Attributes:
        is_set: Whether the work is to end.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._in_work: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def set(self) -> None:
        """End what is in work, and what is begun from now on."""
        with self._lock:
            self.is_set = True
            for kill in self._in_work:
                with suppress(OSError):  # it is gone, or no longer ours; the others still have to be ended
                    kill()

    @contextmanager
    def kill_on_stop(self, kill: Callable[[], None]) -> Iterator[None]:
        """Within it, `kill` is called when the work is to end: at once, if that is known already.

        Args:
            kill: Called from any thread, and never after the end of the block. It must not wait for anything: the
                lock that it is called under is what keeps a process from being ended that works for others by then.
        """
        with self._lock:
            self._in_work.append(kill)
            if self.is_set:
                with suppress(OSError):
                    kill()
        try:
            yield
        finally:
            with self._lock:
                self._in_work.remove(kill)


def wait_for(future: Future[_Result], check: Callable[[], None]) -> None:
    """Wait until a result is there.

    Args:
        future: What gives it.
        check: Called meanwhile, every `PATIENCE` seconds; what it raises ends the wait.
    """
    while not wait([future], timeout=PATIENCE).done:
        check()


def call_in_thread(function: Callable[[], _Result], check: Callable[[], None]) -> _Result:
    """Call a function in a thread of its own, which is left behind where `check` ends the wait (see `wait_for`)."""
    future: Future[_Result] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # raised where it is waited for
            future.set_exception(error)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name="jina-rag-load", daemon=True).start()
    wait_for(future, check)
    return future.result()
