"""Citations: the box of a page that answers a query, with the image and the words inside the box.

A citation starts from the heat map of `explain`. If the hit's region has enough weight, or the box with the greatest
weight is inside a chart, table or figure, the whole region is cited, because half a table is not readable. Otherwise,
the passage around the box with the greatest weight is cited: the lines of the paragraph if the boxes are words, or the
connected patches if the boxes are image patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from jina_rag.errors import IndexStateError, InvalidInputError
from jina_rag.explain.citation_span import are_patches, bounding_box, nearest, paragraph_box, patch_box, valid_boxes
from jina_rag.explain.explanation import Explanation
from jina_rag.explain.heatmap import load_image
from jina_rag.search.snippets import is_inside, word_weights
from jina_rag.types import Box, Float32, Region, RegionKind, ScoredPage

if TYPE_CHECKING:
    from PIL.Image import Image

Words: TypeAlias = tuple[Sequence[str], Float32]
"""The words of a page in reading order, and the boxes of the words, shape (n, 4), float32, as fractions of the page."""

MIN_SIZE: tuple[float, float] = (0.3, 0.06)
"""Minimum width and height of a cited box, as fractions of the page. A smaller box shows too little context to be
readable."""
_MARGIN = (0.008, 0.004)
_MIN_REGION_WEIGHT = 0.3
"""Minimum value of the greatest weight inside a hit's region for the region to be cited. Measured on 87 queries whose
answer words are known: the cited box contains 57 % of the answer words with this rule, 51 % if a region is cited only
if the region contains the greatest weight of the page, and 37 % if no region is cited."""
_MAX_REGION_SHARE = 0.8
"""Maximum area of a cited region, as a fraction of the page: a larger region counts as the whole page."""


@dataclass(frozen=True, slots=True)
class Citation:
    """A box on a page that answers a query.

    Attributes:
        doc_id: Id of the document.
        path: Path of the file at ingestion.
        page: Page number, from 1.
        box: Cited box, as fractions of the page; the whole page if no box of the heat map has a weight above 0.
        text: Words in the box; "" if the index stores no word boxes for the page.
        image_path: Path of the page screenshot; None if the images are not on this machine.
        weight: Mean heat map weight in the box, from 0 to 1.
        score: Score of the cited hit.
        kind: ``"chart"``, ``"table"`` or ``"figure"`` for a cited region, else None.
        caption: Caption of the cited region; "" if the region has no caption.
        is_text: Whether the cited hit is a plain text without a page.
    """

    doc_id: str
    path: Path
    page: int
    box: Box
    text: str = ""
    image_path: Path | None = None
    weight: float = 0.0
    score: float = 0.0
    kind: RegionKind | None = None
    caption: str = ""
    is_text: bool = False

    @property
    def label(self) -> str:
        """File name and page, for example ``"report.pdf, page 3"``; only the name for a plain text without pages."""
        return self.path.name if self.is_text else f"{self.path.name}, page {self.page}"

    def crop(self, *, max_side: int | None = None) -> Image:
        """Return the cited box of the page screenshot as an RGB image.

        Args:
            max_side: Maximum length of the longer side in pixels; larger images are scaled down. None keeps the size of
                the box in the screenshot.

        Raises:
            IndexStateError: If the screenshot is missing or damaged, or the hit is a plain text.
        """
        if self.image_path is None:
            raise IndexStateError(
                f"{self.label}: the screenshot is not on this machine. Open the index with the assets_dir of the "
                "images, or ingest the file with force=True (--force)."
            )
        try:
            return load_image(self.image_path, self.box, max_side=max_side)
        except IndexStateError as exc:
            raise IndexStateError(f"{self.label}: {exc}") from exc

    def save(self, path: Path) -> None:
        """Write the image of the cited box to a PNG file.

        Args:
            path: Path of the PNG file.

        Raises:
            IndexStateError: If the screenshot is missing or damaged, or the hit is a plain text.
        """
        self.crop().save(path, format="PNG")


def cite(
    hit: ScoredPage, explanation: Explanation, *, words: Words | None = None, regions: Sequence[Region] = ()
) -> Citation:
    """Return the citation of a hit: the region of the hit, the passage with the greatest weight, or the whole page.

    Args:
        hit: Page to cite.
        explanation: Heat map of the page for the query.
        words: Words of the page and the boxes of the words; None if unknown. Words with an invalid box are ignored.
        regions: Charts, tables and figures of the page; `hit.region` is always considered.

    Raises:
        InvalidInputError: If `explanation` has different numbers of boxes and weights, or `words` has different numbers
            of words and boxes.
    """
    heat_boxes, weights = explanation.boxes, explanation.weights
    if len(heat_boxes) != len(weights):
        raise InvalidInputError(
            f"explanation has {len(heat_boxes)} boxes and {len(weights)} weights; expected one box per weight."
        )
    if words is not None and len(words[0]) != len(words[1]):
        raise InvalidInputError(
            f"words has {len(words[0])} words and {len(words[1])} boxes; expected one box per word."
        )
    words = _valid_words(words)
    brightest = explanation.brightest
    region = _select_region(hit, explanation, words, regions)
    if region is not None:
        box = region.box
    elif brightest is None:
        box = (0.0, 0.0, 1.0, 1.0)
    else:
        peak = int(weights.argmax())
        if are_patches(heat_boxes):
            passage = patch_box(heat_boxes, weights, peak)
        else:
            boxes, box_weights = heat_boxes, weights
            if words is not None and words[0]:
                boxes, box_weights = words[1], word_weights(words[1], heat_boxes, weights)
            passage = paragraph_box(boxes, nearest(boxes, heat_boxes[peak]), box_weights)
        box = _readable_box(passage)
    inside = is_inside(heat_boxes, box)
    return Citation(
        doc_id=hit.doc_id,
        path=hit.path,
        page=hit.page,
        box=box,
        text="" if words is None else " ".join(words[0][i] for i in np.flatnonzero(is_inside(words[1], box)).tolist()),
        image_path=hit.image_path,
        weight=float(weights[inside].mean()) if inside.any() else 0.0,
        score=hit.score,
        kind=None if region is None else region.kind,
        caption="" if region is None else region.caption,
        is_text=hit.is_text,
    )


def _valid_words(words: Words | None) -> Words | None:
    """Return the words whose boxes are finite and not inverted."""
    if words is None:
        return None
    texts, boxes = words[0], words[1].reshape(-1, 4)
    valid = valid_boxes(boxes)
    return [texts[i] for i in np.flatnonzero(valid).tolist()], boxes[valid]


def _select_region(
    hit: ScoredPage, explanation: Explanation, words: Words | None, regions: Sequence[Region]
) -> Region | None:
    """Return the chart, table or figure to cite; None to cite a passage.

    The hit's region scored higher than the rest of the page. The hit's region is chosen if the greatest weight inside
    the region is at least `_MIN_REGION_WEIGHT`. Otherwise, the smallest region is chosen whose box or caption contains
    the box with the greatest weight. Regions larger than `_MAX_REGION_SHARE` are excluded.
    """
    brightest = explanation.brightest
    if brightest is None:
        return hit.region
    if hit.region is not None:
        inside = is_inside(explanation.boxes, hit.region.box)
        if inside.any() and explanation.weights[inside].max() >= _MIN_REGION_WEIGHT:
            return hit.region
    point = np.array([brightest], dtype=np.float32)
    covering = [
        region
        for region in regions
        if _area(region.box) <= _MAX_REGION_SHARE
        and any(is_inside(point, box)[0] for box in [region.box, *_caption_boxes(region, words)])
    ]
    return min(covering, key=lambda region: _area(region.box), default=None)


def _caption_boxes(region: Region, words: Words | None) -> list[Box]:
    """Return the boxes of the words of a region's caption."""
    caption_words = region.caption.split()
    if words is None or not caption_words:
        return []
    texts = list(words[0])
    for start in range(len(texts) - len(caption_words) + 1):
        if texts[start] == caption_words[0] and texts[start : start + len(caption_words)] == caption_words:
            return [bounding_box(words[1][i : i + 1]) for i in range(start, start + len(caption_words))]
    return []


def _readable_box(box: Box) -> Box:
    """Return `box` with a margin, at least `MIN_SIZE` large and inside the page."""
    low, high = np.array(box[:2]) - _MARGIN, np.array(box[2:]) + _MARGIN
    middle, half = (low + high) / 2, np.maximum(high - low, MIN_SIZE) / 2
    low, high = middle - half, middle + half
    # Clip the box to the page. If the clipped box is too small, move the edge opposite to the clipped edge.
    low, high = np.where(low < 0, 0, low), np.where(low < 0, np.maximum(high, MIN_SIZE), high)
    low, high = np.where(high > 1, np.minimum(low, 1 - np.array(MIN_SIZE)), low), np.minimum(high, 1)
    (x0, y0), (x1, y1) = low.clip(0, 1).tolist(), high.clip(0, 1).tolist()
    return (x0, y0, x1, y1)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
