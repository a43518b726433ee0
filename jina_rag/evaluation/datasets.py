"""Judged folders: documents listed in ``docs.jsonl``, and judged queries in ``queries.jsonl`` or ``queries.csv``.

``docs.jsonl`` has one JSON object per line with at least ``doc`` (the file name without suffix) and ``file`` (a
path relative to the folder). ``queries.jsonl`` has ``qid``, ``query`` and ``relevant``, a list of
``{"doc", "page", "grade"}`` with 1-based pages and grade 2 (answers the query), 1 (answers the query in part) or 0 (not
relevant). Optional keys: ``modality`` and ``cross_language`` group the results; ``bbox`` is the box of the answer
on the page. ``queries.csv`` holds the data of ``queries.jsonl`` as a spreadsheet; see
`jina_rag.evaluation.queries_csv`.
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
"""(doc, page): the name of the document in ``docs.jsonl`` and the 1-based page."""
Qrels: TypeAlias = Mapping[str, Mapping[PageKey, int]]
"""Relevance judgments: query_id → page → grade."""
Run: TypeAlias = Mapping[str, Sequence[PageKey]]
"""Search results: query_id → pages, best first."""


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """A query and its relevance judgments.

    Attributes:
        query_id: Id of the query, unique in the judged folder.
        query: Text of the query.
        relevant: Page → grade: 2 (answers the query), 1 (answers the query in part) or 0 (not relevant). Empty for an
            unjudged query.
        modality: Content type that holds the answer (text, table, chart, …); empty if not stated.
        cross_language: True if query and page are in different languages; None if not stated.
        extra: All keys and values that the queries file holds for the query.
    """

    query_id: str
    query: str
    relevant: Mapping[PageKey, int] = field(default_factory=dict)
    modality: str = ""
    cross_language: bool | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def language_group(self) -> str:
        """``"same"`` or ``"cross"``, from `cross_language`; empty if not stated."""
        return "" if self.cross_language is None else "cross" if self.cross_language else "same"


@dataclass(frozen=True, slots=True)
class JudgedFolder:
    """The documents and queries of a judged folder.

    Attributes:
        root: Path of the folder.
        documents: Document name → path of the file.
        queries: Queries in the order of the queries file.
    """

    root: Path
    documents: Mapping[str, Path]
    queries: tuple[JudgedQuery, ...]

    @property
    def names(self) -> dict[Path, str]:
        """Resolved path of a file → name of the document in the judgments."""
        return {path.resolve(): doc for doc, path in self.documents.items()}


def read_folder(root: Path) -> JudgedFolder:
    """Return the documents and queries of a judged folder.

    Args:
        root: Path of the folder.

    Raises:
        InvalidInputError: If a file is missing, a line is invalid, a query refers to a document that
            ``docs.jsonl`` does not list, or ``queries.csv`` and ``queries.jsonl`` contradict each other.
    """
    if not (root / DOCUMENTS).is_file():
        raise InvalidInputError(
            f"{root} has no {DOCUMENTS}. A judged folder holds {DOCUMENTS}, {QUERIES} and the documents. "
            f"Create the folder with `jina-rag evaluate init {root}`."
        )
    documents: dict[str, Path] = {}
    for line, entry in read_lines(root / DOCUMENTS):
        doc, file = get_text(entry, "doc", root / DOCUMENTS, line), get_text(entry, "file", root / DOCUMENTS, line)
        if doc in documents:
            raise InvalidInputError(f"{root / DOCUMENTS}, line {line}: {doc!r} is listed twice. Remove one line.")
        documents[doc] = root / file
        if not documents[doc].is_file():
            raise InvalidInputError(f"{root / DOCUMENTS}, line {line}: {file!r} does not exist. Check the path.")
    source, entries = query_entries(root)
    queries = _queries(source, entries)
    for query in queries:
        for doc, _ in query.relevant:
            if doc not in documents:
                location = f"{source}: query {query.query_id!r}"
                raise InvalidInputError(
                    f"{location} refers to document {doc!r}, which {DOCUMENTS} does not list. Check the name."
                )
    return JudgedFolder(root=root, documents=documents, queries=queries)


def query_entries(root: Path) -> tuple[Path, list[tuple[int, dict[str, Any]]]]:
    """Return the path of the queries file, and a (line number, entry) pair for each query.

    The entries have the keys of ``queries.jsonl``, even if the queries file is a spreadsheet.

    Args:
        root: Path of the judged folder.

    Raises:
        InvalidInputError: If the folder has no queries file, the file cannot be read, or ``queries.csv`` and
            ``queries.jsonl`` contradict each other.
    """
    jsonl_path, csv_path = root / QUERIES, root / QUERIES_CSV
    if not csv_path.is_file():
        if not jsonl_path.is_file():
            raise InvalidInputError(
                f"{root} has no {QUERIES} and no {QUERIES_CSV}. Create {QUERIES_CSV} with "
                f"`jina-rag evaluate init {root}`, and add the queries."
            )
        return jsonl_path, read_lines(jsonl_path)
    rows = read_queries_csv(csv_path)
    if not jsonl_path.is_file():
        return csv_path, rows
    entries = read_lines(jsonl_path)
    if _contents(entries) != _contents(rows):
        raise InvalidInputError(
            f"{root}: {QUERIES} and {QUERIES_CSV} differ. Rewrite {QUERIES} with "
            f"`jina-rag evaluate check {root} --write`, or remove the outdated file."
        )
    return jsonl_path, entries


def _contents(entries: list[tuple[int, dict[str, Any]]]) -> list[object]:
    """Return the id, text and judgments of each query, in the same form for CSV and JSON Lines."""
    return [
        (entry.get("qid"), entry.get("query"), json.dumps(entry.get("relevant", []), sort_keys=True))
        for _, entry in entries
    ]


def data_hash(folder: JudgedFolder) -> str:
    """Return the SHA-256 of the data of a judged folder, in hexadecimal digits.

    The hash covers ``docs.jsonl``, the queries file and the content of every document. The hash does not depend on the
    path of the folder.

    Args:
        folder: The judged folder.
    """
    digest = hashlib.sha256()
    for file in (folder.root / DOCUMENTS, query_entries(folder.root)[0]):
        digest.update(bytes.fromhex(file_hash(file)))
    for doc in sorted(folder.documents):
        digest.update(f"{doc}\n{file_hash(folder.documents[doc])}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def read_queries(path: Path) -> tuple[JudgedQuery, ...]:
    """Return the queries of a JSON Lines file, or of a spreadsheet if the suffix is ``.csv``.

    Judgments are optional: a query without judgments has an empty `JudgedQuery.relevant`.

    Args:
        path: Path of the file.

    Raises:
        InvalidInputError: If the file or a line cannot be read; the message gives the line number.
    """
    return _queries(path, read_queries_csv(path) if path.suffix.lower() == ".csv" else read_lines(path))


def _queries(path: Path, entries: list[tuple[int, dict[str, Any]]]) -> tuple[JudgedQuery, ...]:
    queries: dict[str, JudgedQuery] = {}
    for line, entry in entries:
        query_id, text = get_text(entry, "qid", path, line), get_text(entry, "query", path, line)
        if query_id in queries:
            raise InvalidInputError(f"{path}, line {line}: the query id {query_id!r} occurs twice. Change one id.")
        try:
            relevant = {(str(r["doc"]), int(r["page"])): int(r["grade"]) for r in entry.get("relevant", [])}
        except (TypeError, KeyError, ValueError) as exc:
            raise InvalidInputError(
                f'{path}, line {line}: "relevant" is invalid; expected a list of objects with doc, page and grade.'
            ) from exc
        if not set(relevant.values()) <= {0, 1, 2}:
            raise InvalidInputError(
                f"{path}, line {line}: invalid grade of {query_id!r}; expected 2 (answers), 1 (in part) or 0 (not "
                "relevant)."
            )
        queries[query_id] = JudgedQuery(
            query_id=query_id,
            query=text,
            relevant=relevant,
            modality=str(entry.get("modality", "")),
            cross_language=entry.get("cross_language"),
            extra=entry,
        )
    return tuple(queries.values())


def get_text(entry: Mapping[str, Any], key: str, path: Path, line: int) -> str:
    """Return the value of a required key, which must be a non-empty string.

    Args:
        entry: A parsed line of a JSON Lines file.
        key: The required key.
        path: Path of the file, for the error message.
        line: 1-based line number, for the error message.

    Raises:
        InvalidInputError: If the value is missing, empty, or not a string.
    """
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise InvalidInputError(f'{path}, line {line}: "{key}" is missing or invalid; expected a non-empty string.')
    return value
