"""The scaffold of a judged folder: its documents listed, their pages to look at, a sheet to write questions on.

judged/docs.jsonl      doc, file, pages, sha256        judged/queries.csv   see `jina_rag.evaluation.queries_csv`
judged/pages.html      every page, with its doc and number; the pictures are in judged/pages/
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from jina_rag._files import open_whole
from jina_rag.config import IngestSettings
from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.contact_sheet import ContactSheetDocument, write_contact_sheet
from jina_rag.evaluation.datasets import DOCUMENTS, QUERIES, QUERIES_CSV, text_of
from jina_rag.evaluation.files import (
    READABLE,
    explain_os_errors,
    failures_json,
    file_hash,
    make_folder,
    read_lines,
    write_lines,
)
from jina_rag.evaluation.queries_csv import read_queries_csv, write_queries_csv
from jina_rag.evaluation.settings import slug
from jina_rag.parsing.pages import DocumentEnd, DocumentStart, read_pages
from jina_rag.parsing.sources import SourceFile, find_sources
from jina_rag.types import Failure, Page

IMAGES, CONTACT_SHEET = "pages", "pages.html"
_SIDE = 1000
"""Longest side of a page's picture in pixels: enough to read its text."""
_QUALITY = 70
_SETTINGS = IngestSettings(dpi=100, ocr="never", regions=False)


