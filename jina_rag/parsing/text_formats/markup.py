"""Conversion of the text formats to HTML, from which MuPDF makes pages.

The HTML never refers to another file or address: an image that is not inside the file becomes its alternative text.
MuPDF gets the HTML as bytes without a folder, so that it could not open such a file either.
"""

from __future__ import annotations

import base64
import codecs
import csv
import html
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jina_rag.parsing.text_formats.formats import TextFormat
from jina_rag.parsing.text_formats.mail import Mail, read_mail

_STYLE: Final = """
body { font-family: sans-serif; }
pre { font-family: monospace; font-size: 0.8em; white-space: pre-wrap; }
p.h1 { font-size: 2em; font-weight: bold; }
p.h2 { font-size: 1.5em; font-weight: bold; }
p.h3 { font-size: 1.2em; font-weight: bold; }
p.h4, p.h5, p.h6 { font-weight: bold; }
table { border-collapse: collapse; }
td, th { border: 1px solid #999999; padding: 2pt; text-align: left; }
"""
_CHARSET = re.compile(
    rb"""<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_.:-]{1,40})""", re.I
)
_REFERENCE = re.compile(r"<(img|image|embed|object|iframe|source|video|audio)\b[^>]*>", re.IGNORECASE)
_EMBEDDED = re.compile(r"""\b(?:src|href)\s*=\s*["']?\s*data:image/""", re.IGNORECASE)
_CONTENT_ID = re.compile(r"""(\bsrc\s*=\s*["']?\s*)cid:([^"'\s>]+)""", re.IGNORECASE)
_ALTERNATIVE = re.compile(r"""\balt\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+))""", re.IGNORECASE)
_SAMPLE_BYTES = 64 * 1024
"""Bytes from which the character encoding and the delimiter of a table are determined."""
_ROWS_PER_HEAD = 25
"""Number of rows after which the first row of a table is repeated, so that each full page shows the column names."""
_WIDE_TABLE = 8
"""Number of columns from which the pages of a table are landscape."""


@dataclass(frozen=True, slots=True)
class Markup:
    """The content of a file as HTML.

    Attributes:
        html: The HTML.
        is_wide: Whether the pages are landscape.
        missing_images: Number of images that are not inside the file.
    """

    html: str
    is_wide: bool = False
    missing_images: int = 0


def to_html(path: Path, kind: TextFormat) -> Markup:
    """Return the content of a file as HTML.

    Args:
        path: Path of the file.
        kind: Format of the file, except ``"epub"``, which MuPDF reads by itself.

    Raises:
        OSError: If the file cannot be read.
    """
    content = path.read_bytes()
    if kind == "html":
        text, missing_images = _without_references(_decode(content, _CHARSET.search(content[:2048])))
        return Markup(text, missing_images=missing_images)
    if kind == "mail":
        return _mail(read_mail(content))
    text = _decode(content)
    if kind == "markdown":
        text, missing_images = _without_references(_markdown(text))
        return Markup(_document(text), missing_images=missing_images)
    if kind == "table":
        return _table(text)
    return Markup(_document(_plain(text)))


def _document(body: str) -> str:
    return f"<html><head><style>{_STYLE}</style></head><body>{body}</body></html>"


def _decode(content: bytes, declared: re.Match[bytes] | None = None) -> str:
    """Return the text of a file: by its byte order mark, as UTF-8, as declared, or in the likeliest encoding."""
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if content.startswith(mark):
            return content.decode(encoding, "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        pass
    if declared is not None:
        try:
            return content.decode(declared[1].decode("ascii"), "replace")
        except (LookupError, ValueError):  # an unknown encoding
            pass
    import charset_normalizer

    best = charset_normalizer.from_bytes(content[:_SAMPLE_BYTES]).best()
    return content.decode(best.encoding if best is not None else "cp1252", "replace")


def _without_references(markup: str) -> tuple[str, int]:
    """Replace elements that refer to another file or address by their alternative text; return also their number."""
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        if _EMBEDDED.search(match[0]):
            return match[0]
        count += match[1].lower() in {"img", "image"}
        alternative = _ALTERNATIVE.search(match[0])
        return " ".join(filter(None, alternative.groups())) if alternative else ""

    return _REFERENCE.sub(replace, markup), count


def _markdown(text: str) -> str:
    from markdown_it import MarkdownIt

    # HTML inside Markdown is shown as text.
    parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    tokens = parser.parse(text)
    for token in tokens:
        if token.type in {"heading_open", "heading_close"}:  # MuPDF takes minutes for thousands of heading elements
            token.attrSet("class", token.tag)
            token.tag = "p"
    return str(parser.renderer.render(tokens, parser.options, {}))


def _plain(text: str) -> str:
    # A form feed starts a page. MuPDF ignores other control characters.
    pages = text.expandtabs(8).split("\f")
    return '<div style="page-break-after: always"></div>'.join(f"<pre>{html.escape(page)}</pre>" for page in pages)


def _table(text: str) -> Markup:
    try:
        dialect: type[csv.Dialect] = csv.Sniffer().sniff(text[:_SAMPLE_BYTES], delimiters=",;\t|")
    except csv.Error:  # a single column
        dialect = csv.excel
    # The whole text may be one quoted field.
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    rows = csv.reader(io.StringIO(text, newline=""), dialect)
    head = next(rows, [])
    is_wide = len(head) >= _WIDE_TABLE
    size = 0.7 if is_wide else 0.85
    tables = (f'<table style="font-size: {size}em">{_rows(head, part)}</table>' for part in _parts(rows))
    return Markup(_document("".join(tables)), is_wide)


def _parts(rows: Iterator[list[str]]) -> Iterator[list[list[str]]]:
    part = list(itertools.islice(rows, _ROWS_PER_HEAD))
    yield part
    while part := list(itertools.islice(rows, _ROWS_PER_HEAD)):
        yield part


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    names = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    return f"<tr>{names}</tr>" + "".join(f"<tr>{line}</tr>" for line in lines)


def _mail(mail: Mail) -> Markup:
    fields = "".join(f"<div><b>{html.escape(name)}:</b> {html.escape(value)}</div>" for name, value in mail.fields)
    body, missing_images = _plain(mail.text), 0
    if mail.is_html:
        body, missing_images = _without_references(_with_images(mail))
    names = ", ".join(attachment.name or "without a name" for attachment in mail.attachments)
    end = f"<hr><div><b>Attachments:</b> {html.escape(names)}</div>" if names else ""
    return Markup(_document(f"{fields}<hr>{body}{end}"), missing_images=missing_images)


def _with_images(mail: Mail) -> str:
    """Return the HTML of a mail with the images that are parts of the mail."""

    def replace(match: re.Match[str]) -> str:
        image = mail.images.get(match[2])
        if image is None:
            return match[0]
        return f"{match[1]}data:{image.content_type};base64,{base64.b64encode(image.content).decode('ascii')}"

    return _CONTENT_ID.sub(replace, mail.text)
