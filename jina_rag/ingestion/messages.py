"""Messages between this process and its workers: a JSON object and a block of bytes, each with its length before it.

Nothing is pickled: what a hostile document makes of a worker can at worst send its parent wrong numbers.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict
from typing import IO, Any

import numpy as np

from jina_rag.config import IngestSettings
from jina_rag.ingestion.sources import SourceFile
from jina_rag.types import Box, Page, PageScreenshot, Region, Word

_LENGTHS = struct.Struct("=QQ")
_MOST = 1 << 31


def send(stream: IO[bytes], header: Mapping[str, Any], body: bytes | memoryview = b"") -> None:
    """Write one message."""
    text = json.dumps(header).encode("ascii")  # lone surrogates of file names survive as escapes
    stream.write(_LENGTHS.pack(len(text), len(body)))
    stream.write(text)
    stream.write(body)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """Read one message; None at the end of the stream.

    Raises:
        EOFError: If the stream ends within a message, or the message makes no sense.
    """
    lengths = stream.read(_LENGTHS.size)
    if not lengths:
        return None
    if len(lengths) < _LENGTHS.size:
        raise EOFError
    first, second = _LENGTHS.unpack(lengths)
    if max(first, second) > _MOST:
        raise EOFError
    text, body = stream.read(first), stream.read(second)
    if len(text) < first or len(body) < second:
        raise EOFError
    header = json.loads(text)
    if not isinstance(header, dict):
        raise EOFError
    return header, body


def pack_request(source: SourceFile, settings: IngestSettings) -> dict[str, Any]:
    """What the worker needs to open a document."""
    wanted = asdict(settings)
    wanted["passwords"] = list(settings.passwords_for(source.path))
    return {
        "op": "open",
        "path": str(source.path),
        "root": str(source.root),
        "doc_id": source.doc_id,
        "kind": source.kind,
        "settings": wanted,
    }


def pack_page(page: Page, pictures: tuple[Box, ...]) -> tuple[dict[str, Any], bytes]:
    """A rendered page as a message: words' boxes (n, 4) float64, then the pixels, in the block of bytes."""
    image = page.screenshot.image
    boxes = np.array([word.box for word in page.words], dtype=np.float64).tobytes()
    header = {
        "size": image.size,
        "dpi": page.screenshot.dpi,
        "words": [word.text for word in page.words],
        "regions": [[region.kind, region.box, region.caption] for region in page.regions],
        "pictures": pictures,
        "warnings": page.warnings,
    }
    return header, boxes + image.tobytes()


def unpack_page(
    source: SourceFile, number: int, count: int, header: Mapping[str, Any], body: bytes
) -> tuple[Page, tuple[Box, ...]]:
    """The inverse of `pack_page`.

    Raises:
        EOFError: If the message is not what `pack_page` makes.
    """
    from PIL import Image

    try:
        texts = [str(text) for text in header["words"]]
        width, height = (int(side) for side in header["size"])
        split = len(texts) * 32
        if width < 1 or height < 1 or len(body) != split + width * height * 3:
            raise EOFError
        boxes = np.frombuffer(body[:split], dtype=np.float64).reshape(-1, 4).tolist()
        image = Image.frombytes("RGB", (width, height), body[split:])
        page = Page(
            doc_id=source.doc_id,
            path=source.path,
            number=number,
            count=count,
            screenshot=PageScreenshot(image, float(header["dpi"])),
            words=tuple(Word(text, _box(box)) for text, box in zip(texts, boxes, strict=True)),
            regions=tuple(Region(kind, _box(box), str(caption)) for kind, box, caption in header["regions"]),
            warnings=tuple(str(warning) for warning in header["warnings"]),
        )
        return page, tuple(_box(box) for box in header["pictures"])
    except (KeyError, TypeError, ValueError) as error:
        raise EOFError from error


def _box(sides: list[float]) -> Box:
    x0, y0, x1, y1 = (float(side) for side in sides)
    return x0, y0, x1, y1
