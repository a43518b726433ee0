"""Conversion of documents to numbered text and image blocks for a vision chat model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

from langchain_core.documents import Document
from langchain_core.messages.content import ContentBlock, create_image_block, create_text_block

from jina_rag import build_context
from jina_rag.adapters import displayed
from langchain_jina_rag._documents import documents_to_hits

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
    """Convert documents to content blocks for a chat model: a citation, the text and the image of each document.

    .. code-block:: python

        from langchain_core.messages import HumanMessage
        from langchain_jina_rag import documents_to_content_blocks

        docs = retriever.invoke("Which region grew fastest?")
        message = HumanMessage(content_blocks=documents_to_content_blocks(docs, query="Which region grew fastest?"))
        answer = model.invoke([message])

    The text, the file name and the metadata of a page are untrusted and can contain instructions for the model (prompt
    injection). Untrusted text is enclosed in tags, and the first block declares the enclosed text as data. No text can
    close the tags, because the name of the tags occurs in none of the texts.

    Args:
        docs: Pages or texts of any retriever, best first. In the metadata, ``source`` and ``page`` (from 0) form the
            citation (``report.pdf, page 3``), and ``image`` is the path of the page image. ``snippet`` and ``region``
            have the format of `JinaPageRetriever`.
        query: Query to append at the end, outside of the tags; None appends no query.
        image: ``"page"`` sends page screenshots; ``"region"`` sends the best chart, table or figure of a page, if any;
            None sends no images.
        max_side: Maximum length of an image's longer side in pixels; larger images are scaled down.
        max_images: Maximum number of images, best first; None for one image per document. Identical images are sent
            once.
        max_tokens: Maximum number of estimated tokens of the whole text; long texts are cut around the snippet.
        image_key: Metadata key of the image path.

    Returns:
        Text and image blocks in version 1 of the format (``base64``, ``mime_type``), for
        ``HumanMessage(content_blocks=…)`` or ``HumanMessage(content=…)``. Omitted and unreadable content is logged as a
        warning.

    Raises:
        InvalidInputError: If a limit is out of range, or `image` is unknown.
    """
    if max_images is None:
        max_images = len(docs)
    context = build_context(
        documents_to_hits(docs, image_key),
        query=query,
        text_of=lambda hit: hit.text,
        max_images=0 if image is None else max_images,
        max_tokens=max_tokens,
        prefer=image or "page",
        max_side=max_side,
    )
    for omission in context.omissions:
        if not (image is None and omission.kind == "image"):
            _log.warning(
                "The content blocks omit a part of document %d: %s", omission.source, displayed(omission.reason)
            )
    return content_blocks(context.blocks())


def content_blocks(blocks: Sequence[dict[str, Any]]) -> list[ContentBlock]:
    """Convert the blocks of a `jina_rag` context to content blocks of langchain-core.

    Args:
        blocks: Result of `Context.blocks`.
    """
    return [
        create_text_block(block["text"])
        if block["type"] == "text"
        else create_image_block(base64=block["base64"], mime_type=block["mime_type"])
        for block in blocks
    ]
