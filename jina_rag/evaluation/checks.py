"""Whether a judged folder can be trusted: files, pages, grades, questions asked twice or copied from their page."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jina_rag.config import IngestSettings
from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.datasets import DOCUMENTS, JudgedQuery, PageKey, query_entries, text_of
from jina_rag.evaluation.files import file_hash, read_lines
from jina_rag.evaluation.judged_pages import Finding, read_judged_pages
from jina_rag.evaluation.query_leakage import leak, near_pairs, same_query
from jina_rag.evaluation.report.formatting import count, listed

_QUICK = IngestSettings(dpi=36, ocr="never", regions=False)
_WITH_OCR = IngestSettings(regions=False)


@dataclass(frozen=True, slots=True)
class FolderCheck:
    """What was found.

    Attributes:
        findings: What is amiss.
        notes: What the folder holds, in sentences.
        counts: The same as numbers: documents, pages, questions, by modality and language.
    """

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    counts: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The object that ``evaluate check --json`` prints."""
        return asdict(self)


def check_folder(root: Path, *, ocr: bool = False, progress: Callable[[int, int], None] | None = None) -> FolderCheck:
    """Look a judged folder over. Every document is opened, and every judged page is read.

    Args:
        root: The folder.
        ocr: Whether pages without a text layer are read by OCR, to find words that leaked from them.
        progress: Called with (documents done, all).

    Raises:
        InvalidInputError: If there is no list of documents or no questions, or a file cannot be read.
    """
    if not (root / DOCUMENTS).is_file():
        raise InvalidInputError(f"{root} has no {DOCUMENTS}: `jina-rag evaluate init {root}` makes one.")
    findings: list[Finding] = []
    documents = _documents(root, findings)
    source, entries = query_entries(root)
    queries = _queries(source, entries, findings)
    findings += _judgements(queries, documents)
    findings += _repeated(queries)
    pages = defaultdict(set)
    for query in queries:
        for (doc, page), grade in query.relevant.items():
            if grade:
                pages[doc].add(page)
    pages_read = read_judged_pages(documents, pages, _WITH_OCR if ocr else _QUICK, progress)
    findings += [*pages_read.findings, *_missing_pages(queries, pages_read.counts), *_leaks(queries, pages_read.texts)]
    counts = _counts(queries, pages_read.counts)
    notes = _notes(counts)
    wordless = sum(not text.strip() for text in pages_read.texts.values())
    if wordless and not ocr:
        pages_have = count(wordless, "judged page has", "judged pages have")
        notes.append(f"{pages_have} no text to hold questions against; --ocr reads it.")
    if not findings:
        notes.insert(0, "In order.")
    return FolderCheck(tuple(findings), tuple(notes), counts)


