"""Image files through Pillow: every kind of pixel becomes upright 8-bit RGB on white.

A TIFF file has as many pages as frames. Of animations (GIF, WebP, PNG) the first frame is the page.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

import numpy as np

from jina_rag._extras import require
from jina_rag.config import IngestSettings
from jina_rag.errors import DocumentError, LimitExceededError, UnsupportedDocumentError
from jina_rag.parsing.renderer import check_pages, check_size, fitting_scale, number_in_range
from jina_rag.parsing.sources import SourceFile
from jina_rag.types import Box, Page, PageScreenshot

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS = ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP")
_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
_DEFAULT_DPI = 72.0


class ImageDocument:
    """A `Renderer` of one image file.

    Raises:
        LimitExceededError: If its header says that it has more pixels, frames or bytes than allowed.
        DocumentError: If it cannot be read at all.
    """

    def __init__(self, source: SourceFile, settings: IngestSettings) -> None:
        self._source = source
        self._settings = settings
        check_size(source.path, settings.limits)
        with self._guarded():
            self._file = source.path.open("rb")
        notes: list[str] = []
        try:
            with self._guarded(), _complaints(notes):
                self._image = self._open(self._file)
                frames = int(getattr(self._image, "n_frames", 1))
            self._count = frames if self._image.format == "TIFF" else 1
            check_pages(self._count, settings.limits)
        except BaseException:
            self._file.close()
            raise
        animated = frames > self._count and self._image.format != "MPO"
        if animated:
            notes.append(f"The picture has {frames} frames; only the first was read.")
        self._warnings = tuple(notes)

    @property
    def page_count(self) -> int:
        """Number of frames of a TIFF file, otherwise 1."""
        return self._count

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence if frames were left out or the header is odd."""
        return self._warnings

    def render(self, number: int) -> Page:
        """See `PageRenderer.render`."""
        return self.render_with_images(number)[0]

    def render_with_images(self, number: int) -> tuple[Page, tuple[Box, ...]]:
        """See `Renderer.render_with_pictures`; the whole page is the picture."""
        number_in_range(number, self._count)
        notes: list[str] = []
        with self._guarded(), _complaints(notes):
            screenshot = self._screenshot(number, notes)
        page = Page(
            doc_id=self._source.doc_id,
            path=self._source.path,
            number=number,
            count=self._count,
            screenshot=screenshot,
            warnings=tuple(notes),
        )
        return page, (_WHOLE,)

    def close(self) -> None:
        """Release the file."""
        self._image.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, file: BinaryIO) -> Image:
        pillow = require("PIL.Image", package="pillow")
        try:
            image: Image = pillow.open(file, formats=_FORMATS)
        except pillow.DecompressionBombError as error:
            size = next((word for word in str(error).replace("(", " ").split() if word.isdigit()), "too many")
            raise LimitExceededError(
                f"The picture has {size} pixels, more than the limit of "
                f"{self._settings.limits.max_pixels:,}: scale it down."
            ) from error
        except pillow.UnidentifiedImageError as error:
            raise UnsupportedDocumentError("The content is not an image that can be read.") from error
        self._check_pixels(image)
        return image

    def _check_pixels(self, image: Image) -> None:
        limit = self._settings.limits.max_pixels
        if image.width * image.height > limit:
            raise LimitExceededError(
                f"The picture has {image.width} x {image.height} pixels, more than the limit of {limit:,}: "
                "scale it down or raise limits.max_pixels."
            )

    def _screenshot(self, number: int, notes: list[str]) -> PageScreenshot:
        from PIL import ImageOps

        if self._count > 1:
            self._image.seek(number - 1)
            self._check_pixels(self._image)
        dpi = _stated_dpi(self._image)
        full = self._image.size
        side = self._settings.max_image_side
        wanted = min(1.0, side / max(full), fitting_scale(*full, self._settings.limits))
        # JPEG decodes at a half, a quarter or an eighth for less time and memory.
        self._image.draft(None, (math.ceil(full[0] * wanted), math.ceil(full[1] * wanted)))
        image = self._decoded(notes)
        size = (max(1, round(full[0] * wanted)), max(1, round(full[1] * wanted)))
        image = ImageOps.exif_transpose(to_rgb(image, size))
        return PageScreenshot(image=image, dpi=dpi * wanted)

    def _decoded(self, notes: list[str]) -> Image:
        try:
            self._image.load()
        except (OSError, SyntaxError):
            if self._image.format not in ("JPEG", "MPO"):
                raise
            # With an end mark after the last byte the decoder gives what it has, the rest in grey.
            mended = io.BytesIO(self._source.path.read_bytes() + b"\xff\xd9")
            image = self._open(mended)
            image.load()
            notes.append("The file ends too early; only the upper part of the picture could be read.")
            return image
        return self._image

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DocumentError(f"The picture cannot be read: {error.strerror or error}.") from error
        except (ValueError, SyntaxError, EOFError, MemoryError, TypeError, KeyError, IndexError) as error:
            # What Pillow's decoders raise on damaged files.
            raise DocumentError(f"The picture is damaged: {error or type(error).__name__}.") from error


def to_rgb(image: Image, size: tuple[int, int] | None = None) -> Image:
    """Turn any mode into RGB: transparency onto white, 16 bits scaled to 8, CMYK converted.

    Orientation marks stay in `info` for the caller.

    Args:
        image: Decoded.
        size: Scale to this many pixels on the way, where it is cheapest.
    """
    from PIL import Image as pillow

    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _eight_bits(image)
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


def _eight_bits(image: Image) -> Image:
    from PIL import Image as pillow

    values = np.asarray(image).astype(np.float32)
    values = np.nan_to_num(values, posinf=0, neginf=0)
    low, high = float(values.min()), float(values.max())
    if image.mode == "F" or low < 0 or high > 65535:
        scaled = (values - low) * (255 / max(high - low, 1e-9))
    else:
        # Cameras and scanners store 10, 12 or 14 bits in 16; the smallest range that holds all is meant.
        top = next(top for top in (255, 1023, 4095, 16383, 65535) if high <= top)
        scaled = values * (255 / top)
    return pillow.fromarray(scaled.round().clip(0, 255).astype(np.uint8))


def _stated_dpi(image: Image) -> float:
    stated = image.info.get("dpi")
    try:
        value = float(stated[0])  # type: ignore[index]
    except (TypeError, ValueError, IndexError, ZeroDivisionError):
        return _DEFAULT_DPI
    return value if 10 <= value <= 2400 else _DEFAULT_DPI


@contextmanager
def _complaints(notes: list[str]) -> Iterator[None]:
    """Collect what Pillow would warn of as sentences, without showing it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    notes.extend(f"The picture was read with a complaint: {str(item.message).strip().rstrip('.')}." for item in caught)
