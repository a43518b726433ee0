"""The pictures of a context: screenshots or the places in question, scaled and encoded, each sent once."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
) -> tuple[list[ContextImage], dict[int, int], list[tuple[int, str]]]:
    """Make the pictures of a context; the arguments are those of `build_context`.

    Returns:
        The pictures; number of a source → which of them shows it; and (number, why) for each source without one.
    """
    missing: list[tuple[int, str]] = []
    images: list[ContextImage] = []
    image_of: dict[int, int] = {}
    if most == 0:
        # Nothing is read, nor is a place looked for.
        missing += [(number, f"{_the_image(hit)} is one more than 0.") for number, hit in enumerate(hits, start=1)]
        return images, image_of, missing
    files: dict[Path, bytes] = {}
    index_of: dict[tuple[bytes, Box | None] | bytes, int] = {}
    for number, hit in enumerate(hits, start=1):
        if hit.is_text:
            continue  # a text that is no page has no picture to miss
        try:
            source = _image_source(hit, prefer, citation_of)
            if source.file not in files:
                files[source.file] = hashlib.sha256(source.file.read_bytes()).digest()
            # The same place of the same file, told before anything is decoded; else the same bytes in the end.
            key = (files[source.file], source.cut)
            if key not in index_of and len(images) < most:
                image = load_image(source.file, source.cut, max_side=max_side)
                data = _encode(image, image_format)
                digest = hashlib.sha256(data).digest()
                if digest not in index_of:
                    index_of[digest] = len(images)
                    images.append(
                        ContextImage(data, f"image/{image_format}", image.size, number, source.box, source.caption)
                    )
                index_of[key] = index_of[digest]
        except (IndexStateError, OSError) as exc:
            missing.append((number, f"{_the_image(hit)} cannot be read: {exc}"))
            continue
        if key in index_of:
            image_of[number] = index_of[key]
        else:
            missing.append((number, f"{_the_image(hit)} is one more than {most}."))
    return images, image_of, missing


def without_source(
    images: Sequence[ContextImage], image_of: Mapping[int, int], number: int
) -> tuple[list[ContextImage], dict[int, int]]:
    """The pictures and who shows them, but not this source: its picture becomes the next one's, or goes."""
    index = image_of[number]
    rest = {source: image for source, image in image_of.items() if source != number}
    heirs = [source for source, image in rest.items() if image == index]
    if heirs:
        return [replace(image, source=min(heirs)) if i == index else image for i, image in enumerate(images)], rest
    return (
        [image for i, image in enumerate(images) if i != index],
        {source: image - (image > index) for source, image in rest.items()},
    )


def number_line(images: Sequence[ContextImage], image: int | None, number: int) -> str:
    """The line before a source's text: how it is cited, and where its picture is."""
    if image is None:
        return f"[{number}] (without a picture)"
    first = images[image].source
    return f"[{number}]" + ("" if first == number else f" (its picture is that of [{first}])")


def caption(images: Sequence[ContextImage], image: int | None, hit: ScoredPage) -> str:
    """Of what the picture shows, or of the hit's region; "" for none."""
    if image is not None and images[image].caption:
        return images[image].caption
    return "" if hit.region is None else hit.region.caption


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
