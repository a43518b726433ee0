"""``pages.html``: all pages of a folder, small, each with the doc and page to write into the sheet of questions."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jina_rag.evaluation.files import write_text


@dataclass(frozen=True, slots=True)
class ContactSheetDocument:
    """A document and its pages.

    Attributes:
        doc: What judgements call it.
        images: A picture for each page, as a path relative to the sheet; None for a page that cannot be shown.
    """

    doc: str
    images: tuple[str | None, ...]


def write_contact_sheet(path: Path, documents: Sequence[ContactSheetDocument]) -> None:
    """Write the sheet. It has no script, and fetches nothing but the pictures beside it.

    Raises:
        InvalidInputError: If it cannot be written.
    """
    import jinja2

    file = importlib.resources.files("jina_rag.evaluation") / "contact_sheet.html.j2"
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(file.read_text(encoding="utf-8"))
    write_text(path, template.render(documents=documents) + "\n", what="sheet of pages")
