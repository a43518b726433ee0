"""Embedded search queries: text, images and vectors of a query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jina_rag.catalog.resources import IndexResources
from jina_rag.compression import cut_rows
from jina_rag.errors import InvalidInputError
from jina_rag.inputs import as_input_list
from jina_rag.protocols import Embedder, Input
from jina_rag.types import Float32, Page


@dataclass(frozen=True, slots=True)
class Query:
    """One embedded query.

    Attributes:
        content: The query as passed by the caller, which is also the input of the reranker.
        text: Text of the query; "" for an image. For an image of a page of the index and a text embedder, the words of
            the page.
        dense: Dense vector, shape (dim,), float32.
        multi: Multi-vector, shape (tokens, multi_dim), float32, truncated to the length of the rows in the index.
        tokens: Text of each token (row of `multi`); None if the embedder does not report tokens.
        truncated: Whether the embedder truncated a query that was too long.
    """

    content: Input
    text: str
    dense: Float32
    multi: Float32
    tokens: tuple[str, ...] | None = None
    truncated: bool = False


def embed_queries(
    queries: Sequence[Input],
    embedder: Embedder,
    resources: IndexResources,
    *,
    dim: int | None,
    multi_dim: int | None,
) -> list[Query]:
    """Embed queries in one batch.

    A text embedder gets the stored words of an image that is a page of the index, and does not read the image by OCR.

    Args:
        queries: The queries; each query is a text, an image, a page, or a list of these inputs.
        embedder: Embedder of the index.
        resources: Resources of the index.
        dim: Length that dense vectors are truncated to; None for no truncation.
        multi_dim: Length that the rows of multi-vectors are truncated to; None for no truncation.

    Returns:
        The embedded queries, in the order of `queries`.

    Raises:
        InvalidInputError: If a query is empty, or of a type that the embedder does not support.
    """
    contents = as_input_list(queries, "queries")
    inputs = contents
    if embedder.modality == "text" and any(map(has_image, contents)):
        # Imported here so that a search for a text starts faster.
        from jina_rag.search.page_images import with_stored_words

        inputs = with_stored_words(contents, resources)
    texts = [words_in(content) for content in inputs]
    for number, (content, text) in enumerate(zip(inputs, texts, strict=True), start=1):
        if not text.strip() and not has_image(content):
            subject = "The query" if len(inputs) == 1 else f"Query {number} of {len(inputs)}"
            raise InvalidInputError(f"{subject} is empty. Pass a text or an image.")
    if not inputs:
        return []
    embeddings = embedder.encode_query(inputs, truncate_dim=dim)
    truncated = embeddings.truncated or [False] * len(inputs)
    tokens = embeddings.tokens or [None] * len(inputs)
    return [
        Query(content, text, dense, cut_rows(rows, multi_dim or rows.shape[1]), pieces, truncated=bool(is_cut))
        for content, text, dense, rows, pieces, is_cut in zip(
            contents, texts, embeddings.require_single(), embeddings.require_multi(), tokens, truncated, strict=True
        )
    ]


def words_in(query: Input) -> str:
    """Return the text of a query: the text parts and the words of page parts, one part per line."""
    return "\n".join(text for text, _ in _parts(query) if text)


def has_image(query: Input) -> bool:
    """Return whether a part of the query is an image or a page."""
    return any(is_image for _, is_image in _parts(query))


def _parts(query: Input) -> Iterator[tuple[str, bool]]:
    """Yield (text, has_image) for each part of a query; a page part has an image."""
    if isinstance(query, str):
        yield query, False
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
