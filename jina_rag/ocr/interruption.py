"""Cancellation of OCR between two forward passes of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_CHECK: ContextVar[Callable[[], None]] = ContextVar("check", default=lambda: None)


@contextmanager
def interruptible(check: Callable[[], None]) -> Iterator[None]:
    """Call `check` before each forward pass of an OCR model in this thread. An exception from `check` cancels OCR.

    Args:
        check: Function that raises an exception to cancel.

    Yields:
        Nothing; the check applies inside the ``with`` block.
    """
    token = _CHECK.set(check)
    try:
        yield
    finally:
        _CHECK.reset(token)


def check_interruption() -> None:
    """Call the check that `interruptible` set for this thread, if any."""
    _CHECK.get()()
