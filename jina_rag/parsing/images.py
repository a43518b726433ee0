"""Renderer of image files with Pillow. Images of any pixel format become upright 8-bit RGB images on white.

If PyMuPDF is installed, MuPDF reads the first frame of a file that Pillow cannot read.

Each frame of a TIFF file is a page. In an animation (GIF, WebP, PNG), only the first frame is read. A very tall or very
wide frame is divided into slices, and each slice is a page (see `slices`). Pages are numbered through.
"""

from __future__ import annotations

import io
import itertools
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO
from warnings import catch_warnings, simplefilter

import numpy as np

from jina_rag._extras import require
from jina_rag.errors import DocumentError, LimitExceededError, UnsupportedDocumentError
from jina_rag.image_formats import HEAD_BYTES, missing_decoder, readable_formats
from jina_rag.images import reduce_jpeg
from jina_rag.parsing.legibility import LEGIBLE_SCALE, detail_lost
from jina_rag.parsing.renderer import DocumentRenderer, check_pages, fitting_scale
from jina_rag.parsing.slices import is_elongated, scaled_size, slice_boxes, slice_count, slice_scale
from jina_rag.types import Box, Page, PageScreenshot

if TYPE_CHECKING:
    from PIL.Image import Image

_FULL_PAGE: Box = (0.0, 0.0, 1.0, 1.0)
_DEFAULT_DPI = 72.0
# The decoders of Pillow raise these errors for damaged files.
_DAMAGED = (ValueError, SyntaxError, EOFError, MemoryError, TypeError, KeyError, IndexError, RuntimeError)
# Maximum length of an error message inside a warning, in characters.
_MAX_REASON = 90


@dataclass(frozen=True, slots=True)
class _Frame:
    """A decoded frame of an image file.

    Attributes:
        index: 0-based position of the frame.
        image: Upright RGB image of the frame, scaled to the size of the page or slices.
        dpi: Resolution of `image` in pixels per inch.
        warnings: Recoverable problems of the frame.
    """

    index: int
    image: Image
    dpi: float
    warnings: tuple[str, ...]


