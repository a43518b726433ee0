"""Messages between the parent process and worker processes.

A message consists of the length of the header, the length of the body, the header (JSON) and the body (bytes).

Messages contain no pickled objects, and the parent process validates every value of an answer. If a hostile document
compromises a worker, the worker can therefore only send a wrong page.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import asdict
from typing import IO, Any, TypeAlias, get_args

import numpy as np

from jina_rag import errors
from jina_rag.config import IngestSettings, Limits
from jina_rag.errors import DocumentError, MissingDependencyError
from jina_rag.parsing.sources import SourceFile
from jina_rag.types import Box, Page, PageScreenshot, Region, RegionKind, Word

Answer: TypeAlias = tuple[dict[str, Any], bytes]
"""(header, body) of a message."""

_LENGTHS = struct.Struct("=QQ")
_MAX_LENGTH = 1 << 31
# Maximum number of regions and of warnings of a page. Real pages have far fewer.
_MAX_REGIONS = 2_000
_MAX_WARNINGS = 1_000
# Maximum side of a JPEG image in pixels.
_MAX_SIDE = 65_500
# Maximum length of an error message in characters.
_MAX_REASON_LENGTH = 2_000


class InvalidMessageError(Exception):
    """A message violates the protocol. The process that sent the message is no longer trusted."""


def send(stream: IO[bytes], header: Mapping[str, Any], body: bytes | memoryview = b"") -> None:
    """Write a message to a pipe and flush the pipe.

    Args:
        stream: The pipe.
        header: Header of the message, a JSON object.
        body: Binary data of the message. Only the answer with a rendered page has a body (see `pack_page`).
    """
    text = json.dumps(header).encode("ascii")  # ASCII escapes preserve lone surrogates of file names
    stream.write(_LENGTHS.pack(len(text), len(body)))
    stream.write(text)
    stream.write(body)
    stream.flush()


def receive(stream: IO[bytes]) -> Answer | None:
    """Read a message from a pipe.

    Args:
        stream: The pipe.

    Returns:
        (header, body); None if the sending process has closed the pipe.

    Raises:
        EOFError: If the pipe is closed within a message.
        InvalidMessageError: If the header is not a JSON object or a length exceeds 2 GiB.
    """
    lengths = stream.read(_LENGTHS.size)
    if not lengths:
        return None
    if len(lengths) < _LENGTHS.size:
        raise EOFError
    first, second = _LENGTHS.unpack(lengths)
    if max(first, second) > _MAX_LENGTH:
        raise InvalidMessageError
    text, body = stream.read(first), stream.read(second)
    if len(text) < first or len(body) < second:
        raise EOFError
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidMessageError from error
    if not isinstance(header, dict):
        raise InvalidMessageError
    return header, body


def pack_request(source: SourceFile, settings: IngestSettings) -> dict[str, Any]:
    """Return the request to open a document.

    Args:
        source: The document.
        settings: Settings of the ingestion. Only the passwords configured for the path of the document are sent.
    """
    return {
        "op": "open",
        "path": os.path.abspath(source.path),
        "root": os.path.abspath(source.root),
        "doc_id": source.doc_id,
        "kind": source.kind,
        "settings": {**asdict(settings), "passwords": settings.passwords_for(source.path)},
    }


def pack_page(page: Page, images: tuple[Box, ...]) -> tuple[dict[str, Any], bytes]:
    """Return the header and body of the message that contains a rendered page.

    Args:
        page: The page.
        images: Boxes of the raster images, as fractions of the page.

    Returns:
        (header, body). The body contains the boxes of the words, shape (n, 4), float64, followed by the RGB pixels.
    """
    image = page.screenshot.image
    boxes = np.array([word.box for word in page.words], dtype=np.float64).tobytes()
    header = {
        "size": image.size,
        "dpi": page.screenshot.dpi,
        "words": [word.text for word in page.words],
        "regions": [[region.kind, region.box, region.caption] for region in page.regions],
        "images": images,
        "warnings": page.warnings,
    }
    return header, boxes + image.tobytes()


def unpack_error(header: Mapping[str, Any]) -> DocumentError | MissingDependencyError | None:
    """Return the error that a worker reports in an answer; None if the answer contains no error.

    Args:
        header: Header of the answer.

    Returns:
        An exception of the reported class if the class derives from DocumentError or MissingDependencyError; otherwise
        a DocumentError. None if the answer contains no error.

    Raises:
        InvalidMessageError: If the class or the message of the error is not a string.
    """
    if "error" not in header:
        return None
    name, message = header["error"], header.get("message")
    if not isinstance(name, str) or not isinstance(message, str):
        raise InvalidMessageError
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, DocumentError | MissingDependencyError)):
        kind = DocumentError
    return kind(message[:_MAX_REASON_LENGTH])


def unpack_opened(header: Mapping[str, Any], limits: Limits) -> tuple[int, tuple[str, ...]]:
    """Return the number of pages and the warnings of a document opened by a worker.

    Args:
        header: Header of the answer.
        limits: Resource limits, for `max_pages`.

    Raises:
        InvalidMessageError: If the number of pages or the warnings are invalid.
    """
    count = header.get("count")
    if type(count) is not int or not 1 <= count <= limits.max_pages:
        raise InvalidMessageError
    return count, _texts(header.get("warnings"), _MAX_WARNINGS)


def unpack_page(
    source: SourceFile, number: int, count: int, header: Mapping[str, Any], body: bytes, limits: Limits
) -> tuple[Page, tuple[Box, ...]]:
    """Return the page in a message from `pack_page`. All boxes are clipped to the page.

    Args:
        source: The document.
        number: Page number, 1-based.
        count: Number of pages in the document.
        header: Header of the message, as returned by `pack_page`.
        body: Body of the message: boxes of the words and RGB pixels.
        limits: Resource limits, for `max_words` and `max_render_pixels`.

    Returns:
        The page, and the boxes of the raster images as fractions of the page.

    Raises:
        InvalidMessageError: If the message is malformed or the page exceeds the limits.
    """
    from PIL import Image

    try:
        texts = _texts(header["words"], limits.max_words)
        size = _size(header["size"], limits)
        dpi = float(header["dpi"])
        split = len(texts) * 32
        if not math.isfinite(dpi) or len(body) != split + size[0] * size[1] * 3:
            raise InvalidMessageError
        boxes = _boxes(np.frombuffer(body[:split], dtype=np.float64).reshape(-1, 4))
        page = Page(
            doc_id=source.doc_id,
            path=source.path,
            number=number,
            count=count,
            screenshot=PageScreenshot(Image.frombytes("RGB", size, body[split:]), dpi),
            words=tuple(Word(text, box) for text, box in zip(texts, boxes, strict=True)),
            regions=_regions(header["regions"]),
            warnings=_texts(header["warnings"], _MAX_WARNINGS),
        )
        return page, tuple(_boxes(header["images"]))
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidMessageError from error


def _texts(value: Any, maximum: int) -> tuple[str, ...]:  # noqa: ANN401  # a JSON value
    if not isinstance(value, list) or len(value) > maximum or not all(isinstance(text, str) for text in value):
        raise InvalidMessageError
    return tuple(value)


def _size(value: Any, limits: Limits) -> tuple[int, int]:  # noqa: ANN401
    """Return the validated width and height of an image."""
    width, height = value
    if any(type(side) is not int or not 1 <= side <= _MAX_SIDE for side in (width, height)):
        raise InvalidMessageError
    # The limit is relaxed, because renderers round both sides up, which adds at most one row and one column.
    if (width - 1) * (height - 1) > limits.max_render_pixels * 1.01:
        raise InvalidMessageError
    return width, height


def _regions(value: Any) -> tuple[Region, ...]:  # noqa: ANN401
    if not isinstance(value, list) or len(value) > _MAX_REGIONS:
        raise InvalidMessageError
    kinds, captions = [kind for kind, _, _ in value], _texts([caption for _, _, caption in value], _MAX_REGIONS)
    if not all(kind in get_args(RegionKind) for kind in kinds):
        raise InvalidMessageError
    boxes = _boxes([box for _, box, _ in value])
    return tuple(Region(*parts) for parts in zip(kinds, boxes, captions, strict=True))


def _boxes(sides: Any) -> list[Box]:  # noqa: ANN401
    """Return boxes that are clipped to the page and start with the top left corner."""
    array = np.asarray(sides, dtype=np.float64).reshape(len(sides), 4)
    if not np.isfinite(array).all():
        raise InvalidMessageError
    array = array.clip(0, 1)
    first, second = np.minimum(array[:, :2], array[:, 2:]), np.maximum(array[:, :2], array[:, 2:])
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in np.hstack((first, second)).tolist()]
