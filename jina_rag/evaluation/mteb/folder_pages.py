"""The pages of a judged folder as pictures and words, read once and kept beside the results."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from jina_rag.config import IngestSettings
from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.datasets import PageKey
from jina_rag.evaluation.files import explain_os_errors
from jina_rag.parsing.pages import DocumentEnd, DocumentStart, read_pages
from jina_rag.parsing.sources import SourceFile, source_file
from jina_rag.types import Failure, Page

_log = logging.getLogger("jina_rag")


@dataclass(frozen=True, slots=True)
class FolderPage:
    """One page.

    Attributes:
        key: What judgements call it.
        path: The document's file.
        image: Its picture, a PNG file.
        text: Its words; empty where they were not read.
    """

    key: PageKey
    path: Path
    image: Path
    text: str


def folder_pages(
    documents: Mapping[str, Path], hashes: Mapping[str, str], work: Path, *, words: bool
) -> list[FolderPage]:
    """Every page of the documents, in their order. What was read in an earlier call is not read again.

    Args:
        documents: Name → file.
        hashes: Name → hash of the file.
        work: Folder for the pictures; made if need be.
        words: Whether words are read as well, as `DocumentIndex.ingest` does: the text layer's, else by OCR.

    Raises:
        InvalidInputError: If no page can be read, or the folder cannot be written.
    """
    places = {doc: work / f"{hashes[doc][:32]}{'-words' if words else ''}" for doc in documents}
    with explain_os_errors(f"Pages cannot be kept in {work}"):
        work.mkdir(parents=True, exist_ok=True, mode=0o700)  # readable pages, as in an index
        missing = {place: documents[doc] for doc, place in places.items() if not (place / "pages.json").is_file()}
        if missing:
            _read(missing, work, IngestSettings(ocr="auto" if words else "never"))
        pages = [
            FolderPage((doc, page["page"]), documents[doc], place / page["image"], page["text"])
            for doc, place in places.items()
            if (place / "pages.json").is_file()
            for page in json.loads((place / "pages.json").read_text(encoding="utf-8"))
        ]
    if not pages:
        raise InvalidInputError("None of the folder's documents has a page that could be read.")
    return pages


def _read(missing: Mapping[Path, Path], work: Path, settings: IngestSettings) -> None:
    """Read documents into their places; each appears whole, or not at all."""
    sources: list[SourceFile] = []
    for path in missing.values():
        try:
            sources.append(source_file(path))
        except InvalidInputError as exc:
            _log.warning("%s cannot be read: %s", path, exc)
    by_path = {path.resolve(): place for place, path in missing.items()}
    with tempfile.TemporaryDirectory(dir=work, prefix=".reading-") as scratch:
        pages: list[dict[str, str | int]] = []
        making = Path(scratch)
        with closing(read_pages(sources, settings)) as events:
            for event in events:
                if isinstance(event, DocumentStart):
                    pages, making = [], Path(tempfile.mkdtemp(dir=scratch))
                elif isinstance(event, Page):
                    name = f"{event.number:05}.png"
                    event.screenshot.image.save(making / name, "PNG", compress_level=1)
                    pages.append({"page": event.number, "image": name, "text": event.text})
                elif isinstance(event, Failure):
                    where = "" if event.page is None else f", page {event.page}"
                    _log.warning("%s%s cannot be read: %s", event.path, where, event.reason)
                elif isinstance(event, DocumentEnd):
                    (making / "pages.json").write_text(json.dumps(pages, ensure_ascii=False), encoding="utf-8")
                    place = by_path[event.source.path.resolve()]
                    shutil.rmtree(place, ignore_errors=True)  # of a run that was killed here
                    os.replace(making, place)
