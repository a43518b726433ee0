"""Whether two page screenshots show the same: at another resolution, JPEG quality or slight crop, nothing added.

One picture is laid over the other (a similarity transform through places known to correspond, then ECC maximisation:
Evangelidis and Psarakis, "Parametric Image Alignment Using Enhanced Correlation Coefficient Maximization", 2008). Then
`Overlay.difference` finds what is dark or light in one without anything alike near it in the other, such as a tick in
a box, and `Overlay.errors` compares places that are in doubt, such as a number of which one digit may differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jina_rag.stores.images import unreadable
from jina_rag.types import Float32

_SIDE = 1000
"""Longest side in pixels at which pictures are compared."""
_WINDOW = 7
_BLUR = 1.2
_OVERLAP = 0.75
"""Share of each picture that must lie on the other: a slight crop, not a part."""
_FEW = 4
_MARGIN = 15
_ROUNDS = 20
_FLAT = 0.03
_SEARCH = 2
"""Pixels by which a place may have moved, and that are compared around it."""


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Places of two pages that correspond, as fractions: `first` and `second`, shape (n, 2); `within` is how exact."""

    first: Float32
    second: Float32
    within: float = 0.006


@dataclass(frozen=True, slots=True, eq=False)
class Overlay:
    """One picture laid on another.

    Attributes:
        first: Grey values in [0, 1], shape (height, width).
        second: The other's.
        transform: From pixels of `first` to those of `second`, affine, shape (2, 3).
    """

    first: Float32
    second: Float32
    transform: npt.NDArray[Any]

    def difference(self) -> float:
        """How much the most different spot differs: 0 for the same, about 1 for black on white.

        A spot is 1/150 of the page. Differences within a pixel do not count: edges of print are ragged at every
        resolution in another way.
        """
        import cv2

        other, covered = _warped(self.second, self.transform, self.first.shape)
        edge = np.ones((_MARGIN, _MARGIN), np.uint8)
        inside = cv2.erode(covered.astype(np.uint8), edge, borderType=cv2.BORDER_CONSTANT, borderValue=(0,)) > 0
        soft_a = cv2.GaussianBlur(self.first, (0, 0), _BLUR)
        soft_b = cv2.GaussianBlur(np.where(covered, other, self.first), (0, 0), _BLUR)
        off = np.maximum(_outside(soft_a, soft_b), _outside(soft_b, soft_a)) * inside
        return float(cv2.blur(off.astype(np.float32), (_WINDOW, _WINDOW)).max())

    def errors(self, boxes: Float32, other_boxes: Float32) -> tuple[Float32, Float32]:
        """How badly single places agree: one minus their normalised cross-correlation, 0 for the same.

        Args:
            boxes: Places of the first picture, shape (n, 4), fractions.
            other_boxes: Places of the second, shape (m, 4).

        Returns:
            Shapes (n,) and (m,); NaN for places without any print, and for those that the other picture lacks.
        """
        import cv2

        back = cv2.invertAffineTransform(self.transform)
        return (
            _errors(self.first, *_warped(self.second, self.transform, self.first.shape), boxes),
            _errors(self.second, *_warped(self.first, back, self.second.shape), other_boxes),
        )


