"""A process that runs a model on one device: start, calls from several threads, and end."""

from __future__ import annotations

import builtins
import contextlib
import json
import logging
import os
import pickle
import pickletools
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from io import BufferedReader
from typing import IO, Any, cast

from jina_rag import errors
from jina_rag.errors import InvalidInputError, ModelError
from jina_rag.models.runtime.process_messages import (
    Bytes,
    InvalidMessageError,
    MessageWriter,
    Unpacker,
    receive,
)

_BOOT = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from jina_rag.models.runtime.process_main import main; main()"
)
_PIPE_BYTES = 1 << 20
"""Requested size of the pipe in bytes. The default of Linux, 64 KiB, takes a hundred switches for a page."""
_EXIT_SECONDS = 5.0
_POLL_SECONDS = 0.5
"""Interval in seconds at which a waiting thread notices Ctrl-C on Windows."""


class ProcessLostError(Exception):
    """The process ended. The message is a clause without a final period, because callers embed the message."""


class RemoteTraceback(Exception):  # the cause of an error, never raised by itself
    """Traceback in the other process, shown as the cause of an error."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """Description of the model in a process.

    Attributes:
        attributes: Name → value of the attributes of the model; see `process_main.DESCRIBED`.
        device: Device of the model, for example ``"cuda:0"``; None for a model without a placement.
        dtype: Dtype of the model, for example ``"torch.bfloat16"``; None for a model without a placement.
        methods: Methods of the model that can be called.
    """

    attributes: Mapping[str, Any]
    device: str | None
    dtype: str | None
    methods: Sequence[str]


def pack_factory(factory: Callable[[], object]) -> bytes:
    """Return a function that loads a model in the form in which a process receives the function.

    Args:
        factory: A function of a module, or a `functools.partial` of such a function. The process imports the module.

    Raises:
        InvalidInputError: If the function cannot be pickled, or is defined in the main program, which the process does
            not import.
    """
    try:
        packed = pickle.dumps(factory)
    except Exception as exc:  # pickle raises errors of many classes
        raise InvalidInputError(
            f"The factory {factory!r} cannot be sent to a process: {exc}. Pass a function of a module."
        ) from exc
    if any(argument == "__main__" for _, argument, _ in pickletools.genops(packed)):
        raise InvalidInputError(
            f"The factory {factory!r} is defined in the main program. Move the function and its classes to a module."
        )
    return packed


class DeviceProcess:
    """A process with a model; thread-safe. The process is a new interpreter that does not import the main program.

    Args:
        factory: Function that loads the model, from `pack_factory`.
        device: Name of the device.
        threads: Number of CPU threads of the process.

    Raises:
        ModelError: If the operating system cannot start a process.
    """

    def __init__(self, factory: bytes, *, device: str, threads: int) -> None:
        own = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        environment = {**own, **os.environ, "JINA_RAG_CPUS": str(threads)}
        try:
            # With -P, no module is imported from the working directory, which may contain untrusted documents.
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-c", _BOOT, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as exc:
            raise ModelError(
                f"The process of {device} cannot be started: {exc.strerror or exc}. Pass fewer devices."
            ) from exc
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for pipe in (self._process.stdin, self._process.stdout):
            _enlarge(pipe)
        self._is_killed = False
        self._answers = _Answers(self._process)
        self._writer = MessageWriter(self._process.stdin)
        threading.Thread(target=self._answers.read, name=f"jina-rag-{device}", daemon=True).start()
        self._loaded: Future[Any] = self._answers.expect()
        level = logging.getLogger("jina_rag").getEffectiveLevel()
        self._send({"id": 0, "device": device, "log_level": level, "parent": os.getpid()}, [factory])

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process answers requests."""
        return not self._is_killed and self._answers.lost is None

    def loaded(self) -> ModelDescription:
        """Wait until the model is loaded, and return the description of the model.

        Raises:
            ProcessLostError: If the process ended.
            JinaRagError: If the model cannot be loaded.
        """
        description: ModelDescription = wait_for(self._loaded)
        return description

    def call(self, method: str, arguments: object, options: Mapping[str, Any], buffers: Sequence[Bytes]) -> Future[Any]:
        """Send a request.

        Args:
            method: Name of a method of the model.
            arguments: Positional arguments, packed by a `Packer`.
            options: Keyword arguments, JSON values.
            buffers: Buffers of the `Packer`.

        Returns:
            The future result. The exception of the future is a `ProcessLostError` if the process ends before the
            answer, or the error that the model raises.
        """
        future = self._answers.expect()
        request = {
            "id": future.number,
            "method": method,
            "arguments": arguments,
            "options": dict(options),
            "directory": _working_directory(),
        }
        self._send(request, buffers)
        return future

    def _send(self, header: Mapping[str, Any], buffers: Sequence[Bytes]) -> None:
        try:
            self._writer.send(header, buffers)
        except (OSError, ValueError):
            pass  # the pipe is closed; the reading thread reports the end
        except BaseException:  # Ctrl-C, for example: the process would wait for the rest of the message
            self.kill()
            raise

    def kill(self) -> None:
        """End the process immediately. The futures of unanswered requests get a `ProcessLostError`."""
        self._is_killed = True
        with contextlib.suppress(OSError):
            self._process.kill()

    def close(self) -> None:
        """End the process immediately, and wait until the process has ended."""
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_EXIT_SECONDS)

    def abandon(self) -> None:
        """Detach a forked copy of this object from the process, which belongs to the parent process.

        The pipes are replaced by the null device, so that data that the parent was writing is not written twice, and
        the end of the parent closes the pipes of the process.
        """
        null = os.open(os.devnull, os.O_RDWR)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError, ValueError):
                os.dup2(null, pipe.fileno())
        os.close(null)


