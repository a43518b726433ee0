"""Messages between the parent process and worker processes.

A message consists of the length of the header, the length of the body, the header (JSON) and the body (bytes). A
message with a body is written to the shared memory of the worker if it fits, and the pipe transfers only the lengths.

Messages contain no pickled objects, and the parent process validates every value of an answer. If a hostile document
compromises a worker, the worker can therefore only send a wrong page.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from itertools import pairwise
from typing import IO, Any, TypeAlias, get_args

import numpy as np

from jina_rag import errors
from jina_rag.config import IngestSettings, Limits
from jina_rag.errors import DocumentError, MissingDependencyError
from jina_rag.parsing.preparation import crop_size
from jina_rag.parsing.sources import SourceFile
from jina_rag.parsing.workers.jpeg_check import is_encoded_image
from jina_rag.types import (
    Box,
    EncodedImage,
    LostText,
    Page,
    PageScreenshot,
    PreparedPage,
    Region,
    RegionKind,
    SparseVector,
    SuspectText,
    Word,
)

Answer: TypeAlias = tuple[dict[str, Any], bytes | memoryview]
"""(header, body) of a message. A memoryview refers to shared memory, which the next message overwrites."""

_LENGTHS = struct.Struct("=QQ")
# Maximum length of a header in bytes. The header of a page with the maximum number of words has about 1 MB.
_MAX_HEADER = 32 * 1024**2
# Bytes of a body beside its pixels: boxes of words, term weights, and images of regions.
_BODY_RESERVE = 64 * 1024**2
# Maximum length of a word, a caption or the name of a font, and of a warning, in characters.
_MAX_TEXT_LENGTH = 1_000_000
_MAX_WARNING_LENGTH = 10_000
# Flag in the length of the header: header and body are in shared memory.
_IS_SHARED = 1 << 63
# Maximum number of regions and of warnings of a page. Real pages have far fewer.
_MAX_REGIONS = 2_000
_MAX_WARNINGS = 1_000
# Maximum number of suspects of a page, one per font, and of runs of lost text of a suspect.
_MAX_SUSPECTS = 1_000
_MAX_LOST = 20_000
# Maximum number of attachments that a worker reports. `Limits.max_attachments` limits how many are read.
_MAX_NAMES = 1_000_000
# Maximum side of a JPEG image in pixels.
_MAX_SIDE = 65_500
# Maximum length of an error message in characters.
_MAX_REASON_LENGTH = 2_000


class InvalidMessageError(Exception):
    """A message violates the protocol. The process that sent the message is no longer trusted."""


def write(
    stream: IO[bytes],
    header: Mapping[str, Any],
    body: Sequence[bytes | memoryview] = (),
    memory: mmap.mmap | None = None,
) -> None:
    """Write a message to a pipe, without flushing the pipe.

    Args:
        stream: The pipe.
        header: Header of the message, a JSON object.
        body: Parts of the binary data of the message. Only the answer with a rendered page has a body (see
            `pack_page`).
        memory: Shared memory for a message with a body; None to write the whole message to the pipe.
    """
    text = json.dumps(header).encode("ascii")  # ASCII escapes preserve lone surrogates of file names
    length = sum(map(len, body))
    if body and memory is not None and len(text) + length <= len(memory):
        position = 0
        for part in (text, *body):
            memory[position : position + len(part)] = part
            position += len(part)
        stream.write(_LENGTHS.pack(len(text) | _IS_SHARED, length))
        return
    stream.write(_LENGTHS.pack(len(text), length))
    for part in (text, *body):
        stream.write(part)


def max_body_bytes(limits: Limits) -> int:
    """Return the maximum length of the body of a message with a page, in bytes.

    Args:
        limits: Resource limits, for `max_render_pixels`.
    """
    # 3 bytes per pixel, and at most as many for the JPEG files of the page and of its regions.
    return 6 * limits.max_render_pixels + _BODY_RESERVE


def receive(stream: IO[bytes], memory: mmap.mmap | None = None, *, max_body: int = 0) -> Answer | None:
    """Read a message from a pipe.

    Args:
        stream: The pipe.
        memory: Memory that the sending process shares with this process; None if there is no shared memory.
        max_body: Maximum length of the body in bytes.

    Returns:
        (header, body); None if the sending process has closed the pipe.

    Raises:
        EOFError: If the pipe is closed within a message.
        InvalidMessageError: If the header is not a JSON object or is longer than 32 MiB, the body is longer than
            `max_body`, or the message exceeds the shared memory.
    """
    lengths = stream.read(_LENGTHS.size)
    if not lengths:
        return None
    if len(lengths) < _LENGTHS.size:
        raise EOFError
    first, second = _LENGTHS.unpack(lengths)
    text: bytes | memoryview
    body: bytes | memoryview
    if first & _IS_SHARED:
        first ^= _IS_SHARED
        if memory is None or first > _MAX_HEADER or first + second > len(memory):
            raise InvalidMessageError
        shared = memoryview(memory)
        text, body = bytes(shared[:first]), shared[first : first + second]
    else:
        if first > _MAX_HEADER or second > max_body:
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


def pack_request(source: SourceFile, settings: IngestSettings, document: int) -> dict[str, Any]:
    """Return the request to open a document.

    Args:
        source: The document.
        settings: Settings of the ingestion. Only the passwords configured for the path of the document are sent.
        document: Key of the document in later requests.
    """
    options = {item.name: getattr(settings, item.name) for item in fields(settings)}
    options["limits"] = asdict(settings.limits)
    options["passwords"] = settings.passwords_for(source.path)
    return {
        "op": "open",
        "document": document,
        "path": os.path.abspath(source.path),
        "root": os.path.abspath(source.root),
        "doc_id": source.doc_id,
        "kind": source.kind,
        "settings": options,
    }


def pack_page(page: Page, images: tuple[Box, ...]) -> tuple[dict[str, Any], list[bytes]]:
    """Return the header and body of the message that contains a rendered page.

    Args:
        page: The page.
        images: Boxes of the raster images, as fractions of the page.

    Returns:
        (header, parts of the body). The body contains the boxes of the words, shape (n, 4), float64, the RGB pixels,
        and the data of ``page.prepared``: for each set of term weights the indices, uint32, and the values, float32;
        then the JPEG files. The header contains the lengths.
    """
    image = page.screenshot.image
    header = {
        "size": image.size,
        "dpi": page.screenshot.dpi,
        "words": [word.text for word in page.words],
        "regions": [[region.kind, region.box, region.caption] for region in page.regions],
        "images": images,
        "warnings": page.warnings,
        "suspects": [
            [item.kind, item.font, item.words, [[lost.box, lost.position] for lost in item.lost], item.is_certain]
            for item in page.suspects
        ],
    }
    body = [np.array([word.box for word in page.words], dtype=np.float64).tobytes(), image.tobytes()]
    if page.prepared is not None:
        weights = (page.prepared.lexical, *page.prepared.region_lexical)
        files = (page.prepared.screenshot, *page.prepared.crops)
        header["terms"] = [len(vector.indices) for vector in weights]
        header["jpegs"] = [len(file.content) for file in files]
        for vector in weights:
            body += [vector.indices.tobytes(), vector.values.tobytes()]
        body += [file.content for file in files]
    return header, body


def clip_regions(page: Page) -> Page:
    """Return a page with the regions as `unpack_page` returns them, so that the crops in ``Page.prepared`` agree.

    Args:
        page: The rendered page.
    """
    boxes = _boxes([region.box for region in page.regions])
    return replace(page, regions=tuple(replace(r, box=box) for r, box in zip(page.regions, boxes, strict=True)))


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
    return count, _texts(header.get("warnings"), _MAX_WARNINGS, _MAX_WARNING_LENGTH)


def unpack_names(header: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the attachments of a file opened by a worker.

    Args:
        header: Header of the answer.

    Raises:
        InvalidMessageError: If the names are invalid.
    """
    return _texts(header.get("names"), _MAX_NAMES)


