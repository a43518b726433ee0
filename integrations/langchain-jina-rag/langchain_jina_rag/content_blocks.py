"""Documents as what a chat model that looks at pictures is given: each with its number, its source and its picture."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

from langchain_core.documents import Document
from langchain_core.messages.content import ContentBlock, create_image_block, create_text_block

from jina_rag import build_context
from langchain_jina_rag._documents import as_hits

_log = logging.getLogger("langchain_jina_rag")


def documents_to_content_blocks(
    docs: Sequence[Document],
    *,
    query: str | None = None,
    image: Literal["page", "region"] | None = "page",
    max_side: int = 1568,
    max_images: int | None = None,
    max_tokens: int = 4000,
    image_key: str = "image",
) -> list[ContentBlock]:
    """Content blocks for a message to a chat model: for each document a citation with its text, and its picture.

    .. code-block:: python

        from langchain_core.messages import HumanMessage
        from langchain_jina_rag import documents_to_content_blocks

        docs = retriever.invoke("Which region grew fastest?")
        message = HumanMessage(content_blocks=documents_to_content_blocks(docs, query="Which region grew fastest?"))
        answer = model.invoke([message])

    Whatever stands on a page, in a file's name or in metadata was written by somebody else and may try to give the
    model orders. It stands between tags whose name occurs in none of it, so that no text can end its own quotation, and
    a line before it says that it is data and no instruction.

    Args:
        docs: Pages or texts, best first, from any retriever. ``metadata``: ``source`` and ``page`` (from 0) give the
            citation (``report.pdf, page 3``), ``image`` is the path of the picture, ``snippet`` and ``region`` are
            those of `JinaPageRetriever`.
        query: Stands at the end, outside of the tags.
        image: ``"page"`` for whole screenshots; ``"region"`` for the best chart, table or figure where there is one;
            None for no pictures.
        max_side: Longest side of a picture in pixels; larger ones are scaled down.
        max_images: Pictures at most, best first; None for one for each document. One that shows the same as an earlier
            one is not sent again.
        max_tokens: Tokens of all text at most, as they are estimated; long texts are cut around their snippet.
        image_key: The key of metadata that has the path of the picture.

    Returns:
        Text and image blocks (version 1: ``base64``, ``mime_type``), for ``HumanMessage(content_blocks=…)`` and
        ``HumanMessage(content=…)`` alike. What did not fit or could not be read is told in the log.

    Raises:
        InvalidInputError: If an argument makes no sense.
    """
    if max_images is None:
        max_images = len(docs)
    context = build_context(
        as_hits(docs, image_key),
        query=query,
        text_of=lambda hit: hit.text,
        max_images=0 if image is None else max_images,
        max_tokens=max_tokens,
        prefer=image or "page",
        max_side=max_side,
    )
    for omission in context.omissions:
        if not (image is None and omission.kind == "image"):
            _log.warning("A chat model is not given all of document %d: %s", omission.source, omission.reason)
    return content_blocks(context.blocks())


def content_blocks(blocks: Sequence[dict[str, Any]]) -> list[ContentBlock]:
    """The blocks of a `jina_rag` context as those of langchain-core."""
    return [
        create_text_block(block["text"])
        if block["type"] == "text"
        else create_image_block(base64=block["base64"], mime_type=block["mime_type"])
        for block in blocks
    ]
