"""The command line ``jina-rag``: argument parsing and printed output."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

__all__ = ["main"]

_IMPORT_GRACE = 0.4
"""Seconds that Ctrl-C waits for a running import to finish."""

_preloaded: list[object] = []
"""Models loaded by `_preload_model`. This reference keeps each model in memory until the command loads the model."""


def main() -> None:
    """Run the command line and exit with its status."""
    with suppress(ValueError):  # signal.signal fails outside the main thread
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _InterruptAfterImports())
    try:
        if sys.argv[1:2] == ["search"]:
            _preload_model(sys.argv[2:])
        # Imported here, so that the SIGINT handler also covers the import.
        from jina_rag.cli.app import main as run

        run()
    except (KeyboardInterrupt, SystemExit) as exc:
        # typer turns KeyboardInterrupt into a SystemExit without a message.
        cause = getattr(exc.__context__, "__cause__", None)
        if not isinstance(exc, KeyboardInterrupt) and not isinstance(cause, KeyboardInterrupt):
            raise
        sys.stderr.write("Interrupted.\n")
        raise SystemExit(130) from None


class _InterruptAfterImports:
    """Handler of SIGINT that raises KeyboardInterrupt, but lets a running import finish first.

    An interrupted import can leave the import lock held, or raise a misleading ImportError.
    """

    first_signal_time: float | None = None

    def __call__(self, signal_number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt. During an import, retry every 10 ms and exit the process after `_IMPORT_GRACE`."""
        while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
            frame = frame.f_back
        if frame is None:
            self.first_signal_time = None
            raise KeyboardInterrupt
        self.first_signal_time = self.first_signal_time or time.monotonic()
        if time.monotonic() - self.first_signal_time > _IMPORT_GRACE:
            os.write(2, b"Interrupted.\n")
            os._exit(130)
        timer = threading.Timer(0.01, signal.raise_signal, (signal_number,))
        timer.daemon = True
        timer.start()


def _preload_model(arguments: Sequence[str]) -> None:
    """Load the model of a search in a thread while the command is imported. This takes a third off the start-up time.

    The function reads the index option only. The command validates all arguments. With ``--device``, the command loads
    the model itself.
    """
    # Garbage collection is rare, because a search ends before garbage collection pays off. OpenBLAS uses one thread,
    # because the matrices of a search are too small for several threads.
    gc.set_threshold(100_000, 50, 50)
    atexit.register(gc.freeze)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if {"-h", "--help", "--device"} & set(arguments) or any(item.startswith("--device=") for item in arguments):
        return
    for position, argument in enumerate(arguments):
        index = argument.removeprefix("--index=")
        if argument in ("-i", "--index") and position + 1 < len(arguments):
            index = arguments[position + 1]
        if index != argument:
            threading.Thread(target=_load, args=(index,), name="jina-rag-model").start()
            return


def _load(index: str) -> None:
    # Errors are ignored here, because the command then loads the model itself and reports the errors.
    with suppress(Exception):
        from pathlib import Path

        from jina_rag.index.session import load_recorded

        _preloaded.append(load_recorded(Path(index)))
