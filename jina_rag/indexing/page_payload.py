"""Part of a page's payload that `jina_rag.search.snippets` reads: words, boxes, regions and sign codes."""

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
    """Return the part of a page's payload that `jina_rag.search.snippets.highlight` reads.

    Args:
        page: The page, with its words and regions.
        rows: The page's multi-vector as stored, shape (rows, dim), float32.
        grid: Box of each token; None if the embedder reports no positions.
        crops: Names of the image files of ``page.regions``, in order; None for a region without image.
        assignment: Index of each token's row after pooling, shape (tokens,); None if every token has its own row.
        signs: Whether to store sign codes of the rows, so that `highlight` needs no vectors.
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
    # Boxes are stored only if splitting the text at whitespace yields exactly these words, as `words_of` assumes.
    if page.words and page.text.split() == [word.text for word in page.words]:
        boxes = np.array([word.box for word in page.words], dtype=np.float32)
        payload[schema.WORDS] = schema.encode_grid(TokenGrid(boxes, "words"))
    if grid is not None:
        payload |= {schema.GRID: schema.encode_grid(grid)} | _row_payload(rows, assignment, signs=signs)
    return payload


def describe_text(
    text: str, rows: Float32, assignment: Assignment | None = None, *, signs: bool = True
) -> dict[str, Any]:
    """Return the same payload as `describe` for an added text, which has no boxes.

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
