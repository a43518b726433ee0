"""Images of a context: page screenshots or cited boxes, scaled, encoded and deduplicated."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jina_rag.errors import IndexStateError
from jina_rag.explain.heatmap import load_image
from jina_rag.types import Box, ScoredPage

if TYPE_CHECKING:
    from PIL.Image import Image

    from jina_rag.explain.citations import Citation

_JPEG_QUALITY = 85


@dataclass(frozen=True, slots=True)
class ContextImage:
    """An encoded image for the chat model.

    Attributes:
        data: Bytes of the encoded image.
        mime_type: ``"image/jpeg"`` or ``"image/png"``.
        size: Width and height in pixels.
        source: Number of the first source that shows this image, from 1.
        box: Box of the page, as fractions of the page; None for the whole page.
        caption: Caption of the chart, table or figure; "" if the image has no caption.
    """

    data: bytes = field(repr=False)
    mime_type: str
    size: tuple[int, int]
    source: int
    box: Box | None = None
    caption: str = ""


def build_images(
    hits: Sequence[ScoredPage],
    *,
    limit: int,
    max_side: int,
    prefer: str,
    citation_of: Callable[[ScoredPage], Citation | None] | None,
    image_format: str,
) -> tuple[dict[int, ContextImage], list[tuple[int, str]]]:
    """Load and encode the images of a context.

    Args:
        hits: Pages, best first.
        limit: Maximum number of images, best first.
        max_side: Maximum length of an image's longer side in pixels.
        prefer: ``"page"`` or ``"region"``.
        citation_of: Function that returns the citation of a hit. With ``prefer="region"``, the box of the citation is
            sent; None sends the hit's region.
        image_format: ``"jpeg"`` or ``"png"``.

    Returns:
        A mapping from source number to image, in which sources with the same image share one object; and a list with
        (source number, reason) for each source whose image is omitted.
    """
    if limit == 0:
        # Without images, no file is read and no citation is computed.
        return {}, [
            (number, f"{_image_name(hit)} is omitted: max_images is 0.") for number, hit in enumerate(hits, start=1)
        ]
    missing: list[tuple[int, str]] = []
    images: dict[int, ContextImage] = {}
    files: dict[Path, bytes] = {}
    # Images are deduplicated twice: by file and crop before decoding, and by the encoded bytes after decoding.
    by_crop: dict[tuple[bytes, Box | None], ContextImage] = {}
    by_digest: dict[bytes, ContextImage] = {}
    for number, hit in enumerate(hits, start=1):
        if hit.is_text:
            continue  # a plain text has no image
        try:
            source = _image_source(hit, prefer, citation_of)
            if source.file not in files:
                files[source.file] = hashlib.sha256(source.file.read_bytes()).digest()
            crop = (files[source.file], source.crop)
            if crop not in by_crop and len(by_digest) < limit:
                pixels = load_image(source.file, source.crop, max_side=max_side)
                data = _encode(pixels, image_format)
                image = ContextImage(data, f"image/{image_format}", pixels.size, number, source.box, source.caption)
                by_crop[crop] = by_digest.setdefault(hashlib.sha256(data).digest(), image)
        except (IndexStateError, OSError) as exc:
            missing.append((number, f"{_image_name(hit)} cannot be read: {exc}"))
            continue
        if crop in by_crop:
            images[number] = by_crop[crop]
        else:
            missing.append((number, f"{_image_name(hit)} is omitted: max_images is {limit}."))
    return images, missing


def _image_name(hit: ScoredPage) -> str:
    return f"The image of {hit.path.name}, page {hit.page}"


@dataclass(frozen=True, slots=True)
class _ImageSource:
    """An image to load: the file, the crop in the file, and the box on the page and the caption of the crop."""

    file: Path
    crop: Box | None = None
    box: Box | None = None
    caption: str = ""


def _image_source(
    hit: ScoredPage, prefer: str, citation_of: Callable[[ScoredPage], Citation | None] | None
) -> _ImageSource:
    if prefer == "region":
        citation = None if citation_of is None else citation_of(hit)
        if citation is not None:
            if citation.image_path is None:
                raise IndexStateError("the screenshot is not on this machine.")
            return _ImageSource(citation.image_path, citation.box, citation.box, citation.caption)
        region = hit.region
        # If the image file of the region is missing, send the page screenshot, which also shows the region.
        if region is not None and region.image_path is not None and region.image_path.exists():
            return _ImageSource(region.image_path, None, region.box, region.caption)
    if hit.image_path is None:
        raise IndexStateError("the screenshot is not on this machine.")
    return _ImageSource(hit.image_path)


def _encode(image: Image, image_format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format.upper(), **({"quality": _JPEG_QUALITY} if image_format == "jpeg" else {}))
    return buffer.getvalue()
