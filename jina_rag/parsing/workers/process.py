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
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from jina_rag._forks import after_fork_in_child, redirect_to_null
from jina_rag.parsing.workers import ipc, shared_memory

_BOOT = (
    "import sys, json; path, *options = json.loads(sys.argv[1]); sys.path[:] = path; "
    "from jina_rag.parsing.workers.worker import main; main(*options)"
)
# Time limit for the start of the process, in seconds.
_START_SECONDS = 60
# Time limit for the answer of an idle process, in seconds.
_ANSWER_SECONDS = 5
MAX_OPEN_DOCUMENTS = 3
"""Maximum number of documents that a worker process keeps open."""


_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


def _detach_workers() -> None:
    for worker in list(_workers):
        with contextlib.suppress(OSError, ValueError):  # ValueError: the pipe is closed
            worker.detach()
    _workers.clear()


after_fork_in_child(_detach_workers)


class WorkerLostError(Exception):
    """The worker process exited or was killed. The message has no final period, because callers embed the message.

    Attributes:
        timed_out: Whether the process was killed because a request exceeded the time limit.
    """

    def __init__(self, reason: str, *, timed_out: bool) -> None:
        super().__init__(reason)
        self.timed_out = timed_out


class Worker:
    """A worker process. Only one thread at a time may send requests and receive answers; `forget` is thread-safe.

    Args:
        libraries: Names of the packages that the process imports at the start, so that the time of the import does not
            count as time of the first document.

    Raises:
        OSError: If the operating system cannot start the process.
    """

    def __init__(self, libraries: Sequence[str] = ()) -> None:
        flags = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        memory = shared_memory.create()
        try:
            self._memory = None if memory is None else shared_memory.open_for_reading(memory)
            # The command contains no paths of documents, which are sent through the pipe. With -P, no module is
            # imported from the working directory, which may contain untrusted documents.
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-c", _BOOT, json.dumps([sys.path, memory, libraries])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if os.environ.get("JINA_RAG_DEBUG") else subprocess.DEVNULL,
                pass_fds=() if memory is None else (memory,),
                start_new_session=True,
                creationflags=flags,
            )
        finally:
            if memory is not None:
                os.close(memory)
        _workers.add(self)
        self.idle_since = time.monotonic()
        self._is_stopped = False
        self._is_ready = False
        self._lock = threading.Lock()
        self._documents: dict[int, None] = {}  # keys of the open documents, in the order of the opening
        self._closing: list[int] = []

    def holds(self, document: int) -> bool:
        """Return whether the process has a document open.

        Args:
            document: Key of the document.
        """
        return document in self._documents

    def remember(self, document: int) -> None:
        """Note that a document is being opened. If too many documents are open, the next request closes the oldest.

        Args:
            document: Key of the document.
        """
        with self._lock:
            while len(self._documents) >= MAX_OPEN_DOCUMENTS:
                oldest = next(iter(self._documents))
                del self._documents[oldest]
                self._closing.append(oldest)
            self._documents[document] = None

    def forget(self, document: int, *, is_closed: bool = False) -> None:
        """Note that a document is no longer needed. The next request closes the document.

        Args:
            document: Key of the document.
            is_closed: Whether the process has already closed the document.
        """
        with self._lock:
            if document in self._documents:
                del self._documents[document]
                if not is_closed:
                    self._closing.append(document)

    @property
    def has_documents_to_close(self) -> bool:
        """Whether the process has documents open that the next request closes."""
        return bool(self._closing)

    def send(self, *requests: Mapping[str, Any], seconds: int) -> None:
        """Send requests at once. The process answers each request, in order; read each answer with `receive`.

        Args:
            requests: The requests, JSON objects.
            seconds: Time limit of each request in seconds.
        """
        assert self._process.stdin is not None
        with self._lock:
            closing, self._closing = self._closing, []
        parts = [{**request, "seconds": seconds} for request in requests]
        parts[0]["close"] = closing
        # If the process has exited, `receive` raises WorkerLostError. ValueError: the pipe is closed.
        with contextlib.suppress(OSError, ValueError):
            for part in parts:
                ipc.write(self._process.stdin, part)
            self._process.stdin.flush()

    def receive(self, seconds: int, *, max_body: int = 0) -> ipc.Answer:
        """Wait for the next answer.

        Args:
            seconds: Time limit in seconds, after which the process is killed.
            max_body: Maximum length of the body in bytes.

        Returns:
            (header, body) of the answer. The body is valid until the next request is sent.

        Raises:
            WorkerLostError: If the process exits or exceeds the time limit.
            InvalidMessageError: If the answer is invalid. The process is not killed.
        """
        if not self._is_ready:
            # The start of the process is no work on a document, so it has a time limit of its own.
            self._is_ready = True
            self._read(max(seconds, _START_SECONDS))
        return self._read(seconds, max_body)

    def ask(self) -> None:
        """Ask an idle process for an answer, and to close the documents that are no longer needed."""
        self.send({"op": "close"}, seconds=_ANSWER_SECONDS)

    def has_answered(self) -> bool:
        """Wait for the answer to `ask`. Return False if the process has exited, hangs or sends an invalid answer."""
        try:
            self.receive(_ANSWER_SECONDS)
        except (WorkerLostError, ipc.InvalidMessageError):
            return False
        return True

    def answers(self) -> bool:
        """Return whether an idle process answers. An answer takes about 0.1 ms of CPU time."""
        self.ask()
        return self.has_answered()

    def _read(self, seconds: int, max_body: int = 0) -> ipc.Answer:
        assert self._process.stdout is not None
        timed_out = threading.Event()

        def end() -> None:
            timed_out.set()
            self.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            answer = ipc.receive(self._process.stdout, self._memory, max_body=max_body)
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
    def is_usable(self) -> bool:
        """Whether the process is running and was not told to stop. A killed process may run on for a moment."""
        return not self._is_stopped and self._process.poll() is None

    def kill(self) -> None:
        """Kill the process without waiting for the exit. A concurrent `receive` raises WorkerLostError."""
        self._is_stopped = True
        self._process.kill()

    def detach(self) -> None:
        """Give up the process in a forked child, because the process belongs to the parent.

        The copies of the pipes are closed, so that the process exits when the parent closes the pipes.
        """
        self._is_stopped = True
        redirect_to_null(*(stream.fileno() for stream in (self._process.stdin, self._process.stdout) if stream))
        self._process.poll()  # the process is no child of this process, so the result is an exit code

    def close_pipes(self) -> None:
        """Close the pipes of this process, which makes an idle worker process exit."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def close(self, *, kill: bool = False) -> None:
        """Stop the process and wait until the process has exited.

        Args:
            kill: Whether to kill the process immediately. By default, the pipe is closed, which makes the process exit,
                and a process that does not exit within 5 seconds is killed.
        """
        self._is_stopped = True
        if kill:
            self._process.kill()
        self.close_pipes()
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
