"""Images from wherever they come, as upright RGB, under limits that hold before anything is decoded.

The EXIF orientation is applied here, once, for every model (the published code of jina-embeddings-v4 ignores it, that
of jina-reranker-m0 applies it). An alpha channel is dropped for the models that look at pixels, as published, and laid
on white for the OCR of the models that read words.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import time
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from jina_rag._extras import require
from jina_rag.config import Limits
from jina_rag.errors import InvalidInputError, LimitExceededError

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS = ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP", "PPM")
_DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,([A-Za-z0-9+/=\r\n]+)", re.ASCII)
_URL = re.compile(r"https?://", re.IGNORECASE)
_TURNED = {5, 6, 7, 8}
"""EXIF orientations that swap width and height."""
_EXIF_ORIENTATION = 0x0112
_QUALITIES = (84, 76, 68, 60, 48)
_LEAST_SIDE = 32
_DOWNLOAD_BYTES = 64 * 1024**2
_DOWNLOAD_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Opening:
    """What an image may cost, and where it may come from.

    Attributes:
        limits: Pixels and bytes beyond which an image is refused.
        allow_urls: Whether http and https addresses are fetched.
    """

    limits: Limits = field(default_factory=Limits)
    allow_urls: bool = False


def is_data_uri(text: str) -> bool:
    """Whether the whole text is an image as a base64 data URI; a text that merely mentions one is a text."""
    return text.startswith("data:image/") and _DATA_URI.fullmatch(text) is not None


def decode_data_uri(text: str) -> bytes:
    """The bytes of an image's file.

    Raises:
        InvalidInputError: If the text is not a base64 data URI of an image in whole.
    """
    match = _DATA_URI.fullmatch(text)
    if match is None:
        raise InvalidInputError("A data URI must read data:image/…;base64,… in whole.")
    try:
        return base64.b64decode("".join(match[1].split()), validate=True)
    except binascii.Error as exc:
        raise InvalidInputError(f"A data URI is not valid base64: {exc}.") from exc


class LoadedImage:
    """An image that was looked at but not decoded yet: its size is known, its pixels come with `load`.

    Many pictures can wait in memory as paths; each is decoded when its batch is.
    """

    __slots__ = ("_source", "name", "size")

    def __init__(self, source: Image | bytes | Path, name: str, size: tuple[int, int]) -> None:
        self._source = source
        self.name = name
        self.size = size
        """Width and height in pixels, upright."""

    @property
    def source(self) -> Image | bytes | Path:
        """Where the pixels come from: an image, the bytes of a file, or its path."""
        return self._source

    def load(self, *, alpha: str = "drop") -> Image:
        """The pixels as RGB, upright.

        Args:
            alpha: ``"drop"`` ignores transparency, ``"white"`` lays it on white.

        Raises:
            InvalidInputError: If the image is damaged.
        """
        from PIL import ImageOps

        if isinstance(self._source, bytes | Path):
            # Pillow keeps files of several frames open for the next one, and damaged ones, too.
            with _open(self._source, self.name) as file_image:
                try:
                    image = ImageOps.exif_transpose(file_image)
                except (OSError, ValueError, SyntaxError, EOFError, KeyError, IndexError) as exc:
                    raise InvalidInputError(f"{self.name} is not an image that can be read: {exc}") from exc
        else:
            image = ImageOps.exif_transpose(self._source)
        if alpha == "white" and image.has_transparency_data:
            layer = image.convert("RGBA")
            white = require("PIL.Image", package="pillow").new("RGBA", layer.size, "white")
            white.alpha_composite(layer)
            image = white
        return image if image.mode == "RGB" else image.convert("RGB")


def inline_jpeg(image: Image, *, width: int, height: int, max_bytes: int) -> tuple[str, tuple[int, int]]:
    """A JPEG data URI for a file that holds its images, and the size in pixels.

    Args:
        image: In any mode; never scaled up.
        width: At most, in pixels.
        height: At most, in pixels.
        max_bytes: Of the JPEG, before base64 adds a third. Met by lower quality first, then by fewer pixels.
    """
    from PIL import Image as pillow

    image = image.convert("RGB")
    image.thumbnail((width, height), pillow.Resampling.LANCZOS)
    content = _jpeg(image, max_bytes)
    while len(content) > max_bytes and min(image.size) > _LEAST_SIDE:
        image = image.resize((image.width * 4 // 5, image.height * 4 // 5), pillow.Resampling.LANCZOS)
        content = _jpeg(image, max_bytes)
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode('ascii')}", image.size


def _jpeg(image: Image, max_bytes: int) -> bytes:
    """The best of a few qualities that fits, or the lowest."""
    content = b""
    for quality in _QUALITIES:
        buffer = BytesIO()
        image.save(buffer, format="JPEG", quality=quality, optimize=True, progressive=True)
        content = buffer.getvalue()
        if len(content) <= max_bytes:
            break
    return content


def open_image(source: object, opening: Opening | None = None) -> LoadedImage:
    """Look at an image: a PIL image, the bytes of a file, its path, a base64 data URI, or an address.

    Args:
        source: A str is a data URI, an address (if allowed) or a path.
        opening: Limits, and whether addresses are fetched.

    Raises:
        InvalidInputError: If it is none of these or not a readable image.
        LimitExceededError: If it has more pixels or bytes than the limits allow; nothing was decoded.
    """
    opening = opening or Opening()
    pillow = require("PIL.Image", package="pillow")
    if isinstance(source, pillow.Image):
        size = _upright(source)
        _check_pixels(size, "An image", opening.limits)
        return LoadedImage(source, "An image", size)
    if isinstance(source, str):
        source, name = _resolve(source, opening)
    elif isinstance(source, bytes | bytearray | memoryview):
        source = bytes(source)
        name = f"An input of {len(source)} bytes"
    elif isinstance(source, os.PathLike):
        source = Path(os.fspath(source))
        name = f"The file {source}"
    else:
        raise InvalidInputError(
            f"An image is a PIL image, the bytes of a file, a pathlib.Path or a data URI, not {type(source).__name__}."
        )
    _check_bytes(source, name, opening.limits)
    with _open(source, name) as image:
        size = _upright(image)
    _check_pixels(size, name, opening.limits)
    return LoadedImage(source, name, size)


def _open(source: bytes | Path, name: str) -> Image:
    pillow = require("PIL.Image", package="pillow")
    file: BinaryIO | Path = BytesIO(source) if isinstance(source, bytes) else source
    try:
        image: Image = pillow.open(file, formats=_FORMATS)
    except pillow.DecompressionBombError as exc:
        raise LimitExceededError(f"{name} has far too many pixels: scale it down. ({exc})") from exc
    except pillow.UnidentifiedImageError as exc:
        raise InvalidInputError(f"{name} is not an image that can be read ({', '.join(_FORMATS)}).") from exc
    except (OSError, ValueError, SyntaxError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise InvalidInputError(f"{name} is not an image that can be read: {reason}") from exc
    return image


def _upright(image: Image) -> tuple[int, int]:
    width, height = image.size
    try:
        turned = image.getexif().get(_EXIF_ORIENTATION) in _TURNED
    except (OSError, ValueError, SyntaxError):
        turned = False
    return (height, width) if turned else (width, height)


def _check_pixels(size: tuple[int, int], name: str, limits: Limits) -> None:
    if size[0] * size[1] > limits.max_pixels:
        raise LimitExceededError(
            f"{name} has {size[0]} x {size[1]} pixels, more than the limit of {limits.max_pixels:,}: scale it down."
        )
    if not size[0] * size[1]:
        raise InvalidInputError(f"{name} has no pixels.")


def _check_bytes(source: bytes | Path, name: str, limits: Limits) -> None:
    if isinstance(source, bytes):
        length = len(source)
    else:
        try:
            length = source.stat().st_size
        except OSError as exc:
            raise InvalidInputError(f"{name} cannot be read: {exc.strerror or exc}.") from exc
        if source.is_dir():
            raise InvalidInputError(f"{name} is a folder, not an image.")
    if length > limits.max_bytes:
        raise LimitExceededError(f"{name} has {length:,} bytes, more than the limit of {limits.max_bytes:,}.")


def _resolve(text: str, opening: Opening) -> tuple[bytes | Path, str]:
    """The bytes or the path that a str stands for."""
    if text.startswith("data:"):
        return decode_data_uri(text), "A data URI"
    if _URL.match(text):
        if not opening.allow_urls:
            raise InvalidInputError(
                f"{text[:200]} is an address, and addresses are not fetched unless the model is loaded with "
                "allow_urls=True; pass the bytes or the path of the image instead."
            )
        return _fetch(text), f"The image at {text[:200]}"
    if "\0" in text:
        raise InvalidInputError("A path cannot hold a NUL character.")
    return Path(text), f"The file {text}"


def _fetch(url: str) -> bytes:
    """The bytes behind an address, within limits of size and time; redirects lead to http(s) only."""
    httpx = require("httpx", extra="models")
    parts: list[bytes] = []
    got = 0
    deadline = time.monotonic() + _DOWNLOAD_SECONDS
    try:
        with (
            httpx.Client(follow_redirects=True, max_redirects=3, timeout=_DOWNLOAD_SECONDS) as client,
            client.stream("GET", url) as response,
        ):
            response.raise_for_status()
            for part in response.iter_bytes():
                got += len(part)
                if got > _DOWNLOAD_BYTES:
                    raise LimitExceededError(f"The image at {url[:200]} has more than {_DOWNLOAD_BYTES:,} bytes.")
                if time.monotonic() > deadline:
                    raise InvalidInputError(f"The image at {url[:200]} did not come within {_DOWNLOAD_SECONDS:.0f} s.")
                parts.append(part)
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise InvalidInputError(f"The image at {url[:200]} cannot be fetched: {exc}") from exc
    return b"".join(parts)
