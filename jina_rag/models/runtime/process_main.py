"""Main program of the process of one device: loads a model, and answers the requests of the process that started it."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Any

from jina_rag.models.runtime.process_messages import Buffer, MessageWriter, Packer, Unpacker, receive

DESCRIBED = (
    "name", "fingerprint", "dim", "multi_dim", "modality", "hubness", "revision", "matryoshka_dims",
    "multi_matryoshka_dims", "dense_weight", "tasks",
)  # fmt: skip
"""Attributes of a model that the other process gets, where the model has them."""
METHODS = ("encode_query", "encode_document", "score", "score_pairs", "explain")
"""Methods of a model that the other process calls."""
_PARENT_POLL_SECONDS = 1.0


class _Logs(logging.Handler):
    """Sends log records to the process of the caller, which logs them."""

    def __init__(self, writer: MessageWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        self._writer.send({"log": [record.name, record.levelno, record.getMessage()]})


class _ModelServer:
    """Answers requests, each in a thread, as the model in one process answers the threads of the caller."""

    def __init__(self, writer: MessageWriter, device: str) -> None:
        self._writer, self._device = writer, device
        self._model: Any = None
        self._directory_lock = threading.Lock()

    def load(self, header: dict[str, Any], buffers: Sequence[Buffer]) -> bool:
        """Load the model and send its description, or the error. Return whether the model was loaded."""
        try:
            self._select_device()
            # The factory comes from the process that started this process, not from a file or a document.
            self._model = pickle.loads(buffers[0].data)()  # noqa: S301
            packer = Packer()
            description = {name: getattr(self._model, name) for name in DESCRIBED if hasattr(self._model, name)}
            placement = getattr(self._model, "placement", None)
            self._writer.send(
                {
                    "id": header["id"],
                    "description": packer.pack(description),
                    "placement": None if placement is None else [str(placement.device), str(placement.dtype)],
                    "methods": [name for name in METHODS if hasattr(self._model, name)],
                },
                packer.buffers,
            )
        except Exception as exc:  # raised by the process that loads the model
            self._send_error(header["id"], exc)
            return False
        return True

    def answer(self, header: dict[str, Any], buffers: Sequence[Buffer]) -> None:
        """Call a method of the model and send the result or the error."""
        try:
            if header["method"] not in METHODS:
                raise ValueError(f"The method {header['method']!r} is unknown.")
            self._select_device()
            self._enter(header["directory"])
            unpacker = Unpacker(buffers)
            arguments = unpacker.unpack(header["arguments"])
            result = getattr(self._model, header["method"])(*arguments, **header["options"])
            packer = Packer()
            self._writer.send({"id": header["id"], "result": packer.pack(result)}, packer.buffers)
        except Exception as exc:  # raised by the process of the caller
            self._send_error(header["id"], exc)

    def _select_device(self) -> None:
        """Make the CUDA device the default of this thread, so that no memory of another CUDA device is used."""
        kind, _, index = self._device.partition(":")
        if kind == "cuda" and index.isdigit():
            import torch

            # A missing device is reported when the model is placed.
            if torch.cuda.is_available() and int(index) < torch.cuda.device_count():
                torch.cuda.set_device(int(index))

    def _enter(self, directory: str) -> None:
        """Change to the working directory of the caller, because inputs may be relative paths."""
        with self._directory_lock, contextlib.suppress(OSError):
            if directory and os.getcwd() != directory:
                os.chdir(directory)

    def _send_error(self, number: int, error: Exception) -> None:
        # After an error of CUDA other than exhausted memory, all later calls in the process fail.
        fatal = isinstance(error, RuntimeError) and "CUDA error" in str(error)
        details = {
            "class": type(error).__name__,
            "module": type(error).__module__,
            "message": str(error),
            "traceback": traceback.format_exc(),
        }
        with contextlib.suppress(OSError):  # the process of the caller has ended
            self._writer.send({"id": number, "fatal" if fatal else "error": details})


def _exit_without_parent(parent: int) -> None:
    """End this process when the parent process has ended.

    The end of the parent also closes the pipe of the requests, unless a forked copy of the parent holds the pipe open.
    """
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL_SECONDS)
    os._exit(0)


def main() -> None:
    """Read requests from stdin and write answers to stdout until stdin is closed."""
    # Ctrl-C is handled by the parent process, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests = io.BufferedReader(io.FileIO(os.dup(0), "rb"))
    writer = MessageWriter(io.BufferedWriter(io.FileIO(os.dup(1), "wb")))
    # Output of libraries to stdout would corrupt the messages, so stdout is redirected to stderr.
    os.dup2(2, 1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    first = receive(requests)
    if first is None:
        return
    header = first[0]
    if header["parent"] == os.getppid():  # not on Windows with a launcher, where only the pipe shows the end
        threading.Thread(target=_exit_without_parent, args=(header["parent"],), daemon=True).start()
    log = logging.getLogger("jina_rag")
    log.addHandler(_Logs(writer))
    log.setLevel(header["log_level"])
    log.propagate = False
    server = _ModelServer(writer, header["device"])
    # The model is loaded in a thread, because this thread notices that the parent closes the pipe.
    threading.Thread(target=server.load, args=first, daemon=True).start()
    with contextlib.suppress(EOFError):
        while message := receive(requests):
            threading.Thread(target=server.answer, args=message, daemon=True).start()
    # Threads that still compute are not awaited, because nobody receives their results.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