def load(path: Path) -> Float32 | None:
    """A picture as grey values in [0, 1], its longest side 1,000 pixels; None if it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            opened.draft("L", (_SIDE, _SIDE))
            grey = opened.convert("L")
    except unreadable():
        return None
    factor = _SIDE / max(grey.size)
    size = (max(1, round(grey.width * factor)), max(1, round(grey.height * factor)))
    method = Image.Resampling.BOX if factor < 1 else Image.Resampling.BICUBIC
    return np.asarray(grey.resize(size, method), dtype=np.float32) / np.float32(255)


def lay(a: Float32, b: Float32, matches: Matches | None = None) -> Overlay | None:
    """Lay one picture on another.

    Args:
        a: Grey values as `load` gives them.
        b: The other's.
        matches: Corresponding places, if any are known; without them the pictures must lie on each other roughly.

    Returns:
        None where they do not fit, or where one is more than a slight crop of the other.
    """
    blank = [float(np.ptp(image)) < _FLAT for image in (a, b)]
    if any(blank):  # there is nothing to go by
        return Overlay(a, b, _stretch(a, b)) if all(blank) and abs(a.shape[0] - b.shape[0]) < 0.1 * _SIDE else None
    transform = _aligned(a, b, matches)
    if transform is None:
        return None
    _, covered = _warped(b, transform, a.shape)
    area = float(covered.sum() * abs(np.linalg.det(transform[:, :2])))
    return None if covered.mean() < _OVERLAP or area / b.size < _OVERLAP else Overlay(a, b, transform)


def _warped(image: Float32, transform: npt.NDArray[Any], shape: tuple[int, ...]) -> tuple[Float32, npt.NDArray[Any]]:
    """A picture as it lies on another of that shape, and where it does."""
    import cv2

    size = (shape[1], shape[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    laid = cv2.warpAffine(image, transform, size, flags=flags, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    there = cv2.warpAffine(np.ones_like(image), transform, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
    return laid, there > 0


def _outside(image: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """How far each pixel lies outside the values that the other picture has around it."""
    import cv2

    near = np.ones((3, 3), np.uint8)
    result: npt.NDArray[Any] = np.maximum(
        0, np.maximum(image - cv2.dilate(other, near), cv2.erode(other, near) - image)
    )
    return result


def _errors(image: Float32, other: Float32, covered: npt.NDArray[Any], boxes: Float32) -> Float32:
    import cv2

    height, width = image.shape
    one, two = (cv2.GaussianBlur(gray, (0, 0), 0.8) for gray in (image, other))
    found = np.full(len(boxes), np.nan, dtype=np.float32)
    for i, box in enumerate(boxes):
        if np.isnan(box).any():
            continue
        x0, y0 = int(box[0] * width) - _SEARCH, int(box[1] * height) - _SEARCH
        x1, y1 = int(np.ceil(box[2] * width)) + _SEARCH, int(np.ceil(box[3] * height)) + _SEARCH
        around = (slice(max(0, y0 - _SEARCH), y1 + _SEARCH), slice(max(0, x0 - _SEARCH), x1 + _SEARCH))
        piece = one[max(0, y0) : y1, max(0, x0) : x1]
        if min(piece.shape) < 4 or float(piece.std()) < _FLAT or not covered[around].all():
            continue
        match = cv2.matchTemplate(two[around], piece, cv2.TM_CCOEFF_NORMED)
        found[i] = 1 - float(match.max())
    return found


def _stretch(a: Float32, b: Float32) -> npt.NDArray[Any]:
    return np.array([[b.shape[1] / a.shape[1], 0, 0], [0, b.shape[0] / a.shape[0], 0]], dtype=np.float32)


def _aligned(a: Float32, b: Float32, matches: Matches | None) -> npt.NDArray[Any] | None:
    """The affine transform, shape (2, 3), from pixels of `a` to those of `b`."""
    import cv2

    start = None if matches is None else _by_places(a, b, matches)
    # Lines of print look alike: without places to begin with, the search goes from coarse to fine.
    sides = (64, 128, 256, 512) if start is None else (256, 512)
    found = _stretch(a, b) if start is None else start
    for side in sides:
        factor = side / _SIDE
        scale = np.array([1, 1, factor], dtype=np.float32)
        small, other = (_shrunk(image, factor) for image in (a, b))
        stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _ROUNDS, 1e-4)
        everywhere = np.full(other.shape, 255, dtype=np.uint8)
        try:
            _, moved = cv2.findTransformECC(small, other, found * scale, cv2.MOTION_AFFINE, stop, everywhere, 3)
        except cv2.error:  # it found no way to better the start: they have nothing in common
            return None
        found = np.asarray(moved, dtype=np.float32) / scale
    return found


def _shrunk(image: Float32, factor: float) -> npt.NDArray[Any]:
    import cv2

    size = (max(8, round(image.shape[1] * factor)), max(8, round(image.shape[0] * factor)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _by_places(a: Float32, b: Float32, matches: Matches) -> npt.NDArray[Any] | None:
    import cv2

    if len(matches.first) < _FEW:
        return None
    first = matches.first * np.array([a.shape[1], a.shape[0]], dtype=np.float32)
    second = matches.second * np.array([b.shape[1], b.shape[0]], dtype=np.float32)
    cv2.setRNGSeed(0)  # RANSAC draws: the same pages shall always give the same answer
    found, _ = cv2.estimateAffinePartial2D(
        first, second, method=cv2.RANSAC, ransacReprojThreshold=matches.within * _SIDE
    )
    return None if found is None else found.astype(np.float32)
