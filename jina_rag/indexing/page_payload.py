"""Payload from which `jina_rag.search.snippets` makes snippets: text, boxes, regions and sign codes of a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jina_rag.compression import encode_assignment, encode_signs
from jina_rag.compression.pooling import Assignment
from jina_rag.stores import schema
from jina_rag.types import Float32, Page, TokenGrid


def describe(
    page: Page,
    rows: Float32,
    grid: TokenGrid | None,
    crops: Sequence[str | None],
    assignment: Assignment | None = None,
    *,
    signs: bool = True,
) -> dict[str, Any]:
    """Return the payload from which `jina_rag.search.snippets.highlight` makes the snippet of a page.

    Args:
        page: The page with words and regions.
        rows: The page's multi-vector as stored, shape (rows, dim), float32.
        grid: Box of each token on the page; None if the embedder reports no positions.
        crops: Name of the image file of each region in ``page.regions``; None for a region without image file.
        assignment: For each token, the index of the row into which the token was pooled, shape (tokens,). None if no
            tokens were pooled.
        signs: Whether to store the signs of the rows, so that `highlight` does not read the vectors.
    """
    payload: dict[str, Any] = {
        schema.TEXT: page.text,
        schema.REGIONS: [
            {
                "kind": region.kind,
                "box": [round(x, 5) for x in region.box],
                "caption": region.caption,
                "image": crop,
            }
            for region, crop in zip(page.regions, crops, strict=True)
        ],
    }
    # `words_of` splits the text at whitespace. Boxes are stored only if the split yields exactly the words of the page.
    if page.words and page.text.split() == [word.text for word in page.words]:
        boxes = np.array([word.box for word in page.words], dtype=np.float32)
        payload[schema.WORDS] = schema.encode_grid(TokenGrid(boxes, "words"))
    if grid is not None:
        payload |= {schema.GRID: schema.encode_grid(grid)} | _row_payload(rows, assignment, signs=signs)
    return payload


def describe_text(
    text: str, rows: Float32, assignment: Assignment | None = None, *, signs: bool = True
) -> dict[str, Any]:
    """Return the payload of an added text, as `describe` does for a page. The payload contains no boxes.

    Args:
        text: The text.
        rows: The text's multi-vector as stored, shape (rows, dim), float32.
        assignment: As in `describe`.
        signs: As in `describe`.
    """
    return {schema.TEXT: text, schema.REGIONS: []} | _row_payload(rows, assignment, signs=signs)


def _row_payload(rows: Float32, assignment: Assignment | None, *, signs: bool) -> dict[str, Any]:
    payload = {} if assignment is None else {schema.ASSIGNMENT: encode_assignment(assignment)}
    return payload | ({schema.SIGNS: encode_signs(rows)} if signs else {})
