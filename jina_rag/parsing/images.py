"""Renderer of image files with Pillow. Images of any pixel format become upright 8-bit RGB images on white.

Each frame of a TIFF file is a page. In an animation (GIF, WebP, PNG), only the first frame is a page.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, BinaryIO
from warnings import catch_warnings, simplefilter

import numpy as np

from jina_rag._extras import require
from jina_rag.errors import DocumentError, LimitExceededError, UnsupportedDocumentError
from jina_rag.parsing.renderer import DocumentRenderer, fitting_scale
from jina_rag.types import Box, Page, PageScreenshot

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS = ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP")
_FULL_PAGE: Box = (0.0, 0.0, 1.0, 1.0)
_DEFAULT_DPI = 72.0


class ImageRenderer(DocumentRenderer):
    """A `Renderer` for an image file, which Pillow decodes."""

    def _open(self, resources: ExitStack) -> tuple[int, tuple[str, ...]]:
        warnings: list[str] = []
        with self._convert_errors(), _collect_warnings(warnings):
            file = resources.enter_context(self._source.path.open("rb"))
            self._image = self._load_header(file)
            resources.callback(self._image.close)
            frames = int(getattr(self._image, "n_frames", 1))
        count = frames if self._image.format == "TIFF" else 1
        if frames > count and self._image.format != "MPO":
            warnings.append(f"The image has {frames} frames; only the first frame was read.")
        return count, tuple(warnings)

    def _page(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        warnings: list[str] = []
        with _collect_warnings(warnings):
            screenshot = self._screenshot(number, warnings)
        return self._make_page(number, screenshot, warnings), (_FULL_PAGE,)

    def _load_header(self, file: BinaryIO) -> Image:
        pillow = require("PIL.Image", package="pillow")
        try:
            image: Image = pillow.open(file, formats=_FORMATS)
        except pillow.DecompressionBombError as error:
            size = next((word for word in str(error).replace("(", " ").split() if word.isdigit()), "too many")
            raise LimitExceededError(
                f"The image has {size} pixels, more than the limit of Pillow ({2 * pillow.MAX_IMAGE_PIXELS:,}). This "
                "limit is independent of Limits.max_pixels. Scale the image down."
            ) from error
        except pillow.UnidentifiedImageError as error:
            raise UnsupportedDocumentError(
                "The content is not an image in a supported format. Convert the file to PDF."
            ) from error
        self._check_pixels(image)
        return image

    def _check_pixels(self, image: Image) -> None:
        limit = self._settings.limits.max_pixels
        if image.width * image.height > limit:
            raise LimitExceededError(
                f"The image has {image.width} x {image.height} pixels, more than the limit of {limit:,}. "
                "Scale the image down, or raise Limits.max_pixels (--limit max_pixels=N)."
            )

    def _screenshot(self, number: int, warnings: list[str]) -> PageScreenshot:
        from PIL import ImageOps

        if self._count > 1:
            self._image.seek(number - 1)
            self._check_pixels(self._image)
        dpi = _read_dpi(self._image)
        full_size = self._image.size
        limits, longest_side = self._settings.limits, self._settings.max_image_side
        scale = min(1.0, longest_side / max(full_size), fitting_scale(*full_size, limits))
        # The JPEG decoder can scale the image by 1/2, 1/4 or 1/8 during decoding, which saves time and memory.
        self._image.draft(None, (math.ceil(full_size[0] * scale), math.ceil(full_size[1] * scale)))
        image = self._decode(warnings)
        size = (max(1, round(full_size[0] * scale)), max(1, round(full_size[1] * scale)))
        image = ImageOps.exif_transpose(to_rgb(image, size))
        return PageScreenshot(image=image, dpi=dpi * scale)

    def _decode(self, warnings: list[str]) -> Image:
        try:
            self._image.load()
        except (OSError, SyntaxError):
            if self._image.format not in ("JPEG", "MPO"):
                raise
            # With an appended end-of-image marker, the decoder accepts the truncated file and fills the rest with gray.
            image = self._load_header(io.BytesIO(self._source.path.read_bytes() + b"\xff\xd9"))
            image.load()
            warnings.append("The file is truncated; only the upper part of the image was read. Replace the file.")
            return image
        return self._image

    @contextmanager
    def _convert_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DocumentError(
                f"The image cannot be read: {error.strerror or error}. Check the permissions, or re-export the image."
            ) from error
        except (ValueError, SyntaxError, EOFError, MemoryError, TypeError, KeyError, IndexError) as error:
            # The decoders of Pillow raise these errors for damaged files.
            raise DocumentError(
                f"The image is damaged: {error or type(error).__name__}. Replace or re-export the file."
            ) from error


def to_rgb(image: Image, size: tuple[int, int] | None = None) -> Image:
    """Convert an image of any mode to 8-bit RGB.

    Transparent pixels become white, 16-bit values are scaled to 8 bits, and CMYK colors are converted. The EXIF data,
    which contain the orientation, are copied to the `info` of the result; the caller applies the orientation.

    Args:
        image: The decoded image.
        size: Target size (width, height) in pixels; None for the original size.
    """
    from PIL import Image as pillow

    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_8_bit(image)
    info = dict(image.info)
    if image.has_transparency_data:
        image = image.convert("RGBA")
    elif image.mode not in ("L", "RGB", "CMYK", "YCbCr"):
        image = image.convert("RGB")
    if size is not None and size != image.size:
        image = image.resize(size, pillow.Resampling.LANCZOS, reducing_gap=2.0)
    if image.mode == "RGBA":
        flat = pillow.new("RGB", image.size, "white")
        flat.paste(image, mask=image.getchannel("A"))
        image = flat
    elif image.mode != "RGB":
        image = image.convert("RGB")
    if "exif" in info:
        image.info["exif"] = info["exif"]
    return image


def _to_8_bit(image: Image) -> Image:
    from PIL import Image as pillow

    values = np.asarray(image).astype(np.float32)
    values = np.nan_to_num(values, posinf=0, neginf=0)
    low, high = float(values.min()), float(values.max())
    if image.mode == "F" or low < 0 or high > 65535:
        values = (values - low) * (255 / max(high - low, 1e-9))
    else:
        # Cameras and scanners store 10, 12 or 14 bits in 16-bit values. The smallest range that contains all values is
        # assumed.
        top = next(top for top in (255, 1023, 4095, 16383, 65535) if high <= top)
        values = values * (255 / top)
    return pillow.fromarray(values.round().clip(0, 255).astype(np.uint8))


def _read_dpi(image: Image) -> float:
    try:
        value = float(image.info.get("dpi")[0])  # type: ignore[index]
    except (TypeError, ValueError, IndexError, ZeroDivisionError):
        return _DEFAULT_DPI
    return value if 10 <= value <= 2400 else _DEFAULT_DPI


@contextmanager
def _collect_warnings(sentences: list[str]) -> Iterator[None]:
    """Append the warnings of Pillow to `sentences` and do not print the warnings."""
    with catch_warnings(record=True) as caught:
        simplefilter("always")
        yield
    sentences += (f"Pillow reported a warning: {str(c.message).strip().rstrip('.')}." for c in caught)
