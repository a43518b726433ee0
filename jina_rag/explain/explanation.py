"""Where on a page the answer stands: a heat map from the stored vectors and the boxes they stand for.

Nothing is encoded again and no pixel is looked at: the question's vectors meet the page's stored vectors, and
each stored vector knows its box. What is drawn is therefore exactly what the ranking saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from jina_rag.compression.pooling import Assignment
from jina_rag.errors import IndexStateError, InvalidInputError
from jina_rag.explain.box_merging import Area, areas_of
from jina_rag.explain.citation_span import valid_boxes
from jina_rag.explain.heatmap import draw_frame, load_image, overlay, raster
from jina_rag.explain.token_maps import TokenMaps
from jina_rag.scoring import token_similarity
from jina_rag.types import Box, Float32, TokenGrid

if TYPE_CHECKING:
    from PIL.Image import Image

_SPREAD = 0.06
"""Over what part of the page's height neighbouring words support each other. Measured: on pages with a judged box
the brightest word lies in it 1.4 times as often as a random one at 0.035, 1.6 times from 0.06 to 0.08."""
_REACH = 0.08
"""From how far the words of an answer add up, as a part of the page's height."""
_CELLS = 256
_SOFT = 0.004


@dataclass(frozen=True, eq=False)
class Explanation:
    """How much each place of a page speaks to a question, and to each of its tokens.

    Attributes:
        boxes: Shape (places, 4) float32, fractions of the page.
        weights: Shape (places,) float32 in [0, 1]; the best place has 1, and places that speak less to the
            question than half of the page have 0.
        image_path: The page screenshot to draw on; None for a text that is no page.
        kind: ``"words"`` where places are pieces of text, ``"patches"`` where they are parts of the picture.
        tokens: The question's tokens as texts; "" for what is none of the user's words. Empty where they are not known.
        maps: What `of_token` and `per_token` are computed from; None where there is nothing for single tokens.
    """

    boxes: Float32
    weights: Float32
    image_path: Path | None
    kind: Literal["words", "patches"] = "words"
    tokens: tuple[str, ...] = ()
    maps: TokenMaps | None = None

    @classmethod
    def empty(cls, image_path: Path | None) -> Explanation:
        """For a page without places, such as a photo without words: there is nothing to point at."""
        return cls(np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.float32), image_path)

    @classmethod
    def from_attribution(cls, boxes: Float32, weights: Float32, image_path: Path) -> Explanation:
        """From what a model that looks at pixels says of its patches, such as a reranker.

        Args:
            boxes: Shape (patches, 4), fractions of the page; rows of NaN or infinity are left out.
            weights: Shape (patches,): how much each patch speaks for the score, in any unit; what speaks against it
                (below 0) has no weight here. The greatest becomes 1.
            image_path: The page screenshot.

        Raises:
            InvalidInputError: If the two do not fit each other, or a weight is no finite number.
        """
        if boxes.shape != (len(weights), 4):
            raise InvalidInputError(
                f"{len(weights)} weights but boxes of shape {boxes.shape}: one box for each weight."
            )
        if not np.isfinite(weights).all():
            raise InvalidInputError("Weights of patches must be finite numbers: what was given holds NaN or infinity.")
        valid = valid_boxes(boxes)
        positive = np.maximum(weights[valid], 0).astype(np.float32)
        if len(positive) and positive.max() > 0:
            positive /= positive.max()
        return cls(boxes[valid].astype(np.float32), positive, image_path, kind="patches")

    @property
    def brightest(self) -> Box | None:
        """The box with the greatest weight; None for a page without places."""
        if not len(self.weights) or self.weights.max() <= 0:
            return None
        x0, y0, x1, y1 = self.boxes[int(self.weights.argmax())].tolist()
        return (x0, y0, x1, y1)

    @property
    def per_token(self) -> Float32:
        """The map of each token, shape (tokens, places) float32 in [0, 1]; computed at each access.

        A place weighs what it says itself: by how much its similarity with the token lies above the token's median on
        the page, as a share of the greatest such lift of any of the user's tokens, to the power of 1.5. So the maps can
        be compared, and that of a word which the page does not speak of stays pale. Neighbours add nothing here.
        """
        if self.maps is None:
            return np.zeros((0, len(self.weights)), dtype=np.float32)
        return self.maps.all()

    def of_token(self, token: int | Sequence[int]) -> Float32:
        """The map of one token as in `per_token`, or of several as one (the pieces of a word): the greatest of each.

        Returns:
            Shape (places,) float32.

        Raises:
            InvalidInputError: If there is no such token.
        """
        tokens = [token] if isinstance(token, int | np.integer) else list(token)
        if self.maps is None or not tokens:
            raise InvalidInputError("There are no maps of single tokens here: ask for the whole question's.")
        weights = self.maps.one(int(tokens[0]))
        for other in tokens[1:]:
            weights = np.maximum(weights, self.maps.one(int(other)))
        return weights

    @property
    def words(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """The question's words, as far as its tokens tell, each with its tokens' indices."""
        words: list[tuple[str, list[int]]] = []
        for index, text in enumerate(self.tokens):
            if not words or text[:1].isspace():
                words.append((text, [index]))
            elif text:
                words[-1] = (words[-1][0] + text, [*words[-1][1], index])
        return tuple((word.strip(), tuple(indices)) for word, indices in words if word.strip())

    def areas(self, k: int = 5, *, token: int | Sequence[int] | None = None) -> list[Area]:
        """The bright parts of the page as boxes, best first.

        Words are joined to lines and passages, patches to what they cover together.

        Args:
            k: How many at most; fewer where less of the page is bright.
            token: Of one token or several, as in `of_token`; None for the whole question.
        """
        if k < 1:
            raise InvalidInputError(f"k is {k}; it must be at least 1.")
        return areas_of(self.boxes, self._weights(token), self.kind, k=k)

    def array(self, size: tuple[int, int], *, token: int | Sequence[int] | None = None) -> Float32:
        """The map as numbers, shape (height, width) float32 in [0, 1]; 0 where the page has no place.

        Args:
            size: Width and height in pixels, such as the screenshot's.
            token: As in `areas`.
        """
        if min(size) < 1:
            raise InvalidInputError(f"size is {size}; a map has at least one pixel each way.")
        return raster(self.boxes, self._weights(token), size)

    def image(
        self,
        *,
        max_side: int | None = None,
        frame: Box | None = None,
        label: str = "",
        token: int | Sequence[int] | None = None,
    ) -> Image:
        """The page with the heat map over it, RGB.

        Args:
            max_side: Longest side in pixels; None keeps the screenshot's size.
            frame: A box to frame, such as the best region's.
            label: A word to write at the frame's corner.
            token: As in `areas`.

        Raises:
            IndexStateError: If the screenshot is not there or damaged.
            InvalidInputError: If there is no such token.
        """
        weights = self._weights(token)
        if self.image_path is None:
            raise IndexStateError("A text that is no page has no picture to draw on.")
        page = load_image(self.image_path, max_side=max_side)
        image = overlay(page, self.boxes, weights, soft=self._soft(page.size))
        if frame is not None:
            draw_frame(image, frame, label)
        return image

    def save(
        self, path: Path, *, frame: Box | None = None, label: str = "", token: int | Sequence[int] | None = None
    ) -> None:
        """Write the picture as a PNG file.

        Raises:
            IndexStateError: As `image`.
            InvalidInputError: As `image`.
        """
        self.image(frame=frame, label=label, token=token).save(path, format="PNG")

    def _weights(self, token: int | Sequence[int] | None) -> Float32:
        return self.weights if token is None else self.of_token(token)

    def _soft(self, size: tuple[int, int]) -> float:
        """How far borders are softened, as a share of the longer side: for patches a quarter of one, no further."""
        if self.kind == "words" or not len(self.boxes):
            return _SOFT
        sides = np.median(self.boxes[:, 2:] - self.boxes[:, :2], axis=0) * size
        return float(sides.min()) / max(size) / 4


def explain(
    query: Float32,
    document: Float32,
    grid: TokenGrid,
    image_path: Path,
    *,
    tokens: Sequence[str] | None = None,
    assignment: Assignment | None = None,
    image: int = 0,
) -> Explanation:
    """Weigh the places of one page for one question.

    A place counts for what it says itself (its mean similarity with the question's tokens), for what stands around it
    (the mean of the same there), and for how much of the question is answered around it (MaxSim of its neighbourhood,
    what is nearer counting more): a single word that happens to resemble the question does not outshine a passage that
    answers it. The three, each scaled to [0, 1], are multiplied, and what lies above the page's median is kept.
    Neighbourhoods of words are wider than high, since lines belong together; those of patches reach to the next one.

    Args:
        query: Shape (query tokens, dim).
        document: Shape (rows, dim), as stored.
        grid: The box of each page token.
        image_path: The page screenshot.
        tokens: What each row of `query` stands for, as text (`Embeddings.tokens`); None if it is not known.
        assignment: Shape (page tokens,): the row that each token went into; None where each has its own.
        image: For a document of several images: the one that is explained; places on others are left out.

    Raises:
        InvalidInputError: If the grid or the tokens do not fit the vectors.
    """
    row_of = np.arange(len(document), dtype=np.int32) if assignment is None else assignment
    if len(grid) != len(row_of):
        raise InvalidInputError(f"{len(row_of)} page vectors but {len(grid)} boxes: they are not of one page.")
    if tokens is not None and len(tokens) != len(query):
        raise InvalidInputError(f"{len(query)} vectors of the question but {len(tokens)} texts: give one for each.")
    valid = valid_boxes(grid.boxes)
    if grid.images is not None:
        valid &= grid.images == image
    boxes, row_of = grid.boxes[valid], row_of[valid]
    similarity = token_similarity(query, document)[row_of]
    maps = TokenMaps(query, document, row_of, tokens or ())
    weights = similarity
    if len(similarity):
        near, far = _spreads(boxes, grid.kind)
        parts = (similarity, _support(boxes, similarity, near), maps.answered(boxes, far))
        weights = _scale(np.cbrt(np.prod([_scale(part) for part in parts], axis=0)))
        # Half of a page speaks less to any question than the other half: only what stands out is worth showing.
        weights = _scale(np.maximum(weights, np.median(weights))) ** 1.5
    return Explanation(boxes, weights.astype(np.float32), image_path, grid.kind, tuple(tokens or ()), maps)


def _spreads(boxes: Float32, kind: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """How far support reaches and how far answers add up: across and down, standard deviations."""
    if kind == "words":
        # Words of one line belong together more than words of one column do.
        return (2 * _SPREAD, _SPREAD), (2 * _REACH, _REACH)
    width, height = np.median(boxes[:, 2:] - boxes[:, :2], axis=0).clip(1e-3, 1).tolist()
    return (width, height), (width, height)


def _support(boxes: Float32, weights: Float32, spread: tuple[float, float] = (2 * _SPREAD, _SPREAD)) -> Float32:
    """For each place, the mean weight around it, the nearest places counting most.

    Places are put into the cells of a raster first, which moves them by 1/40 of the reach at most: pages have tens of
    thousands of places, and each with each would be too many.
    """
    cells = (((boxes[:, :2] + boxes[:, 2:]) / 2).clip(0, 1) * (_CELLS - 1)).round().astype(np.int64)
    columns, rows = cells[:, 0], cells[:, 1]
    across, down = _kernel(spread[0]), _kernel(spread[1])
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
