"""Messages between the process of the caller and the processes of the devices.

A message consists of a JSON header and buffers of bytes: pixels, image files and arrays. Values are sent as JSON with
tags, never as pickles, so that a process that a hostile image compromises can only send wrong values.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import fields
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from jina_rag.config import Limits
from jina_rag.types import Attribution, Embeddings, Page, PageScreenshot, TokenGrid, Word

Bytes: TypeAlias = "bytes | bytearray | memoryview | npt.NDArray[Any]"
Buffer: TypeAlias = npt.NDArray[np.uint8]

_COUNTS = struct.Struct("=QQ")
_MAX_HEADER = 1 << 31
_MAX_BUFFERS = 1 << 24
_RESULTS = {kind.__name__: kind for kind in (Attribution, Embeddings, TokenGrid)}
_PIXEL_MODES = {"RGB": 3, "L": 1, "RGBA": 4}
"""Modes of the images that are sent as raw pixels, and the bytes per pixel."""
_ORIENTATION = 0x0112


class InvalidMessageError(Exception):
    """A message violates the protocol. The sending process is no longer used."""


class MessageWriter:
    """Writes messages to a pipe; thread-safe.

    Args:
        stream: The pipe.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def send(self, header: Mapping[str, Any], buffers: Sequence[Bytes] = ()) -> None:
        """Write a message and flush the pipe.

        Args:
            header: A JSON object.
            buffers: Contiguous buffers of bytes.

        Raises:
            OSError: If the receiving process has ended.
        """
        text = json.dumps(header).encode("ascii")  # ASCII escapes preserve lone surrogates
        views: list[Any] = [_bytes_view(buffer) for buffer in buffers]
        lengths = np.array([len(view) for view in views], np.uint64).tobytes()
        parts = [_COUNTS.pack(len(text), len(views)), lengths, text, *views]
        with self._lock:
            for part in parts:
                self._stream.write(part)
            self._stream.flush()


def _bytes_view(buffer: Any) -> memoryview:  # noqa: ANN401  # a contiguous buffer
    view = memoryview(buffer)
    return view.cast("B") if view.nbytes else memoryview(b"")  # views without elements cannot be cast


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], list[Buffer]] | None:
    """Read a message from a pipe.

    Args:
        stream: The pipe, buffered.

    Returns:
        The header and the buffers, each of shape (bytes,), uint8; None if the sending process has closed the pipe.

    Raises:
        EOFError: If the pipe is closed within a message.
        InvalidMessageError: If the header is not a JSON object, or a length is out of range.
    """
    start = stream.read(_COUNTS.size)
    if not start:
        return None
    if len(start) < _COUNTS.size:
        raise EOFError
    header_length, count = _COUNTS.unpack(start)
    if header_length > _MAX_HEADER or count > _MAX_BUFFERS:
        raise InvalidMessageError
    lengths = np.frombuffer(_read(stream, 8 * count), np.uint64).tolist()
    text = _read(stream, header_length).tobytes()
    buffers = [_read(stream, length) for length in lengths]
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidMessageError from exc
    if not isinstance(header, dict):
        raise InvalidMessageError
    return header, buffers


def _read(stream: IO[bytes], length: int) -> Buffer:
    try:
        buffer = np.empty(length, np.uint8)
    except (ValueError, MemoryError) as exc:
        raise InvalidMessageError from exc
    view, source = buffer.data, cast(BufferedReader, stream)
    while view:
        received = source.readinto(view)
        if not received:
            raise EOFError
        view = view[received:]
    return buffer


