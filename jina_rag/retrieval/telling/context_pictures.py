"""The pictures of a context: screenshots or the places in question, scaled and encoded, each sent once."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jina_rag.errors import IndexStateError
from jina_rag.types import Box, ScoredPage

if TYPE_CHECKING:
    from PIL.Image import Image

    from jina_rag.retrieval.telling.citations import Citation

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


def pictures(
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
    shown: dict[int, int] = {}
    known: dict[bytes, int] = {}
    for number, hit in enumerate(hits, start=1):
        label = f"{hit.path.name}, page {hit.page}"
        try:
            picture, box, caption = _picture(hit, prefer, citation_of, max_side)
        except (IndexStateError, OSError) as exc:
            missing.append((number, f"The picture of {label} cannot be read: {exc}"))
            continue
        data = _encoded(picture, image_format)
        digest = hashlib.sha256(data).digest()
        if digest not in known:
            if len(images) >= most:
                missing.append((number, f"The picture of {label} is one more than {most}."))
                continue
            known[digest] = len(images)
            images.append(ContextImage(data, f"image/{image_format}", picture.size, number, box, caption))
        shown[number] = known[digest]
    return images, shown, missing


def _picture(
    hit: ScoredPage, prefer: str, citation_of: Callable[[ScoredPage], Citation | None] | None, max_side: int
) -> tuple[Image, Box | None, str]:
    from PIL import Image as images

    if prefer == "region":
        citation = None if citation_of is None else citation_of(hit)
        if citation is not None:
            return citation.crop(max_side=max_side), citation.box, citation.caption
        region = hit.region
        # Crops may be gone where screenshots are not: the page shows it as well.
        if region is not None and region.image_path is not None and region.image_path.exists():
            with images.open(region.image_path) as opened:
                return _contained(opened.convert("RGB"), max_side), region.box, region.caption
    if hit.image_path is None:
        raise IndexStateError("its image is not on this machine.")
    with images.open(hit.image_path) as opened:
        return _contained(opened.convert("RGB"), max_side), None, ""


def _contained(image: Image, max_side: int) -> Image:
    from PIL import ImageOps

    return image if max(image.size) <= max_side else ImageOps.contain(image, (max_side, max_side))


def _encoded(image: Image, image_format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format.upper(), **({"quality": _QUALITY} if image_format == "jpeg" else {}))
    return buffer.getvalue()
