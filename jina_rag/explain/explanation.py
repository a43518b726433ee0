"""Heat map of a page for a query, computed from the stored page vectors and the boxes of the vectors.

The query vectors are compared with the stored page vectors. Each page vector represents one or more boxes of the page.
The page is not re-encoded and the page image is not read, so the heat map shows exactly the similarities used in the
ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from jina_rag.compression.pooling import Assignment
from jina_rag.errors import IndexStateError, InvalidInputError
from jina_rag.explain.box_merging import Area, find_areas
from jina_rag.explain.citation_span import valid_boxes
from jina_rag.explain.heatmap import draw_frame, load_image, overlay, raster
from jina_rag.explain.token_maps import TokenMaps
from jina_rag.scoring import token_similarity
from jina_rag.types import Box, Float32, TokenGrid

if TYPE_CHECKING:
    from PIL.Image import Image

_NEAR_SIGMA = 0.06
"""Standard deviation of the Gaussian for the local mean of word weights, as a fraction of the page height. Measured on
pages with a judged box: with 0.035, the word with the greatest weight is inside the judged box 1.4 times as often as a
random word; with values from 0.06 to 0.08, 1.6 times as often."""
_FAR_SIGMA = 0.08
"""Standard deviation of the Gaussian for the query coverage around a word, as a fraction of the page height."""
_CELLS = 256
_WORD_BLUR = 0.004


@dataclass(frozen=True, eq=False)
class Explanation:
    """Relevance of each box of a page to a query, and to each query token.

    Attributes:
        boxes: Boxes on the page, shape (n, 4), float32, as fractions of the page.
        weights: Weights of the boxes, shape (n,), float32, from 0 to 1. The most relevant box has weight 1; boxes below
            the median of the page have weight 0.
        image_path: Path of the page screenshot to draw on; None for a plain text.
        kind: ``"words"`` if the boxes are pieces of text, ``"patches"`` if they are image patches.
        tokens: Texts of the query tokens; "" for tokens that the model adds to the user's words. Empty if the embedder
            does not report tokens.
        maps: Token maps that `of_token` and `per_token` return; None if the explanation has no token maps.
    """

    boxes: Float32
    weights: Float32
    image_path: Path | None
    kind: Literal["words", "patches"] = "words"
    tokens: tuple[str, ...] = ()
    maps: TokenMaps | None = None

    @classmethod
    def empty(cls, image_path: Path | None) -> Explanation:
        """Return an explanation without boxes, for example of a photo without words.

        Args:
            image_path: Path of the page screenshot; None for a plain text.
        """
        return cls(np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.float32), image_path)

    @classmethod
    def from_attribution(cls, boxes: Float32, weights: Float32, image_path: Path) -> Explanation:
        """Return an explanation from the patch attributions of a vision model, for example a reranker.

        Args:
            boxes: Boxes of the patches, shape (patches, 4), float32, as fractions of the page; non-finite and inverted
                boxes are dropped.
            weights: Contribution of each patch to the score, shape (patches,), float32, in any unit. Negative
                contributions become 0, and the greatest contribution becomes 1.
            image_path: Path of the page screenshot.

        Raises:
            InvalidInputError: If the shapes differ, or a weight is not finite.
        """
        if boxes.shape != (len(weights), 4):
            raise InvalidInputError(
                f"boxes has shape {boxes.shape}; expected ({len(weights)}, 4), one box for each weight."
            )
        if not np.isfinite(weights).all():
            raise InvalidInputError("weights contains NaN or infinity; expected finite numbers.")
        valid = valid_boxes(boxes)
        positive = np.maximum(weights[valid], 0).astype(np.float32)
        if len(positive) and positive.max() > 0:
            positive /= positive.max()
        return cls(boxes[valid].astype(np.float32), positive, image_path, kind="patches")

    @property
    def brightest(self) -> Box | None:
        """Box with the greatest weight; None if no box has a weight above 0."""
        if not len(self.weights) or self.weights.max() <= 0:
            return None
        x0, y0, x1, y1 = self.boxes[int(self.weights.argmax())].tolist()
        return (x0, y0, x1, y1)

    @property
    def per_token(self) -> Float32:
        """Token maps of all query tokens, shape (tokens, n), float32, from 0 to 1; computed at each access.

        The lift of a box for a token is the similarity of the box minus the median similarity of all boxes to the
        token. A weight is the lift divided by the greatest lift of any token of the user's words, to the power of 1.5.
        All maps are divided by the same greatest lift, so the map of a word that the page does not mention has low
        weights. Neighboring boxes do not influence a weight.
        """
        if self.maps is None:
            return np.zeros((0, len(self.weights)), dtype=np.float32)
        return self.maps.all_maps()

    def of_token(self, token: int | Sequence[int]) -> Float32:
        """Return the token map of one query token, or the maximum of several token maps, for example for a word.

        Args:
            token: Index of the token, from 0, or several indices.

        Returns:
            Weights, shape (n,), float32, from 0 to 1, comparable with the weights in `per_token`.

        Raises:
            InvalidInputError: If an index is out of range, `token` is empty, or the explanation has no token maps.
        """
        tokens = [token] if isinstance(token, int | np.integer) else list(token)
        if self.maps is None or not tokens:
            raise InvalidInputError("This explanation has no token maps. Pass token=None for the whole query.")
        weights = self.maps.token_map(int(tokens[0]))
        for other in tokens[1:]:
            weights = np.maximum(weights, self.maps.token_map(int(other)))
        return weights

    @property
    def words(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Words of the query, each with the indices of the tokens in `tokens` that form the word."""
        words: list[tuple[str, list[int]]] = []
        for index, text in enumerate(self.tokens):
            if not words or text[:1].isspace():
                words.append((text, [index]))
            elif text:
                words[-1] = (words[-1][0] + text, [*words[-1][1], index])
        return tuple((word.strip(), tuple(indices)) for word, indices in words if word.strip())

    def areas(self, k: int = 5, *, token: int | Sequence[int] | None = None) -> list[Area]:
        """Return the most relevant areas of the page, best first.

        If the boxes are words, close words are merged into lines and passages. If the boxes are patches, patches that
        touch are merged into clusters.

        Args:
            k: Maximum number of areas.
            token: Index of one or several query tokens, as in `of_token`; None for the whole query.

        Raises:
            InvalidInputError: If `k` is below 1, or `token` is out of range.
        """
        if k < 1:
            raise InvalidInputError(f"k is {k}; expected an integer of at least 1.")
        return find_areas(self.boxes, self._weights(token), self.kind, k=k)

    def array(self, size: tuple[int, int], *, token: int | Sequence[int] | None = None) -> Float32:
        """Return the heat map as an array, shape (height, width), float32, from 0 to 1; 0 outside of all boxes.

        Args:
            size: Width and height of the array in pixels, for example the size of the screenshot.
            token: Index of one or several query tokens; None for the whole query.

        Raises:
            InvalidInputError: If a side of `size` is below 1, or `token` is out of range.
        """
        if min(size) < 1:
            raise InvalidInputError(f"size is {size}; expected a width and height of at least 1 pixel.")
        return raster(self.boxes, self._weights(token), size)

    def image(
        self,
        *,
        max_side: int | None = None,
        frame: Box | None = None,
        label: str = "",
        token: int | Sequence[int] | None = None,
    ) -> Image:
        """Return the page screenshot with the heat map as a color overlay, an RGB image.

        Args:
            max_side: Maximum length of the longer side in pixels; None keeps the screenshot's size.
            frame: Box to draw a frame around, as fractions of the page, for example the box of the best region.
            label: Text at a corner of the frame.
            token: Index of one or several query tokens; None for the whole query.

        Raises:
            IndexStateError: If the screenshot is missing or damaged, or the hit is a plain text.
            InvalidInputError: If `token` is out of range.
        """
        weights = self._weights(token)
        if self.image_path is None:
            raise IndexStateError("The hit is a plain text without a page image. Pass a hit with an image.")
        page = load_image(self.image_path, max_side=max_side)
        image = overlay(page, self.boxes, weights, blur=self._blur_share(page.size))
        if frame is not None:
            draw_frame(image, frame, label)
        return image

    def save(
        self, path: Path, *, frame: Box | None = None, label: str = "", token: int | Sequence[int] | None = None
    ) -> None:
        """Write the page screenshot with the heat map (see `image`) to a PNG file.

        Args:
            path: Path of the PNG file.
            frame: Box to draw a frame around, as fractions of the page.
            label: Text at a corner of the frame.
            token: Index of one or several query tokens; None for the whole query.

        Raises:
            IndexStateError: If the screenshot is missing or damaged, or the hit is a plain text.
            InvalidInputError: If `token` is out of range.
        """
        self.image(frame=frame, label=label, token=token).save(path, format="PNG")

    def _weights(self, token: int | Sequence[int] | None) -> Float32:
        return self.weights if token is None else self.of_token(token)

    def _blur_share(self, size: tuple[int, int]) -> float:
        """Return the blur radius as a fraction of the longer image side.

        The radius is `_WORD_BLUR` for words, and a quarter of the patch side for patches.
        """
        if self.kind == "words" or not len(self.boxes):
            return _WORD_BLUR
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
    """Return the heat map of one page for one query.

    The weight of a box combines three scores of the box: the mean similarity with the query tokens; the mean of this
    similarity over the neighboring boxes; and the query coverage, which is MaxSim over the neighboring boxes, where
    closer boxes count more. A passage that answers the query therefore outranks a single similar word. Each score is
    scaled from 0 to 1. The cube root of the product of the scores is thresholded at the median of the page, scaled from
    0 to 1 and raised to the power of 1.5. The neighborhood of a word is twice as wide as high, because the words of a
    line belong together. The neighborhood of a patch extends to the adjacent patches.

    Args:
        query: Multi-vector of the query, shape (query tokens, dim), float32.
        document: Multi-vector of the page as stored, shape (rows, dim), float32.
        grid: Box of each page token.
        image_path: Path of the page screenshot.
        tokens: Text of each row of `query` (`Embeddings.tokens`); None if unknown.
        assignment: Index of the row of `document` into which each page token was pooled, shape (page tokens,), int32;
            None if the page was not pooled.
        image: Index of the explained image in a document of several images; boxes on other images are dropped.

    Raises:
        InvalidInputError: If the number of boxes in `grid` differs from the number of page tokens, or the length of
            `tokens` differs from the number of query vectors.
    """
    row_of = np.arange(len(document), dtype=np.int32) if assignment is None else assignment
    if len(grid) != len(row_of):
        raise InvalidInputError(f"grid has {len(grid)} boxes; expected {len(row_of)}, one per page token.")
    if tokens is not None and len(tokens) != len(query):
        raise InvalidInputError(f"tokens has length {len(tokens)}; expected {len(query)}, one per query vector.")
    valid = valid_boxes(grid.boxes)
    if grid.images is not None:
        valid &= grid.images == image
    boxes, row_of = grid.boxes[valid], row_of[valid]
    similarity = token_similarity(query, document)[row_of]
    maps = TokenMaps(query, document, row_of, tokens or ())
    weights = similarity
    if len(similarity):
        near_sigma, far_sigma = _spreads(boxes, grid.kind)
        parts = (similarity, _support(boxes, similarity, near_sigma), maps.coverage(boxes, far_sigma))
        weights = _min_max_scale(np.cbrt(np.prod([_min_max_scale(part) for part in parts], axis=0)))
        # Half of the boxes of any page are below the median, also if no box answers the query. Only weights above the
        # median are kept.
        weights = _min_max_scale(np.maximum(weights, np.median(weights))) ** 1.5
    return Explanation(boxes, weights.astype(np.float32), image_path, grid.kind, tuple(tokens or ()), maps)


