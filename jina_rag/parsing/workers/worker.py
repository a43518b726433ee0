"""Main program of a worker process, which renders documents. Requests and answers are sent through two pipes."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jina_rag.config import IngestSettings, Limits
from jina_rag.errors import DocumentError, JinaRagError, LimitExceededError
from jina_rag.parsing.attachment_base import AttachmentReader
from jina_rag.parsing.attachment_readers import open_attachments
from jina_rag.parsing.documents import open_alone
from jina_rag.parsing.preparation import prepare
from jina_rag.parsing.renderer import Renderer, is_out_of_memory
from jina_rag.parsing.sources import SourceFile
from jina_rag.parsing.workers.ipc import clip_regions, pack_page, receive, write
from jina_rag.parsing.workers.shared_memory import open_for_writing

# If the parent process no longer exists, an alarm ends the worker this many seconds after the time limit.
_GRACE_SECONDS = 10


class _DocumentServer:
    """Answers the requests of the parent process, which decides how many documents are open."""

    def __init__(self) -> None:
        self._documents: dict[int, tuple[Renderer, IngestSettings]] = {}
        self._attachments: dict[int, AttachmentReader] = {}
        self._max_memory = 0

    def answer(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        """Return (header, body) of the answer. If the request fails, the header contains error class and message.

        A document of one page is closed after rendering, because a large image takes much memory.
        """
        try:
            for document in request.get("close", ()):
                self._close(document)
            if request["op"] == "open":
                return self._open_document(request), []
            if request["op"] == "attachments":
                return self._open_attachments(request), []
            if request["op"] == "attachment":
                return self._save_attachment(request), []
            if request["op"] == "close":
                return {}, []
            return self._render(request["document"], int(request["number"]), prepared=bool(request["prepared"]))
        except Exception as error:  # the parent raises the error for the document or page of the request
            if is_out_of_memory(error):
                return self._out_of_memory(), []
            if isinstance(error, JinaRagError):
                return {"error": type(error).__name__, "message": str(error)}, []
            message = f"The renderer failed with {type(error).__name__}: {str(error)[:200]}. Re-export the file."
            return {"error": DocumentError.__name__, "message": message}, []

    def _open_document(self, request: Mapping[str, Any]) -> dict[str, Any]:
        source, settings = self._unpack(request)
        renderer = open_alone(source, settings)
        self._documents[request["document"]] = renderer, settings
        return {"count": renderer.page_count, "warnings": renderer.warnings}

    def _open_attachments(self, request: Mapping[str, Any]) -> dict[str, Any]:
        source, settings = self._unpack(request)
        reader = open_attachments(source, settings)
        self._attachments[request["document"]] = reader
        return {"names": list(reader.names)}

    def _save_attachment(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._attachments[request["document"]].save(int(request["index"]), Path(request["target"]))
        return {}

    def _unpack(self, request: Mapping[str, Any]) -> tuple[SourceFile, IngestSettings]:
        """Return the document and the settings of a request to open a document, and limit the memory."""
        options = dict(request["settings"])
        settings = IngestSettings(
            **{**options, "limits": Limits(**options["limits"]), "passwords": tuple(options["passwords"])}
        )
        self._max_memory = settings.limits.max_memory
        _limit_memory(self._max_memory)
        return SourceFile(Path(request["path"]), Path(request["root"]), request["doc_id"], request["kind"]), settings

    def _render(self, document: int, number: int, *, prepared: bool) -> tuple[dict[str, Any], list[bytes]]:
        renderer, settings = self._documents[document]
        page, images = renderer.render_with_images(number)
        if renderer.page_count == 1:
            self._close(document)
        if prepared:
            page = clip_regions(page)
            page = page.with_prepared(prepare(page, settings.jpeg_quality))
        return pack_page(page, images)

    def _close(self, document: int) -> None:
        renderer, _ = self._documents.pop(document, (None, None))
        for opened in (renderer, self._attachments.pop(document, None)):
            if opened is not None:
                opened.close()

    def _out_of_memory(self) -> dict[str, Any]:
        limit = self._max_memory / 1e6
        message = f"Rendering exceeded {limit:,.0f} MB of memory. Raise Limits.max_memory (--limit max_memory=N)."
        return {"error": LimitExceededError.__name__, "message": message, "spent": True}


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


def main(descriptor: int | None, libraries: Sequence[str]) -> None:
    """Read requests from stdin and write answers to stdout until stdin is closed.

    The first message to stdout is empty, and says that the process has started.

    Args:
        descriptor: File descriptor of the memory that the parent process shares with this process; None for none.
        libraries: Names of packages to import at the start. A failed import is reported for the first document.
    """
    # Ctrl-C is handled by the parent process, which stops this process by closing the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Output that native libraries print to stdout would corrupt the messages, so stdout is redirected to stderr.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    shared = None if descriptor is None else open_for_writing(descriptor)
    server = _DocumentServer()
    requests = sys.stdin.buffer
    for library in libraries:
        with contextlib.suppress(Exception):
            importlib.import_module(library)
    # The pipe breaks if the parent process exits before reading the answer.
    with contextlib.suppress(BrokenPipeError, EOFError):
        write(answers, {})
        answers.flush()
        while message := receive(requests):
            _alarm(int(message[0].get("seconds", 0)))
            answer = server.answer(message[0])
            _alarm(0)
            write(answers, *answer, memory=shared)
            answers.flush()


def _alarm(seconds: int) -> None:
    if hasattr(signal, "alarm"):
        signal.alarm(seconds + _GRACE_SECONDS if seconds else 0)
