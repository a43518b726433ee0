"""Text lines of an image, with the position of each character."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jina_rag.ocr.detection import find_lines
from jina_rag.ocr.recognition import Pixels, Reading, read_crops
from jina_rag.ocr.weights import Models, load_models
from jina_rag.types import Box, Float32, Word

# A line with at least this ratio of height to width has vertical text.
_VERTICAL_ASPECT = 1.5
# If the mean score of the horizontal lines is below this score, the lines may be upside down and are also read rotated
# by 180 degrees.
_UPRIGHT_SCORE = 0.8
# Size of the sample of lines that decides the direction of all lines.
_SAMPLE_SIZE = 4
# Vertical lines with a score below _MIN_SCORE or with fewer than _MIN_LENGTH characters are read a second time, rotated
# by 180 degrees.
_MIN_SCORE = 0.9
_MIN_LENGTH = 6
# Aspect ratio of the lines that are preferred for the sample: long enough for a reliable score.
_SAMPLE_ASPECT = 8
# Width of a space, relative to a character.
_SPACE_WIDTH = 0.5
# A line is skipped if `skip_boxes` cover at least this fraction of the box of the line.
_MAX_COVER = 0.3


@dataclass(frozen=True, slots=True)
class Line:
    """A recognized text line.

    Attributes:
        text: Characters of the line.
        score: Mean confidence of the characters, 0 to 1.
        quad: Corners in pixels, shape (4, 2), float32, in the direction of the text: top of the first character, top of
            the last character, bottom of the last character, bottom of the first character.
        edges: Start of each character along the line, and the end of the last character, as fractions from 0 to 1.
    """

    text: str
    score: float
    quad: Float32
    edges: tuple[float, ...]

    def words(self, offset: tuple[int, int], size: tuple[int, int]) -> list[Word]:
        """Return the words of the line, split at white space.

        Args:
            offset: Position (x, y) in pixels of the recognized crop inside the full image.
            size: Width and height of the full image in pixels; boxes are fractions of this size.
        """
        words = re.finditer(r"\S+", self.text)
        return [Word(word[0], self._box(word.start(), word.end(), offset, size), ocr=True) for word in words]

    def _box(self, start: int, end: int, offset: tuple[int, int], size: tuple[int, int]) -> Box:
        """Return the box around the characters from `start` to before `end`."""
        ratios = np.array([[self.edges[start]], [self.edges[end]]], np.float32)
        top, bottom = self.quad[1] - self.quad[0], self.quad[2] - self.quad[3]
        corners = np.concatenate([self.quad[0] + top * ratios, self.quad[3] + bottom * ratios])
        fractions = ((corners + np.asarray(offset)) / np.asarray(size)).clip(0, 1)
        (x0, y0), (x1, y1) = fractions.min(axis=0), fractions.max(axis=0)
        return float(x0), float(y0), float(x1), float(y1)


def read_lines(pixels: Pixels, skip_boxes: Float32, *, max_side: int) -> list[Line]:
    """Return the text lines of an image, in no particular order.

    Args:
        pixels: Shape (height, width, 3), uint8, RGB.
        skip_boxes: Boxes of words that the caller already has, in pixels, shape (n, 4), float32. A line is skipped if
            `skip_boxes` cover at least 30 % of the box of the line.
        max_side: Longest side of the image in pixels for line detection; a larger image is scaled down. Lines are
            recognized at full resolution.

    Raises:
        MissingDependencyError: If rapidocr, onnxruntime or OpenCV is not installed.
        CheckpointError: If the weights in the wheel of rapidocr are damaged or have an unknown graph.
    """
    models = load_models()
    quads = [quad for quad in find_lines(models, pixels, max_side=max_side) if _cover(quad, skip_boxes) < _MAX_COVER]
    lines = read_quads(models, pixels, [quad for quad in quads if not _is_vertical(quad)])
    if lines and np.mean([line.score for line in lines]) < _UPRIGHT_SCORE:
        lines = _read_upside_down(models, pixels, lines)
    # The first direction to try. On a page with horizontal lines, most vertical lines are axis labels, and their text
    # runs up. Without horizontal lines, vertical text runs down: columns of Chinese or Japanese text, and pages rotated
    # clockwise.
    quarters = 3 if lines else 1
    return lines + _read_vertical(models, pixels, [_rotate(quad, quarters) for quad in quads if _is_vertical(quad)])


def _read_vertical(models: Models, pixels: Pixels, quads: list[Float32]) -> list[Line]:
    """Read vertical lines in the direction of the corners, or rotated by 180 degrees if the rotated text scores higher.

    For up to 4 lines, the direction is chosen line by line. For more lines, a sample of 4 lines decides for all lines.
    """
    # Sample the shortest of the lines that are long enough to decide, then the longest of the shorter lines.
    quads = sorted(quads, key=lambda quad: (_aspect(quad) < _SAMPLE_ASPECT, abs(_aspect(quad) - _SAMPLE_ASPECT)))
    lines = read_quads(models, pixels, quads[:_SAMPLE_SIZE])
    doubtful = [index for index, line in enumerate(lines) if line.score < _MIN_SCORE or len(line.text) < _MIN_LENGTH]
    flipped = dict(zip(doubtful, read_quads(models, pixels, [_rotate(quads[i], 2) for i in doubtful]), strict=True))
    if len(quads) <= _SAMPLE_SIZE:
        return [max(line, flipped.get(index, line), key=lambda line: line.score) for index, line in enumerate(lines)]
    if sum(line.score for line in flipped.values()) <= sum(line.score for line in lines):
        return lines + read_quads(models, pixels, quads[_SAMPLE_SIZE:])
    flipped_quads = [_rotate(quad, 2) for quad in quads]
    unsampled = [index for index in range(len(quads)) if index not in flipped]
    return list(flipped.values()) + read_quads(models, pixels, [flipped_quads[index] for index in unsampled])


def _read_upside_down(models: Models, pixels: Pixels, lines: list[Line]) -> list[Line]:
    """Read horizontal lines a second time, rotated by 180 degrees, and return the lines with the higher scores.

    For up to 4 lines, the direction is chosen line by line. For more lines, the 4 longest lines decide for all lines.
    """
    if len(lines) <= _SAMPLE_SIZE:
        flipped = read_quads(models, pixels, [_rotate(line.quad, 2) for line in lines])
        return [max(pair, key=lambda line: line.score) for pair in zip(lines, flipped, strict=True)]
    longest = sorted(lines, key=lambda line: len(line.text), reverse=True)[:_SAMPLE_SIZE]
    flipped = read_quads(models, pixels, [_rotate(line.quad, 2) for line in longest])
    if sum(line.score for line in flipped) <= sum(line.score for line in longest):
        return lines
    return read_quads(models, pixels, [_rotate(line.quad, 2) for line in lines])


def _cover(quad: Float32, boxes: Float32) -> float:
    """Return the fraction of a line's box that `boxes` cover."""
    (x0, y0), (x1, y1) = quad.min(axis=0), quad.max(axis=0)
    overlap_width = (np.minimum(boxes[:, 2], x1) - np.maximum(boxes[:, 0], x0)).clip(min=0)
    overlap_height = (np.minimum(boxes[:, 3], y1) - np.maximum(boxes[:, 1], y0)).clip(min=0)
    return float((overlap_width * overlap_height).sum() / max((x1 - x0) * (y1 - y0), 1.0))


