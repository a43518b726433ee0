"""Query images that are pages of the index: the stored words of the page replace the image for a text embedder.

A text embedder reads an image by OCR, which takes 0.5 to 3 seconds. The words of a page of the index are stored. A page
is found by a content hash: of the image file, of the file that was indexed, or of the pixels.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jina_rag.catalog.manifest import Manifest
from jina_rag.catalog.resources import IndexResources
from jina_rag.errors import JinaRagError
from jina_rag.images import encode_jpeg, is_data_uri, open_image
from jina_rag.protocols import Input
from jina_rag.stores import schema
from jina_rag.stores.images import QUALITY
from jina_rag.types import Page


def with_stored_words(queries: Sequence[Input], resources: IndexResources) -> list[Input]:
    """Return the queries with each image of a page of the index replaced by the words of the page.

    Images of other pages, and images of pages without words, stay unchanged.

    Args:
        queries: The queries, each a text, an image, a page, or a list of these inputs.
        resources: Resources of the index.
    """
    all_parts = [_parts(query) for query in queries]
    page_ids = [
        # A text embedder uses the words of a page itself, but reads the image of a page within a list or a mapping.
        [None] if isinstance(query, Page) and query.words else [_page_id(part, resources.manifest) for part in parts]
        for query, parts in zip(queries, all_parts, strict=True)
    ]
    known_ids = list(dict.fromkeys(page_id for ids in page_ids for page_id in ids if page_id is not None))
    points = resources.store.fetch(known_ids, vectors=False) if known_ids else []
    texts = {point.id: str(point.payload.get(schema.TEXT, "")) for point in points}
    return [
        _replaced(query, parts, [texts.get(page_id or "", "") for page_id in ids])
        for query, parts, ids in zip(queries, all_parts, page_ids, strict=True)
    ]


def _replaced(query: Input, parts: Sequence[Input], texts: Sequence[str]) -> Input:
    """Return the query with each part replaced by its text, unless the text is blank."""
    if not any(text.strip() for text in texts):
        return query
    new_parts: list[Any] = [{"text": text} if text.strip() else part for part, text in zip(parts, texts, strict=True)]
    new_query: Input = new_parts if _is_list(query) else new_parts[0]
    return new_query


def _is_list(query: Input) -> bool:
    return isinstance(query, Sequence) and not isinstance(query, str | bytes | bytearray | memoryview)


def _parts(query: Input) -> list[Input]:
    return list(query) if _is_list(query) else [query]  # type: ignore[arg-type]  # `_is_list` checked the type


def _page_id(part: Input, manifest: Manifest) -> str | None:
    """Return the id of the page that an image shows; None for a text, and for an image that is not in the index."""
    source: object = part
    if isinstance(part, str):
        return None
    if isinstance(part, Mapping):
        if set(part) != {"image"}:
            return None  # a text, or a mapping that the embedder rejects
        source = part["image"]
        if isinstance(source, str) and not is_data_uri(source):
            if "://" in source:
                return None  # the embedder downloads the image, if URLs are allowed
            source = Path(source)
    if isinstance(source, Page):
        source = source.screenshot.image
    if source is None:
        return None
    try:
        return next((page_id for name in _hashes(source) if (page_id := _lookup(name, manifest)) is not None), None)
    except (JinaRagError, OSError, ValueError):
        return None  # the embedder reads the image again and raises the error with the position of the query


def _hashes(source: object) -> Iterator[str]:
    """Yield the SHA-256 of an image file, then the SHA-256 of the page image that an ingestion makes of the pixels."""
    image = open_image(source)  # checks the limits before the file is read
    if isinstance(source, os.PathLike):
        with open(source, "rb") as file:
            yield hashlib.file_digest(file, "sha256").hexdigest()
    elif isinstance(image.source, bytes):
        yield hashlib.sha256(image.source).hexdigest()
    yield encode_jpeg(image.load(alpha="white"), QUALITY).sha256


def _lookup(digest: str, manifest: Manifest) -> str | None:
    """Return the id of the page with this image file, or of the only page of an indexed file; None if unknown."""
    page_id = manifest.page_with_image(f"{digest[:2]}/{digest}.jpg")
    if page_id is not None:
        return page_id
    pages = [point for point in manifest.points(digest) if point.kind == "page"]
    return pages[0].point_id if len(pages) == 1 else None
