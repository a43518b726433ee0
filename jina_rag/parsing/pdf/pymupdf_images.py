"""Image files decoded by MuPDF, for files that Pillow cannot read."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def read_image(path: Path, max_pixels: int) -> Image | None:
    """Return the first frame of an image file, with mode L, LA, RGB or RGBA.

    Args:
        path: Path of the file.
        max_pixels: Maximum pixels of the image. The size is read from the header before decoding.

    Returns:
        The image; None if PyMuPDF is not installed, MuPDF cannot decode the file, or the image is larger.
    """
    if not find_spec("pymupdf"):
        return None
    from PIL import Image as pillow

    from jina_rag.parsing.pdf.pymupdf_renderer import LOCK, load_library

    pymupdf = load_library()
    library = pymupdf.mupdf
    content = path.read_bytes()
    with LOCK:
        try:
            header = library.fz_new_image_from_buffer(library.fz_new_buffer_from_copied_data(content))
            if not 0 < header.w() * header.h() <= max_pixels:
                return None
            pixels = pymupdf.Pixmap(content)
            if pixels.colorspace is None:
                return None
            is_gray = pixels.colorspace.n == 1
            pixels = pymupdf.Pixmap(pymupdf.csGRAY if is_gray else pymupdf.csRGB, pixels)
        except (RuntimeError, ValueError, library.FzErrorBase):
            return None
        # The colors of MuPDF are multiplied by the opacity.
        mode = ("La" if is_gray else "RGBa") if pixels.alpha else ("L" if is_gray else "RGB")
        image = pillow.frombytes(mode, (pixels.width, pixels.height), pixels.samples)
    return image.convert(mode.upper()) if pixels.alpha else image
