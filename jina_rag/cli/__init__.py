"""The command line: parses and prints; nothing else."""

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

_IMPORT_WAIT = 0.4
"""Seconds that Ctrl-C waits for an import to end."""

_preloaded: list[object] = []
"""What a head start has loaded: held to the end, so that the command finds it."""


def main() -> None:
    """Run the command line of this process, and leave with its exit status."""
    with suppress(ValueError):  # the main thread alone may set a handler
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _InterruptAfterImports())
    try:
        if sys.argv[1:2] == ["search"]:
            _hasten(sys.argv[2:])
        # Imported here, so that Ctrl-C is met from the first moment.
        from jina_rag.cli.app import main as run

        run()
    except (KeyboardInterrupt, SystemExit) as exc:
        # typer turns Ctrl-C into a silent exit.
        cause = getattr(exc.__context__, "__cause__", None)
        if not isinstance(exc, KeyboardInterrupt) and not isinstance(cause, KeyboardInterrupt):
            raise
        sys.stderr.write("Interrupted.\n")
        raise SystemExit(130) from None


class _InterruptAfterImports:
    """Handles SIGINT as Python does, but lets an import end first.

    An interrupted import may leave its lock held, or fail with an ImportError of its own.
    """

    first: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt; within an import try again soon, and leave the process when it takes too long."""
        while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
            frame = frame.f_back
        if frame is None:
            self.first = None
            raise KeyboardInterrupt
        self.first = self.first or time.monotonic()
        if time.monotonic() - self.first > _IMPORT_WAIT:
            os.write(2, b"Interrupted.\n")
            os._exit(130)
        timer = threading.Timer(0.01, signal.raise_signal, (number,))
        timer.daemon = True
        timer.start()


def _hasten(arguments: Sequence[str]) -> None:
    """Load the model of a search while its command is still being imported and read: a third less to wait.

    A guess at what the arguments mean; whatever is wrong with them is said by the command itself.
    """
    # A search is over before garbage matters, and its matrices are too small to share among threads.
    gc.set_threshold(100_000, 50, 50)
    atexit.register(gc.freeze)
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if {"-h", "--help"} & set(arguments):
        return
    for position, argument in enumerate(arguments):
        index = argument.removeprefix("--index=")
        if argument in ("-i", "--index") and position + 1 < len(arguments):
            index = arguments[position + 1]
        if index != argument:
            threading.Thread(target=_load, args=(index,), name="jina-rag-model").start()
            return


def _load(index: str) -> None:
    # Nothing is lost by this: the command loads the model again, and says what is wrong with it.
    with suppress(Exception):
        from pathlib import Path

        from jina_rag.index.session import load_recorded

        _preloaded.append(load_recorded(Path(index)))