def unpack_page(
    source: SourceFile,
    number: int,
    count: int,
    header: Mapping[str, Any],
    body: bytes | memoryview,
    settings: IngestSettings,
    *,
    prepared: bool = False,
) -> tuple[Page, tuple[Box, ...]]:
    """Return the page in a message from `pack_page`. All boxes are clipped to the page.

    Args:
        source: The document.
        number: Page number, 1-based.
        count: Number of pages in the document.
        header: Header of the message, as returned by `pack_page`.
        body: Body of the message, as described in `pack_page`. The page contains no reference to the body.
        settings: Settings of the ingestion, for `limits` and `jpeg_quality`.
        prepared: Whether the message contains ``Page.prepared``.

    Returns:
        The page, and the boxes of the raster images as fractions of the page.

    Raises:
        InvalidMessageError: If the message is malformed or the page exceeds the limits.
    """
    from PIL import Image

    limits = settings.limits
    parts = _Parts(body)
    try:
        texts = _texts(header["words"], limits.max_words)
        size = _size(header["size"], limits)
        dpi = float(header["dpi"])
        if not math.isfinite(dpi):
            raise InvalidMessageError
        boxes = _boxes(np.frombuffer(parts.take(len(texts) * 32), dtype=np.float64).reshape(-1, 4))
        image = Image.new("RGB", size, None)  # unlike `frombytes` of the class, without filling the image with black
        image.frombytes(parts.take(size[0] * size[1] * 3))
        page = Page(
            doc_id=source.doc_id,
            path=source.path,
            number=number,
            count=count,
            screenshot=PageScreenshot(image, dpi),
            words=tuple(map(Word, texts, boxes)),  # a page has hundreds of words: `map` takes half the time of a loop
            regions=_regions(header["regions"]),
            warnings=_texts(header["warnings"], _MAX_WARNINGS, _MAX_WARNING_LENGTH),
            suspects=_suspects(header["suspects"], len(texts)),
        )
        if prepared:
            page = page.with_prepared(_prepared(page, header, parts, settings.jpeg_quality))
        parts.check_end()
        return page, tuple(_boxes(header["images"]))
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidMessageError from error


