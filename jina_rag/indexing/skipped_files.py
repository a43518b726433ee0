"""Skipped files of `load_pages`: collection by the thread that searches for files, and a summary in the log."""

from __future__ import annotations

import logging
from collections import deque
from pathlib import Path

from jina_rag._display import displayed
from jina_rag.indexing.sidecar import SUFFIXES
from jina_rag.parsing.sources import HIDDEN, Skipped, SourceFile
from jina_rag.types import Failure

_log = logging.getLogger("jina_rag")

_NAMES = 3
"""Number of files that a message of the log names."""


class SkippedFiles:
    """Skipped files, in the order of the search, without the sidecars of documents.

    One thread may add files while another thread takes files.
    """

    def __init__(self) -> None:
        self._files: deque[Failure] = deque()
        self._possible_sidecars: list[Failure] = []  # a later document may make a file a sidecar
        self._documents: set[str] = set()  # paths with and without suffix

    def add(self, event: Skipped | SourceFile) -> None:
        """Add a skipped file, or a document, whose sidecars are not skipped files."""
        if isinstance(event, SourceFile):
            self._documents |= {str(event.path), str(event.path.with_suffix(""))}
            return
        files = self._possible_sidecars if event.path.suffix in SUFFIXES else self._files
        files.append(Failure(event.path, event.reason))

    def take(self) -> list[Failure]:
        """Return the files that were added since the last call, except files that may be sidecars."""
        return [self._files.popleft() for _ in range(len(self._files))]

    def take_all(self) -> list[Failure]:
        """Return the remaining files after the end of the search."""
        files = [file for file in self._possible_sidecars if str(file.path.with_suffix("")) not in self._documents]
        return self.take() + files


class SkippedLog:
    """Summary of skipped files for the log: one message for each reason, with the number and some of the files."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._paths: dict[str, list[Path]] = {}

    def add(self, file: Failure) -> None:
        """Count a skipped file."""
        self._counts[file.reason] = self._counts.get(file.reason, 0) + 1
        paths = self._paths.setdefault(file.reason, [])
        if len(paths) < _NAMES:
            paths.append(file.path)

    def write(self) -> None:
        """Log the summary as warnings; hidden files, of which most folders contain some, as information."""
        for reason, count in self._counts.items():
            names = ", ".join(map(displayed, self._paths[reason])) + (", …" if count > _NAMES else "")
            subject = "1 file or folder was" if count == 1 else f"{count} files or folders were"
            level = logging.INFO if reason == HIDDEN else logging.WARNING
            _log.log(level, "%s skipped (%s): %s", subject, names, displayed(reason))
