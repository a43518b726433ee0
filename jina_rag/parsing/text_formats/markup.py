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
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jina_rag.parsing.text_formats.formats import TextFormat
from jina_rag.parsing.text_formats.mail import Mail, read_mail

_STYLE: Final = """
body { font-family: sans-serif; }
pre { font-family: monospace; font-size: 0.8em; margin: 0; }
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
_PORTRAIT_CHARACTERS, _LANDSCAPE_CHARACTERS = 100, 170
"""Characters of a row of a table that fit the width of a page. Wider tables continue in further tables."""
_MAX_CELL: Final = 24
"""Characters of a cell from which the cell is expected to wrap."""
_SAMPLE_ROWS: Final = 200
"""Rows from which the widths of the columns of a table are estimated."""
_LINES_PER_BLOCK: Final = 100
"""Number of lines of plain text in one element. To draw a page, MuPDF walks through all lines of its elements."""


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
    return '<div style="page-break-after: always"></div>'.join(map(_lines, pages))


def _lines(text: str) -> str:
    lines = text.split("\n")
    blocks = ("\n".join(lines[at : at + _LINES_PER_BLOCK]) for at in range(0, len(lines), _LINES_PER_BLOCK))
    return "".join(f"<pre>{html.escape(block)}</pre>" for block in blocks)


def _table(text: str) -> Markup:
    try:
        dialect: type[csv.Dialect] = csv.Sniffer().sniff(text[:_SAMPLE_BYTES], delimiters=",;\t|")
    except csv.Error:  # a single column
        dialect = csv.excel
    # The whole text may be one quoted field.
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    rows = csv.reader(io.StringIO(text, newline=""), dialect)
    sample = list(itertools.islice(rows, 1 + _SAMPLE_ROWS))
    head, first_rows = (sample[0], sample[1:]) if sample else ([], [])
    widths = _column_widths(sample)
    is_wide = sum(widths) > _PORTRAIT_CHARACTERS
    blocks = _column_blocks(widths, _LANDSCAPE_CHARACTERS if is_wide else _PORTRAIT_CHARACTERS)
    size = 0.7 if is_wide else 0.85
    tables = (
        f'<table style="font-size: {size}em">{_rows(head, part, columns)}</table>'
        for part in _parts(itertools.chain(first_rows, rows), len(widths))
        for columns in blocks
    )
    return Markup(_document("".join(tables)), is_wide)


def _column_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the estimated width of each column in characters, with the space between two columns."""
    widths: list[int] = []
    for row in rows:
        widths += [1] * (len(row) - len(widths))
        for column, cell in enumerate(row):
            length = sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in cell[:_MAX_CELL])
            widths[column] = max(widths[column], min(length, _MAX_CELL) + 2)
    return widths


def _column_blocks(widths: Sequence[int], limit: int) -> list[list[int]]:
    """Return the columns of each table of a part of the rows. The first column is in each table, as the row's name."""
    blocks: list[list[int]] = [[]]
    total = 0
    for column, width in enumerate(widths):
        if len(blocks[-1]) > 1 and total + width > limit:
            blocks.append([0])
            total = widths[0]
        blocks[-1].append(column)
        total += width
    return blocks


def _parts(rows: Iterator[list[str]], columns: int) -> Iterator[list[list[str]]]:
    """Yield groups of rows with the same number of cells. Cells of longer rows behind the sample are one cell."""
    is_first = True
    while (part := list(itertools.islice(rows, _ROWS_PER_HEAD))) or is_first:
        is_first = False
        yield [[*row[: columns - 1], " ".join(row[columns - 1 :])] if len(row) > columns > 0 else row for row in part]


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]], columns: Sequence[int]) -> str:
    def cells(row: Sequence[str], element: str) -> str:
        texts = (html.escape(row[column]) if column < len(row) else "" for column in columns)
        return "<tr>" + "".join(f"<{element}>{text}</{element}>" for text in texts) + "</tr>"

    return cells(head, "th") + "".join(cells(row, "td") for row in rows)


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
