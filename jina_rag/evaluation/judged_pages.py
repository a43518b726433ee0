"""The pages that questions name, read for a check of their folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jina_rag.config import IngestSettings
from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.datasets import DOCUMENTS, PageKey
from jina_rag.parsing.pages import DocumentEnd, DocumentStart, read_pages
from jina_rag.parsing.sources import SourceFile, source_file
from jina_rag.types import Failure, Page


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is amiss.

    Attributes:
        kind: In a few words.
        what: One sentence.
    """

    kind: str
    what: str


class JudgedPages:
    """Opens every document, and reads the pages that questions name.

    Attributes:
        counts: Document → its pages.
        texts: Judged page → its words.
    """

    def __init__(
        self,
        documents: Mapping[str, tuple[Path, Mapping[str, Any]]],
        wanted: Mapping[str, set[int]],
        settings: IngestSettings,
    ) -> None:
        """Take what is to be read.

        Args:
            documents: Document → (its file, its line of ``docs.jsonl``).
            wanted: Document → pages that questions name.
            settings: How pages are read.
        """
        self._documents = documents
        self._wanted = wanted
        self._settings = settings
        self.counts: dict[str, int] = {}
        self.texts: dict[PageKey, str] = {}

    def run(self, progress: Callable[[int, int], None] | None) -> list[Finding]:
        """Read, and tell what cannot be read; `progress` is called with (documents done, all)."""
        findings: list[Finding] = []
        names: dict[Path, str] = {}
        sources: list[SourceFile] = []
        every = frozenset(range(1, self._settings.limits.max_pages + 1))
        for doc, (path, _) in self._documents.items():
            try:
                source = source_file(path)
            except InvalidInputError as exc:
                findings.append(Finding("unreadable", f"{doc}: {exc}"))
                continue
            names[source.path] = doc
            sources.append(replace(source, done=every - self._wanted.get(doc, set())))
        done = 0
        with contextlib.closing(read_pages(sources, self._settings)) as events:
            for event in events:
                match event:
                    case DocumentStart(source=source, count=count):
                        doc = names[source.path]
                        self.counts[doc] = count
                        listed = self._documents[doc][1].get("pages")
                        if listed not in (None, count):
                            findings.append(
                                Finding("pages", f"{doc} has {count} pages, and {DOCUMENTS} says {listed}.")
                            )
                    case Page():
                        self.texts[names[event.path], event.number] = event.text
                    case Failure():
                        page = f", page {event.page}" if event.page else ""
                        findings.append(Finding("unreadable", f"{names[event.path]}{page}: {event.reason}"))
                if isinstance(event, DocumentEnd) or (isinstance(event, Failure) and event.page is None):
                    done += 1
                    if progress:
                        progress(done, len(sources))
        return findings
