"""How a stream of pages is stopped while other programs work for it: they are ended, not waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Stop:
    """Whether the work is to end, and how to end what is in work.

    Any thread may set it; it stays set.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._in_work: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    @property
    def is_set(self) -> bool:
        """Whether the work is to end."""
        return self._is_set

    def set(self) -> None:
        """End what is in work, and what is begun from now on."""
        with self._lock:
            self._is_set = True
            for kill in self._in_work:
                _try(kill)

    @contextmanager
    def may_end(self, kill: Callable[[], None]) -> Iterator[None]:
        """Within it, `kill` is called when the work is to end: at once, if that is known already.

        Args:
            kill: Called from any thread, and never after the end of the block. It must not wait for anything: the
                lock that it is called under is what keeps a process from being ended that works for others by then.
        """
        with self._lock:
            self._in_work.append(kill)
            if self._is_set:
                _try(kill)
        try:
            yield
        finally:
            with self._lock:
                self._in_work.remove(kill)


def _try(kill: Callable[[], None]) -> None:
    with suppress(OSError):  # it is gone, or no longer ours; the others still have to be ended
        kill()
