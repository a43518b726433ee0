"""Documents as what `DocumentIndex.add` takes."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.documents import Document

from jina_rag import InvalidInputError, open_page
from langchain_jina_rag._documents import image_of


def metadata_of(metadatas: Sequence[dict[str, Any]] | None, count: int) -> list[dict[str, Any]]:
    """One mapping for each entry.

    Raises:
        InvalidInputError: If there are more or fewer.
    """
    if metadatas is None:
        return [{} for _ in range(count)]
    if len(metadatas) != count:
        raise InvalidInputError(f"There are {count} texts and {len(metadatas)} metadatas: give one of each.")
    return [dict(given or {}) for given in metadatas]


def ids_of(ids: Sequence[str | None] | None, count: int) -> list[str]:
    """One id for each entry, random where there is none.

    Raises:
        InvalidInputError: If there are more or fewer.
    """
    if ids is None:
        return [str(uuid.uuid4()) for _ in range(count)]
    if len(ids) != count:
        raise InvalidInputError(f"There are {count} texts and {len(ids)} ids: give one of each.")
    return [str(uuid.uuid4()) if entry is None else entry for entry in ids]


def content_of(text: str, metadata: dict[str, Any], image_key: str) -> Any:  # noqa: ANN401  # an input of an index
    """A text to be kept to the letter, or a page where the metadata name a picture that is there."""
    image = image_of(Document(page_content="", metadata=metadata), image_key)
    if image is None:
        # Said outright: a text that reads as a data URI is a text all the same.
        return {"text": text}
    # A page that was kept brings its words with their places, unless somebody has changed the words since.
    return image if not text.strip() or _kept_words(image) == text else {"image": image, "text": text}


def _kept_words(image: Path) -> str | None:
    try:
        return open_page(image).text
    except InvalidInputError:
        return None  # a picture that no loader has kept
