"""A worker process as its parent sees it: started, asked, ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from jina_rag.parsing.workers import ipc

_BOOT = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from jina_rag.parsing.workers.worker import main; main()"
)


class WorkerLostError(Exception):
    """The process is gone; the message is the reason, as a clause.

    Attributes:
        timed_out: Whether it was ended because of the time limit.
    """

    def __init__(self, reason: str, *, timed_out: bool) -> None:
        super().__init__(reason)
        self.timed_out = timed_out


class Worker:
    """One worker process; used by one thread at a time.

    Raises:
        OSError: If the system does not start it.
    """

    def __init__(self) -> None:
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        # The command is our own interpreter and our own module; documents' names go through the pipe. With -P no module
        # is taken from the folder that we happen to stand in: it may be that of the documents.
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-c", _BOOT, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("JINA_RAG_DEBUG") else subprocess.DEVNULL,
            start_new_session=True,
            creationflags=flags,
        )
        self.idle_since = time.monotonic()

    def ask(self, request: Mapping[str, Any], seconds: int) -> tuple[dict[str, Any], bytes]:
        """Send a request and wait for the answer.

        Raises:
            WorkerLostError: If the process ended, or took longer than `seconds` and was ended.
            InvalidMessageError: If the answer is none; the process still runs then.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timed_out = threading.Event()

        def end() -> None:
            timed_out.set()
            self._process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            ipc.send(self._process.stdin, {**request, "seconds": seconds})
            answer = ipc.receive(self._process.stdout)
        except (OSError, EOFError, ValueError):  # ValueError: the pipe was closed
            answer = None
        finally:
            timer.cancel()
        if answer is None:
            self.close(kill=True)
            raise WorkerLostError(
                _reason(self._process.returncode, seconds, timed_out=timed_out.is_set()), timed_out=timed_out.is_set()
            )
        return answer

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process without waiting for it; another thread may be asking it, which then loses it."""
        self._process.kill()

    def close(self, *, kill: bool = False) -> None:
        """End the process: by closing its pipe, or at once."""
        if kill:
            self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _reason(code: int | None, seconds: int, *, timed_out: bool) -> str:
    if timed_out:
        return f"it took longer than {seconds} s and was stopped (limits.max_seconds)"
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"it crashed the renderer ({signal.Signals(-code).name})"
    return f"it ended the renderer (status {code})"
