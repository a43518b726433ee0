"""Recognition of the text formats by the suffix and the first bytes of a file.

Most of these formats have no signature, so that the suffix is required. The content must be text (or an EPUB archive).
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Final, Literal, TypeAlias

TextFormat: TypeAlias = Literal["html", "epub", "markdown", "plain", "table", "mail"]

SUFFIXES: Final[dict[str, TextFormat]] = {
    ".html": "html", ".htm": "html", ".xhtml": "html", ".epub": "epub", ".md": "markdown", ".markdown": "markdown",
    ".txt": "plain", ".text": "plain", ".csv": "table", ".tsv": "table", ".eml": "mail",
}  # fmt: skip
"""Suffix → format."""
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")
_EPUB_ENTRY = b"mimetypeapplication/epub+zip"
_MAIL_HEADER = re.compile(rb"(?:\xef\xbb\xbf)?(?:From [^\n]*\n|[!-9;-~]+:[^\n]*\n)")


def text_format(path: PurePath) -> TextFormat | None:
    """Return the text format that belongs to the suffix of a file; None for other suffixes."""
    return SUFFIXES.get(path.suffix.lower())


def is_text_document(path: PurePath, head: bytes) -> bool:
    """Return whether a file has one of the text formats.

    Args:
        path: Path of the file.
        head: The first 1,024 bytes of the file, or the whole content of a shorter file.
    """
    kind = text_format(path)
    if kind is None or not head:
        return False
    if kind == "epub":
        return head.startswith(b"PK\3\4") and head[30:].startswith(_EPUB_ENTRY)
    if head.startswith(_BYTE_ORDER_MARKS):
        return kind != "mail"
    is_text = b"\0" not in head and head[:4] != b"PK\3\4"
    return is_text and (kind != "mail" or _MAIL_HEADER.match(head) is not None)
