"""``queries.csv``: judged queries as a spreadsheet.

query, doc, page, grade, modality, language, page_language, answer

Each row has a query and a page that answers the query. For a second page, add a row that repeats the query or leaves
the query cell empty. A page cell can hold several page numbers of the document, separated by spaces. The columns from
grade on are optional; the default grade is 2. Rows whose query begins with # are comments.
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
        "# One row per query and page. pages.html shows the pages, each with its doc and page number. "
        "Rows that begin with # are ignored.",
    ),
    (
        "# grade: 2 if the page answers the query, 1 if it answers the query in part. "
        "modality: text, table, chart, diagram, image or scan. language, page_language: codes, for example en or de.",
    ),
    ("# Example: Which region grew fastest in 2021?", "annual-report", "12", "2", "chart", "en", "en", "the north"),
)
_SEPARATORS = re.compile(r"[\s;,]+")


def write_queries_csv(path: Path) -> None:
    """Create an empty ``queries.csv`` with instructions in comment rows. An existing file is left unchanged.

    Args:
        path: Path of the file.

    Raises:
        InvalidInputError: If the file cannot be written.
    """
    with explain_os_errors(f"{path} cannot be written"), suppress(FileExistsError):
        # Spreadsheet programs detect UTF-8 by the byte-order mark.
        with path.open("x", encoding="utf-8-sig", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *_REMARKS])


def read_queries_csv(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return a (row number, entry) pair for each query of a spreadsheet.

    The row number is the number of the first row of the query. The entry has the keys of ``queries.jsonl``.
    Columns are separated by commas, semicolons or tabs. Queries get the ids q001, q002, … unless the spreadsheet has a
    column ``qid``.

    Args:
        path: Path of the file.

    Raises:
        InvalidInputError: If the file cannot be read, or a row is invalid; the message gives the row number.
    """
    rows = _read_rows(path)
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
            raise InvalidInputError(
                f"{path}, row {number}: the query is empty, and no row above has a query. Fill in the query."
            )
        _add_row(current, row, f"{path}, row {number}")
    return list(queries.values())


def _add_row(query: dict[str, Any], row: dict[str, str], location: str) -> None:
    """Add the page, the grade and the optional columns of a row to `query`."""
    doc, pages = row.get("doc", ""), [page for page in _SEPARATORS.split(row.get("page", "")) if page]
    if bool(doc) != bool(pages):
        raise InvalidInputError(f"{location}: doc or page is empty. Fill in both cells.")
    grade = row.get("grade", "") or "2"
    if not all(page.isdecimal() and int(page) > 0 for page in pages):
        raise InvalidInputError(
            f"{location}: page is {row['page']!r}; expected numbers of at least 1, separated by spaces."
        )
    if grade not in ("0", "1", "2"):
        raise InvalidInputError(
            f"{location}: grade is {grade!r}; expected 2 (answers), 1 (in part) or 0 (not relevant)."
        )
    for page in map(int, pages):
        grades = {(entry["doc"], entry["page"]): entry["grade"] for entry in query["relevant"]}
        if grades.get((doc, page), int(grade)) != int(grade):
            raise InvalidInputError(
                f"{location}: page {page} of {doc!r} has a different grade in a row above. Keep one grade."
            )
        if (doc, page) not in grades:
            query["relevant"].append({"doc": doc, "page": page, "grade": int(grade)})
    for column, name in (("modality", "modality"), ("language", "lang"), ("page_language", "doc_lang")):
        if row.get(column):
            query.setdefault(name, row[column])
    if row.get("answer"):
        query.setdefault("answer", row["answer"])
    if "lang" in query and "doc_lang" in query:
        query["cross_language"] = query["lang"].casefold() != query["doc_lang"].casefold()


def _read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return (row number, column → cell) for each row below the header. The header is row 1."""
    with explain_os_errors(f"{path} cannot be read"):
        raw = path.read_bytes()
    try:
        text = raw.decode("utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InvalidInputError(f'{path} is not UTF-8. Save the spreadsheet as "CSV UTF-8".') from exc
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    try:
        table = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as exc:
        raise InvalidInputError(f"{path} is not valid CSV: {exc}. Save the spreadsheet again as CSV.") from exc
    headings = [cell.strip().casefold() for cell in table[0]] if table else []
    missing = [name for name in ("query", "doc", "page") if name not in headings]
    if missing:
        raise InvalidInputError(
            f"{path} has no column {', '.join(missing)}; the first row must be the header {', '.join(COLUMNS)}."
        )
    return [
        (number, {name: cell.strip() for name, cell in zip(headings, row, strict=False)})
        for number, row in enumerate(table[1:], start=2)
    ]
