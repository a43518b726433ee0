"""What a page's payload says of it besides its files: words, boxes, regions, sign codes; `search.snippets` reads it."""

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
    """The part of a page's payload that `jina_rag.search.snippets.highlight` reads.

    Args:
        page: Its words and regions.
        rows: The page's multi-vector as it is stored, shape (rows, dim).
        grid: The box of each token; None where the embedder knows no places.
        crops: Names of the region's image files, beside ``page.regions``.
        assignment: The row that each token went into, shape (tokens,); None where each has its own.
        signs: Whether to keep sign codes of the rows, so that `jina_rag.search.snippets.highlight` needs no vectors.
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
    # `words_of` could not tell otherwise which word has which box.
    if page.words and page.text.split() == [word.text for word in page.words]:
        boxes = np.array([word.box for word in page.words], dtype=np.float32)
        payload[schema.WORDS] = schema.encode_grid(TokenGrid(boxes, "words"))
    if grid is not None:
        payload |= {schema.GRID: schema.encode_grid(grid)} | _row_payload(rows, assignment, signs=signs)
    return payload


def describe_text(
    text: str, rows: Float32, assignment: Assignment | None = None, *, signs: bool = True
) -> dict[str, Any]:
    """As `describe`, for a text that is no page: its words stand nowhere."""
    return {schema.TEXT: text, schema.REGIONS: []} | _row_payload(rows, assignment, signs=signs)


def _row_payload(rows: Float32, assignment: Assignment | None, *, signs: bool) -> dict[str, Any]:
    payload = {} if assignment is None else {schema.ASSIGNMENT: encode_assignment(assignment)}
    return payload | ({schema.SIGNS: encode_signs(rows)} if signs else {})
