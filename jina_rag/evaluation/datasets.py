"""A folder with documents and judged questions: ``docs.jsonl``, ``queries.jsonl`` and the files.

``docs.jsonl`` has one object a line with at least ``doc`` (the file's name without its suffix) and ``file``
(path relative to the folder). ``queries.jsonl`` has ``query_id``, ``query`` and ``relevant``, a list of
``{"doc", "page", "grade"}`` with 1-based pages and grade 2 (answers the question) or 1 (answers in part); it may
have ``modality`` and ``cross_language`` to group by, and ``bbox`` with the place of the answer. In its place there may
be ``queries.csv``, a sheet that a person fills in; see `jina_rag.evaluation.queries_csv`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.files import file_hash, read_lines
from jina_rag.evaluation.queries_csv import read_queries_csv

DOCUMENTS, QUERIES, QUERIES_CSV = "docs.jsonl", "queries.jsonl", "queries.csv"

PageKey: TypeAlias = tuple[str, int]
"""(doc, page): the file's stem and the 1-based page."""
Qrels: TypeAlias = Mapping[str, Mapping[PageKey, int]]
"""Relevance judgements: query_id → page → grade."""
Run: TypeAlias = Mapping[str, Sequence[PageKey]]
"""What a search gave: query_id → pages, best first."""


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """A question and the pages that answer it.

    Attributes:
        query_id: Its id.
        query: The question.
        relevant: Page → grade (2 answers, 1 answers in part). Empty for a question without judgements.
        modality: What holds the answer (text, table, chart, …); empty if not stated.
        cross_language: Whether question and page are in different languages; None if not stated.
        extra: The line as it was read.
    """

    query_id: str
    query: str
    relevant: Mapping[PageKey, int] = field(default_factory=dict)
    modality: str = ""
    cross_language: bool | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def language_group(self) -> str:
        """``"same"`` or ``"cross"``; empty if not stated."""
        return "" if self.cross_language is None else "cross" if self.cross_language else "same"


@dataclass(frozen=True, slots=True)
class JudgedFolder:
    """Documents and questions of one folder; `documents` maps each doc to its file."""

    root: Path
    documents: Mapping[str, Path]
    queries: tuple[JudgedQuery, ...]

    @property
    def names(self) -> dict[Path, str]:
        """Resolved path of each file → what judgements call its document."""
        return {path.resolve(): doc for doc, path in self.documents.items()}


def read_folder(root: Path) -> JudgedFolder:
    """Read a folder of judged questions.

    Raises:
        InvalidInputError: If a file is missing, a line is not what it should be, a question names a document that
            ``docs.jsonl`` does not list, or ``queries.csv`` and ``queries.jsonl`` contradict each other.
    """
    if not (root / DOCUMENTS).is_file():
        raise InvalidInputError(
            f"{root} has no {DOCUMENTS}: evaluation needs a folder with {DOCUMENTS}, {QUERIES} and the files. "
            "`jina-rag evaluate init` makes one."
        )
    documents: dict[str, Path] = {}
    for line, entry in read_lines(root / DOCUMENTS):
        doc, file = text_of(entry, "doc", root / DOCUMENTS, line), text_of(entry, "file", root / DOCUMENTS, line)
        if doc in documents:
            raise InvalidInputError(f"{root / DOCUMENTS}, line {line}: the document {doc!r} is listed twice.")
        documents[doc] = root / file
        if not documents[doc].is_file():
            raise InvalidInputError(f"{root / DOCUMENTS}, line {line}: the file {file!r} does not exist.")
    source, entries = query_entries(root)
    queries = _queries(source, entries)
    for query in queries:
        for doc, _ in query.relevant:
            if doc not in documents:
                where = f"{source}: question {query.query_id!r}"
                raise InvalidInputError(f"{where} names the document {doc!r}, which {DOCUMENTS} does not list.")
    return JudgedFolder(root=root, documents=documents, queries=queries)


def query_entries(root: Path) -> tuple[Path, list[tuple[int, dict[str, Any]]]]:
    """The file that holds a folder's questions, and its entries as ``queries.jsonl`` has them, with their lines.

    Raises:
        InvalidInputError: If there is none, it cannot be read, or there are two that contradict each other.
    """
    lines, sheet = root / QUERIES, root / QUERIES_CSV
    if not sheet.is_file():
        if not lines.is_file():
            raise InvalidInputError(
                f"{root} has no {QUERIES} and no {QUERIES_CSV}: evaluation needs questions, and the pages that answer "
                "them."
            )
        return lines, read_lines(lines)
    rows = read_queries_csv(sheet)
    if not lines.is_file():
        return sheet, rows
    entries = read_lines(lines)
    if _contents(entries) != _contents(rows):
        raise InvalidInputError(
            f"{root} has two sets of questions, and {QUERIES} is not what {QUERIES_CSV} says: make it anew with "
            f"`jina-rag evaluate check {root} --write`, or remove the one that is out of date."
        )
    return lines, entries


def _contents(entries: list[tuple[int, dict[str, Any]]]) -> list[object]:
    """What questions and judgements come to, however they are written down."""
    return [
        (entry.get("qid"), entry.get("query"), json.dumps(entry.get("relevant", []), sort_keys=True))
        for _, entry in entries
    ]


def data_hash(folder: JudgedFolder) -> str:
    """SHA-256 over the list of documents, the questions, and the hash of every file: two runs of the same are alike."""
    digest = hashlib.sha256()
    for file in (folder.root / DOCUMENTS, query_entries(folder.root)[0]):
        digest.update(bytes.fromhex(file_hash(file)))
    for doc in sorted(folder.documents):
        digest.update(f"{doc}\n{file_hash(folder.documents[doc])}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def read_queries(path: Path) -> tuple[JudgedQuery, ...]:
    """Read questions, one JSON object a line, or a sheet (``.csv``); judgements are optional.

    Raises:
        InvalidInputError: If the file or a line cannot be read; the message names the line.
    """
    return _queries(path, read_queries_csv(path) if path.suffix.lower() == ".csv" else read_lines(path))


def _queries(path: Path, entries: list[tuple[int, dict[str, Any]]]) -> tuple[JudgedQuery, ...]:
    queries: dict[str, JudgedQuery] = {}
    for line, entry in entries:
        query_id, text = text_of(entry, "qid", path, line), text_of(entry, "query", path, line)
        if query_id in queries:
            raise InvalidInputError(f"{path}, line {line}: the question id {query_id!r} occurs twice.")
        try:
            relevant = {(str(r["doc"]), int(r["page"])): int(r["grade"]) for r in entry.get("relevant", [])}
        except (TypeError, KeyError, ValueError) as exc:
            raise InvalidInputError(
                f'{path}, line {line}: "relevant" must be a list of objects with doc, page and grade.'
            ) from exc
        if not set(relevant.values()) <= {0, 1, 2}:
            raise InvalidInputError(f"{path}, line {line}: grades are 2 (answers), 1 (in part) or 0.")
        queries[query_id] = JudgedQuery(
            query_id=query_id,
            query=text,
            relevant=relevant,
            modality=str(entry.get("modality", "")),
            cross_language=entry.get("cross_language"),
            extra=entry,
        )
    return tuple(queries.values())


def text_of(entry: Mapping[str, Any], key: str, path: Path, line: int) -> str:
    """A text that an entry must have.

    Raises:
        InvalidInputError: If it has none; names the file and the line.
    """
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise InvalidInputError(f'{path}, line {line}: "{key}" must be a text that is not empty.')
    return value
