"""Documents as what `DocumentIndex.add` takes."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jina_rag import InvalidInputError, open_page
from langchain_jina_rag._documents import image_file


def add_arguments(
    texts: Sequence[str],
    metadatas: Sequence[dict[str, Any]] | None,
    ids: Sequence[str | None] | None,
    image_key: str,
) -> dict[str, Any]:
    """The arguments of `DocumentIndex.add`; what has no id gets a random one.

    Raises:
        InvalidInputError: If there are more or fewer metadatas or ids than texts.
    """
    for name, values in (("metadatas", metadatas), ("ids", ids)):
        if values is not None and len(values) != len(texts):
            raise InvalidInputError(f"There are {len(texts)} texts and {len(values)} {name}: give one of each.")
    metadata = [dict(entry or {}) for entry in metadatas or [{} for _ in texts]]
    return {
        "contents": [_content(text, entry, image_key) for text, entry in zip(texts, metadata, strict=True)],
        "ids": [str(uuid.uuid4()) if name is None else name for name in ids or [None for _ in texts]],
        "metadata": metadata,
    }


def _content(text: str, metadata: dict[str, Any], image_key: str) -> Any:  # noqa: ANN401  # an input of an index
    """A text to be kept to the letter, or a page where the metadata name a picture that is there."""
    image = image_file(metadata.get(image_key))
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
