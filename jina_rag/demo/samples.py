"""The sample documents of the package, their sources and licenses, and the sample queries."""

from __future__ import annotations

import importlib.resources
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from jina_rag.errors import DocumentError


@dataclass(frozen=True, slots=True)
class SampleDocument:
    """One sample document and its license.

    Attributes:
        file: File name in `sample_folder`.
        title: Title of the document.
        pages: Number of pages.
        licence: Name of the license, or ``"public domain"``.
        source: Author and origin.
        url: URL of the source, or None.
    """

    file: str
    title: str
    pages: int
    licence: str
    source: str
    url: str | None


@dataclass(frozen=True, slots=True)
class SampleQuery:
    """A query for the sample documents and its relevant page.

    Attributes:
        kind: Where the answer appears: text, table, chart, scan or code.
        query: The query text.
        lang: Language code of the query.
        doc_id: Id of the relevant document.
        page: Number of the relevant page, from 1.
        answer: The answer on that page.
        note: Remark shown in the report; may be empty.
    """

    kind: str
    query: str
    lang: str
    doc_id: str
    page: int
    answer: str
    note: str


def sample_folder() -> Path:
    """Return the folder of the sample documents.

    Raises:
        DocumentError: If the folder does not exist on disk, because jina-rag is installed as an archive or is
            incomplete.
    """
    folder = importlib.resources.files("jina_rag").joinpath("samples", "documents")
    if not isinstance(folder, Path) or not folder.is_dir():
        raise DocumentError(
            f"The sample documents cannot be read from {folder}: jina-rag is installed as an archive or is incomplete. "
            "Reinstall jina-rag with pip."
        )
    return folder


def sample_documents() -> tuple[SampleDocument, ...]:
    """Return the sample documents, sorted by file name."""
    names = [field.name for field in fields(SampleDocument)]
    return tuple(SampleDocument(**{name: row[name] for name in names}) for row in _read("SOURCES.json")["documents"])


def sample_queries() -> tuple[SampleQuery, ...]:
    """Return the five sample queries."""
    return tuple(SampleQuery(**row) for row in _read("questions.json")["questions"])


def _read(name: str) -> dict[str, Any]:
    """Read a JSON file of the samples folder."""
    text = importlib.resources.files("jina_rag").joinpath("samples", name).read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content
