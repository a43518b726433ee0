"""The sample documents that ship with the package: where they lie, whose they are, what to ask them."""

from __future__ import annotations

import importlib.resources
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from jina_rag.errors import DocumentError


@dataclass(frozen=True, slots=True)
class SampleDocument:
    """One sample document and its licence.

    Attributes:
        file: Its name in `sample_folder`.
        title: What it is.
        pages: How many pages it has.
        licence: Name of the licence, or ``"public domain"``.
        source: Whose work it is and where it comes from.
        url: A page about it, or None.
    """

    file: str
    title: str
    pages: int
    licence: str
    source: str
    url: str | None


@dataclass(frozen=True, slots=True)
class SampleQuery:
    """A question to the sample documents, and the page that answers it.

    Attributes:
        kind: Where the answer stands: text, table, chart, scan or code.
        query: As a user would ask it.
        lang: Language of the question.
        doc_id: The document that answers.
        page: The page that answers, 1-based.
        answer: The answer, as a person read it there.
        note: What is special about it; may be empty.
    """

    kind: str
    query: str
    lang: str
    doc_id: str
    page: int
    answer: str
    note: str


def sample_folder() -> Path:
    """The folder of the sample documents.

    Raises:
        DocumentError: If the package lies in an archive, where documents cannot be opened.
    """
    folder = importlib.resources.files("jina_rag").joinpath("samples", "documents")
    if not isinstance(folder, Path) or not folder.is_dir():
        raise DocumentError(
            f"The sample documents are no folder on disk ({folder}): install the package unpacked, with pip."
        )
    return folder


def sample_documents() -> tuple[SampleDocument, ...]:
    """The sample documents, in the order of their file names."""
    names = [field.name for field in fields(SampleDocument)]
    return tuple(SampleDocument(**{name: row[name] for name in names}) for row in _read("SOURCES.json")["documents"])


def sample_queries() -> tuple[SampleQuery, ...]:
    """The five questions of the demonstration."""
    return tuple(SampleQuery(**row) for row in _read("questions.json")["questions"])


def _read(name: str) -> dict[str, Any]:
    """One of the JSON files beside the documents."""
    text = importlib.resources.files("jina_rag").joinpath("samples", name).read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content
