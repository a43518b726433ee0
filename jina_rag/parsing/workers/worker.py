"""What runs in a worker process: it opens one document at a time and renders its pages, asked through two pipes."""

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

# The system ends a worker whose parent is gone and cannot, this long after the parent would have.
_GRACE = 10


class _DocumentServer:
    """The document that is open, if any, and what to answer."""

    def __init__(self) -> None:
        self._open: Renderer | None = None
        self._settings = IngestSettings()

    def answer(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Do what is asked; an error becomes its kind and its sentence."""
        try:
            if request["op"] == "open":
                return self._opened(request), b""
            if request["op"] == "close":
                self._close()
                return {}, b""
            assert self._open is not None, "a page of no document"
            return pack_page(*self._open.render_with_images(int(request["number"])))
        except Exception as error:  # one page's trouble, whatever it is
            if _is_out_of_memory(error):
                return self._out_of_memory()
            if isinstance(error, JinaRagError):
                return {"error": type(error).__name__, "message": str(error)}, b""
            message = f"It cannot be read: {type(error).__name__}: {str(error)[:200]}."
            return {"error": DocumentError.__name__, "message": message}, b""

    def _opened(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._close()
        options = dict(request["settings"])
        self._settings = IngestSettings(
            **{**options, "limits": Limits(**options["limits"]), "passwords": tuple(options["passwords"])}
        )
        _limit_memory(self._settings.limits.max_memory)
        source = SourceFile(Path(request["path"]), Path(request["root"]), request["doc_id"], request["kind"])
        self._open = open_document(source, self._settings)
        return {"count": self._open.page_count, "warnings": self._open.warnings}

    def _close(self) -> None:
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = None

    def _out_of_memory(self) -> tuple[dict[str, Any], bytes]:
        most = self._settings.limits.max_memory / 1e6
        message = f"It needs more than the {most:,.0f} MB of memory that a page may take: raise limits.max_memory."
        return {"error": LimitExceededError.__name__, "message": message, "spent": True}, b""


def _is_out_of_memory(error: BaseException) -> bool:
    """MuPDF and Pillow say so in words only."""
    causes = [error, error.__cause__]
    return any(isinstance(cause, MemoryError) or "malloc" in str(cause).lower() for cause in causes if cause)


def _limit_memory(extra: int) -> None:
    """Let this process take at most so many bytes of address space more than it has now."""
    try:
        import resource

        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[0])
    except (ImportError, OSError):
        return  # Windows and macOS cannot be held to it
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = min(pages * resource.getpagesize() + extra, 1 << 62)
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def main() -> None:
    """Answer requests on stdin until it is closed."""
    # Ctrl-C is for the parent, which ends this process by closing the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A native library that prints must not write into the messages.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    server = _DocumentServer()
    requests = sys.stdin.buffer
    # The parent may end at any time, and then nobody reads the answer.
    with contextlib.suppress(BrokenPipeError, EOFError):
        while message := receive(requests):
            _alarm(int(message[0].get("seconds", 0)))
            answer = server.answer(message[0])
            _alarm(0)
            send(answers, *answer)


def _alarm(seconds: int) -> None:
    if hasattr(signal, "alarm"):
        signal.alarm(seconds + _GRACE if seconds else 0)


if __name__ == "__main__":
    main()