def _documents(root: Path, findings: list[Finding]) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Document → (file, line), for files that are there."""
    documents: dict[str, tuple[Path, dict[str, Any]]] = {}
    hashes: dict[str, list[str]] = defaultdict(list)
    names: set[str] = set()
    for line, entry in read_lines(root / DOCUMENTS):
        try:
            doc, file = text_of(entry, "doc", root / DOCUMENTS, line), text_of(entry, "file", root / DOCUMENTS, line)
        except InvalidInputError as exc:
            findings.append(Finding("line", str(exc)))
            continue
        if doc in names:
            findings.append(Finding("document", f"{DOCUMENTS}, line {line}: {doc!r} is listed twice."))
            continue
        names.add(doc)
        if not (root / file).is_file():
            findings.append(Finding("missing file", f"{DOCUMENTS}, line {line}: {file!r} does not exist."))
            continue
        documents[doc] = (root / file, entry)
        sha256 = file_hash(root / file)
        hashes[sha256].append(doc)
        if entry.get("sha256") not in (None, sha256):
            what = f"{file!r} is not the file that was listed (its sha256 differs): judge it anew."
            findings.append(Finding("changed file", what))
    for docs in hashes.values():
        if len(docs) > 1:
            what = f"{listed(docs)} are the same file: judge one of them, and remove the others from {DOCUMENTS}."
            findings.append(Finding("same file", what))
    return documents


def _queries(
    source: Path, entries: Sequence[tuple[int, Mapping[str, Any]]], findings: list[Finding]
) -> list[JudgedQuery]:
    """The questions that can be read, whatever else is wrong with them."""
    queries: list[JudgedQuery] = []
    query_ids: set[str] = set()
    for line, entry in entries:
        where = f"{source.name}, line {line}"
        try:
            query_id, text = text_of(entry, "qid", source, line), text_of(entry, "query", source, line)
        except InvalidInputError as exc:
            findings.append(Finding("line", str(exc)))
            continue
        if query_id in query_ids:
            findings.append(Finding("id", f"{where}: the question id {query_id!r} occurs twice."))
        query_ids.add(query_id)
        relevant: dict[PageKey, int] = {}
        judgements = entry.get("relevant", [])
        for judgement in judgements if isinstance(judgements, list) else [judgements]:
            try:
                page, grade = (str(judgement["doc"]), int(judgement["page"])), judgement["grade"]
            except (TypeError, KeyError, ValueError):
                findings.append(Finding("judgement", f'{where}: a judgement needs "doc", "page" and "grade".'))
                continue
            if grade not in (0, 1, 2) or isinstance(grade, bool):
                what = f"{where}: the grade is {grade!r}; it is 2 (answers), 1 (in part) or 0."
                findings.append(Finding("grade", what))
                continue
            if relevant.get(page, grade) != grade:
                findings.append(Finding("grade", f"{where}: page {page[1]} of {page[0]!r} has two grades."))
            relevant[page] = int(grade)
        queries.append(JudgedQuery(query_id, text, relevant, extra=entry))
    return queries


def _judgements(queries: Sequence[JudgedQuery], documents: Mapping[str, object]) -> Iterator[Finding]:
    for query in queries:
        if not any(query.relevant.values()):
            yield Finding("no judgement", f"{query.query_id}: no page answers it, so it is not measured.")
        elif 2 not in query.relevant.values():
            yield Finding("grade", f"{query.query_id}: no page has grade 2, so Recall and RR are 0 whatever is found.")
        for doc in sorted({doc for doc, _ in query.relevant if doc not in documents}):
            yield Finding(
                "unknown document", f"{query.query_id}: {doc!r} is no document of {DOCUMENTS}, or its file is missing."
            )


def _repeated(queries: Sequence[JudgedQuery]) -> Iterator[Finding]:
    same: dict[str, list[JudgedQuery]] = defaultdict(list)
    for query in queries:
        same[same_query(query.query)].append(query)
    for group in same.values():
        if len(group) < 2:
            continue
        names = listed([query.query_id for query in group])
        if any(query.relevant != group[0].relevant for query in group):
            yield Finding(
                "other pages", f"{names} ask the same, {group[0].query!r}, and name different pages: make them one."
            )
        else:
            yield Finding("asked twice", f"{names} ask the same, {group[0].query!r}: keep one.")
    firsts = {group[0].query_id: group[0].query for group in same.values()}
    for first, second, share in near_pairs(firsts):
        yield Finding(
            "nearly asked twice",
            f"{first} and {second} share {share:.0%} of their words: {firsts[first]!r} and {firsts[second]!r}.",
        )


def _missing_pages(queries: Sequence[JudgedQuery], counts: Mapping[str, int]) -> Iterator[Finding]:
    for query in queries:
        for doc, page in query.relevant:
            if doc in counts and not 1 <= page <= counts[doc]:
                yield Finding(
                    "missing page", f"{query.query_id}: {doc!r} has no page {page}; its pages are 1 to {counts[doc]}."
                )


def _leaks(queries: Sequence[JudgedQuery], texts: Mapping[tuple[str, int], str]) -> Iterator[Finding]:
    """Questions copied from their page."""
    for query in queries:
        pages = [page for page, grade in query.relevant.items() if grade == 2 and texts.get(page, "").strip()]
        copies = [(copy, page) for page in pages if (copy := leak(query.query, texts[page])).is_copied]
        if copies:
            copy, (doc, page) = max(copies, key=lambda row: (row[0].run_words, row[0].share))
            yield Finding(
                "leaked words",
                f"{query.query_id}: {copy.share:.0%} of its {copy.words} content words stand in {doc} p. {page}, "
                f"{copy.run!r} word for word: ask in words of your own.",
            )


def _counts(queries: Sequence[JudgedQuery], pages: Mapping[str, int]) -> dict[str, Any]:
    def by(key: str) -> dict[str, int]:
        return dict(Counter(str(q.extra.get(key) or "not stated") for q in queries).most_common())

    return {
        "documents": len(pages),
        "pages": sum(pages.values()),
        "questions": len(queries),
        "judged_pages": len({page for q in queries for page, grade in q.relevant.items() if grade}),
        "modality": by("modality"),
        "language": by("lang"),
        "cross_language": sum(q.extra.get("cross_language") is True for q in queries),
    }


def _notes(counts: Mapping[str, Any]) -> list[str]:
    notes = [
        f"{count(counts['documents'], 'document')}, {count(counts['pages'], 'page')}, "
        f"{count(counts['questions'], 'question')} about {count(counts['judged_pages'], 'page')}; "
        f"{counts['cross_language']} in another language than the page."
    ]
    for name in ("modality", "language"):
        notes.append(f"By {name}: " + ", ".join(f"{key} {number}" for key, number in counts[name].items()) + ".")
    return notes if counts["questions"] else notes[:1]
