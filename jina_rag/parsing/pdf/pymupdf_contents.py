"""Contents of a white page: content that MuPDF cannot decode, and images that are not white."""

from __future__ import annotations

import re
from types import ModuleType

import numpy as np

from jina_rag.parsing.pdf.base import Handle
from jina_rag.parsing.pdf.undrawn import paints

# Messages of MuPDF about streams that it cannot decode or read to the end.
_UNDECODED = re.compile(r"read error|not a stream|filter|lzw|zlib|flate|RLE|cannot load|crypt|image only stream", re.I)
_WHITE = 250
_MAX_PICTURES = 50
# MuPDF skips parts of JBIG2 data without a message. White pictures have fewer bytes, and fewer bytes per pixel.
_WHITE_JBIG2 = 200, 0.001


def has_hidden_content(pymupdf: ModuleType, document: Handle, number: int, messages: str) -> bool:
    """Return whether a page that MuPDF draws white has content: painting operators, or data that cannot be decoded.

    Args:
        pymupdf: The module ``pymupdf``.
        document: A pymupdf.Document.
        number: Page number, 1-based.
        messages: Messages of MuPDF while the page was drawn.
    """
    page = document.load_page(number - 1)
    if page.first_annot or "not a stream" in messages:
        return True
    streams = page.get_contents()
    try:
        # An empty stream is no content, although most filters report the missing data.
        if streams and not any((document.xref_stream_raw(stream) or b"").strip() for stream in streams):
            return False
        return bool(_UNDECODED.search(messages)) or paints(page.read_contents())
    except (RuntimeError, ValueError, pymupdf.mupdf.FzErrorBase):  # the content stream is not a stream
        return True


def has_colored_picture(pymupdf: ModuleType, document: Handle, number: int) -> bool:
    """Return whether a raster image of a page has pixels that are not white. Stencil masks and inline images count not.

    Args:
        pymupdf: The module ``pymupdf``.
        document: A pymupdf.Document.
        number: Page number, 1-based.
    """
    infos = document.load_page(number - 1).get_image_info(xrefs=True)[:_MAX_PICTURES]
    return any(_is_colored(pymupdf, document, xref) for xref in {info["xref"] for info in infos} if xref)


def _is_colored(pymupdf: ModuleType, document: Handle, xref: int) -> bool:
    try:
        pixels = pymupdf.Pixmap(document, xref)
        if "JBIG2" in document.xref_get_key(xref, "Filter")[1]:
            least, share = _WHITE_JBIG2
            if len(document.xref_stream_raw(xref)) > least + share * pixels.width * pixels.height:
                return True
        if pixels.colorspace is None:
            return False
        if pixels.colorspace.n > 1 or pixels.alpha:
            pixels = pymupdf.Pixmap(pymupdf.csGRAY, pixels)
        return bool(np.frombuffer(pixels.samples, dtype=np.uint8)[:: pixels.n].min() < _WHITE)
    except (RuntimeError, ValueError, pymupdf.mupdf.FzErrorBase):  # the image cannot be decoded
        return True