class _Parts:
    """The parts of a body, taken in order."""

    def __init__(self, body: bytes | memoryview) -> None:
        self._body = memoryview(body)
        self._position = 0

    def take(self, length: int) -> memoryview:
        part = self._body[self._position : self._position + length]
        if len(part) < length:
            raise InvalidMessageError
        self._position += length
        return part

    def check_end(self) -> None:
        if self._position != len(self._body):
            raise InvalidMessageError


def _prepared(page: Page, header: Mapping[str, Any], parts: _Parts, quality: int) -> PreparedPage:
    """Return the validated data of ``Page.prepared``. The hashes are computed here, because an index trusts them."""
    term_counts, lengths = (_lengths(header[key], len(page.regions) + 1) for key in ("terms", "jpegs"))
    weights = [_weights(parts, count) for count in term_counts]
    sizes = [page.screenshot.image.size, *(crop_size(page, region.box) for region in page.regions)]
    files = [_jpeg(bytes(parts.take(length)), size, quality) for length, size in zip(lengths, sizes, strict=True)]
    return PreparedPage(files[0], tuple(files[1:]), weights[0], tuple(weights[1:]))


def _lengths(value: Any, count: int) -> list[int]:  # noqa: ANN401  # a JSON value
    if not isinstance(value, list) or len(value) != count:
        raise InvalidMessageError
    if any(type(length) is not int or length < 0 for length in value):
        raise InvalidMessageError
    return value


def _weights(parts: _Parts, count: int) -> SparseVector:
    """Return validated term weights: unique indices in ascending order, and positive weights."""
    indices = np.frombuffer(bytes(parts.take(4 * count)), dtype=np.uint32)
    values = np.frombuffer(bytes(parts.take(4 * count)), dtype=np.float32)
    if (indices[1:] <= indices[:-1]).any() or not (np.isfinite(values) & (values > 0)).all():
        raise InvalidMessageError
    return SparseVector(indices, values)


def _jpeg(content: bytes, size: tuple[int, int], quality: int) -> EncodedImage:
    if not is_encoded_image(content, size, quality):
        raise InvalidMessageError
    return EncodedImage(content, hashlib.sha256(content).hexdigest(), quality)


def _texts(value: Any, maximum: int, length: int = _MAX_TEXT_LENGTH) -> tuple[str, ...]:  # noqa: ANN401  # a JSON value
    if not isinstance(value, list) or len(value) > maximum or not set(map(type, value)) <= {str}:
        raise InvalidMessageError
    if max(map(len, value), default=0) > length:
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


def _suspects(value: Any, words: int) -> tuple[SuspectText, ...]:  # noqa: ANN401
    """Return validated suspects: word indices in ascending order, and positions between the words of the page."""
    if not value:  # almost every page
        return ()
    _texts([font for _, font, _, _, _ in value], _MAX_SUSPECTS)
    suspects = []
    for kind, font, indices, lost, is_certain in value:
        numbers = [*indices, *(position for _, position in lost)]
        if kind not in ("letters", "digits") or type(is_certain) is not bool or len(lost) > _MAX_LOST:
            raise InvalidMessageError
        if any(type(number) is not int or not 0 <= number <= words for number in numbers):
            raise InvalidMessageError
        if any(second <= first for first, second in pairwise([-1, *indices, words])):
            raise InvalidMessageError
        boxes = _boxes([box for box, _ in lost])
        lost_texts = tuple(LostText(box, position) for box, (_, position) in zip(boxes, lost, strict=True))
        suspects.append(SuspectText(kind, font, tuple(indices), lost_texts, is_certain))
    return tuple(suspects)


def _boxes(sides: Any) -> list[Box]:  # noqa: ANN401
    """Return boxes that are clipped to the page and start with the top left corner."""
    array = np.asarray(sides, dtype=np.float64).reshape(len(sides), 4)
    if not np.isfinite(array).all():
        raise InvalidMessageError
    array = array.clip(0, 1)
    first, second = np.minimum(array[:, :2], array[:, 2:]), np.maximum(array[:, :2], array[:, 2:])
    return list(map(tuple, np.hstack((first, second)).tolist()))
