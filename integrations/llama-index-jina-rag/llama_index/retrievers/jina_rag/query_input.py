"""A query of LlamaIndex as a question of jina_rag: words, pictures, or both."""

from __future__ import annotations

from typing import Any

from llama_index.core.schema import QueryBundle
from llama_index.embeddings.jina_rag.base import image_input

from jina_rag import InvalidInputError


def query_of(query: QueryBundle) -> Any:  # noqa: ANN401  # one of the forms that jina_rag takes
    """What is asked: the text, or the picture of ``image_path``, or a list of these where there are several.

    Several ``custom_embedding_strs``, as query transforms make them, are one question of several parts.

    Raises:
        InvalidInputError: If nothing is asked.
    """
    parts: list[Any] = [text for text in query.embedding_strs if text.strip()]
    parts += [image_input(image) for image in query.embedding_image]
    if not parts:
        raise InvalidInputError("The query is empty: ask something in words (query_str), or give an image_path.")
    return parts[0] if len(parts) == 1 else parts
