"""Reading of attachments in a worker process."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError, MissingDependencyError
from jina_rag.parsing.attachment_base import AttachmentReader
from jina_rag.parsing.attachment_readers import open_attachments
from jina_rag.parsing.documents import renderer_names
from jina_rag.parsing.sources import SourceFile
from jina_rag.parsing.workers import ipc
from jina_rag.parsing.workers.cancellation import Stop
from jina_rag.parsing.workers.pool import IsolatedDocument
from jina_rag.parsing.workers.process import Worker, WorkerLostError

_PROBLEM = "The attachments cannot be read"


class IsolatedAttachments(IsolatedDocument):
    """The attachments of a file, read in a worker process. The file is open from creation until `close`.

    A crash, timeout or lack of memory fails one attachment, and the next attachment is read in another worker.

    Raises:
        DocumentError: If the file cannot be opened, the worker crashes or exceeds a limit, or no worker starts.
        MissingDependencyError: If the package that reads the format is not installed.
    """

    names: tuple[str, ...] = ()
    """Names of the attachments, as stored in the file."""

    def save(self, index: int, path: Path) -> None:
        """Write the content of an attachment to a file.

        Args:
            index: Position in `names`, from 0.
            path: Path of the file to write.

        Raises:
            DocumentError: If the content cannot be decoded or written, or the worker crashes.
            LimitExceededError: If the content or the worker exceeds a limit.
        """
        self._check_lost("The attachment was not read")
        worker = self._take()
        request = {"op": "attachment", "document": self._key, "index": index, "target": os.path.abspath(path)}
        if worker.holds(self._key):
            self._send(worker, [request])
        else:
            self._send(worker, [self._open_request(worker), request])
            self._receive_opened(worker, 1)
        self._receive(worker, lambda _header, _body: None, "The attachment cannot be read")
        self._release(worker)

    def _open_request(self, worker: Worker) -> dict[str, Any]:
        return {**super()._open_request(worker), "op": "attachments"}

    def _receive_opened(self, worker: Worker, following: int) -> tuple[int, tuple[str, ...]]:
        try:
            self.names = self._receive(worker, lambda header, _: ipc.unpack_names(header), _PROBLEM, following)
        except (DocumentError, MissingDependencyError):
            worker.forget(self._key, is_closed=True)
            raise
        return len(self.names), ()


def open_attachments_isolated(
    source: SourceFile, settings: IngestSettings, stop: Stop | None = None
) -> AttachmentReader | IsolatedAttachments:
    """Open a file to read its attachments, in a worker process unless ``settings.isolate`` is False.

    With ``renderer="auto"``, a PDF on which the first library crashes or exceeds the time limit is opened with the
    other library, in another worker process.

    Args:
        source: The file, for which `attachment_readers.may_have_attachments` is True.
        settings: Settings of the ingestion.
        stop: Stop signal that kills the workers.

    Raises:
        DocumentError: If the file cannot be opened.
        MissingDependencyError: If the package that reads the format is not installed.
    """
    if settings.isolate and sys.executable and not getattr(sys, "frozen", False):
        try:
            return IsolatedAttachments(source, settings, stop)
        except DocumentError as error:
            _, other = renderer_names(settings)
            if not (isinstance(error.__cause__, WorkerLostError) and settings.renderer == "auto" and other):
                raise
            return IsolatedAttachments(source, replace(settings, renderer=other), stop)
    return open_attachments(source, settings)
