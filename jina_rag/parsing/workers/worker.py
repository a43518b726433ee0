"""Main program of a worker process, which renders documents. Requests and answers are sent through two pipes."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jina_rag.config import IngestSettings, Limits
from jina_rag.errors import DocumentError, JinaRagError, LimitExceededError
from jina_rag.parsing.documents import open_document
from jina_rag.parsing.renderer import Renderer
from jina_rag.parsing.sources import SourceFile
from jina_rag.parsing.workers.ipc import pack_page, receive, send

# If the parent process no longer exists, an alarm ends the worker this many seconds after the time limit.
_GRACE_SECONDS = 10


class _DocumentServer:
    """Answers the requests of the parent process. At most one document is open."""

    def __init__(self) -> None:
        self._renderer: Renderer | None = None
        self._settings = IngestSettings()

    def answer(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Return (header, body) of the answer. If the request fails, the header contains error class and message."""
        try:
            if request["op"] == "open":
                return self._open_document(request), b""
            if request["op"] == "close":
                self._close()
                return {}, b""
            assert self._renderer is not None, "page requested without an open document"
            return pack_page(*self._renderer.render_with_images(int(request["number"])))
        except Exception as error:  # the parent raises the error for the document or page of the request
            if _is_out_of_memory(error):
                return self._out_of_memory()
            if isinstance(error, JinaRagError):
                return {"error": type(error).__name__, "message": str(error)}, b""
            message = f"The renderer failed with {type(error).__name__}: {str(error)[:200]}. Re-export the file."
            return {"error": DocumentError.__name__, "message": message}, b""

    def _open_document(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._close()
        options = dict(request["settings"])
        self._settings = IngestSettings(
            **{**options, "limits": Limits(**options["limits"]), "passwords": tuple(options["passwords"])}
        )
        _limit_memory(self._settings.limits.max_memory)
        source = SourceFile(Path(request["path"]), Path(request["root"]), request["doc_id"], request["kind"])
        self._renderer = open_document(source, self._settings)
        return {"count": self._renderer.page_count, "warnings": self._renderer.warnings}

    def _close(self) -> None:
        if self._renderer is not None:
            self._renderer.__exit__(None, None, None)
            self._renderer = None

    def _out_of_memory(self) -> tuple[dict[str, Any], bytes]:
        limit = self._settings.limits.max_memory / 1e6
        message = f"Rendering exceeded {limit:,.0f} MB of memory. Raise Limits.max_memory (--limit max_memory=N)."
        return {"error": LimitExceededError.__name__, "message": message, "spent": True}, b""


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory allocation failed. MuPDF and Pillow report this cause only in the text of an error."""
    causes = [error, error.__cause__]
    return any(isinstance(cause, MemoryError) or "malloc" in str(cause).lower() for cause in causes if cause)


def _limit_memory(extra: int) -> None:
    """Limit the address space of the process to the current size plus `extra` bytes."""
    try:
        import resource

        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[0])
    except (ImportError, OSError):
        return  # Windows and macOS do not support the limit
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = min(pages * resource.getpagesize() + extra, 1 << 62)
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def main() -> None:
    """Read requests from stdin and write answers to stdout until stdin is closed."""
    # Ctrl-C is handled by the parent process, which stops this process by closing the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Output that native libraries print to stdout would corrupt the messages, so stdout is redirected to stderr.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    server = _DocumentServer()
    requests = sys.stdin.buffer
    # The pipe breaks if the parent process exits before reading the answer.
    with contextlib.suppress(BrokenPipeError, EOFError):
        while message := receive(requests):
            _alarm(int(message[0].get("seconds", 0)))
            answer = server.answer(message[0])
            _alarm(0)
            send(answers, *answer)


def _alarm(seconds: int) -> None:
    if hasattr(signal, "alarm"):
        signal.alarm(seconds + _GRACE_SECONDS if seconds else 0)


if __name__ == "__main__":
    main()
