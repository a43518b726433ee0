"""The pictures of a context: screenshots or the places in question, scaled and encoded, each sent once."""

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

_QUALITY = 85


@dataclass(frozen=True, slots=True)
class ContextImage:
    """A picture for the model.

    Attributes:
        data: Bytes of the file.
        mime_type: ``"image/jpeg"`` or ``"image/png"``.
        size: Width and height in pixels.
        source: Number of the first source that it shows.
        box: Which part of the page; None for the whole page.
        caption: Of the chart, table or figure; "" for none.
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
    most: int,
    max_side: int,
    prefer: str,
    citation_of: Callable[[ScoredPage], Citation | None] | None,
    image_format: str,
) -> tuple[dict[int, ContextImage], list[tuple[int, str]]]:
    """Make the images of a context; the arguments are those of `build_context`.

    Returns:
        Number of a source → its image, the same for sources that show the same; and (number, why) for each source
        without one.
    """
    if most == 0:
        # Nothing is read, nor is a place looked for.
        return {}, [(number, f"{_the_image(hit)} is one more than 0.") for number, hit in enumerate(hits, start=1)]
    missing: list[tuple[int, str]] = []
    images: dict[int, ContextImage] = {}
    files: dict[Path, bytes] = {}
    # The same place of the same file is told before anything is decoded; else the same bytes in the end.
    by_place: dict[tuple[bytes, Box | None], ContextImage] = {}
    by_digest: dict[bytes, ContextImage] = {}
    for number, hit in enumerate(hits, start=1):
        if hit.is_text:
            continue  # a text that is no page has no picture to miss
        try:
            source = _image_source(hit, prefer, citation_of)
            if source.file not in files:
                files[source.file] = hashlib.sha256(source.file.read_bytes()).digest()
            place = (files[source.file], source.cut)
            if place not in by_place and len(by_digest) < most:
                pixels = load_image(source.file, source.cut, max_side=max_side)
                data = _encode(pixels, image_format)
                image = ContextImage(data, f"image/{image_format}", pixels.size, number, source.box, source.caption)
                by_place[place] = by_digest.setdefault(hashlib.sha256(data).digest(), image)
        except (IndexStateError, OSError) as exc:
            missing.append((number, f"{_the_image(hit)} cannot be read: {exc}"))
            continue
        if place in by_place:
            images[number] = by_place[place]
        else:
            missing.append((number, f"{_the_image(hit)} is one more than {most}."))
    return images, missing


def _the_image(hit: ScoredPage) -> str:
    return f"The picture of {hit.path.name}, page {hit.page}"


@dataclass(frozen=True, slots=True)
class _ImageSource:
    """A picture to be: its file, what is cut out of that, which part of the page it shows, and its caption."""

    file: Path
    cut: Box | None = None
    box: Box | None = None
    caption: str = ""


def _image_source(
    hit: ScoredPage, prefer: str, citation_of: Callable[[ScoredPage], Citation | None] | None
) -> _ImageSource:
    if prefer == "region":
        citation = None if citation_of is None else citation_of(hit)
        if citation is not None:
            if citation.image_path is None:
                raise IndexStateError("its screenshot is not on this machine.")
            return _ImageSource(citation.image_path, citation.box, citation.box, citation.caption)
        region = hit.region
        # Crops may be gone where screenshots are not: the page shows it as well.
        if region is not None and region.image_path is not None and region.image_path.exists():
            return _ImageSource(region.image_path, None, region.box, region.caption)
    if hit.image_path is None:
        raise IndexStateError("its image is not on this machine.")
    return _ImageSource(hit.image_path)


def _encode(image: Image, image_format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format.upper(), **({"quality": _QUALITY} if image_format == "jpeg" else {}))
    return buffer.getvalue()
