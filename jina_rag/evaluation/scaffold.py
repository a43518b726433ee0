"""Creation of a judged folder: list of documents, page images, contact sheet and an empty queries file.

judged/docs.jsonl      doc, file, pages, sha256        judged/queries.csv   see `jina_rag.evaluation.queries_csv`
judged/pages.html      contact sheet of all pages      judged/pages/        images of the pages
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

from jina_rag._files import open_atomic
from jina_rag.config import IngestSettings
from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.contact_sheet import ContactSheetDocument, write_contact_sheet
from jina_rag.evaluation.datasets import DOCUMENTS, QUERIES, QUERIES_CSV, get_text
from jina_rag.evaluation.files import (
    FILE_MODE,
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
_MAX_IMAGE_SIDE = 1000
"""Longest side of a page image, in pixels; enough for legible text."""
_JPEG_QUALITY = 70
_SETTINGS = IngestSettings(dpi=100, ocr="never", regions=False)


@dataclass(frozen=True, slots=True)
class Scaffold:
    """Files of a created or updated judged folder.

    Attributes:
        documents: Number of documents in ``docs.jsonl``.
        pages: Total number of pages of the documents.
        sheet: Path of ``queries.csv``; None if ``queries.jsonl`` holds the queries.
        contact_sheet: Path of the contact sheet; None without page images.
        failed: Files and pages that cannot be read.
    """

    documents: int
    pages: int
    sheet: Path | None
    contact_sheet: Path | None
    failed: tuple[Failure, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that ``evaluate init --json`` prints."""
        values = asdict(self) | {"failed": failures_json(self.failed)}
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def make_scaffold(
    root: Path,
    documents: Sequence[Path],
    *,
    images: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Scaffold:
    """Create a judged folder, or add new documents to an existing judged folder.

    Existing queries, document names and page images are left unchanged.

    Args:
        root: Path of the judged folder.
        documents: Paths of files and folders, and glob patterns.
        images: Render missing page images and write the contact sheet.
        progress: Called with (documents done, total documents).

    Returns:
        The number of documents and pages, the paths of the created files, and the failures.

    Raises:
        InvalidInputError: If a path does not exist, no document is found, or the folder cannot be written.
    """
    if root in documents and not root.exists():
        raise InvalidInputError(f"{root} does not exist. Pass the folder of the documents (--documents FOLDER).")
    own_files = [root / name for name in (IMAGES, CONTACT_SHEET, QUERIES_CSV)]
    entries = list(find_sources(documents, exclude=own_files))
    sources = [entry for entry in entries if isinstance(entry, SourceFile)]
    failures = [entry for entry in entries if isinstance(entry, Failure)]
    if not sources:
        locations = ", ".join(map(str, documents))
        raise InvalidInputError(
            f"No document found in {locations}. Pass the folder of the documents (--documents FOLDER)."
        )
    make_folder(root, label="The folder")
    listing = _DocumentList(root, sources)
    pages = list(_render_documents(root, sources, listing, failures, images=images, progress=progress))
    write_lines(root / DOCUMENTS, listing.entries, label="documents")
    sheet = None if (root / QUERIES).exists() and not (root / QUERIES_CSV).exists() else root / QUERIES_CSV
    if sheet is not None:
        write_queries_csv(sheet)
    if images:
        write_contact_sheet(root / CONTACT_SHEET, pages)
    return Scaffold(
        documents=len(listing.entries),
        pages=sum(int(entry.get("pages") or 0) for entry in listing.entries),
        sheet=sheet,
        contact_sheet=root / CONTACT_SHEET if images else None,
        failed=tuple(failures),
    )


def write_queries(root: Path) -> tuple[Path, int]:
    """Convert ``queries.csv`` into ``queries.jsonl``, for programs that read JSON Lines.

    Args:
        root: Path of the judged folder.

    Returns:
        Path of ``queries.jsonl`` and the number of queries.

    Raises:
        InvalidInputError: If ``queries.csv`` is missing or invalid.
    """
    if not (root / QUERIES_CSV).is_file():
        raise InvalidInputError(f"{root} has no {QUERIES_CSV}. Create the file with `jina-rag evaluate init {root}`.")
    entries = [entry for _, entry in read_queries_csv(root / QUERIES_CSV)]
    write_lines(root / QUERIES, entries, label="queries")
    return root / QUERIES, len(entries)


class _DocumentList:
    """The entries of ``docs.jsonl``: the existing entries and an entry for each new file."""

    def __init__(self, root: Path, sources: Sequence[SourceFile]) -> None:
        file = root / DOCUMENTS
        self.entries: list[dict[str, Any]] = []
        self._by_path: dict[Path, dict[str, Any]] = {}
        for number, entry in read_lines(file) if file.exists() else []:
            self.entries.append(entry)
            self._by_path[(root / get_text(entry, "file", file, number)).resolve()] = entry
        names = _unique_names([source for source in sources if source.path.resolve() not in self._by_path])
        names_in_use = {entry.get("doc") for entry in self.entries}
        for source, name in names.items():
            variants = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
            unused_name = next(variant for variant in variants if variant not in names_in_use)
            names_in_use.add(unused_name)
            self._by_path[source.path.resolve()] = {"doc": unused_name, "file": _relative(source.path, root)}

    def of(self, source: SourceFile) -> dict[str, Any]:
        """Return the ``docs.jsonl`` entry of a file."""
        return self._by_path[source.path.resolve()]

    def add(self, entry: dict[str, Any], pages: int, sha256: str) -> None:
        """Add the entry of a readable document, and set the number of pages and the hash in the entry."""
        if not any(entry is other for other in self.entries):
            self.entries.append(entry)
        entry |= {"pages": pages, "sha256": sha256}


def _render_documents(
    root: Path,
    sources: Sequence[SourceFile],
    listing: _DocumentList,
    failures: list[Failure],
    *,
    images: bool,
    progress: Callable[[int, int], None] | None,
) -> Iterator[ContactSheetDocument]:
    """Count the pages of every document, render the missing page images, and yield the contact sheet entries."""
    hashes = {source.path: file_hash(source.path) for source in sources}
    folders = {
        source.path: root / IMAGES / f"{slug(listing.of(source)['doc'])}-{hashes[source.path][:8]}"
        for source in sources
    }
    all_pages = frozenset(range(1, _SETTINGS.limits.max_pages + 1))
    remaining = (
        replace(source, skip_pages=_rendered_pages(folders[source.path]) if images else all_pages) for source in sources
    )
    done = 0
    with contextlib.closing(read_pages(remaining, _SETTINGS)) as events:
        for event in events:
            match event:
                case DocumentStart(source=source, count=count):
                    listing.add(listing.of(source), count, hashes[source.path])
                case Page():
                    _write_page_image(event, folders[event.path] / f"{event.number:04d}.jpg")
                case Failure():
                    failures.append(event)
                case DocumentEnd(source=source):
                    entry, folder = listing.of(source), folders[source.path]
                    page_numbers = _rendered_pages(folder)
                    files = ((folder / f"{n:04d}.jpg").relative_to(root).as_posix() if n in page_numbers else None
                             for n in range(1, entry["pages"] + 1))  # fmt: skip
                    yield ContactSheetDocument(doc=str(entry["doc"]), images=tuple(files))
            if isinstance(event, DocumentEnd) or (isinstance(event, Failure) and event.page is None):
                done += 1
                if progress:
                    progress(done, len(sources))


def _rendered_pages(folder: Path) -> frozenset[int]:
    """Return the numbers of the pages that have an image."""
    return frozenset(int(file.stem) for file in folder.glob("*.jpg") if file.stem.isdecimal())


def _write_page_image(page: Page, path: Path) -> None:
    image = page.screenshot.image.copy()
    image.thumbnail((_MAX_IMAGE_SIDE, _MAX_IMAGE_SIDE))
    with explain_os_errors(f"The page image cannot be written to {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_atomic(path, mode=FILE_MODE) as file:
            image.save(file, format="JPEG", quality=_JPEG_QUALITY)


def _unique_names(sources: Sequence[SourceFile]) -> dict[SourceFile, str]:
    """Return a unique name per document: the stem of the file name, or the path if several documents share a stem."""
    stems = Counter(PurePosixPath(source.doc_id).stem for source in sources)
    paths = Counter(str(PurePosixPath(source.doc_id).with_suffix("")) for source in sources)
    names = {}
    for source in sources:
        path = PurePosixPath(source.doc_id)
        long_name = str(path.with_suffix(""))
        names[source] = path.stem if stems[path.stem] == 1 else long_name if paths[long_name] == 1 else source.doc_id
    return names


def _relative(path: Path, root: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), root.resolve())).as_posix()
    except ValueError:  # Windows: on another drive
        return path.resolve().as_posix()