def read_quads(models: Models, pixels: Pixels, quads: Sequence[Float32]) -> list[Line]:
    """Return the line of each quad, read in the direction of the corners, in the order of `quads`.

    Args:
        models: The models.
        pixels: RGB pixels, shape (height, width, 3), uint8.
        quads: Corners (x, y) of each line in pixels, from the top left in the direction of reading, shape (4, 2),
            float32.
    """
    if not quads:
        return []
    readings = read_crops(models, [_crop(pixels, quad) for quad in quads])
    return [Line(item.text, item.score, quad, _edges(item)) for item, quad in zip(readings, quads, strict=True)]


def _crop(pixels: Pixels, quad: Float32) -> Pixels:
    from rapidocr.utils.process_img import get_rotate_crop_image

    (x0, y0), (x1, y1) = quad[0].astype(int), quad[2].astype(int)
    if x1 > x0 and y1 > y0 and np.array_equal(quad, [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]):
        # Most lines are upright rectangles. Slicing gives the same pixels as get_rotate_crop_image, 100 times faster.
        return pixels[y0:y1, x0:x1]
    crop: Pixels = get_rotate_crop_image(pixels, quad)
    return crop


def _edges(reading: Reading) -> tuple[float, ...]:
    """Return `Line.edges`, interpolated between visible characters, because the centers of spaces are inexact."""
    visible = [index for index, character in enumerate(reading.text) if not character.isspace()]
    if not visible:
        return (0.0,) * (len(reading.text) + 1)
    widths = np.full(len(reading.text), _SPACE_WIDTH)
    widths[visible] = 1
    ends = widths.cumsum()
    centers = np.asarray(reading.centers)[visible]
    return (0.0, *np.interp(ends[:-1], (ends - widths / 2)[visible], centers).tolist(), 1.0)


def _is_vertical(quad: Float32) -> bool:
    # The ratio is computed as in get_rotate_crop_image, which rotates lines of at least this ratio.
    sides = np.linalg.norm(np.roll(quad, -1, axis=0) - quad, axis=1)
    return int(max(sides[1], sides[3])) >= _VERTICAL_ASPECT * int(max(sides[0], sides[2]))


def _aspect(quad: Float32) -> float:
    """Return the ratio of length to height of a line, with the length in the direction of the text."""
    return float(np.linalg.norm(quad[1] - quad[0])) / max(float(np.linalg.norm(quad[3] - quad[0])), 1.0)


def _rotate(quad: Float32, quarters: int) -> Float32:
    """Return the corners in the order for text rotated by `quarters` quarter turns: 1 down, 2 upside down, 3 up."""
    return np.roll(quad, -quarters, axis=0)
