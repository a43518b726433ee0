"""Validation of a judged folder: documents, judged pages, grades, duplicate queries and copied queries."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jina_rag.config import IngestSettings
from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.datasets import DOCUMENTS, JudgedQuery, PageKey, get_text, query_entries
from jina_rag.evaluation.files import file_hash, read_lines
from jina_rag.evaluation.judged_pages import Finding, read_judged_pages
from jina_rag.evaluation.query_leakage import find_leak, near_duplicate_queries, normalized_query
from jina_rag.evaluation.report.formatting import count, join_names

_WITHOUT_OCR = IngestSettings(dpi=36, ocr="never", regions=False)
_WITH_OCR = IngestSettings(regions=False)


@dataclass(frozen=True, slots=True)
class FolderCheck:
    """Problems and statistics of a judged folder.

    Attributes:
        findings: One entry per problem; empty for a valid folder.
        notes: Sentences that summarize the folder.
        counts: Number of documents, pages, queries, relevant pages and cross-language queries, and the number of
            queries per modality and per language.
    """

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    counts: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that ``evaluate check --json`` prints."""
        return asdict(self)


def check_folder(root: Path, *, ocr: bool = False, progress: Callable[[int, int], None] | None = None) -> FolderCheck:
    """Validate a judged folder: open every document and read the text of every judged page.

    Args:
        root: The judged folder.
        ocr: Run OCR on judged pages that have no text layer. Without OCR, queries copied from scanned pages are not
            found.
        progress: Called with (documents done, total documents).

    Returns:
        The result of the check: problems, summary and statistics.

    Raises:
        InvalidInputError: If ``docs.jsonl`` or the queries file is missing or cannot be read, or ``queries.csv`` and
            ``queries.jsonl`` contradict each other.
    """
    if not (root / DOCUMENTS).is_file():
        raise InvalidInputError(f"{root} has no {DOCUMENTS}. Create the file with `jina-rag evaluate init {root}`.")
    findings: list[Finding] = []
    documents = _documents(root, findings)
    source, entries = query_entries(root)
    queries = _queries(source, entries, findings)
    findings += _check_grades(queries, documents)
    findings += _duplicates(queries)
    pages = defaultdict(set)
    for query in queries:
        for (doc, page), grade in query.relevant.items():
            if grade:
                pages[doc].add(page)
    pages_read = read_judged_pages(documents, pages, _WITH_OCR if ocr else _WITHOUT_OCR, progress)
    findings += [*pages_read.findings, *_missing_pages(queries, pages_read.counts), *_leaks(queries, pages_read.texts)]
    counts = _counts(queries, pages_read.counts)
    notes = _notes(counts)
    pages_without_text = sum(not text.strip() for text in pages_read.texts.values())
    if pages_without_text and not ocr:
        pages_have = count(pages_without_text, "judged page has", "judged pages have")
        notes.append(
            f"{pages_have} no text layer to compare queries with. Pass ocr=True (--ocr) to read the pages by OCR."
        )
    if not findings:
        notes.insert(0, "No problems found.")
    return FolderCheck(tuple(findings), tuple(notes), counts)


