"""Check of the JPEG files that a worker process sends.

A worker may be compromised by a document, and the files are stored and decoded later. A file is therefore accepted only
if all bytes except the compressed pixels are those that `encode_jpeg` writes: no other tables, markers or metadata.
"""

from __future__ import annotations

import re
import struct
from functools import cache

from jina_rag.images import encode_jpeg

_START_OF_FRAME, _START_OF_SCAN, _END_OF_IMAGE = 0xC0, 0xDA, b"\xff\xd9"
# In compressed pixels, a zero follows each byte 255; any other byte starts a marker.
_MARKER = re.compile(rb"\xff[^\x00]")
_SIZE = struct.Struct(">HH")


def is_encoded_image(content: bytes, size: tuple[int, int], quality: int) -> bool:
    """Return whether a file has the form of a file of `encode_jpeg`.

    Args:
        content: Content of the file.
        size: Expected width and height of the image, in pixels.
        quality: JPEG quality, 1 to 100.
    """
    header, position = _header(quality)
    width, height = size
    expected = header[:position] + _SIZE.pack(height, width) + header[position + _SIZE.size :]
    return (
        len(content) >= len(expected) + len(_END_OF_IMAGE)
        and content.startswith(expected)
        and content.endswith(_END_OF_IMAGE)
        # The search includes the first byte of the end of the image, so that a byte 255 before the end is found, too.
        and _MARKER.search(content, len(expected), len(content) - 1) is None
    )


@cache
def _header(quality: int) -> tuple[bytes, int]:
    """Return the bytes before the compressed pixels of an image, and the position of height and width in the bytes."""
    from PIL import Image

    content = encode_jpeg(Image.new("RGB", (1, 1)), quality).content
    position, size_position = 2, 0  # after the marker of the start of the image
    while True:
        marker, length = content[position + 1], struct.unpack_from(">H", content, position + 2)[0]
        if marker == _START_OF_FRAME:
            size_position = position + 5  # marker, length and number of bits precede the size
        position += 2 + length
        if marker == _START_OF_SCAN:
            return content[:position], size_position