class Packer:
    """Converts values to JSON values and buffers. An object that occurs several times is sent once.

    Supported are texts, numbers, booleans, None, bytes, paths, arrays, PIL images, pages, mappings, sequences, and the
    results of models. Any other object is replaced by an object whose class has the same name, so that the receiving
    process rejects the object with the same message as the sending process would.

    Attributes:
        buffers: The buffers that the packed values refer to.
    """

    def __init__(self) -> None:
        self.buffers: list[Bytes] = []
        self._numbers: dict[int, int] = {}
        self._sources: list[object] = []  # keeps the objects alive, so that an id is not reused

    def pack(self, value: object) -> Any:  # noqa: ANN401  # a JSON value
        """Return a value as JSON; see the class.

        Args:
            value: The value.

        Raises:
            OSError: If the file of a PIL image that is not decoded yet is damaged.
        """
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float | str | np.integer | np.floating | np.bool_):
            return plain(value)
        if id(value) in self._numbers:
            return {"same": self._numbers[id(value)]}
        return self._number(value, self._pack_object(value))

    def pack_input(self, value: object, modality: str) -> Any:  # noqa: ANN401
        """Return an input of a model as JSON. A page is sent without the parts that the model does not read.

        Args:
            value: A query or a document.
            modality: ``"image"`` sends a page without words; ``"text"`` replaces the screenshot by one white pixel.
        """
        if isinstance(value, Page) and id(value) not in self._numbers:
            return self._number(value, self._pack_page(value, words=modality != "image", image=modality != "text"))
        return self.pack(value)

    def _number(self, value: object, packed: dict[str, Any]) -> dict[str, Any]:
        """Assign the next number to an object. The `Unpacker` restores the objects in the order of the numbers."""
        self._numbers[id(value)] = len(self._numbers)
        self._sources.append(value)
        return packed

    def _pack_object(self, value: object) -> dict[str, Any]:
        if isinstance(value, np.ndarray):
            return self._pack_array(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return {"bytes": self._add(bytes(value) if isinstance(value, memoryview) else value)}
        if isinstance(value, os.PathLike):
            path = os.fspath(value)
            return {"path": os.fsdecode(path)}
        if isinstance(value, Page):
            return self._pack_page(value, words=True, image=True)
        if isinstance(value, Attribution | Embeddings | TokenGrid):
            parts = {item.name: self.pack(getattr(value, item.name)) for item in fields(value)}
            return {"result": type(value).__name__, "fields": parts}
        if isinstance(value, Mapping):
            return {"mapping": [[self.pack(key), self.pack(item)] for key, item in value.items()]}
        if isinstance(value, tuple):
            return {"tuple": [self.pack(item) for item in value]}
        if isinstance(value, Sequence):
            return {"list": [self.pack(item) for item in value]}
        pillow: Any = sys.modules.get("PIL.Image")
        if pillow is not None and isinstance(value, pillow.Image):
            return self._pack_image(value)
        return {"other": type(value).__name__}

    def _add(self, buffer: Bytes) -> int:
        self.buffers.append(buffer)
        return len(self.buffers) - 1

    def _pack_array(self, array: npt.NDArray[Any]) -> dict[str, Any]:
        return {"array": self._add(np.ascontiguousarray(array)), "dtype": array.dtype.str, "shape": array.shape}

    def _pack_image(self, image: Any) -> dict[str, Any]:  # noqa: ANN401  # a PIL image
        try:
            orientation = image.getexif().get(_ORIENTATION)
        except (OSError, ValueError, SyntaxError):
            orientation = None
        if not isinstance(orientation, int):
            orientation = None
        if image.width * image.height > Limits().max_pixels:
            # Sent without pixels, which may not be decoded yet: the other process rejects the size.
            return {"large": image.size, "orientation": orientation}
        transparency = image.info.get("transparency")
        if image.mode not in _PIXEL_MODES or transparency is not None:
            # Rare modes are converted here, as models and OCR would convert them.
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        pixels = image.tobytes()
        return {
            "image": self._add(pixels),
            "mode": image.mode,
            "size": image.size,
            "orientation": orientation,
        }

    def _pack_page(self, page: Page, *, words: bool, image: bool) -> dict[str, Any]:
        boxes = np.array([word.box for word in page.words] if words else [], np.float64).reshape(-1, 4)
        return {
            "page": [
                self.pack(part)
                for part in (page.doc_id, os.fsdecode(page.path), page.number, page.count, page.screenshot.dpi)
            ],
            "image": self.pack(page.screenshot.image) if image else None,
            "words": [[word.text, word.ocr] for word in page.words] if words else [],
            "boxes": self._pack_array(boxes),
        }


class Unpacker:
    """Restores the values that a `Packer` packed.

    Args:
        buffers: The buffers of the message.
    """

    def __init__(self, buffers: Sequence[Buffer]) -> None:
        self._buffers = buffers
        self._objects: list[Any] = []

    def unpack(self, value: Any) -> Any:  # noqa: ANN401  # a JSON value
        """Return the value that was packed as `value`.

        Args:
            value: A JSON value from `Packer.pack`.

        Raises:
            InvalidMessageError: If the value is invalid.
        """
        try:
            return self._unpack(value)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, RecursionError) as exc:
            raise InvalidMessageError from exc

    def _unpack(self, value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, list):  # added by the caller of `Packer.pack`, hence without a number
            return [self._unpack(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "same" in value:
            return self._objects[value["same"]]
        restored = self._restore(value)
        self._objects.append(restored)
        return restored

    def _restore(self, value: dict[str, Any]) -> Any:  # noqa: ANN401
        if "array" in value:
            return self._array(value)
        if "bytes" in value:
            return self._buffers[value["bytes"]].tobytes()
        if "path" in value:
            return Path(value["path"])
        if "page" in value:
            return self._page(value)
        if "image" in value:
            return self._image(value)
        if "large" in value:
            return self._large_image(value)
        if "result" in value:
            return _RESULTS[value["result"]](**{name: self._unpack(part) for name, part in value["fields"].items()})
        if "mapping" in value:
            return {self._unpack(key): self._unpack(item) for key, item in value["mapping"]}
        if "list" in value:
            return [self._unpack(item) for item in value["list"]]
        if "tuple" in value:
            return tuple(self._unpack(item) for item in value["tuple"])
        return type(value["other"], (), {})()

    def _array(self, value: dict[str, Any]) -> npt.NDArray[Any]:
        dtype = np.dtype(value["dtype"])
        if dtype.hasobject:
            raise InvalidMessageError
        array: npt.NDArray[Any] = self._buffers[value["array"]].view(dtype).reshape(value["shape"])
        return array

    def _image(self, value: dict[str, Any]) -> Any:  # noqa: ANN401
        from PIL import Image

        mode, (width, height), pixels = value["mode"], value["size"], self._buffers[value["image"]]
        if width * height * _PIXEL_MODES[mode] != len(pixels):
            raise InvalidMessageError
        has_pixels = len(pixels) > 0
        image = (
            Image.frombuffer(mode, (width, height), pixels, "raw", mode, 0, 1)
            if has_pixels
            else Image.new(mode, (width, height))
        )
        return _with_orientation(image, value["orientation"])

    def _large_image(self, value: dict[str, Any]) -> Any:  # noqa: ANN401
        from PIL import Image

        image = Image.new("RGB", (1, 1))
        width, height = value["large"]
        image._size = int(width), int(height)
        return _with_orientation(image, value["orientation"])

    def _page(self, value: dict[str, Any]) -> Page:
        from PIL import Image

        doc_id, path, number, count, dpi = value["page"]
        # The order of the packed parts: the image, then the boxes.
        image = Image.new("RGB", (1, 1), "white") if value["image"] is None else self._unpack(value["image"])
        boxes = self._array(value["boxes"]).tolist()
        words = tuple(
            Word(text, (x0, y0, x1, y1), ocr)
            for (text, ocr), (x0, y0, x1, y1) in zip(value["words"], boxes, strict=True)
        )
        return Page(doc_id, Path(path), number, count, PageScreenshot(image, dpi), words)


def _with_orientation(image: Any, orientation: int | None) -> Any:  # noqa: ANN401  # a PIL image
    if orientation is not None:
        exif = image.getexif()
        exif[_ORIENTATION] = orientation
        image.info["exif"] = exif.tobytes()
    return image


def plain(value: object) -> Any:  # noqa: ANN401  # a JSON value
    """Return a number, a boolean or a text as a JSON value, for example a NumPy number as a number of Python.

    Args:
        value: The value.

    Raises:
        TypeError: If the value has another type and is not None.
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if value is None:
        return None
    raise TypeError
