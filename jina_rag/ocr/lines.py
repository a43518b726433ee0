"""Lines of text as they are read from an image, each with the place of every character."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jina_rag.ocr.detection import find_lines
from jina_rag.ocr.recognition import Pixels, Reading, read_crops
from jina_rag.ocr.weights import Models, load_models
from jina_rag.types import Box, Float32, Word

# Lines this much higher than wide hold text that runs down or up.
_TALL = 1.5
# Below this mean certainty the text may stand on its head: the other way round is tried as well.
_DOUBT = 0.8
_SAMPLE = 4
# From this certainty on, of so many characters at least, it does not.
_SURE = 0.9
_LONG = 6
# How long a line is, in its heights, whose certainty tells which way round it is.
_TELLING = 8
# How wide a space is, in letters.
_SPACE = 0.5
_SKIP_SHARE = 0.3


@dataclass(frozen=True, slots=True)
class Line:
    """A line as read.

    Attributes:
        text: Its characters.
        score: Mean certainty of the characters, 0 to 1.
        quad: Corners in pixels, shape (4, 2): start top, end top, end bottom, start bottom *of the text*, so
            that they also tell which way it runs.
        edges: Where the characters begin and end along the line, 0 to 1; one more than characters.
    """

    text: str
    score: float
    quad: Float32
    edges: tuple[float, ...]

    def words(self, offset: tuple[int, int], size: tuple[int, int]) -> list[Word]:
        """Split at spaces; boxes are fractions of an image of `size` that has this line's at `offset`."""
        words = re.finditer(r"\S+", self.text)
        return [Word(word[0], self._box(word.start(), word.end(), offset, size), ocr=True) for word in words]

    def _box(self, start: int, end: int, offset: tuple[int, int], size: tuple[int, int]) -> Box:
        """The box around the characters from `start` to before `end`."""
        shares = np.array([[self.edges[start]], [self.edges[end]]], np.float32)
        top, bottom = self.quad[1] - self.quad[0], self.quad[2] - self.quad[3]
        corners = np.concatenate([self.quad[0] + top * shares, self.quad[3] + bottom * shares])
        fractions = ((corners + np.asarray(offset)) / np.asarray(size)).clip(0, 1)
        (x0, y0), (x1, y1) = fractions.min(axis=0), fractions.max(axis=0)
        return float(x0), float(y0), float(x1), float(y1)


def read_lines(pixels: Pixels, skip_boxes: Float32, *, max_side: int) -> list[Line]:
    """Find and read the lines of an image, in no particular order.

    Args:
        pixels: Shape (height, width, 3), RGB.
        skip_boxes: Boxes in pixels, shape (n, 4); lines that they cover by 30 % or more are not read.
        max_side: Lines are found in a copy no longer than this; they are read at full size.
    """
    models = load_models()
    quads = [quad for quad in find_lines(models, pixels, max_side=max_side) if _cover(quad, skip_boxes) < _SKIP_SHARE]
    lines = _read(models, pixels, [quad for quad in quads if not _is_tall(quad)])
    if lines and np.mean([line.score for line in lines]) < _DOUBT:
        lines = _surer_way(models, pixels, lines)
    # Beside level lines stand labels of axes, which run up. By itself text runs down: columns of Chinese or
    # Japanese, pages turned right. This is only where to begin.
    quarters = 3 if lines else 1
    return lines + _read_tall(models, pixels, [_rotate(quad, quarters) for quad in quads if _is_tall(quad)])


def _read_tall(models: Models, pixels: Pixels, quads: list[Float32]) -> list[Line]:
    """Read lines that stand, or turn them by half if that is surer: each by itself if few, else as a sample says."""
    # The shortest that are long enough to tell, or else the longest.
    quads = sorted(quads, key=lambda quad: (_aspect(quad) < _TELLING, abs(_aspect(quad) - _TELLING)))
    lines = _read(models, pixels, quads[:_SAMPLE])
    doubtful = [index for index, line in enumerate(lines) if line.score < _SURE or len(line.text) < _LONG]
    flipped = dict(zip(doubtful, _read(models, pixels, [_rotate(quads[i], 2) for i in doubtful]), strict=True))
    if len(quads) <= _SAMPLE:
        return [max(line, flipped.get(index, line), key=lambda line: line.score) for index, line in enumerate(lines)]
    if sum(line.score for line in flipped.values()) <= sum(line.score for line in lines):
        return lines + _read(models, pixels, quads[_SAMPLE:])
    flipped_quads = [_rotate(quad, 2) for quad in quads]
    rest = [index for index in range(len(quads)) if index not in flipped]
    return list(flipped.values()) + _read(models, pixels, [flipped_quads[index] for index in rest])


