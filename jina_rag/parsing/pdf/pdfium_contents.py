"""Detection of page content that PDFium cannot decode and omits without an error."""

from __future__ import annotations

import re
import zlib

from jina_rag.parsing.pdf.pdfium_library import PdfiumFile
from jina_rag.parsing.pdf.undrawn import paints

# Names and abbreviations of the stream filters that PDFium supports.
_FILTERS = {
    b"FlateDecode", b"Fl", b"LZWDecode", b"LZW", b"ASCII85Decode", b"A85", b"ASCIIHexDecode", b"AHx",
    b"RunLengthDecode", b"RL", b"CCITTFaxDecode", b"CCF", b"DCTDecode", b"DCT", b"JBIG2Decode", b"JPXDecode", b"Crypt",
}  # fmt: skip
_FILTER = re.compile(rb"/Filter\s*(?:/([^\s/<>\[\]()]+)|\[([^\]]*)\])")
_CONTENTS = re.compile(rb"/Contents\s*(?:(\d+)\s+\d+\s+R|\[([^\]]*)\])")
# Maximum number of bytes that are read from the copy of a page or from a decoded stream.
_MAX_BYTES = 16 * 1024**2


def has_content(file: PdfiumFile, index: int) -> bool:
    """Return whether a page has content, although PDFium reports no objects on the page.

    The page has content if a stream contains painting operators, or PDFium cannot decode a stream.

    Args:
        file: The open document.
        index: Index of the page, 0-based.
    """
    copy = file.copy_page(index, _MAX_BYTES)
    if any(name not in _FILTERS for match in _FILTER.finditer(copy) for name in _names(match)):
        return True
    contents = _CONTENTS.search(copy)
    numbers = re.findall(rb"(\d+)\s+\d+\s+R", contents[0]) if contents else []
    return any(_paints_or_is_damaged(copy, number) for number in numbers)


def _names(filters: re.Match[bytes]) -> list[bytes]:
    single, array = filters.groups(b"")
    return [single] if single else re.findall(rb"/([^\s/<>\[\]()]+)", array)


def _paints_or_is_damaged(copy: bytes, number: bytes) -> bool:
    stream = re.search(rb"(?:^|[\r\n])" + number + rb" 0 obj(.*?)stream\r?\n(.*?)endstream", copy, re.DOTALL)
    if not stream:
        return False
    header, data = stream.groups()
    if not data.strip():  # an empty stream is no damage, also with a filter that expects data
        return False
    names = [name for match in _FILTER.finditer(header) for name in _names(match)]
    if names in ([b"FlateDecode"], [b"Fl"]):
        try:
            data = zlib.decompressobj().decompress(data, _MAX_BYTES)
        except zlib.error:
            return True
    elif names:
        return False  # PDFium supports the filters, decoded the stream and found nothing to paint
    return paints(data)
