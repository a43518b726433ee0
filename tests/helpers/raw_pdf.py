"""Writer of PDFs from raw objects, without a PDF library, so that tests can write invalid objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

LINES = tuple(f"Line {number} of a page with plenty of ordinary words about rivers." for number in range(8))
"""Text of `text_content`, 88 words."""
FONT = "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>"


def stream(data: bytes | str, entries: str = "") -> bytes:
    """Return the body of a stream object."""
    content = data.encode("latin-1") if isinstance(data, str) else data
    return b"<</Length %d%s>>\nstream\n%s\nendstream" % (len(content), entries.encode(), content)


def text_content(lines: Sequence[str] = LINES) -> str:
    """Return a content stream that draws lines of text with the font F1 from (72, 720) downwards."""
    shown = "".join(f"({line}) Tj T*\n" for line in lines)
    return f"BT /F1 12 Tf 16 TL 72 720 Td\n{shown}ET\n"


def pdf_bytes(objects: Mapping[int, bytes | str], trailer: str = "") -> bytes:
    """Return a PDF with a cross-reference table. The catalog is object 1."""
    out = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
    offsets = {}
    for number, body in objects.items():
        offsets[number] = len(out)
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body.encode("latin-1") if isinstance(body, str) else body)
    start, size = len(out), max(objects) + 1
    out += b"xref\n0 %d\n0000000000 65535 f \n" % size
    for number in range(1, size):
        out += b"%010d 00000 n \n" % offsets[number] if number in offsets else b"0000000000 00000 f \n"
    out += b"trailer\n<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF\n" % (size, trailer.encode(), start)
    return bytes(out)


def one_page(
    path: Path,
    content: bytes | str | None = None,
    *,
    media: str = "[0 0 612 792]",
    page: str = "",
    resources: str = "",
    fonts: str = "",
    objects: Mapping[int, bytes | str] | None = None,
    trailer: str = "",
) -> Path:
    """Write a PDF of one page. Objects 1 to 5 are catalog, page tree, page, content and the font F1.

    Args:
        path: Path of the file.
        content: Content stream; None for the eight lines of `text_content`.
        media: Value of the MediaBox.
        page: Further entries of the page.
        resources: Further entries of the resources.
        fonts: Further entries of the fonts.
        objects: Further objects; they replace objects 1 to 5.
        trailer: Further entries of the trailer.
    """
    used = f"/Font<</F1 5 0 R{fonts}>>{resources}"
    body = f"/Type/Page/Parent 2 0 R/MediaBox {media}/Contents 4 0 R/Resources<<{used}>>{page}"
    parts: dict[int, bytes | str] = {
        1: "<</Type/Catalog/Pages 2 0 R>>",
        2: "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        3: f"<<{body}>>",
        4: stream(text_content() if content is None else content),
        5: FONT,
    }
    path.write_bytes(pdf_bytes({**parts, **(objects or {})}, trailer))
    return path


def page_tree(path: Path, root: str, objects: Mapping[int, bytes | str] | None = None, *, pages: int = 2) -> Path:
    """Write a PDF with pages in the objects 10, 12, 14, …; each has the text ``PAGE<n>MARK`` and the lines.

    Args:
        path: Path of the file.
        root: Entries of the root of the page tree (object 2), for example ``/Kids[10 0 R 12 0 R]/Count 2``.
        objects: Further objects; they replace others.
        pages: Number of pages.
    """
    parts: dict[int, bytes | str] = {1: "<</Type/Catalog/Pages 2 0 R>>", 2: f"<</Type/Pages{root}>>", 5: FONT}
    for number in range(pages):
        at = 10 + 2 * number
        box = "/MediaBox[0 0 612 792]/Resources<</Font<</F1 5 0 R>>>>"
        parts[at] = f"<</Type/Page/Parent 2 0 R{box}/Contents {at + 1} 0 R>>"
        parts[at + 1] = stream(text_content([f"PAGE{number + 1}MARK", *LINES]))
    path.write_bytes(pdf_bytes({**parts, **(objects or {})}))
    return path
