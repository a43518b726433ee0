"""The beginning of a judged folder: its documents listed, their pages to look at, a sheet to write questions on.

judged/docs.jsonl      doc, file, pages, sha256        judged/questions.csv   see `jina_rag.evaluation.queries_csv`
judged/pages.html      every page, with its doc and number; the pictures are in judged/pages/
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from jina_rag.config import IngestSettings
from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.contact_sheet import SheetDocument, write_contact_sheet
from jina_rag.evaluation.datasets import DOCUMENTS, QUERIES, SHEET, file_hash, read_lines, text_of
from jina_rag.evaluation.queries_csv import read_sheet, write_sheet
from jina_rag.evaluation.runner import write_whole
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
class Skeleton:
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
        return {
            "documents": self.documents,
            "pages": self.pages,
            "sheet": None if self.sheet is None else str(self.sheet),
            "contact_sheet": None if self.contact_sheet is None else str(self.contact_sheet),
            "failed": [{"path": str(f.path), "reason": f.reason, "page": f.page} for f in self.failed],
        }


def make_skeleton(
    root: Path,
    documents: Sequence[Path],
    *,
    images: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Skeleton:
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
    found = list(find_sources(documents, exclude=[root / IMAGES]))
    sources = [entry for entry in found if isinstance(entry, SourceFile)]
    failed = [entry for entry in found if isinstance(entry, Failure)]
    if not sources:
        where = ", ".join(map(str, documents))
        raise InvalidInputError(f"There is no document in {where}: say where they lie with --documents FOLDER.")
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise InvalidInputError(f"The folder {root} cannot be made: {exc.strerror or exc}.") from exc
    entries = _Entries(root, sources)
    shown = list(_read(root, sources, entries, failed, images=images, progress=progress))
    entries.write()
    sheet = None if (root / QUERIES).exists() and not (root / SHEET).exists() else root / SHEET
    if sheet is not None:
        write_sheet(sheet)
    if images:
        write_contact_sheet(root / CONTACT_SHEET, shown)
    return Skeleton(
        documents=len(entries.lines),
        pages=sum(int(line.get("pages") or 0) for line in entries.lines),
        sheet=sheet,
        contact_sheet=root / CONTACT_SHEET if images else None,
        failed=tuple(failed),
    )


def write_queries(root: Path) -> tuple[Path, int]:
    """Write ``queries.jsonl`` from the sheet, for programs that read no sheets. Returns it and the number of questions.

    Raises:
        InvalidInputError: If there is no sheet, or it makes no sense.
    """
    if not (root / SHEET).is_file():
        raise InvalidInputError(f"{root} has no {SHEET}: `jina-rag evaluate init {root}` makes one.")
    entries = [entry for _, entry in read_sheet(root / SHEET)]
    text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
    write_whole(root / QUERIES, text, what="questions")
    return root / QUERIES, len(entries)


class _Entries:
    """The lines of ``docs.jsonl``: those that were there, and a new one for each new file."""

    def __init__(self, root: Path, sources: Sequence[SourceFile]) -> None:
        self._file = root / DOCUMENTS
        self.lines: list[dict[str, Any]] = []
        self._known: dict[Path, dict[str, Any]] = {}
        for number, line in read_lines(self._file) if self._file.exists() else []:
            self.lines.append(line)
            self._known[(root / text_of(line, "file", self._file, number)).resolve()] = line
        names = _names([source for source in sources if source.path.resolve() not in self._known])
        taken = {line.get("doc") for line in self.lines}
        self._unlisted: set[str] = set()
        for source, name in names.items():
            free = next(n for n in _variants(name) if n not in taken)
            taken.add(free)
            self._unlisted.add(free)
            self._known[source.path.resolve()] = {"doc": free, "file": _relative(source.path, root)}

    def of(self, source: SourceFile) -> dict[str, Any]:
        """The line of a file."""
        return self._known[source.path.resolve()]

    def add(self, line: dict[str, Any], pages: int, sha256: str) -> None:
        """Take up a document that can be read."""
        if line["doc"] in self._unlisted:
            self._unlisted.remove(line["doc"])
            self.lines.append(line)
        line |= {"pages": pages, "sha256": sha256}

    def write(self) -> None:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in self.lines)
        write_whole(self._file, text, what="documents")


def _read(
    root: Path,
    sources: Sequence[SourceFile],
    entries: _Entries,
    failed: list[Failure],
    *,
    images: bool,
    progress: Callable[[int, int], None] | None,
) -> Iterator[SheetDocument]:
    """Count the pages of every document, and make a picture of each."""
    hashes = {source.path: file_hash(source.path) for source in sources}
    folders = {
        source.path: root / IMAGES / f"{slug(entries.of(source)['doc'])}-{hashes[source.path][:8]}"
        for source in sources
    }
    every = frozenset(range(1, _SETTINGS.limits.max_pages + 1))
    reading = (replace(source, done=_made(folders[source.path]) if images else every) for source in sources)
    done = 0
    with contextlib.closing(read_pages(reading, _SETTINGS)) as events:
        for event in events:
            match event:
                case DocumentStart(source=source, count=count):
                    entries.add(entries.of(source), count, hashes[source.path])
                    current = count
                case Page():
                    _save(event, folders[event.path] / f"{event.number:04d}.jpg")
                case Failure():
                    failed.append(event)
                case DocumentEnd(source=source):
                    name = str(entries.of(source)["doc"])
                    made = _made(folders[source.path])
                    yield SheetDocument(
                        doc=name,
                        images=tuple(
                            (folders[source.path] / f"{n:04d}.jpg").relative_to(root).as_posix() if n in made else None
                            for n in range(1, current + 1)
                        ),
                    )
            if isinstance(event, DocumentEnd) or (isinstance(event, Failure) and event.page is None):
                done += 1
                if progress:
                    progress(done, len(sources))


def _made(folder: Path) -> frozenset[int]:
    """The pages whose pictures are there."""
    return frozenset(int(file.stem) for file in folder.glob("*.jpg") if file.stem.isdecimal())


def _save(page: Page, path: Path) -> None:
    image = page.screenshot.image.copy()
    image.thumbnail((_SIDE, _SIDE))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        image.save(unfinished, format="JPEG", quality=_QUALITY)
        os.replace(unfinished, path)
    except OSError as exc:
        raise InvalidInputError(f"A page's picture cannot be written to {path}: {exc.strerror or exc}.") from exc


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


def _variants(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1


def _relative(path: Path, root: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), root.resolve())).as_posix()
    except ValueError:  # on another drive of Windows
        return path.resolve().as_posix()
