"""Image formats by the first bytes of a file, and registration of the decoders that Pillow does not load itself.

HEIC requires the package pi-heif (or pillow-heif), JPEG XL the package pillow-jxl-plugin, AVIF a Pillow of version 11.3
or later, and JPEG 2000 a Pillow with OpenJPEG. A decoder is imported when the first file of its format is opened, in
the process that decodes the file.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Literal, TypeAlias

ModernFormat: TypeAlias = Literal["HEIC", "AVIF", "JPEG XL", "JPEG 2000"]
"""Format that not every installation of Pillow reads."""

FORMATS = ("PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP")
"""Formats that every installation of Pillow reads, by the names of Pillow."""
HEAD_BYTES = 128
"""Number of bytes from which the format of a file is determined."""

_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF_BRANDS = {b"avif", b"avis"}
_IMAGE_BRANDS = {b"mif1", b"mif2", b"msf1", b"miaf"}
"""Brands of image files whose codec is in the list of compatible brands."""
_JPEG2000_STARTS = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_JXL_STARTS = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_NAMES: dict[ModernFormat, str] = {"HEIC": "HEIF", "AVIF": "AVIF", "JPEG XL": "JXL", "JPEG 2000": "JPEG2000"}
"""Format → name of the format in Pillow."""
_REMEDIES: dict[ModernFormat, str] = {
    "HEIC": 'requires pi-heif. Run: pip install pi-heif (or "jina-rag[images]"), or convert the file to JPEG',
    "AVIF": 'requires Pillow 11.3. Run: pip install "pillow>=11.3", or convert the file to PNG',
    "JPEG 2000": "requires a Pillow with OpenJPEG. Run: pip install -U pillow, or convert the file to PNG",
    "JPEG XL": "requires pillow-jxl-plugin (GPL). Run: pip install pillow-jxl-plugin, or convert the file to PNG",
}


def modern_format(head: bytes) -> ModernFormat | None:
    """Return the format of a HEIC, AVIF, JPEG 2000 or JPEG XL file; None for other files.

    Args:
        head: The first `HEAD_BYTES` of the file, or more.
    """
    if head.startswith(_JXL_STARTS):
        return "JPEG XL"
    if head.startswith(_JPEG2000_STARTS):
        return "JPEG 2000"
    if head[4:8] != b"ftyp":
        return None
    # The box `ftyp` contains the major brand, a version of 4 bytes, and the compatible brands.
    end = min(int.from_bytes(head[:4], "big"), HEAD_BYTES, len(head))
    major, brands = head[8:12], {head[start : start + 4] for start in range(16, end - 3, 4)}
    if major in _AVIF_BRANDS or (major in _IMAGE_BRANDS and brands & _AVIF_BRANDS):
        return "AVIF"
    return "HEIC" if major in _HEIC_BRANDS | _IMAGE_BRANDS else None


def readable_formats(head: bytes) -> tuple[str, ...]:
    """Return the names of the Pillow formats with which a file may be opened, after registering the decoder.

    Args:
        head: The first `HEAD_BYTES` of the file, or more.

    Returns:
        The formats of every Pillow, or the only format of a HEIC, AVIF, JPEG 2000 or JPEG XL file; empty if no decoder
        of the format is installed (see `missing_decoder`).
    """
    image_format = modern_format(head)
    if image_format is None:
        return FORMATS
    return (_NAMES[image_format],) if _REGISTRATIONS[image_format]() else ()


def missing_decoder(head: bytes) -> str:
    """Return a sentence that says which package reads the format of a file.

    Args:
        head: The first `HEAD_BYTES` of a HEIC, AVIF, JPEG 2000 or JPEG XL file.
    """
    image_format = modern_format(head)
    return f"The image format {image_format} {_REMEDIES[image_format]}." if image_format else ""


def _register_heif() -> bool:
    for module in ("pi_heif", "pillow_heif"):
        try:
            plugin = importlib.import_module(module)
        except ImportError:
            continue
        plugin.register_heif_opener()
        return True
    return False


def _register_jxl() -> bool:
    try:
        importlib.import_module("pillow_jxl")  # the import registers the decoder
    except ImportError:
        return False
    return True


def _has_avif() -> bool:
    from PIL import features

    return "avif" in features.modules and bool(features.check("avif"))


def _has_jpeg2000() -> bool:
    from PIL import features

    return bool(features.check("jpg_2000"))


_REGISTRATIONS: dict[ModernFormat, Callable[[], bool]] = {
    "HEIC": _register_heif,
    "AVIF": _has_avif,
    "JPEG 2000": _has_jpeg2000,
    "JPEG XL": _register_jxl,
}