class ImageRenderer(DocumentRenderer):
    """A `Renderer` for an image file, which Pillow decodes."""

    def _open(self, resources: ExitStack) -> tuple[int, tuple[str, ...]]:
        warnings: list[str] = []
        with self._convert_errors(), _collect_warnings(warnings):
            file = resources.enter_context(self._source.path.open("rb"))
            self._image = self._load_any(file, warnings)
            resources.callback(self._image.close)
            frames = int(getattr(self._image, "n_frames", 1))
        count = frames if self._image.format == "TIFF" else 1
        if frames > count and self._image.format != "MPO":
            warnings.append(f"The image has {frames} frames; only the first frame was read.")
        check_pages(count, self._settings.limits)
        # Number of the last page of each frame.
        self._last_pages = list(itertools.accumulate(self._pages_of(frame, count) for frame in range(count)))
        self._divided_frame: _Frame | None = None
        resources.callback(self._forget_frame)
        return self._last_pages[-1], tuple(warnings)

    def _pages_of(self, frame: int, frames: int) -> int:
        """Return the number of pages of a frame, from the size in the header; 1 for a frame with a damaged header."""
        try:
            with _collect_warnings([]):  # the warnings of a frame are those of its page
                if frames > 1:
                    self._image.seek(frame)
                self._check_pixels(self._image)
                return slice_count(*self._image.size, self._settings)
        except Exception:  # raised again for the page
            return 1

    def _page(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        warnings: list[str] = []
        index = bisect_left(self._last_pages, number)
        first = self._last_pages[index - 1] + 1 if index else 1
        with _collect_warnings(warnings):
            if self._last_pages[index] == first:
                frame = self._decode_frame(self._image, index)
                image = frame.image
            else:
                frame = self._divide_frame(index)
                image = frame.image.crop(slice_boxes(*frame.image.size, self._settings)[number - first])
        warnings += frame.warnings
        screenshot = PageScreenshot(image=image, dpi=frame.dpi)
        return self._make_page(number, screenshot, warnings), (_FULL_PAGE,)

    def _load_any(self, file: BinaryIO, warnings: list[str]) -> Image:
        """Return the image with its header read by Pillow, or the decoded image of MuPDF if Pillow fails."""
        try:
            return self._load_header(file)
        except LimitExceededError:
            raise
        except (DocumentError, OSError, *_DAMAGED) as error:
            image = self._read_with_mupdf(error, warnings)
            if image is None:
                raise
            return image

    def _read_with_mupdf(self, error: Exception, warnings: list[str]) -> Image | None:
        """Return the first frame decoded by MuPDF, and append a warning; None if MuPDF cannot or must not read it."""
        if self._settings.renderer == "pypdfium2" or isinstance(error, MemoryError):
            return None
        if isinstance(error, OSError) and error.errno:
            return None
        from jina_rag.parsing.pdf.pymupdf_images import read_image

        image = read_image(self._source.path, self._settings.limits.max_pixels)
        if image is not None:
            reason = " ".join(str(error).split())[:_MAX_REASON].rstrip(". ") or type(error).__name__
            warnings.append(f"The image was read with pymupdf, because Pillow could not read it ({reason}).")
        return image

    def _load_header(self, file: BinaryIO) -> Image:
        pillow = require("PIL.Image", package="pillow")
        try:
            formats = _formats(file)
            image: Image = pillow.open(file, formats=formats)
        except pillow.DecompressionBombError as error:
            size = next((word for word in str(error).replace("(", " ").split() if word.isdigit()), "too many")
            raise LimitExceededError(
                f"The image has {size} pixels, more than the limit of Pillow ({2 * pillow.MAX_IMAGE_PIXELS:,}). This "
                "limit is independent of Limits.max_pixels. Scale the image down."
            ) from error
        except pillow.UnidentifiedImageError as error:
            if len(formats) == 1:
                reason = f"The image is damaged: its header is not valid {formats[0]}. Replace or re-export the file."
                raise DocumentError(reason) from error
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

    def _divide_frame(self, index: int) -> _Frame:
        """Return a frame of several pages; the last one stays in memory, so that it is not decoded for each page."""
        frame = self._divided_frame
        if frame is None or frame.index != index:
            self._forget_frame()
            # Opened again, because `_image` would keep a second copy of the pixels.
            with self._source.path.open("rb") as file, self._load_any(file, []) as image:
                frame = self._divided_frame = self._decode_frame(image, index)
        return frame

    def _forget_frame(self) -> None:
        self._divided_frame = None

    def _decode_frame(self, image: Image, index: int) -> _Frame:
        """Return a frame, upright and scaled to the size of its page or, if it has several pages, of their slices."""
        from PIL import ImageOps

        warnings: list[str] = []
        if len(self._last_pages) > 1:
            image.seek(index)
            self._check_pixels(image)
        dpi = _read_dpi(image)
        full_size = image.size
        limits, longest_side = self._settings.limits, self._settings.max_image_side
        if is_elongated(*full_size, self._settings):
            scale = slice_scale(*full_size, self._settings)
        else:
            scale = min(1.0, longest_side / max(full_size), fitting_scale(*full_size, limits))
        size = scaled_size(*full_size, scale)
        # The JPEG decoder can scale the image by 1/2, 1/4 or 1/8 during decoding, which saves time and memory.
        reduce_jpeg(image, size)
        image = self._decode(image, full_size, index, warnings)
        image = _to_8_bit(image)
        if scale < LEGIBLE_SCALE and detail_lost(image, size):
            warnings.append(
                f"The image has {full_size[0]} x {full_size[1]} pixels and was scaled down to {size[0]} x {size[1]}. "
                "Small text may be unreadable. Raise IngestSettings.max_image_side, or divide the image."
            )
        return _Frame(index, ImageOps.exif_transpose(to_rgb(image, size)), dpi * scale, tuple(warnings))

    def _decode(self, image: Image, full_size: tuple[int, int], index: int, warnings: list[str]) -> Image:
        try:
            return self._decode_with_pillow(image, warnings)
        except (OSError, *_DAMAGED) as error:
            other_warnings: list[str] = []
            other = self._read_with_mupdf(error, other_warnings) if index == 0 else None
            if other is None or other.width != full_size[0] or other.height > full_size[1]:
                raise
            warnings += other_warnings
            return _extend(other, full_size)

    def _decode_with_pillow(self, image: Image, warnings: list[str]) -> Image:
        try:
            image.load()
        except (OSError, SyntaxError):
            if image.format not in ("JPEG", "MPO"):
                raise
            # With an appended end-of-image marker, the decoder accepts the truncated file and fills the rest with gray.
            image = self._load_header(io.BytesIO(self._source.path.read_bytes() + b"\xff\xd9"))
            image.load()
            warnings.append("The file is truncated; only the upper part of the image was read. Replace the file.")
        return image

    @contextmanager
    def _convert_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno:
                reason = f"{error.strerror or error}. Check the permissions, or re-export the image."
            else:  # of a decoder of Pillow
                reason = f"{str(error).rstrip('.')}. Replace or re-export the file, or convert it to PNG."
            raise DocumentError(f"The image cannot be read: {reason}") from error
        except _DAMAGED as error:
            raise DocumentError(
                f"The image is damaged: {error or type(error).__name__}. Replace or re-export the file."
            ) from error


def _formats(file: BinaryIO) -> tuple[str, ...]:
    """Return the names of the Pillow formats of an image file.

    Raises:
        UnsupportedDocumentError: If no decoder of the format is installed.
    """
    head = file.read(HEAD_BYTES)
    file.seek(0)
    formats = readable_formats(head)
    if not formats:
        raise UnsupportedDocumentError(missing_decoder(head))
    return formats


def to_rgb(image: Image, size: tuple[int, int] | None = None) -> Image:
    """Convert an image of any mode to 8-bit RGB.

    Transparent pixels become white, 16-bit values are scaled to 8 bits, and CMYK colors are converted. The EXIF data,
    which contain the orientation, are copied to the `info` of the result; the caller applies the orientation.

    Args:
        image: The decoded image.
        size: Target size (width, height) in pixels; None for the original size.
    """
    from PIL import Image as pillow

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


def _extend(image: Image, size: tuple[int, int]) -> Image:
    """Return the decoded part of a truncated image on a white image of `size`."""
    from PIL import Image as pillow

    if image.size == size:
        return image
    extended = pillow.new(image.mode, size, "white")
    extended.paste(image)
    return extended


def _to_8_bit(image: Image) -> Image:
    from PIL import Image as pillow

    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
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
    result = pillow.fromarray(values.round().clip(0, 255).astype(np.uint8))
    if "exif" in image.info:
        result.info["exif"] = image.info["exif"]
    return result


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
