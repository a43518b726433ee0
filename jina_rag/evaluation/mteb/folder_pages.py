"""Images and texts of the pages of a judged folder, read once and stored next to the results."""

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

from jina_rag._display import displayed
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
    """A page of a judged folder.

    Attributes:
        key: (document name, 1-based page number), as in the relevance judgments.
        path: Path of the document.
        image: Path of the page image, a PNG file.
        text: The page's text; empty if the text was not read.
    """

    key: PageKey
    path: Path
    image: Path
    text: str


def folder_pages(
    documents: Mapping[str, Path], hashes: Mapping[str, str], work: Path, *, words: bool
) -> list[FolderPage]:
    """Return all pages of the documents in order, and render documents that no earlier call has rendered.

    Args:
        documents: Document name → path.
        hashes: Document name → hash of the file.
        work: Folder for the page images; created if it does not exist.
        words: Also read the text of each page, from the text layer or with OCR, like `DocumentIndex.ingest`.

    Raises:
        InvalidInputError: If no page can be read, or the folder cannot be written.
    """
    folders = {doc: work / f"{hashes[doc][:32]}{'-words' if words else ''}" for doc in documents}
    with explain_os_errors(f"Pages cannot be written to {work}"):
        work.mkdir(parents=True, exist_ok=True, mode=0o700)  # page images are private, as in an index
        missing = {folder: documents[doc] for doc, folder in folders.items() if not (folder / "pages.json").is_file()}
        if missing:
            _render_documents(missing, work, IngestSettings(ocr="auto" if words else "never"))
        pages = [
            FolderPage((doc, page["page"]), documents[doc], folder / page["image"], page["text"])
            for doc, folder in folders.items()
            if (folder / "pages.json").is_file()
            for page in json.loads((folder / "pages.json").read_text(encoding="utf-8"))
        ]
    if not pages:
        names = ", ".join(map(str, [*documents.values()][:3]))
        raise InvalidInputError(
            f"No page of {len(documents)} document(s) can be read ({names}). Check the judged folder with "
            "`jina-rag evaluate check FOLDER`."
        )
    return pages


def _render_documents(missing: Mapping[Path, Path], work: Path, settings: IngestSettings) -> None:
    """Render the documents of `missing` (folder for the pages → document). Each folder is created atomically."""
    sources: list[SourceFile] = []
    for path in missing.values():
        try:
            sources.append(source_file(path))
        except InvalidInputError as exc:
            _log.warning("%s cannot be read: %s", displayed(path), displayed(exc))
    folder_by_path = {path.resolve(): folder for folder, path in missing.items()}
    with tempfile.TemporaryDirectory(dir=work, prefix=".reading-") as scratch:
        pages: list[dict[str, str | int]] = []
        temporary = Path(scratch)
        with closing(read_pages(sources, settings)) as events:
            for event in events:
                if isinstance(event, DocumentStart):
                    pages, temporary = [], Path(tempfile.mkdtemp(dir=scratch))
                elif isinstance(event, Page):
                    name = f"{event.number:05}.png"
                    event.screenshot.image.save(temporary / name, "PNG", compress_level=1)
                    pages.append({"page": event.number, "image": name, "text": event.text})
                elif isinstance(event, Failure):
                    page_suffix = "" if event.page is None else f", page {event.page}"
                    _log.warning("%s%s cannot be read: %s", displayed(event.path), page_suffix, displayed(event.reason))
                elif isinstance(event, DocumentEnd):
                    (temporary / "pages.json").write_text(json.dumps(pages, ensure_ascii=False), encoding="utf-8")
                    folder = folder_by_path[event.source.path.resolve()]
                    shutil.rmtree(folder, ignore_errors=True)  # an incomplete folder that a killed run left
                    os.replace(temporary, folder)
