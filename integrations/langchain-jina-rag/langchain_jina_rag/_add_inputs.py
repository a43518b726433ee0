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
    """One mapping for each text.

    Raises:
        InvalidInputError: If there are more or fewer.
    """
    _check_count("metadatas", metadatas, count)
    return [{} for _ in range(count)] if metadatas is None else [dict(metadata or {}) for metadata in metadatas]


def ids_of(ids: Sequence[str | None] | None, count: int) -> list[str]:
    """One id for each text, random where there is none.

    Raises:
        InvalidInputError: If there are more or fewer.
    """
    _check_count("ids", ids, count)
    return [str(uuid.uuid4()) if name is None else name for name in ids or [None] * count]


def content_of(text: str, metadata: dict[str, Any], image_key: str) -> Any:  # noqa: ANN401  # an input of an index
    """A text to be kept to the letter, or a page where the metadata name a picture that is there."""
    image = image_of(Document(page_content="", metadata=metadata), image_key)
    if image is None:
        # Said outright: a text that reads as a data URI is a text all the same.
        return {"text": text}
    # A page that was saved brings its words with their places, unless somebody has changed the words since.
    return image if not text.strip() or _saved_text(image) == text else {"image": image, "text": text}


def _saved_text(image: Path) -> str | None:
    try:
        return open_page(image).text
    except InvalidInputError:
        return None  # a picture that no loader has saved


def _check_count(name: str, values: Sequence[Any] | None, count: int) -> None:
    if values is not None and len(values) != count:
        raise InvalidInputError(f"There are {count} texts and {len(values)} {name}: give one of each.")
