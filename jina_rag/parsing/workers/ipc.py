"""Messages between this process and its workers: a JSON object and a block of bytes, each with its length before it.

Nothing is pickled, and nothing of an answer is believed unseen: what a hostile document makes of a worker can at worst
send its parent a wrong page.
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
"""The header of a message, and its block of bytes."""

_LENGTHS = struct.Struct("=QQ")
_MOST = 1 << 31
# Far more than a page can have of each.
_MOST_REGIONS = 2_000
_MOST_WARNINGS = 1_000
# What a JPEG can hold.
_MOST_SIDE = 65_500
# A reason is a sentence or two.
_LONGEST_REASON = 2_000


class InvalidMessageError(Exception):
    """A message that no worker of ours sends: whoever sent it is not to be trusted."""


def send(stream: IO[bytes], header: Mapping[str, Any], body: bytes | memoryview = b"") -> None:
    """Write one message."""
    text = json.dumps(header).encode("ascii")  # lone surrogates of file names survive as escapes
    stream.write(_LENGTHS.pack(len(text), len(body)))
    stream.write(text)
    stream.write(body)
    stream.flush()


def receive(stream: IO[bytes]) -> Answer | None:
    """Read one message; None at the end of the stream.

    Raises:
        EOFError: If the stream ends within a message.
        InvalidMessageError: If it is none.
    """
    lengths = stream.read(_LENGTHS.size)
    if not lengths:
        return None
    if len(lengths) < _LENGTHS.size:
        raise EOFError
    first, second = _LENGTHS.unpack(lengths)
    if max(first, second) > _MOST:
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
    """What the worker needs to open a document."""
    return {
        "op": "open",
        "path": os.path.abspath(source.path),
        "root": os.path.abspath(source.root),
        "doc_id": source.doc_id,
        "kind": source.kind,
        "settings": {**asdict(settings), "passwords": settings.passwords_for(source.path)},
    }


def pack_page(page: Page, images: tuple[Box, ...]) -> tuple[dict[str, Any], bytes]:
    """A rendered page as a message: words' boxes (n, 4) float64, then the pixels, in the block of bytes."""
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
    """The error that an answer tells of, as an exception of the same class; None where it tells of none.

    Only what can be wrong with a document, or with this installation, comes out as such.

    Raises:
        InvalidMessageError: If it tells of one without saying which.
    """
    if "error" not in header:
        return None
    name, message = header["error"], header.get("message")
    if not isinstance(name, str) or not isinstance(message, str):
        raise InvalidMessageError
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, DocumentError | MissingDependencyError)):
        kind = DocumentError
    return kind(message[:_LONGEST_REASON])


def unpack_opened(header: Mapping[str, Any], limits: Limits) -> tuple[int, tuple[str, ...]]:
    """What a worker says of a document that it has opened: the count of its pages, and warnings.

    Raises:
        InvalidMessageError: If it makes no sense.
    """
    count = header.get("count")
    if type(count) is not int or not 1 <= count <= limits.max_pages:
        raise InvalidMessageError
    return count, _texts(header.get("warnings"), _MOST_WARNINGS)


def unpack_page(
    source: SourceFile, number: int, count: int, header: Mapping[str, Any], body: bytes, limits: Limits
) -> tuple[Page, tuple[Box, ...]]:
    """The inverse of `pack_page`; boxes are brought onto the page.

    Raises:
        InvalidMessageError: If the message is not what `pack_page` makes of a page within the limits.
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
            warnings=_texts(header["warnings"], _MOST_WARNINGS),
        )
        return page, tuple(_boxes(header["images"]))
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidMessageError from error


def _texts(value: Any, most: int) -> tuple[str, ...]:  # noqa: ANN401  # what JSON holds
    if not isinstance(value, list) or len(value) > most or not all(isinstance(text, str) for text in value):
        raise InvalidMessageError
    return tuple(value)


def _size(value: Any, limits: Limits) -> tuple[int, int]:  # noqa: ANN401
    """Width and height of a picture."""
    width, height = value
    if any(type(side) is not int or not 1 <= side <= _MOST_SIDE for side in (width, height)):
        raise InvalidMessageError
    # A renderer rounds both sides up, which adds a row and a column at most.
    if (width - 1) * (height - 1) > limits.max_render_pixels * 1.01:
        raise InvalidMessageError
    return width, height


def _regions(value: Any) -> tuple[Region, ...]:  # noqa: ANN401
    if not isinstance(value, list) or len(value) > _MOST_REGIONS:
        raise InvalidMessageError
    kinds, captions = [kind for kind, _, _ in value], _texts([caption for _, _, caption in value], _MOST_REGIONS)
    if not all(kind in get_args(RegionKind) for kind in kinds):
        raise InvalidMessageError
    boxes = _boxes([box for _, box, _ in value])
    return tuple(Region(*parts) for parts in zip(kinds, boxes, captions, strict=True))


def _boxes(sides: Any) -> list[Box]:  # noqa: ANN401
    """Boxes within the page, the first corner of each left of and above the second."""
    array = np.asarray(sides, dtype=np.float64).reshape(len(sides), 4)
    if not np.isfinite(array).all():
        raise InvalidMessageError
    array = array.clip(0, 1)
    first, second = np.minimum(array[:, :2], array[:, 2:]), np.maximum(array[:, :2], array[:, 2:])
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in np.hstack((first, second)).tolist()]
