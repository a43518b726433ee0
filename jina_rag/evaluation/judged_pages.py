"""Page counts of documents and texts of judged pages, for the validation of a judged folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
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
    """A problem in a judged folder.

    Attributes:
        kind: Category of the problem in a few words, for example ``"missing page"``.
        what: Description in one or two sentences.
    """

    kind: str
    what: str


@dataclass(slots=True)
class JudgedPages:
    """Page counts of the documents and texts of the judged pages.

    Attributes:
        counts: Document → number of pages.
        texts: Judged page → text of the page.
        findings: Problems: unreadable documents and pages, and page counts that differ from ``docs.jsonl``.
    """

    counts: dict[str, int] = field(default_factory=dict)
    texts: dict[PageKey, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def read_judged_pages(
    documents: Mapping[str, tuple[Path, Mapping[str, Any]]],
    pages: Mapping[str, set[int]],
    settings: IngestSettings,
    progress: Callable[[int, int], None] | None = None,
) -> JudgedPages:
    """Open every document, count the pages, and read the texts of the judged pages.

    Args:
        documents: Document → (path of the file, entry of ``docs.jsonl``).
        pages: Document → 1-based numbers of the judged pages.
        settings: Settings for reading the documents: resolution, OCR and limits.
        progress: Called with (documents done, total documents).

    Returns:
        The page count of each document, the text of each judged page, and the problems.
    """
    result = JudgedPages()
    names: dict[Path, str] = {}
    sources: list[SourceFile] = []
    all_pages = frozenset(range(1, settings.limits.max_pages + 1))
    for doc, (path, _) in documents.items():
        try:
            source = source_file(path)
        except InvalidInputError as exc:
            result.findings.append(Finding("unreadable", f"{doc}: {exc}"))
            continue
        names[source.path] = doc
        sources.append(replace(source, skip_pages=all_pages - pages.get(doc, set())))
    done = 0
    with contextlib.closing(read_pages(sources, settings)) as events:
        for event in events:
            match event:
                case DocumentStart(source=source, count=count):
                    doc = names[source.path]
                    result.counts[doc] = count
                    page_count = documents[doc][1].get("pages")
                    if page_count not in (None, count):
                        result.findings.append(
                            Finding(
                                "pages",
                                f"{doc} has {count} pages, but {DOCUMENTS} states {page_count}. Correct {DOCUMENTS}.",
                            )
                        )
                case Page():
                    result.texts[names[event.path], event.number] = event.text
                case Failure():
                    page = f", page {event.page}" if event.page else ""
                    result.findings.append(Finding("unreadable", f"{names[event.path]}{page}: {event.reason}"))
            if isinstance(event, DocumentEnd) or (isinstance(event, Failure) and event.page is None):
                done += 1
                if progress:
                    progress(done, len(sources))
    return result