@dataclass(frozen=True, slots=True)
class Scaffold:
    """What was made.

    Attributes:
        documents: In ``docs.jsonl``.
        pages: Of these documents.
        sheet: To write questions on; None where ``queries.jsonl`` has them.
        contact_sheet: To look at the pages; None if no pictures were wanted.
        failed: Files and pages that cannot be read.
    """

    documents: int
    pages: int
    sheet: Path | None
    contact_sheet: Path | None
    failed: tuple[Failure, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The object that ``evaluate init --json`` prints."""
        values = asdict(self) | {"failed": failures_json(self.failed)}
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def make_scaffold(
    root: Path,
    documents: Sequence[Path],
    *,
    images: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Scaffold:
    """Make a folder to judge, or take up documents that are new. Questions and names of documents are left as they are.

    Args:
        root: The folder.
        documents: Files, folders and globs.
        images: Whether pictures of the pages are made; those that are there already are kept.
        progress: Called with (documents done, all).

    Raises:
        InvalidInputError: If a path does not exist, there is no document, or the folder cannot be written.
    """
    if root in documents and not root.exists():
        raise InvalidInputError(f"There is no folder {root} yet: say where the documents lie with --documents FOLDER.")
    entries = list(find_sources(documents, exclude=[root / IMAGES]))
    sources = [entry for entry in entries if isinstance(entry, SourceFile)]
    failures = [entry for entry in entries if isinstance(entry, Failure)]
    if not sources:
        where = ", ".join(map(str, documents))
        raise InvalidInputError(f"There is no document in {where}: say where they lie with --documents FOLDER.")
    make_folder(root, what="The folder")
    listing = _DocumentList(root, sources)
    pages = list(_read(root, sources, listing, failures, images=images, progress=progress))
    write_lines(root / DOCUMENTS, listing.lines, what="documents")
    sheet = None if (root / QUERIES).exists() and not (root / QUERIES_CSV).exists() else root / QUERIES_CSV
    if sheet is not None:
        write_queries_csv(sheet)
    if images:
        write_contact_sheet(root / CONTACT_SHEET, pages)
    return Scaffold(
        documents=len(listing.lines),
        pages=sum(int(line.get("pages") or 0) for line in listing.lines),
        sheet=sheet,
        contact_sheet=root / CONTACT_SHEET if images else None,
        failed=tuple(failures),
    )


def write_queries(root: Path) -> tuple[Path, int]:
    """Write ``queries.jsonl`` from the sheet, for programs that read no sheets. Returns it and the number of questions.

    Raises:
        InvalidInputError: If there is no sheet, or it makes no sense.
    """
    if not (root / QUERIES_CSV).is_file():
        raise InvalidInputError(f"{root} has no {QUERIES_CSV}: `jina-rag evaluate init {root}` makes one.")
    entries = [entry for _, entry in read_queries_csv(root / QUERIES_CSV)]
    write_lines(root / QUERIES, entries, what="questions")
    return root / QUERIES, len(entries)


class _DocumentList:
    """The lines of ``docs.jsonl``: those that were there, and a new one for each new file."""

    def __init__(self, root: Path, sources: Sequence[SourceFile]) -> None:
        file = root / DOCUMENTS
        self.lines: list[dict[str, Any]] = []
        self._by_path: dict[Path, dict[str, Any]] = {}
        for number, line in read_lines(file) if file.exists() else []:
            self.lines.append(line)
            self._by_path[(root / text_of(line, "file", file, number)).resolve()] = line
        names = _names([source for source in sources if source.path.resolve() not in self._by_path])
        names_in_use = {line.get("doc") for line in self.lines}
        for source, name in names.items():
            variants = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
            free = next(variant for variant in variants if variant not in names_in_use)
            names_in_use.add(free)
            self._by_path[source.path.resolve()] = {"doc": free, "file": _relative(source.path, root)}

    def of(self, source: SourceFile) -> dict[str, Any]:
        """The line of a file."""
        return self._by_path[source.path.resolve()]

    def add(self, line: dict[str, Any], pages: int, sha256: str) -> None:
        """Take up a document that can be read."""
        if not any(line is other for other in self.lines):
            self.lines.append(line)
        line |= {"pages": pages, "sha256": sha256}


def _read(
    root: Path,
    sources: Sequence[SourceFile],
    listing: _DocumentList,
    failures: list[Failure],
    *,
    images: bool,
    progress: Callable[[int, int], None] | None,
) -> Iterator[ContactSheetDocument]:
    """Count the pages of every document, and make a picture of each."""
    hashes = {source.path: file_hash(source.path) for source in sources}
    folders = {
        source.path: root / IMAGES / f"{slug(listing.of(source)['doc'])}-{hashes[source.path][:8]}"
        for source in sources
    }
    every = frozenset(range(1, _SETTINGS.limits.max_pages + 1))
    reading = (replace(source, skip_pages=_drawn(folders[source.path]) if images else every) for source in sources)
    done = 0
    with contextlib.closing(read_pages(reading, _SETTINGS)) as events:
        for event in events:
            match event:
                case DocumentStart(source=source, count=count):
                    listing.add(listing.of(source), count, hashes[source.path])
                case Page():
                    _draw(event, folders[event.path] / f"{event.number:04d}.jpg")
                case Failure():
                    failures.append(event)
                case DocumentEnd(source=source):
                    line, folder = listing.of(source), folders[source.path]
                    page_numbers = _drawn(folder)
                    files = ((folder / f"{n:04d}.jpg").relative_to(root).as_posix() if n in page_numbers else None
                             for n in range(1, line["pages"] + 1))  # fmt: skip
                    yield ContactSheetDocument(doc=str(line["doc"]), images=tuple(files))
            if isinstance(event, DocumentEnd) or (isinstance(event, Failure) and event.page is None):
                done += 1
                if progress:
                    progress(done, len(sources))


def _drawn(folder: Path) -> frozenset[int]:
    """The pages whose pictures are there."""
    return frozenset(int(file.stem) for file in folder.glob("*.jpg") if file.stem.isdecimal())


def _draw(page: Page, path: Path) -> None:
    image = page.screenshot.image.copy()
    image.thumbnail((_SIDE, _SIDE))
    with explain_os_errors(f"A page's picture cannot be written to {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_whole(path, mode=READABLE) as file:
            image.save(file, format="JPEG", quality=_QUALITY)


def _names(sources: Sequence[SourceFile]) -> dict[SourceFile, str]:
    """What each document is called: its file's stem, or as much of its path as tells it from the others."""
    stems = Counter(PurePosixPath(source.doc_id).stem for source in sources)
    paths = Counter(str(PurePosixPath(source.doc_id).with_suffix("")) for source in sources)
    names = {}
    for source in sources:
        path = PurePosixPath(source.doc_id)
        plain = str(path.with_suffix(""))
        names[source] = path.stem if stems[path.stem] == 1 else plain if paths[plain] == 1 else source.doc_id
    return names


def _relative(path: Path, root: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), root.resolve())).as_posix()
    except ValueError:  # on another drive of Windows
        return path.resolve().as_posix()
