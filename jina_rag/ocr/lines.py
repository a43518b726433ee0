"""Lines of text as read from an image, each with the place of every character.

Source: Graves et al., Connectionist Temporal Classification (ICML 2006), for the decoding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jina_rag.ocr.find import Pixels, find_lines, normalised
from jina_rag.ocr.weights import Models, models
from jina_rag.types import Box, Float32, Word

_HEIGHT = 48
_MIN_WIDTH = 32
_MAX_WIDTH = 3200
_BATCH = 6
# Lines this much higher than wide hold text that runs down or up.
_TALL = 1.5
# Below this mean certainty the text may stand on its head: the other way round is tried as well.
_DOUBT = 0.8
_SAMPLE = 4
_KNOWN = 0.3


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
        found: list[Word] = []
        start = 0
        for end in range(len(self.text) + 1):
            if end == len(self.text) or self.text[end].isspace():
                if end > start:
                    box = self._box(self.edges[start], self.edges[end], offset, size)
                    found.append(Word(self.text[start:end], box, ocr=True))
                start = end + 1
        return found

    def _box(self, start: float, end: float, offset: tuple[int, int], size: tuple[int, int]) -> Box:
        top, bottom = self.quad[1] - self.quad[0], self.quad[2] - self.quad[3]
        corners = np.stack(
            [
                self.quad[0] + top * start,
                self.quad[0] + top * end,
                self.quad[3] + bottom * start,
                self.quad[3] + bottom * end,
            ]
        )
        fractions = ((corners + np.asarray(offset)) / np.asarray(size)).clip(0, 1)
        (x0, y0), (x1, y1) = fractions.min(axis=0), fractions.max(axis=0)
        return float(x0), float(y0), float(x1), float(y1)


def read_lines(pixels: Pixels, known: Float32, *, max_side: int) -> list[Line]:
    """Find and read the lines of an image, in no particular order.

    Args:
        pixels: Shape (height, width, 3), BGR.
        known: Boxes in pixels, shape (n, 4); lines that they cover by 30 % or more are not read.
        max_side: Lines are found in a copy no longer than this; they are read at full size.
    """
    loaded = models()
    quads = [quad for quad in find_lines(loaded.finder, pixels, max_side=max_side) if _cover(quad, known) < _KNOWN]
    lines = _read(loaded, pixels, [quad for quad in quads if not _is_tall(quad)])
    if lines and np.mean([line.score for line in lines]) < _DOUBT:
        lines = _surer_way(loaded, pixels, lines)
    # Text that runs down (columns of Chinese or Japanese, pages turned right), or else up (labels of axes).
    tall = _read(loaded, pixels, [_turned(quad, 1) for quad in quads if _is_tall(quad)])
    return lines + (_surer_way(loaded, pixels, tall) if tall else [])


def _surer_way(loaded: Models, pixels: Pixels, lines: list[Line]) -> list[Line]:
    """The lines, or the same upside down if that is surer: each by itself if few, else as the longest say."""
    if len(lines) <= _SAMPLE:
        other = _read(loaded, pixels, [_turned(line.quad, 2) for line in lines])
        return [max(pair, key=lambda line: line.score) for pair in zip(lines, other, strict=True)]
    longest = sorted(lines, key=lambda line: len(line.text), reverse=True)[:_SAMPLE]
    other = _read(loaded, pixels, [_turned(line.quad, 2) for line in longest])
    if sum(line.score for line in other) <= sum(line.score for line in longest):
        return lines
    return _read(loaded, pixels, [_turned(line.quad, 2) for line in lines])


def _cover(quad: Float32, known: Float32) -> float:
    """Which share of a line's box the known boxes cover."""
    (x0, y0), (x1, y1) = quad.min(axis=0), quad.max(axis=0)
    wide = (np.minimum(known[:, 2], x1) - np.maximum(known[:, 0], x0)).clip(min=0)
    high = (np.minimum(known[:, 3], y1) - np.maximum(known[:, 1], y0)).clip(min=0)
    return float((wide * high).sum() / max((x1 - x0) * (y1 - y0), 1.0))


def _read(loaded: Models, pixels: Pixels, quads: Sequence[Float32]) -> list[Line]:
    """Read each quad, in the direction its corners say; the result has the order of `quads`."""
    crops = [_straightened(pixels, quad) for quad in quads]
    # Neighbours in width share a batch, so that little of it is padding.
    order = sorted(range(len(crops)), key=lambda index: crops[index].shape[1])
    lines: dict[int, Line] = {}
    for start in range(0, len(order), _BATCH):
        members = order[start : start + _BATCH]
        width = crops[members[-1]].shape[1]
        batch = np.zeros((len(members), 3, _HEIGHT, width), dtype=np.float32)
        for row, index in enumerate(members):
            batch[row, :, :, : crops[index].shape[1]] = normalised(crops[index])
        output = loaded.reader.run(None, {loaded.reader.get_inputs()[0].name: batch})[0]
        best = output.argmax(axis=2)
        sure = np.take_along_axis(output, best[:, :, None], axis=2)[:, :, 0]
        for row, index in enumerate(members):
            # Steps beyond the line's own width are padding.
            steps = best.shape[1] * crops[index].shape[1] / width
            lines[index] = _decoded(best[row], sure[row], steps, quads[index], loaded.characters)
    return [lines[index] for index in range(len(quads))]


def _decoded(
    best: npt.NDArray[np.int64], sure: Float32, steps: float, quad: Float32, characters: Sequence[str]
) -> Line:
    kept = np.flatnonzero((best != 0) & (best != np.concatenate(([0], best[:-1]))))
    if len(kept) == 0:
        return Line("", 0.0, quad, (0.0,))
    middles = ((kept + 0.5) / steps).clip(0, 1)
    edges = (0.0, *((middles[1:] + middles[:-1]) / 2).tolist(), 1.0)
    return Line("".join(characters[code] for code in best[kept]), float(sure[kept].mean()), quad, edges)


def _straightened(pixels: Pixels, quad: Float32) -> Pixels:
    """Cut a line out, upright and 48 pixels high."""
    import cv2

    wide, high = _sides(quad)
    width = min(_MAX_WIDTH, max(_MIN_WIDTH, math.ceil(_HEIGHT * wide / max(high, 1.0))))
    target = np.array([(0, 0), (width, 0), (width, _HEIGHT), (0, _HEIGHT)], dtype=np.float32)
    straight = cv2.warpPerspective(
        pixels,
        cv2.getPerspectiveTransform(quad, target),
        (width, _HEIGHT),
        borderMode=cv2.BORDER_REPLICATE,
        flags=cv2.INTER_CUBIC,
    )
    return np.asarray(straight, dtype=np.uint8)


def _sides(quad: Float32) -> tuple[float, float]:
    return float(np.linalg.norm(quad[1] - quad[0])), float(np.linalg.norm(quad[3] - quad[0]))


def _is_tall(quad: Float32) -> bool:
    wide, high = _sides(quad)
    return high >= _TALL * wide


def _turned(quad: Float32, quarters: int) -> Float32:
    """The same place, its text taken to start at another corner: 1 runs down, 2 is upside down, 3 runs up."""
    return np.roll(quad, -quarters, axis=0)
