"""The contact sheet ``pages.html``: all page images, each with the doc and page to enter in the queries file."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jina_rag.evaluation.files import write_text


@dataclass(frozen=True, slots=True)
class ContactSheetDocument:
    """A document and its page images.

    Attributes:
        doc: Name of the document in the judgments.
        images: One image path per page, relative to the contact sheet; None for a page that could not be rendered.
    """

    doc: str
    images: tuple[str | None, ...]


def write_contact_sheet(path: Path, documents: Sequence[ContactSheetDocument]) -> None:
    """Write the contact sheet as static HTML without scripts. The sheet loads no files except the page images.

    Args:
        path: Path of the HTML file; an existing file is replaced.
        documents: Documents in the order of the sheet.

    Raises:
        InvalidInputError: If the file cannot be written.
    """
    import jinja2

    file = importlib.resources.files("jina_rag.evaluation") / "contact_sheet.html.j2"
    template = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(file.read_text(encoding="utf-8"))
    write_text(path, template.render(documents=documents) + "\n", label="contact sheet")