def _documents(root: Path, findings: list[Finding]) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Return document → (file, entry of ``docs.jsonl``) for existing files; problems are added to `findings`."""
    documents: dict[str, tuple[Path, dict[str, Any]]] = {}
    hashes: dict[str, list[str]] = defaultdict(list)
    names: set[str] = set()
    for line, entry in read_lines(root / DOCUMENTS):
        try:
            doc, file = get_text(entry, "doc", root / DOCUMENTS, line), get_text(entry, "file", root / DOCUMENTS, line)
        except InvalidInputError as exc:
            findings.append(Finding("line", str(exc)))
            continue
        if doc in names:
            findings.append(Finding("document", f"{DOCUMENTS}, line {line}: {doc!r} is listed twice. Remove one line."))
            continue
        names.add(doc)
        if not (root / file).is_file():
            findings.append(
                Finding("missing file", f"{DOCUMENTS}, line {line}: {file!r} does not exist. Check the path.")
            )
            continue
        documents[doc] = (root / file, entry)
        sha256 = file_hash(root / file)
        hashes[sha256].append(doc)
        if entry.get("sha256") not in (None, sha256):
            sentence = (
                f"{file!r} has changed: {DOCUMENTS} states another SHA-256. Review the judgments of {doc!r}, "
                f"and update {DOCUMENTS} with `jina-rag evaluate init`."
            )
            findings.append(Finding("changed file", sentence))
    for docs in hashes.values():
        if len(docs) > 1:
            sentence = (
                f"{join_names(docs)} are the same file. Judge only one document, and remove the rest from {DOCUMENTS}."
            )
            findings.append(Finding("same file", sentence))
    return documents


def _queries(
    source: Path, entries: Sequence[tuple[int, Mapping[str, Any]]], findings: list[Finding]
) -> list[JudgedQuery]:
    """Return every query that has an id and a text; problems are added to `findings`."""
    queries: list[JudgedQuery] = []
    query_ids: set[str] = set()
    for line, entry in entries:
        location = f"{source.name}, line {line}"
        try:
            query_id, text = get_text(entry, "qid", source, line), get_text(entry, "query", source, line)
        except InvalidInputError as exc:
            findings.append(Finding("line", str(exc)))
            continue
        if query_id in query_ids:
            findings.append(Finding("id", f"{location}: the query id {query_id!r} occurs twice. Change one id."))
        query_ids.add(query_id)
        relevant: dict[PageKey, int] = {}
        judgments = entry.get("relevant", [])
        for judgment in judgments if isinstance(judgments, list) else [judgments]:
            try:
                page, grade = (str(judgment["doc"]), int(judgment["page"])), judgment["grade"]
            except (TypeError, KeyError, ValueError):
                sentence = f'{location}: judgment {judgment!r}; expected an object with "doc", "page" and "grade".'
                findings.append(Finding("judgement", sentence))
                continue
            if grade not in (0, 1, 2) or isinstance(grade, bool):
                sentence = f"{location}: grade is {grade!r}; expected 2 (answers), 1 (in part) or 0 (not relevant)."
                findings.append(Finding("grade", sentence))
                continue
            if relevant.get(page, grade) != grade:
                findings.append(
                    Finding("grade", f"{location}: page {page[1]} of {page[0]!r} has two grades. Keep one grade.")
                )
            relevant[page] = int(grade)
        queries.append(JudgedQuery(query_id, text, relevant, extra=entry))
    return queries


def _check_grades(queries: Sequence[JudgedQuery], documents: Mapping[str, object]) -> Iterator[Finding]:
    for query in queries:
        if not any(query.relevant.values()):
            yield Finding(
                "no judgement",
                f"{query.query_id}: no relevant page, so the query is not scored. Add a page with grade 1 or 2.",
            )
        elif 2 not in query.relevant.values():
            sentence = f"{query.query_id}: no page has grade 2, so all measures except nDCG are 0. Check the grades."
            yield Finding("grade", sentence)
        for doc in sorted({doc for doc, _ in query.relevant if doc not in documents}):
            yield Finding(
                "unknown document",
                f"{query.query_id}: {doc!r} is not listed in {DOCUMENTS}, or its file is missing. Check both.",
            )


def _duplicates(queries: Sequence[JudgedQuery]) -> Iterator[Finding]:
    groups: dict[str, list[JudgedQuery]] = defaultdict(list)
    for query in queries:
        groups[normalized_query(query.query)].append(query)
    for group in groups.values():
        if len(group) < 2:
            continue
        names = join_names([query.query_id for query in group])
        if any(query.relevant != group[0].relevant for query in group):
            yield Finding(
                "other pages",
                f"{names} have the same text, {group[0].query!r}, but different pages. Merge the queries.",
            )
        else:
            yield Finding("asked twice", f"{names} have the same text, {group[0].query!r}. Keep one query.")
    texts = {group[0].query_id: group[0].query for group in groups.values()}
    for first, second, share in near_duplicate_queries(texts):
        yield Finding(
            "nearly asked twice",
            f"{first} and {second} share {share:.0%} of their words: {texts[first]!r} and {texts[second]!r}. "
            "Keep one query.",
        )


def _missing_pages(queries: Sequence[JudgedQuery], counts: Mapping[str, int]) -> Iterator[Finding]:
    for query in queries:
        for doc, page in query.relevant:
            if doc in counts and not 1 <= page <= counts[doc]:
                yield Finding(
                    "missing page", f"{query.query_id}: {doc!r} has no page {page}; expected 1 to {counts[doc]}."
                )


def _leaks(queries: Sequence[JudgedQuery], texts: Mapping[tuple[str, int], str]) -> Iterator[Finding]:
    """Yield a finding for each query copied from a page of grade 2."""
    for query in queries:
        pages = [page for page, grade in query.relevant.items() if grade == 2 and texts.get(page, "").strip()]
        copies = [(copy, page) for page in pages if (copy := find_leak(query.query, texts[page])).is_copied]
        if copies:
            copy, (doc, page) = max(copies, key=lambda row: (row[0].run_words, row[0].share))
            yield Finding(
                "leaked words",
                f"{query.query_id}: {copy.share:.0%} of the {copy.words} content words occur in {doc}, page {page}, "
                f"including {copy.run!r} verbatim. Rephrase the query.",
            )


def _counts(queries: Sequence[JudgedQuery], pages: Mapping[str, int]) -> dict[str, Any]:
    def count_by(key: str) -> dict[str, int]:
        return dict(Counter(str(q.extra.get(key) or "not stated") for q in queries).most_common())

    return {
        "documents": len(pages),
        "pages": sum(pages.values()),
        "questions": len(queries),
        "judged_pages": len({page for q in queries for page, grade in q.relevant.items() if grade}),
        "modality": count_by("modality"),
        "language": count_by("lang"),
        "cross_language": sum(q.extra.get("cross_language") is True for q in queries),
    }


def _notes(counts: Mapping[str, Any]) -> list[str]:
    notes = [
        f"{count(counts['documents'], 'document')}, {count(counts['pages'], 'page')}, "
        f"{count(counts['questions'], 'query', 'queries')} ({counts['cross_language']} cross-language), "
        f"{count(counts['judged_pages'], 'relevant page')}."
    ]
    for name in ("modality", "language"):
        notes.append(f"By {name}: " + ", ".join(f"{key} {number}" for key, number in counts[name].items()) + ".")
    return notes if counts["questions"] else notes[:1]
