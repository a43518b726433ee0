"""Class with which the parent process starts, uses and stops a worker process."""

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
    """The worker process exited or was killed. The message has no final period, because callers embed the message.

    Attributes:
        timed_out: Whether the process was killed because a request exceeded the time limit.
    """

    def __init__(self, reason: str, *, timed_out: bool) -> None:
        super().__init__(reason)
        self.timed_out = timed_out


class Worker:
    """A worker process. Only one thread at a time may use the worker.

    Raises:
        OSError: If the operating system cannot start the process.
    """

    def __init__(self) -> None:
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        # The command contains no paths of documents, which are sent through the pipe. With -P, no module is imported
        # from the working directory, which may contain untrusted documents.
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
        """Send a request and return the answer.

        Args:
            request: The request, a JSON object.
            seconds: Time limit of the request in seconds, after which the process is killed.

        Returns:
            (header, body) of the answer.

        Raises:
            WorkerLostError: If the process exits or exceeds the time limit.
            InvalidMessageError: If the answer is invalid. The process is not killed.
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
        except (OSError, EOFError, ValueError):  # ValueError: the pipe is closed
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
        """Whether the process is running."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill the process without waiting for the exit. A concurrent `ask` raises WorkerLostError."""
        self._process.kill()

    def close(self, *, kill: bool = False) -> None:
        """Stop the process and wait until the process has exited.

        Args:
            kill: Whether to kill the process immediately. By default, the pipe is closed, which makes the process exit,
                and a process that does not exit within 5 seconds is killed.
        """
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
        return f"the time limit of {seconds} s was exceeded. Raise Limits.max_seconds (--limit max_seconds=N)"
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"the worker process crashed ({signal.Signals(-code).name}). Replace or re-export the file"
    return f"the worker process exited with status {code}. Replace or re-export the file"
