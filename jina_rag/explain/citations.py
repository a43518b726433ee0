"""Citations: for a question and a page, the box to look at, its picture, and the words in it.

Starts from the heat map (`explain`). Where the brightest place lies in a chart, table or figure, that is cited as a
whole: half a table says nothing. Otherwise it is the passage around it: the lines of its paragraph for words, the
bright patches that hang together for a model that looks at pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from jina_rag.errors import IndexStateError, InvalidInputError
from jina_rag.explain.citation_span import are_patches, around, blob, nearest, paragraph, valid_boxes
from jina_rag.explain.explanation import Explanation
from jina_rag.explain.heatmap import load_image
from jina_rag.search.snippets import is_inside, word_weights
from jina_rag.types import Box, Float32, Region, RegionKind, ScoredPage

if TYPE_CHECKING:
    from PIL.Image import Image

Words: TypeAlias = tuple[Sequence[str], Float32]
"""The words of a page in reading order, and their boxes, shape (n, 4)."""

LEAST: tuple[float, float] = (0.3, 0.06)
"""Width and height of a box at least: less cannot be read without what stands around it."""
_PAD = (0.008, 0.004)
_LIT = 0.3
"""A hit's region is cited if a place in it is at least so bright. Measured on 87 questions whose answer is known by
its words: 57 % of these are in the box; 51 % where the region must hold the brightest place, 37 % without regions."""
_WHOLE = 0.8
"""A region over more than this share of its page is the page."""


@dataclass(frozen=True, slots=True)
class Citation:
    """A place on a page that answers a question.

    Attributes:
        doc_id: Of the document.
        path: The file as it was ingested.
        page: 1-based.
        box: The place; the whole page where nothing points at a part of it.
        text: The words in the box; "" where the index does not know where the words stand.
        image_path: The page's screenshot; None where the images are elsewhere.
        weight: Mean brightness of the box in the heat map, 0 to 1.
        score: The hit's.
        kind: What the box holds, where it is a chart, table or figure.
        caption: Of the chart, table or figure.
        is_text: Whether it is of a text that is no page.
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
        """Such as ``"report.pdf, page 3"``; of a text, its name alone."""
        return self.path.name if self.is_text else f"{self.path.name}, page {self.page}"

    def crop(self, *, max_side: int | None = None) -> Image:
        """The picture of the box, RGB.

        Args:
            max_side: Longest side in pixels; a larger picture is scaled down.

        Raises:
            IndexStateError: If the screenshot is not there or damaged.
        """
        if self.image_path is None:
            raise IndexStateError(f"{self.label}: its screenshot is not on this machine.")
        try:
            return load_image(self.image_path, self.box, max_side=max_side)
        except IndexStateError as exc:
            raise IndexStateError(f"{self.label}: {exc}") from exc

    def save(self, path: Path) -> None:
        """Write the picture of the box as a PNG file.

        Raises:
            IndexStateError: If the screenshot is not there or damaged.
        """
        self.crop().save(path, format="PNG")


def cite(
    hit: ScoredPage, explanation: Explanation, *, words: Words | None = None, regions: Sequence[Region] = ()
) -> Citation:
    """Choose the place of a page to cite.

    Args:
        hit: The page.
        explanation: Its heat map for the question.
        words: Its words with their boxes; None where they are not known. Words without a proper box do not count.
        regions: Its charts, tables and figures; the hit's own need not be among them.

    Raises:
        InvalidInputError: If words and boxes, or places and weights, do not fit each other.
    """
    places, weights = explanation.boxes, explanation.weights
    if len(places) != len(weights) or (words is not None and len(words[0]) != len(words[1])):
        raise InvalidInputError("Boxes must stand one for one beside weights and words: they are not of one page.")
    words = _valid_words(words)
    brightest = explanation.brightest
    region = _region_of(hit, explanation, words, regions)
    if region is not None:
        box = region.box
    elif brightest is None:
        box = (0.0, 0.0, 1.0, 1.0)
    else:
        bright = int(weights.argmax())
        if are_patches(places):
            passage = blob(places, weights, bright)
        else:
            boxes, box_weights = places, weights
            if words is not None and words[0]:
                boxes, box_weights = words[1], word_weights(words[1], places, weights)
            passage = paragraph(boxes, nearest(boxes, places[bright]), box_weights)
        box = _roomy(passage)
    inside = is_inside(places, box)
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
    """Words whose boxes are none (NaN, endless, turned around) are nowhere."""
    if words is None:
        return None
    texts, boxes = words[0], words[1].reshape(-1, 4)
    valid = valid_boxes(boxes)
    return [texts[i] for i in np.flatnonzero(valid).tolist()], boxes[valid]


def _region_of(
    hit: ScoredPage, explanation: Explanation, words: Words | None, regions: Sequence[Region]
) -> Region | None:
    """The chart, table or figure to cite as a whole.

    The hit's own, which speaks more to the question than the rest of the page does on the whole, unless it is dark;
    else the smallest that covers the brightest place with its box or its caption.
    """
    brightest = explanation.brightest
    if brightest is None:
        return hit.region
    if hit.region is not None:
        inside = is_inside(explanation.boxes, hit.region.box)
        if inside.any() and explanation.weights[inside].max() >= _LIT:
            return hit.region
    point = np.array([brightest], dtype=np.float32)
    covering = [
        region
        for region in regions
        if _area(region.box) <= _WHOLE
        and any(is_inside(point, box)[0] for box in [region.box, *_caption_boxes(region, words)])
    ]
    return min(covering, key=lambda region: _area(region.box), default=None)


def _caption_boxes(region: Region, words: Words | None) -> list[Box]:
    """Where the words of a region's caption stand."""
    caption_words = region.caption.split()
    if words is None or not caption_words:
        return []
    texts = list(words[0])
    for start in range(len(texts) - len(caption_words) + 1):
        if texts[start] == caption_words[0] and texts[start : start + len(caption_words)] == caption_words:
            return [around(words[1][i : i + 1]) for i in range(start, start + len(caption_words))]
    return []


def _roomy(box: Box) -> Box:
    """A box with a margin, of a size that can be read, within the page."""
    low, high = np.array(box[:2]) - _PAD, np.array(box[2:]) + _PAD
    middle, half = (low + high) / 2, np.maximum(high - low, LEAST) / 2
    low, high = middle - half, middle + half
    # What lies beyond the page is cut off, and a box that becomes too small by that is moved.
    low, high = np.where(low < 0, 0, low), np.where(low < 0, np.maximum(high, LEAST), high)
    low, high = np.where(high > 1, np.minimum(low, 1 - np.array(LEAST)), low), np.minimum(high, 1)
    (x0, y0), (x1, y1) = low.clip(0, 1).tolist(), high.clip(0, 1).tolist()
    return (x0, y0, x1, y1)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
