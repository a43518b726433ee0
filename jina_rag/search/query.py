"""A question as a search uses it: its words, its vectors, the picture it may hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jina_rag.compression import cut_rows
from jina_rag.errors import InvalidInputError
from jina_rag.images import is_data_uri
from jina_rag.inputs import listed
from jina_rag.protocols import Embedder, Input
from jina_rag.types import Float32, Page


@dataclass(frozen=True, slots=True)
class Query:
    """One question, embedded.

    Attributes:
        asked: As it was given: what a reranker is shown.
        text: Its words; empty for a picture.
        dense: Shape (dim,).
        multi: Shape (tokens, multi_dim), cut as the index's rows are.
        tokens: What each row stands for, as text; None where the embedder does not tell.
        cut: Whether it was too long and its end was not read.
    """

    asked: Input
    text: str
    dense: Float32
    multi: Float32
    tokens: tuple[str, ...] | None = None
    cut: bool = False


def embed_queries(
    queries: Sequence[Input], embedder: Embedder, *, dim: int | None, multi_dim: int | None
) -> list[Query]:
    """Embed questions in one batch.

    Args:
        queries: Texts, images, pages, or lists of these.
        embedder: Of the index.
        dim: What dense vectors are cut to; None for as they are.
        multi_dim: What the rows of multi-vectors are cut to; None for as they are.

    Raises:
        InvalidInputError: If one is empty, or of a kind that the embedder does not take.
    """
    asked = listed(queries, "questions")
    texts = [words_in(query) for query in asked]
    for number, (query, text) in enumerate(zip(asked, texts, strict=True), start=1):
        if not text.strip() and not has_image(query):
            which = "The question" if len(asked) == 1 else f"Question {number} of {len(asked)}"
            raise InvalidInputError(f"{which} is empty: ask something in words, or give an image.")
    if not asked:
        return []
    encoded = embedder.encode_query(asked, truncate_dim=dim)
    assert encoded.single is not None
    assert encoded.multi is not None
    cut = encoded.truncated or [False] * len(asked)
    tokens = encoded.tokens or [None] * len(asked)
    return [
        Query(query, text, encoded.single[i], cut_rows(rows, multi_dim or rows.shape[1]), tokens[i], cut=bool(cut[i]))
        for i, (query, text, rows) in enumerate(zip(asked, texts, encoded.multi, strict=True))
    ]


def words_in(query: Input) -> str:
    """The words of a question that are given as text; those of a page are its own."""
    if isinstance(query, str):
        return "" if is_data_uri(query) else query
    if isinstance(query, Page):
        return query.text
    if isinstance(query, Mapping):
        text = query.get("text", "")
        return text if isinstance(text, str) else ""
    if isinstance(query, Sequence) and not isinstance(query, bytes | bytearray | memoryview):
        return "\n".join(filter(None, (words_in(part) for part in query)))
    return ""


def has_image(query: Input) -> bool:
    """Whether a part of it is anything but text."""
    if isinstance(query, str):
        return is_data_uri(query)
    if isinstance(query, Mapping):
        return "image" in query
    if isinstance(query, Sequence) and not isinstance(query, bytes | bytearray | memoryview):
        return any(has_image(part) for part in query)
    return True
