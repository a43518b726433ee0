"""A folder with documents and judged questions: ``docs.jsonl``, ``queries.jsonl`` and the files.

``docs.jsonl`` has one object a line with at least ``doc`` (the file's name without its suffix) and ``file``
(path relative to the folder). ``queries.jsonl`` has ``qid``, ``query`` and ``relevant``, a list of
``{"doc", "page", "grade"}`` with 1-based pages and grade 2 (answers the question) or 1 (answers in part); it may
have ``modality`` and ``cross_language`` to group by, and ``bbox`` with the place of the answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from jina_rag.errors import InvalidInputError

PageKey: TypeAlias = tuple[str, int]
"""(doc, page): the file's stem and the 1-based page."""


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """A question and the pages that answer it.

    Attributes:
        qid: Its id.
        query: The question.
        relevant: Page → grade (2 answers, 1 answers in part). Empty for a question without judgements.
        modality: What holds the answer (text, table, chart, …); empty if not stated.
        cross_language: Whether question and page are in different languages; None if not stated.
        extra: The line as it was read.
    """

    qid: str
    query: str
    relevant: Mapping[PageKey, int] = field(default_factory=dict)
    modality: str = ""
    cross_language: bool | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JudgedFolder:
    """Documents and questions of one folder; `documents` maps each doc to its file."""

    root: Path
    documents: Mapping[str, Path]
    queries: tuple[JudgedQuery, ...]


def read_folder(root: Path) -> JudgedFolder:
    """Read a folder of judged questions.

    Raises:
        InvalidInputError: If a file is missing, a line is not what it should be, or a question names a
            document that ``docs.jsonl`` does not list.
    """
    for name in ("docs.jsonl", "queries.jsonl"):
        if not (root / name).is_file():
            raise InvalidInputError(
                f"{root} has no {name}: evaluation needs a folder with docs.jsonl, queries.jsonl and the files."
            )
    documents: dict[str, Path] = {}
    for line, entry in _lines(root / "docs.jsonl"):
        doc, file = (
            _text(entry, "doc", root / "docs.jsonl", line),
            _text(entry, "file", root / "docs.jsonl", line),
        )
        if doc in documents:
            raise InvalidInputError(f"{root / 'docs.jsonl'}, line {line}: the document {doc!r} is listed twice.")
        documents[doc] = root / file
        if not documents[doc].is_file():
            raise InvalidInputError(f"{root / 'docs.jsonl'}, line {line}: the file {file!r} does not exist.")
    queries = read_queries(root / "queries.jsonl")
    for query in queries:
        for doc, _ in query.relevant:
            if doc not in documents:
                raise InvalidInputError(
                    f"{root / 'queries.jsonl'}: question {query.qid!r} names the document {doc!r}, "
                    "which docs.jsonl does not list."
                )
    return JudgedFolder(root=root, documents=documents, queries=queries)


def read_queries(path: Path) -> tuple[JudgedQuery, ...]:
    """Read questions, one JSON object a line; judgements are optional.

    Raises:
        InvalidInputError: If the file or a line cannot be read; the message names the line.
    """
    queries: dict[str, JudgedQuery] = {}
    for line, entry in _lines(path):
        qid, text = _text(entry, "qid", path, line), _text(entry, "query", path, line)
        if qid in queries:
            raise InvalidInputError(f"{path}, line {line}: the question id {qid!r} occurs twice.")
        try:
            relevant = {(str(r["doc"]), int(r["page"])): int(r["grade"]) for r in entry.get("relevant", [])}
        except (TypeError, KeyError, ValueError) as exc:
            raise InvalidInputError(
                f'{path}, line {line}: "relevant" must be a list of objects with doc, page and grade.'
            ) from exc
        if not set(relevant.values()) <= {0, 1, 2}:
            raise InvalidInputError(f"{path}, line {line}: grades are 2 (answers), 1 (in part) or 0.")
        queries[qid] = JudgedQuery(
            qid=qid,
            query=text,
            relevant=relevant,
            modality=str(entry.get("modality", "")),
            cross_language=entry.get("cross_language"),
            extra=entry,
        )
    return tuple(queries.values())


def _lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise InvalidInputError(f"{path} cannot be read: {exc.strerror or exc}.") from exc
    except UnicodeDecodeError as exc:
        raise InvalidInputError(f"{path} is not UTF-8 text (byte {exc.start}).") from exc
    entries = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as exc:
            raise InvalidInputError(f"{path}, line {number}: not JSON ({exc.msg}, column {exc.colno}).") from exc
        if not isinstance(entry, dict):
            raise InvalidInputError(f"{path}, line {number}: expected a JSON object.")
        entries.append((number, entry))
    return entries


def _text(entry: Mapping[str, Any], key: str, path: Path, line: int) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise InvalidInputError(f'{path}, line {line}: "{key}" must be a text that is not empty.')
    return value
