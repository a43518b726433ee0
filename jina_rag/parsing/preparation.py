"""Encoded images and term weights of a page, for an index. `read_pages` computes them outside the thread of the caller.

The results are equal to those of `indexing`, which computes them for pages that were not prepared.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from jina_rag import sparse
from jina_rag.images import encode_jpeg
from jina_rag.types import Box, EncodedImage, Page, PreparedPage, Region

if TYPE_CHECKING:
    from PIL.Image import Image


def prepare(page: Page, quality: int, *, screenshot: EncodedImage | None = None) -> PreparedPage:
    """Encode the screenshot and the crops of the regions, and compute the term weights of the page and the regions.

    Args:
        page: The page with all words and regions.
        quality: JPEG quality, 1 to 100.
        screenshot: The screenshot as a JPEG file of `quality`, if the screenshot was encoded before; else None.

    Raises:
        InvalidInputError: If JPEG does not support the screenshot: a side above 65,500 pixels.
    """
    return PreparedPage(
        screenshot=screenshot or encode_jpeg(page.screenshot.image, quality),
        crops=tuple(encode_jpeg(crop(page, region.box), quality) for region in page.regions),
        lexical=sparse.document_vector(page_text(page)),
        region_lexical=tuple(sparse.document_vector(region_text(page, region)) for region in page.regions),
    )


def crop(page: Page, box: Box) -> Image:
    """Return the part of the screenshot inside a box, with a width and height of at least one pixel.

    Args:
        page: The page.
        box: Box as fractions of the page.
    """
    return page.screenshot.image.crop(_pixel_box(page, box))


def crop_size(page: Page, box: Box) -> tuple[int, int]:
    """Return the width and height of the image that `crop` returns, in pixels.

    Args:
        page: The page.
        box: Box as fractions of the page.
    """
    left, top, right, bottom = _pixel_box(page, box)
    return right - left, bottom - top


def _pixel_box(page: Page, box: Box) -> tuple[int, int, int, int]:
    width, height = page.screenshot.image.size
    x0, y0, x1, y1 = box
    left, top = min(int(x0 * width), width - 1), min(int(y0 * height), height - 1)
    return left, top, max(left + 1, round(x1 * width)), max(top + 1, round(y1 * height))


def page_text(page: Page) -> str:
    """Return the text of a page for lexical search: the words, and the file name, often the only text of a photo.

    Args:
        page: The page with all words.
    """
    return f"{page.text}\n{PurePosixPath(page.doc_id).stem}"


def region_text(page: Page, region: Region) -> str:
    """Return the caption of a region, followed by the words of the page whose middle is inside the box of the region.

    Args:
        page: The page with all words.
        region: A region of the page.
    """
    return " ".join([region.caption, *(word.text for word in page.words if _inside(word.box, region.box))]).strip()


def _inside(box: Box, region: Box) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return region[0] <= x <= region[2] and region[1] <= y <= region[3]
