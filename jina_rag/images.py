"""Loading of images from files, bytes, data URIs and URLs as upright RGB, with size limits checked before decoding.

The EXIF orientation is applied for every model. The published code of jina-embeddings-v4 ignores the orientation; the
published code of jina-reranker-m0 applies the orientation. For models that encode pixels, the alpha channel is
dropped, as in the published code; for OCR, the image is composited on white.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from jina_rag._extras import require
from jina_rag._forks import RenewedLock
from jina_rag.config import Limits
from jina_rag.errors import InvalidInputError, LimitExceededError
from jina_rag.fetch import fetch
from jina_rag.image_formats import FORMATS, HEAD_BYTES, missing_decoder, modern_format, readable_formats
from jina_rag.types import EncodedImage

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS = (*FORMATS, "PPM")
_DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,([A-Za-z0-9+/=\r\n]+)", re.ASCII)
_URL = re.compile(r"https?://", re.IGNORECASE)
_SIDEWAYS_ORIENTATIONS = {5, 6, 7, 8}
"""EXIF orientations that swap width and height."""
_EXIF_ORIENTATION = 0x0112
_TIFF_WIDTH, _TIFF_HEIGHT = 0x0100, 0x0101
_QUALITIES = (84, 76, 68, 60, 48)
_MIN_SIDE = 32
_PIL_LOCKS = [RenewedLock() for _ in range(64)]
"""Locks by the identity of a PIL image. Pillow decodes an image at the first use, which is not thread-safe."""
_DOWNLOAD_BYTES = 64 * 1024**2
_DOWNLOAD_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Opening:
    """Limits and permissions for opening an image.

    Attributes:
        limits: Limits of pixels and bytes per image.
        allow_urls: Whether images at http and https URLs are downloaded.
    """

    limits: Limits = field(default_factory=Limits)
    allow_urls: bool = False


def is_data_uri(text: str) -> bool:
    """Return whether an entire string is a base64 data URI of an image.

    Args:
        text: Any text.
    """
    return text.startswith("data:image/") and _DATA_URI.fullmatch(text) is not None


def decode_data_uri(text: str) -> bytes:
    """Return the bytes of the image file in a data URI.

    Args:
        text: A base64 data URI of an image.

    Raises:
        InvalidInputError: If the text is not a base64 data URI of an image.
    """
    match = _DATA_URI.fullmatch(text)
    if match is None:
        raise InvalidInputError("The data URI is invalid; expected data:image/TYPE;base64,DATA.")
    try:
        return base64.b64decode("".join(match[1].split()), validate=True)
    except binascii.Error as exc:
        raise InvalidInputError(f"The data URI is not valid base64: {exc}. Pass the bytes of the image.") from exc


class LoadedImage:
    """An opened image with a known size. The pixels are decoded by `load`.

    Images are decoded batch by batch, so a long list of image paths takes little memory.

    Attributes:
        name: Description of the image in error messages, for example ``"The file chart.png"``.
        size: Width and height in pixels after the EXIF orientation is applied.
    """

    __slots__ = ("_source", "name", "size")

    def __init__(self, source: Image | bytes | Path, name: str, size: tuple[int, int]) -> None:
        self._source = source
        self.name = name
        self.size = size

    @property
    def source(self) -> Image | bytes | Path:
        """The PIL image, or the bytes or the path of the image file."""
        return self._source

    def load(self, *, alpha: str = "drop", min_size: tuple[int, int] | None = None) -> Image:
        """Return the decoded image in RGB mode, upright. Threads may load one image at the same time.

        Args:
            alpha: ``"drop"`` ignores the alpha channel; ``"white"`` composites the image on white.
            min_size: Width and height in pixels that the caller needs at least. A JPEG file is decoded at 1/2, 1/4 or
                1/8 of its resolution if 2, 4 or 8 divides both sides and they are then still at least as long; None
                decodes at full resolution.

        Returns:
            The image; a PIL image in RGB mode that was passed is returned without a copy, so do not modify the result.

        Raises:
            InvalidInputError: If the image is damaged.
        """
        if isinstance(self._source, bytes | Path):
            # Pillow keeps the files of multi-frame and damaged images open; the context manager closes them.
            with _open(self._source, self.name) as file_image:
                if min_size is not None:
                    is_sideways = file_image.size != self.size
                    reduce_jpeg(file_image, min_size[::-1] if is_sideways else min_size)
                try:
                    image = _turn_upright(file_image)
                except (OSError, ValueError, SyntaxError, EOFError, KeyError, IndexError) as exc:
                    raise InvalidInputError(
                        f"{self.name} is not a readable image: {exc}. Pass an intact image file."
                    ) from exc
        else:
            with _lock_of(self._source):
                image = _turn_upright(self._source)
        if alpha == "white" and image.has_transparency_data:
            layer = image.convert("RGBA")
            white = require("PIL.Image", package="pillow").new("RGBA", layer.size, "white")
            white.alpha_composite(layer)
            image = white
        return image if image.mode == "RGB" else image.convert("RGB")


def encode_jpeg(image: Image, quality: int) -> EncodedImage:
    """Return an image as a JPEG file.

    Args:
        image: An image in any mode; converted to RGB.
        quality: JPEG quality, 1 to 100.

    Raises:
        InvalidInputError: If JPEG does not support the image: no pixels, or a side above 65,500 pixels.
    """
    buffer = BytesIO()
    try:
        # `convert` copies an RGB image. Without `comment`, Pillow copies the comment of the file of the image.
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        rgb.save(buffer, "JPEG", quality=quality, comment=b"")
    except (OSError, ValueError, SystemError) as exc:
        raise InvalidInputError(
            f"An image of {image.width} x {image.height} pixels cannot be stored as JPEG ({exc}). "
            "Use an image with 1 to 65,500 pixels per side."
        ) from exc
    content = buffer.getvalue()
    return EncodedImage(content, hashlib.sha256(content).hexdigest(), quality)


def inline_jpeg(image: Image, *, width: int, height: int, max_bytes: int) -> tuple[str, tuple[int, int]]:
    """Return the JPEG data URI of an image, for embedding in HTML, and the pixel size of the JPEG.

    Args:
        image: An image in any mode. An image within the limits keeps its size.
        width: Limit of the width, in pixels.
        height: Limit of the height, in pixels.
        max_bytes: Limit of the JPEG in bytes. The base64 text is a third longer. To meet the limit, the quality is
            reduced first, then the resolution. An image of 32 pixels or less on one side can exceed the limit.

    Returns:
        The data URI, and the width and height of the JPEG in pixels.
    """
    from PIL import Image as pillow

    image = image.convert("RGB")
    image.thumbnail((width, height), pillow.Resampling.LANCZOS)
    content = _jpeg(image, max_bytes)
    while len(content) > max_bytes and min(image.size) > _MIN_SIDE:
        image = image.resize((image.width * 4 // 5, image.height * 4 // 5), pillow.Resampling.LANCZOS)
        content = _jpeg(image, max_bytes)
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode('ascii')}", image.size


def _jpeg(image: Image, max_bytes: int) -> bytes:
    """Return the JPEG of the highest quality within `max_bytes`; if no quality fits, the JPEG of the lowest quality."""
    content = b""
    for quality in _QUALITIES:
        buffer = BytesIO()
        image.save(buffer, format="JPEG", quality=quality, optimize=True, progressive=True)
        content = buffer.getvalue()
        if len(content) <= max_bytes:
            break
    return content


def open_image(source: object, opening: Opening | None = None) -> LoadedImage:
    """Open an image and check the size of the image, without decoding the pixels.

    Args:
        source: A PIL image, the bytes or the path of an image file, or a str with a base64 data URI, an http or https
            URL (if allowed) or a path.
        opening: Limits on images, and whether http and https URLs are downloaded. None: the defaults of `Opening`.

    Raises:
        InvalidInputError: If `source` has another type, or the image cannot be read or downloaded.
        LimitExceededError: If the image has more pixels or bytes than the limits.
    """
    opening = opening or Opening()
    pillow = require("PIL.Image", package="pillow")
    if isinstance(source, pillow.Image):
        with _lock_of(source):
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
            f"An image is {type(source).__name__}; expected a PIL image, bytes, a pathlib.Path or a data URI."
        )
    _check_bytes(source, name, opening.limits)
    with _open(source, name) as image:
        size = _upright(image)
    _check_pixels(size, name, opening.limits)
    return LoadedImage(source, name, size)


def _open(source: bytes | Path, name: str) -> Image:
    pillow = require("PIL.Image", package="pillow")
    file: BinaryIO | Path = BytesIO(source) if isinstance(source, bytes) else source
    formats = _formats(source, name)
    try:
        image: Image = pillow.open(file, formats=formats)
    except pillow.DecompressionBombError as exc:
        raise LimitExceededError(f"{name} has too many pixels: {exc} Scale the image down.") from exc
    except pillow.UnidentifiedImageError as exc:
        raise InvalidInputError(f"{name} is not a readable image; expected one of {', '.join(_FORMATS)}.") from exc
    except (OSError, ValueError, SyntaxError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise InvalidInputError(f"{name} is not a readable image: {reason}. Pass an intact image file.") from exc
    return image


def _formats(source: bytes | Path, name: str) -> tuple[str, ...]:
    """Return the names of the Pillow formats of an image file.

    Raises:
        InvalidInputError: If no decoder of the format is installed.
    """
    head = b""
    if isinstance(source, bytes):
        head = source[:HEAD_BYTES]
    else:
        with suppress(OSError), source.open("rb") as file:  # Pillow reports the error
            head = file.read(HEAD_BYTES)
    if modern_format(head) is None:
        return _FORMATS
    formats = readable_formats(head)
    if not formats:
        raise InvalidInputError(f"{name} cannot be read. {missing_decoder(head)}")
    return formats


def _lock_of(image: Image) -> RenewedLock:
    return _PIL_LOCKS[id(image) // 64 % len(_PIL_LOCKS)]


def reduce_jpeg(image: Image, min_size: tuple[int, int]) -> None:
    """Have a JPEG file decoded at the lowest of 1/2, 1/4 and 1/8 of its resolution that `min_size` allows.

    The scale divides both sides. Otherwise, the decoder would pad the right and the bottom side to a whole pixel, and
    the content would be shifted in the resized image. Files of other formats are not changed.

    Args:
        image: The opened image file, whose pixels have not been decoded.
        min_size: Least width and height in pixels after decoding, before the EXIF orientation is applied.
    """
    for scale in (8, 4, 2):
        if all(side % scale == 0 and side // scale >= least for side, least in zip(image.size, min_size, strict=True)):
            image.draft(None, (image.width // scale, image.height // scale))
            return


def _turn_upright(image: Image) -> Image:
    """Return the decoded image with the EXIF orientation applied; the image itself if already upright."""
    from PIL import ImageOps

    image.load()
    if image.getexif().get(_EXIF_ORIENTATION, 1) in (None, 1):
        return image
    return ImageOps.exif_transpose(image)


def _upright(image: Image) -> tuple[int, int]:
    width, height = image.size
    try:
        exif = image.getexif()
    except (OSError, ValueError, SyntaxError):
        return width, height
    if exif.get(_EXIF_ORIENTATION) not in _SIDEWAYS_ORIENTATIONS:
        return width, height
    if image.format == "TIFF":  # Pillow turns the pixels itself, and before that `size`, depending on its version
        width, height = int(exif.get(_TIFF_WIDTH, width)), int(exif.get(_TIFF_HEIGHT, height))
    return height, width


def _check_pixels(size: tuple[int, int], name: str, limits: Limits) -> None:
    if size[0] * size[1] > limits.max_pixels:
        raise LimitExceededError(
            f"{name} has {size[0]} x {size[1]} pixels, more than the limit of {limits.max_pixels:,}. "
            "Scale the image down."
        )
    if not size[0] * size[1]:
        raise InvalidInputError(f"{name} has no pixels. Pass an image of at least 1 x 1 pixels.")


def _check_bytes(source: bytes | Path, name: str, limits: Limits) -> None:
    if isinstance(source, bytes):
        length = len(source)
    else:
        try:
            length = source.stat().st_size
        except OSError as exc:
            raise InvalidInputError(f"{name} cannot be read: {exc.strerror or exc}. Check the path.") from exc
        if source.is_dir():
            raise InvalidInputError(f"{name} is a folder. Pass an image file.")
    if length > limits.max_bytes:
        raise LimitExceededError(f"{name} has {length:,} bytes; the limit is {limits.max_bytes:,}. Use a smaller file.")


def _resolve(text: str, opening: Opening) -> tuple[bytes | Path, str]:
    """Return the bytes or the path that a str refers to, and the name of the image in error messages."""
    if text.startswith("data:"):
        return decode_data_uri(text), "The data URI"
    if _URL.match(text):
        if not opening.allow_urls:
            raise InvalidInputError(
                f"Image URLs are not downloaded: {text[:200]}. Load the model with allow_urls=True, or pass "
                "the bytes or the path of the image."
            )
        content = fetch(text, max_bytes=_DOWNLOAD_BYTES, max_seconds=_DOWNLOAD_SECONDS)
        return content, f"The image at {text[:200]}"
    if "\0" in text:
        raise InvalidInputError("The image path contains a NUL character. Check the path.")
    return Path(text), f"The file {text}"
