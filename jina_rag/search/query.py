"""A query as a search uses it: its words, its vectors, the image it may hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jina_rag.compression import cut_rows
from jina_rag.errors import InvalidInputError
from jina_rag.images import is_data_uri
from jina_rag.inputs import as_input_list
from jina_rag.protocols import Embedder, Input
from jina_rag.types import Float32, Page


@dataclass(frozen=True, slots=True)
class Query:
    """One query, embedded.

    Attributes:
        content: The caller's input, which a reranker is shown.
        text: Its words; empty for an image.
        dense: Shape (dim,).
        multi: Shape (tokens, multi_dim), cut as the index's rows are.
        tokens: What each row stands for, as text; None where the embedder does not tell.
        truncated: Whether it was too long and its end was not read.
    """

    content: Input
    text: str
    dense: Float32
    multi: Float32
    tokens: tuple[str, ...] | None = None
    truncated: bool = False


def embed_queries(
    queries: Sequence[Input], embedder: Embedder, *, dim: int | None, multi_dim: int | None
) -> list[Query]:
    """Embed queries in one batch.

    Args:
        queries: Texts, images, pages, or lists of these.
        embedder: Of the index.
        dim: What dense vectors are cut to; None for as they are.
        multi_dim: What the rows of multi-vectors are cut to; None for as they are.

    Raises:
        InvalidInputError: If one is empty, or of a kind that the embedder does not take.
    """
    inputs = as_input_list(queries, "questions")
    texts = [words_in(content) for content in inputs]
    for number, (content, text) in enumerate(zip(inputs, texts, strict=True), start=1):
        if not text.strip() and not has_image(content):
            which = "The question" if len(inputs) == 1 else f"Question {number} of {len(inputs)}"
            raise InvalidInputError(f"{which} is empty: ask something in words, or give an image.")
    if not inputs:
        return []
    embeddings = embedder.encode_query(inputs, truncate_dim=dim)
    truncated = embeddings.truncated or [False] * len(inputs)
    tokens = embeddings.tokens or [None] * len(inputs)
    return [
        Query(content, text, dense, cut_rows(rows, multi_dim or rows.shape[1]), pieces, truncated=bool(is_cut))
        for content, text, dense, rows, pieces, is_cut in zip(
            inputs, texts, embeddings.require_single(), embeddings.require_multi(), tokens, truncated, strict=True
        )
    ]


def words_in(query: Input) -> str:
    """The words of a query that it holds as text; those of a page are its own."""
    return "\n".join(text for text, _ in _parts(query) if text)


def has_image(query: Input) -> bool:
    """Whether a part of it is anything but text."""
    return any(is_image for _, is_image in _parts(query))


def _parts(query: Input) -> Iterator[tuple[str, bool]]:
    """The words of each part, and whether it is or holds an image."""
    if isinstance(query, str):
        is_image = is_data_uri(query)
        yield "" if is_image else query, is_image
    elif isinstance(query, Page):
        yield query.text, True
    elif isinstance(query, Mapping):
        text = query.get("text", "")
        yield text if isinstance(text, str) else "", "image" in query
    elif isinstance(query, Sequence) and not isinstance(query, bytes | bytearray | memoryview):
        for part in query:
            yield from _parts(part)
    else:
        yield "", True
