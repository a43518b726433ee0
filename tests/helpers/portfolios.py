"""PDFs with attachments of any name and content, written without a PDF library."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

from helpers.raw_pdf import LINES, one_page, stream, text_content


def pdf_content(path: Path, text: str) -> bytes:
    """Return the content of a PDF of one page with a text, written to `path` and deleted again."""
    content = one_page(path, text_content([text, *LINES])).read_bytes()
    path.unlink()
    return content


def portfolio(
    path: Path, attachments: Sequence[tuple[str, bytes]], *, collection: bool = True, text: str = "Cover page"
) -> Path:
    """Write a PDF of one page with attachments.

    Args:
        path: Path of the file.
        attachments: Name and content of each attachment.
        collection: Whether the PDF is a portfolio (``/Collection``).
        text: Text of the page.
    """
    objects: dict[int, bytes | str] = {}
    names = []
    for index, (name, content) in enumerate(attachments):
        number = 10 + 2 * index
        text_string = f"<{(chr(0xFEFF) + name).encode('utf-16-be', 'surrogatepass').hex()}>"
        objects[number] = f"<</Type/Filespec/F{text_string}/UF{text_string}/EF<</F {number + 1} 0 R>>>>"
        objects[number + 1] = stream(zlib.compress(content), "/Type/EmbeddedFile/Filter/FlateDecode")
        names.append(f"({index:06d}) {number} 0 R")
    portable = "/Collection<</Type/Collection/View/D>>" if collection else ""
    tree = ""
    if names:  # the first attachment is in a node of its own, as in large name trees
        objects[8], objects[9] = f"<</Names[{names[0]}]>>", f"<</Names[{' '.join(names[1:])}]>>"
        tree = "/Names<</EmbeddedFiles<</Kids[8 0 R 9 0 R]>>>>"
    objects[1] = f"<</Type/Catalog/Pages 2 0 R{portable}{tree}>>"
    return one_page(path, text_content([text, *LINES]), objects=objects)
