"""Words with boxes from pixels: PP-OCR models, run in this process, on the processor, without any download.

The networks are the ONNX files inside the wheel of ``rapidocr``, whose post-processing outlines the lines. All
else is in the modules of this package: running them fast, which parts to search, which lines to leave out, text
that stands on its side or its head, the order of reading, words. Nothing is written but a cache that is asked
for, nothing is fetched, nothing is printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from jina_rag.types import Box, Float32, Word

if TYPE_CHECKING:
    from PIL.Image import Image

    from jina_rag.ocr.cache import OcrCache
    from jina_rag.ocr.recognition import Pixels

DEFAULT_MAX_SIDE = 960
DEFAULT_MIN_SCORE = 0.6


def read_words(image: Image, *, max_side: int = DEFAULT_MAX_SIDE, min_score: float = DEFAULT_MIN_SCORE) -> list[Word]:
    """Read all words of an image.

    Safe to call from many threads at once; each call uses one processor. Text turned by a quarter or by half
    is read too. Takes half a second for a screen of sparse text and two or three for a dense page.

    Args:
        image: Any mode; an alpha channel should be flattened before.
        max_side: The image is scaled down to this many pixels to find the lines. They are read at full size.
        min_score: Lines the model is less sure of are dropped, 0 to 1.

    Returns:
        Words in reading order, boxes as fractions of the image, `ocr` true; empty if nothing was found.

    Raises:
        MissingDependencyError: If rapidocr, onnxruntime or OpenCV is not installed.
        CheckpointError: If the weights in the wheel are not what they should be.
    """
    return read_areas(image, [(0.0, 0.0, 1.0, 1.0)], max_side=max_side, min_score=min_score)


def read_areas(
    image: Image,
    areas: Sequence[Box],
    *,
    skip_boxes: Sequence[Box] = (),
    max_side: int = DEFAULT_MAX_SIDE,
    min_score: float = DEFAULT_MIN_SCORE,
    cache: OcrCache | None = None,
    revision: str = "",
) -> list[Word]:
    """Read the words of parts of an image, which costs less than all of it.

    Args:
        image: As for `read_words`.
        areas: Boxes as fractions of the image; overlapping ones are read twice.
        skip_boxes: Boxes of words that need no reading. A line that they cover by 30 % or more is left out, which
            saves most of the time.
        max_side: As for `read_words`, for each area.
        min_score: As for `read_words`.
        cache: Where areas that were read before are looked up, and what is read is kept.
        revision: The document revision that `cache` should keep it for.

    Returns:
        As `read_words`; boxes are fractions of the whole image, words in the order of the areas.

    Raises:
        MissingDependencyError: As `read_words`.
        CheckpointError: As `read_words`.
    """
    words: list[Word] = []
    width, height = image.size
    boxes = np.asarray(skip_boxes, dtype=np.float32).reshape(-1, 4) * (width, height, width, height)
    for x0, y0, x1, y1 in areas:
        left, top = int(x0 * width), int(y0 * height)
        right, bottom = max(left + 1, round(x1 * width)), max(top + 1, round(y1 * height))
        part = image if (left, top, right, bottom) == (0, 0, width, height) else image.crop((left, top, right, bottom))
        pixels = np.asarray(part.convert("RGB") if part.mode != "RGB" else part)
        is_near = (boxes[:, 0] < right) & (boxes[:, 1] < bottom) & (boxes[:, 2] > left) & (boxes[:, 3] > top)
        part_boxes = (boxes[is_near] - (left, top, left, top)).astype(np.float32)
        for word in _read_area(pixels, part_boxes, max_side, min_score, cache, revision):
            words.append(replace(word, box=_in_whole_image(word.box, (left, top), part.size, image.size)))
    return words


def _read_area(
    pixels: Pixels, skip_boxes: Float32, max_side: int, min_score: float, cache: OcrCache | None, revision: str
) -> list[Word]:
    """Words of an area, boxes as fractions of it, from the cache if they are there."""
    from jina_rag.ocr.cache import area_key

    key = area_key(pixels, skip_boxes, max_side=max_side, min_score=min_score) if cache is not None else ""
    words = cache.get(key, revision) if cache is not None else None
    if words is None:
        words = _read_pixels(pixels, skip_boxes, max_side, min_score)
        if cache is not None:
            cache.put(key, words, revision)
    return words


def _read_pixels(pixels: Pixels, skip_boxes: Float32, max_side: int, min_score: float) -> list[Word]:
    from jina_rag.ocr.detection import content_bounds
    from jina_rag.ocr.lines import read_lines
    from jina_rag.ocr.reading_order import reading_order

    bounds = content_bounds(pixels)
    if bounds is None:
        return []
    left, top, right, bottom = bounds
    shifted_boxes = skip_boxes - np.array((left, top, left, top), np.float32)
    all_lines = read_lines(pixels[top:bottom, left:right], shifted_boxes, max_side=max_side)
    lines = [line for line in all_lines if line.score >= min_score]
    size = (pixels.shape[1], pixels.shape[0])
    return [word for index in reading_order(lines) for word in lines[index].words((left, top), size)]


def _in_whole_image(box: Box, offset: tuple[int, int], part: tuple[int, int], whole: tuple[int, int]) -> Box:
    """A box in fractions of a part of an image, in fractions of the whole."""
    x0, x1 = ((offset[0] + x * part[0]) / whole[0] for x in (box[0], box[2]))
    y0, y1 = ((offset[1] + y * part[1]) / whole[1] for y in (box[1], box[3]))
    return max(x0, 0.0), max(y0, 0.0), min(x1, 1.0), min(y1, 1.0)