class _NumberedFuture(Future[Any]):
    """The future answer to the request `number`."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class _Answers:
    """Reads the answers of a process in a thread, which holds no reference to the `DeviceProcess`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._lock = threading.Lock()
        self._futures: dict[int, _NumberedFuture] = {}
        self._count = 0
        self.lost: str | None = None

    def expect(self) -> _NumberedFuture:
        """Return the future of the next request."""
        with self._lock:
            future = _NumberedFuture(self._count)
            self._count += 1
            if self.lost is None:
                self._futures[future.number] = future
                return future
        future.set_exception(ProcessLostError(self.lost))
        return future

    def read(self) -> None:
        """Set the results of the futures until the process ends."""
        stream = cast(BufferedReader, self._process.stdout)
        reason: str | None = None
        try:
            while reason is None and (message := receive(stream)):
                reason = self._dispatch(*message)
        except (EOFError, OSError, ValueError):  # ValueError: the pipe is closed
            pass
        except (InvalidMessageError, KeyError, TypeError):
            reason = "sent an invalid answer"
        with contextlib.suppress(OSError):
            self._process.kill()  # a process that closed its pipe or sent an invalid answer is not used again
        code = self._process.wait()
        with self._lock:
            self.lost = reason or _describe_exit(code)
            futures, self._futures = self._futures, {}
        for future in futures.values():
            future.set_exception(ProcessLostError(self.lost))
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()

    def _dispatch(self, header: dict[str, Any], buffers: Sequence[Any]) -> str | None:
        """Process a message. Return None, or the reason for which the process cannot be used any longer."""
        if "log" in header:
            name, level, message = header["log"]
            logging.getLogger(str(name)).log(int(level), "%s", message)
            return None
        if "fatal" in header:
            return f"failed: {str(header['fatal']['message']).splitlines()[0][:200]}"
        if "error" in header:
            answer: Any = _error(header["error"])
        elif "description" in header:
            device, dtype = header["placement"] or (None, None)
            attributes = Unpacker(buffers).unpack(header["description"])
            answer = ModelDescription(attributes, device, dtype, header["methods"])
        else:
            answer = Unpacker(buffers).unpack(header["result"])
        with self._lock:
            future = self._futures.pop(header["id"])
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return None


def wait_for(future: Future[Any]) -> Any:  # noqa: ANN401
    """Return the result of a future. The wait can be interrupted by Ctrl-C on each platform.

    Args:
        future: The future.
    """
    while not wait([future], timeout=_POLL_SECONDS).done:
        pass
    return future.result()


def _error(details: Mapping[str, Any]) -> Exception:
    """Return the error that the model raised: of the same class for errors of jina_rag and of Python."""
    name, module, message = str(details["class"]), str(details["module"]), str(details["message"])
    source: Any = {errors.__name__: errors, builtins.__name__: builtins}.get(module)
    kind = getattr(source, name, None)
    error: Exception = RuntimeError(f"{name}: {message}")
    if isinstance(kind, type) and issubclass(kind, Exception):
        with contextlib.suppress(TypeError):  # UnicodeError, for example, requires other arguments
            error = kind(message)
    error.__cause__ = RemoteTraceback(str(details["traceback"]))
    return error


def _working_directory() -> str:
    with contextlib.suppress(OSError):  # the directory was deleted
        return os.getcwd()
    return ""


def _describe_exit(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with status {code}"


def _enlarge(pipe: IO[bytes]) -> None:
    if sys.platform == "linux":
        import fcntl

        with contextlib.suppress(OSError):  # the limit of the user is exhausted
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