def _spreads(boxes: Float32, kind: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return (horizontal, vertical) standard deviations for the local mean, and for the query coverage."""
    if kind == "words":
        # Words of a line are more related than words of a column.
        return (2 * _NEAR_SIGMA, _NEAR_SIGMA), (2 * _FAR_SIGMA, _FAR_SIGMA)
    width, height = np.median(boxes[:, 2:] - boxes[:, :2], axis=0).clip(1e-3, 1).tolist()
    return (width, height), (width, height)


def _support(boxes: Float32, weights: Float32, sigma: tuple[float, float] = (2 * _NEAR_SIGMA, _NEAR_SIGMA)) -> Float32:
    """Return the Gaussian-weighted mean of the weights around each box, shape (n,), float32.

    Box centers are first rounded to raster cells, with an error of at most 1/510 of the page, because computing
    the distances between all pairs of tens of thousands of boxes is too slow.
    """
    cells = (((boxes[:, :2] + boxes[:, 2:]) / 2).clip(0, 1) * (_CELLS - 1)).round().astype(np.int64)
    columns, rows = cells[:, 0], cells[:, 1]
    across, down = _kernel(sigma[0]), _kernel(sigma[1])
    sums = np.zeros((2, _CELLS, _CELLS), dtype=np.float32)
    np.add.at(sums[0], (rows, columns), weights)
    np.add.at(sums[1], (rows, columns), 1)
    weight_sums, counts = (down @ plane @ across for plane in sums)
    # The local mean of an isolated box is the weight of the box alone. Additive smoothing moves the mean toward the
    # mean of the page.
    local_means: Float32 = (weight_sums[rows, columns] + 3 * weights.mean()) / (counts[rows, columns] + 3)
    return local_means


def _kernel(sigma: float) -> Float32:
    """Return the Gaussian weight between each pair of cells along one axis, shape (cells, cells), float32."""
    centers = np.arange(_CELLS, dtype=np.float32) / (_CELLS - 1)
    kernel: Float32 = np.exp(-0.5 * ((centers[:, None] - centers[None]) / np.float32(sigma)) ** 2)
    return kernel


def _min_max_scale(weights: Float32) -> Float32:
    """Return `weights` scaled linearly to the range from 0 to 1; zeros if all weights are equal."""
    low, high = weights.min(), weights.max()
    return (weights - low) / (high - low) if high > low else np.zeros_like(weights)
