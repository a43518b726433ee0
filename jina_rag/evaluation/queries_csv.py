"""``queries.csv``: questions and the pages that answer them, as a person writes them in a spreadsheet.

query, doc, page, grade, modality, language, page_language, answer

A row is a question and a page that answers it. For a further page, add a row with the same question, or with none.
Several pages of one document may stand in one cell, with spaces between them. What may be left out: grade (2), and
everything after it. Rows whose question begins with # are remarks.
"""

from __future__ import annotations

import csv
import io
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.files import explain_os_errors

COLUMNS = ("query", "doc", "page", "grade", "modality", "language", "page_language", "answer")
_REMARKS = (
    (
        "# One row for each question and page. pages.html shows the pages, with the doc and page to write here. "
        "Rows that begin with # are not read.",
    ),
    (
        "# grade: 2 if the page answers the question, 1 if it answers it in part. "
        "modality: text, table, chart, diagram, image or scan. Both languages as codes, such as en and de.",
    ),
    ("# Example: Which region grew fastest in 2021?", "annual-report", "12", "2", "chart", "en", "en", "the north"),
)
_SEPARATORS = re.compile(r"[\s;,]+")


def write_queries_csv(path: Path) -> None:
    """Write an empty sheet with its remarks. A file that is there already is left alone.

    Raises:
        InvalidInputError: If it cannot be written.
    """
    with explain_os_errors(f"{path} cannot be written"), suppress(FileExistsError):
        # With the mark that tells a spreadsheet that this is UTF-8.
        with path.open("x", encoding="utf-8-sig", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *_REMARKS])


def read_queries_csv(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The questions of a sheet, each as a line of ``queries.jsonl`` has it, with the number of its first row.

    Commas, semicolons and tabs may separate the columns, whichever the spreadsheet writes. Questions are numbered
    q001, q002, … unless there is a column qid.

    Raises:
        InvalidInputError: If the sheet or a row makes no sense; the message names the row.
    """
    rows = _rows(path)
    queries: dict[str, tuple[int, dict[str, Any]]] = {}
    current: dict[str, Any] | None = None
    for number, row in rows:
        text = row.get("query", "")
        if text.startswith("#") or not any(row.values()):
            continue
        if text:
            key = row.get("qid") or text
            if key not in queries:
                query_id = row.get("qid") or f"q{len(queries) + 1:03d}"
                queries[key] = (number, {"qid": query_id, "query": text, "relevant": []})
            current = queries[key][1]
        if current is None:
            raise InvalidInputError(f"{path}, row {number}: there is no question above this page.")
        _fill(current, row, f"{path}, row {number}")
    return list(queries.values())


def _fill(query: dict[str, Any], row: dict[str, str], where: str) -> None:
    """Add what a row says to its question."""
    doc, pages = row.get("doc", ""), [page for page in _SEPARATORS.split(row.get("page", "")) if page]
    if bool(doc) != bool(pages):
        raise InvalidInputError(f"{where}: a page needs both its doc and its number.")
    grade = row.get("grade", "") or "2"
    if not all(page.isdecimal() and int(page) > 0 for page in pages):
        raise InvalidInputError(
            f"{where}: the page is {row['page']!r}; write numbers from 1 on, with spaces between them."
        )
    if grade not in ("0", "1", "2"):
        raise InvalidInputError(f"{where}: the grade is {grade!r}; it is 2 (answers), 1 (in part) or 0.")
    for page in map(int, pages):
        grades = {(entry["doc"], entry["page"]): entry["grade"] for entry in query["relevant"]}
        if grades.get((doc, page), int(grade)) != int(grade):
            raise InvalidInputError(f"{where}: page {page} of {doc!r} has another grade further up.")
        if (doc, page) not in grades:
            query["relevant"].append({"doc": doc, "page": page, "grade": int(grade)})
    for column, name in (("modality", "modality"), ("language", "lang"), ("page_language", "doc_lang")):
        if row.get(column):
            query.setdefault(name, row[column])
    if row.get("answer"):
        query.setdefault("answer", row["answer"])
    if "lang" in query and "doc_lang" in query:
        query["cross_language"] = query["lang"].casefold() != query["doc_lang"].casefold()


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows under the headings, by column, with their numbers as a spreadsheet counts them."""
    with explain_os_errors(f"{path} cannot be read"):
        raw = path.read_bytes()
    try:
        text = raw.decode("utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InvalidInputError(f'{path} is not UTF-8: save it from the spreadsheet as "CSV UTF-8".') from exc
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    try:
        table = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as exc:
        raise InvalidInputError(f"{path} is not a table: {exc}.") from exc
    headings = [cell.strip().casefold() for cell in table[0]] if table else []
    missing = [name for name in ("query", "doc", "page") if name not in headings]
    if missing:
        raise InvalidInputError(
            f"{path} has no column {', '.join(missing)}: its first row names the columns {', '.join(COLUMNS)}."
        )
    return [
        (number, {name: cell.strip() for name, cell in zip(headings, row, strict=False)})
        for number, row in enumerate(table[1:], start=2)
    ]