def _surer_way(models: Models, pixels: Pixels, lines: list[Line]) -> list[Line]:
    """The lines, or the same upside down if that is surer: each by itself if few, else as the longest say."""
    if len(lines) <= _SAMPLE:
        flipped = _read(models, pixels, [_rotate(line.quad, 2) for line in lines])
        return [max(pair, key=lambda line: line.score) for pair in zip(lines, flipped, strict=True)]
    longest = sorted(lines, key=lambda line: len(line.text), reverse=True)[:_SAMPLE]
    flipped = _read(models, pixels, [_rotate(line.quad, 2) for line in longest])
    if sum(line.score for line in flipped) <= sum(line.score for line in longest):
        return lines
    return _read(models, pixels, [_rotate(line.quad, 2) for line in lines])


def _cover(quad: Float32, boxes: Float32) -> float:
    """Which share of a line's box the known boxes cover."""
    (x0, y0), (x1, y1) = quad.min(axis=0), quad.max(axis=0)
    wide = (np.minimum(boxes[:, 2], x1) - np.maximum(boxes[:, 0], x0)).clip(min=0)
    high = (np.minimum(boxes[:, 3], y1) - np.maximum(boxes[:, 1], y0)).clip(min=0)
    return float((wide * high).sum() / max((x1 - x0) * (y1 - y0), 1.0))


def _read(models: Models, pixels: Pixels, quads: Sequence[Float32]) -> list[Line]:
    """Read each quad, in the direction its corners say; the result has the order of `quads`."""
    if not quads:
        return []
    readings = read_crops(models, [_crop(pixels, quad) for quad in quads])
    return [Line(one.text, one.score, quad, _edges(one)) for one, quad in zip(readings, quads, strict=True)]


def _crop(pixels: Pixels, quad: Float32) -> Pixels:
    from rapidocr.utils.process_img import get_rotate_crop_image

    (x0, y0), (x1, y1) = quad[0].astype(int), quad[2].astype(int)
    if x1 > x0 and y1 > y0 and np.array_equal(quad, [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]):
        # What the other way comes to for most lines, in a hundredth of its time.
        return pixels[y0:y1, x0:x1]
    crop: Pixels = get_rotate_crop_image(pixels, quad)
    return crop


def _edges(reading: Reading) -> tuple[float, ...]:
    """Half way between the middles of neighbours; those of spaces say little."""
    visible = [index for index, character in enumerate(reading.text) if not character.isspace()]
    if not visible:
        return (0.0,) * (len(reading.text) + 1)
    widths = np.full(len(reading.text), _SPACE)
    widths[visible] = 1
    ends = widths.cumsum()
    middles = np.asarray(reading.middles)[visible]
    return (0.0, *np.interp(ends[:-1], (ends - widths / 2)[visible], middles).tolist(), 1.0)


def _is_tall(quad: Float32) -> bool:
    # As get_rotate_crop_image measures, which would turn such a line by itself.
    sides = np.linalg.norm(np.roll(quad, -1, axis=0) - quad, axis=1)
    return int(max(sides[1], sides[3])) >= _TALL * int(max(sides[0], sides[2]))


def _aspect(quad: Float32) -> float:
    """How long it is along its text, in its heights."""
    return float(np.linalg.norm(quad[1] - quad[0])) / max(float(np.linalg.norm(quad[3] - quad[0])), 1.0)


def _rotate(quad: Float32, quarters: int) -> Float32:
    """The same place, its text taken to start at another corner: 1 runs down, 2 is upside down, 3 runs up."""
    return np.roll(quad, -quarters, axis=0)
