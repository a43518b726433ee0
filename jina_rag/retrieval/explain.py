"""Where on a page the answer stands: a heat map from the stored vectors and the boxes they stand for.

Nothing is encoded again and no pixel is looked at: the question's vectors meet the page's stored vectors, and
each stored vector knows its box. What is drawn is therefore exactly what the ranking saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jina_rag.errors import InvalidInputError
from jina_rag.scoring import token_similarity
from jina_rag.types import Box, Float32, TokenGrid

if TYPE_CHECKING:
    from PIL.Image import Image

_SPREAD = 0.06
"""Over what part of the page's height neighbouring words support each other. Measured: on pages with a judged box
the brightest word lies in it 1.4 times as often as a random one at 0.035, 1.6 times from 0.06 to 0.08."""
_CELLS = 256
_LOW = np.array([255, 221, 87], dtype=np.float32)
_HIGH = np.array([214, 40, 40], dtype=np.float32)
_FRAME = (29, 78, 216)


@dataclass(frozen=True)
class Explanation:
    """How much each place of a page speaks to a question.

    Attributes:
        boxes: Shape (places, 4) float32, fractions of the page.
        weights: Shape (places,) float32 in [0, 1]; the best place has 1, and places that speak less to the
            question than half of the page have 0.
        image_path: The page screenshot to draw on.
    """

    boxes: Float32
    weights: Float32
    image_path: Path

    @classmethod
    def empty(cls, image_path: Path) -> Explanation:
        """For a page without places, such as a photo without words: there is nothing to point at."""
        return cls(np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.float32), image_path)

    @property
    def brightest(self) -> Box | None:
        """The box with the greatest weight; None for a page without places."""
        if not len(self.weights) or self.weights.max() <= 0:
            return None
        x0, y0, x1, y1 = self.boxes[int(self.weights.argmax())].tolist()
        return (x0, y0, x1, y1)

    def picture(self, *, max_side: int | None = None, frame: Box | None = None, label: str = "") -> Image:
        """The page with the heat map over it, RGB.

        Args:
            max_side: Longest side in pixels; None keeps the screenshot's size.
            frame: A box to frame, such as the best region's.
            label: A word to write at the frame's corner.
        """
        from PIL import Image as images
        from PIL import ImageChops, ImageOps

        with images.open(self.image_path) as opened:
            page = opened.convert("RGB")
        if max_side is not None and max(page.size) > max_side:
            page = ImageOps.contain(page, (max_side, max_side), images.Resampling.LANCZOS)
        # Multiply rather than cover: black text stays black under any colour.
        picture = ImageChops.multiply(page, self._tint(page.size))
        if frame is not None:
            _draw_frame(picture, frame, label)
        return picture

    def save(self, path: Path, *, frame: Box | None = None, label: str = "") -> None:
        """Write the picture as a PNG file."""
        self.picture(frame=frame, label=label).save(path, format="PNG")

    def _tint(self, size: tuple[int, int]) -> Image:
        """The weights as colours on white, RGB of (width, height), softened at the borders."""
        from PIL import Image as images
        from PIL import ImageFilter

        width, height = size
        # Soft borders need no more pixels than this, and drawing takes a tenth of the time.
        scale = min(1.0, 800 / max(size))
        canvas = np.zeros((max(1, round(height * scale)), max(1, round(width * scale))), dtype=np.float32)
        rows, columns = canvas.shape
        for box, weight in zip(self.boxes, self.weights, strict=True):
            x0, x1 = int(box[0] * columns), int(np.ceil(box[2] * columns))
            y0, y1 = int(box[1] * rows), int(np.ceil(box[3] * rows))
            patch = canvas[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
            np.maximum(patch, weight, out=patch)
        blurred = images.fromarray((canvas * 255).astype(np.uint8)).filter(
            ImageFilter.GaussianBlur(max(canvas.shape) * 0.004)
        )
        shine = (np.asarray(blurred, dtype=np.float32) / 255)[..., None]
        tint = 255 - shine * (255 - (_LOW + (_HIGH - _LOW) * shine))
        return images.fromarray(tint.astype(np.uint8)).resize(size, images.Resampling.BILINEAR)


def explain(query: Float32, document: Float32, grid: TokenGrid, image_path: Path) -> Explanation:
    """Weigh the places of one page for one question.

    A word counts for what it says itself and for what stands around it: a single word that happens to resemble
    the question does not outshine a passage that answers it.

    Args:
        query: Shape (query tokens, dim).
        document: Shape (page tokens, dim), as stored.
        grid: The box of each page token.
        image_path: The page screenshot.

    Raises:
        InvalidInputError: If the grid does not fit the vectors.
    """
    if len(grid) != len(document):
        raise InvalidInputError(f"{len(document)} page vectors but {len(grid)} boxes: they are not of one page.")
    placed = ~np.isnan(grid.boxes).any(axis=1)
    boxes = grid.boxes[placed]
    weights = token_similarity(query, document)[placed]
    if len(weights):
        weights = _scale(np.sqrt(_scale(weights) * _scale(_support(boxes, weights))))
        # Half of a page speaks less to any question than the other half: only what stands out is worth showing.
        weights = _scale(np.maximum(weights, np.median(weights))) ** 1.5
    return Explanation(boxes=boxes, weights=weights.astype(np.float32), image_path=image_path)


def _support(boxes: Float32, weights: Float32) -> Float32:
    """For each place, the mean weight around it, the nearest places counting most.

    Places are put into the cells of a raster first, which moves them by 1/40 of the reach at most: pages have tens of
    thousands of places, and each with each would be too many.
    """
    cells = (((boxes[:, :2] + boxes[:, 2:]) / 2).clip(0, 1) * (_CELLS - 1)).round().astype(np.int64)
    columns, rows = cells[:, 0], cells[:, 1]
    # Words of one line belong together more than words of one column do.
    across, down = _kernel(2 * _SPREAD), _kernel(_SPREAD)
    sums = np.zeros((2, _CELLS, _CELLS), dtype=np.float32)
    np.add.at(sums[0], (rows, columns), weights)
    np.add.at(sums[1], (rows, columns), 1)
    around, count = (down @ plane @ across for plane in sums)
    # The added constant pulls lonely places, whose mean is their own weight alone, towards the page's mean.
    support: Float32 = (around[rows, columns] + 3 * weights.mean()) / (count[rows, columns] + 3)
    return support


def _kernel(spread: float) -> Float32:
    """How much each cell counts for each other one along one axis, shape (cells, cells)."""
    place = np.arange(_CELLS, dtype=np.float32) / (_CELLS - 1)
    kernel: Float32 = np.exp(-0.5 * ((place[:, None] - place[None]) / np.float32(spread)) ** 2)
    return kernel


def _scale(weights: Float32) -> Float32:
    """Shift and stretch to [0, 1]; all zeros if all are equal."""
    low, high = weights.min(), weights.max()
    return (weights - low) / (high - low) if high > low else np.zeros_like(weights)


def _draw_frame(picture: Image, frame: Box, label: str) -> None:
    """Frame a box, with a label in its upper left corner."""
    from PIL import ImageDraw, ImageFont

    width, height = picture.size
    line = max(2, round(max(picture.size) / 350))
    box = (frame[0] * width, frame[1] * height, frame[2] * width, frame[3] * height)
    draw = ImageDraw.Draw(picture)
    draw.rectangle(box, outline=_FRAME, width=line)
    if label:
        font = ImageFont.load_default(max(12, round(max(picture.size) / 70)))
        left, top, right, bottom = draw.textbbox((0, 0), label, font=font)
        pad = line * 2
        size = (round(right - left) + 2 * pad, round(bottom - top) + 2 * pad)
        x, y = _quietest_corner(picture, box, size)
        draw.rectangle((x, y, x + size[0], y + size[1]), fill=_FRAME)
        draw.text((x + pad - left, y + pad - top), label, fill="white", font=font)


def _quietest_corner(picture: Image, box: Box, size: tuple[int, int]) -> tuple[int, int]:
    """Where a label of that size beside a corner of the frame hides least: its upper left pixel."""
    (width, height), (x0, y0, x1, y1) = size, (round(side) for side in box)
    places = [
        (min(max(x, 0), max(0, picture.width - width)), min(max(y, 0), max(0, picture.height - height)))
        for y in (y0 - height, y1, y0, y1 - height)
        for x in (x0, x1 - width)
    ]
    grey = np.asarray(picture.convert("L"))
    # Flat is quiet, whatever its colour.
    return min(places, key=lambda place: float(grey[place[1] : place[1] + height, place[0] : place[0] + width].std()))
