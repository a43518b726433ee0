"""OCR: PP-OCR models read the words of an image and the box of each word, on the CPU and in the calling process.

OCR needs no download: the models are the ONNX files in the wheel of ``rapidocr``. The post-processing of ``rapidocr``
converts the output of the detector to line outlines. This package adds tiling of long images, rotated text, reading
order and word splitting. Lines whose words the caller already has are skipped. OCR writes only to the cache passed by
the caller, opens no connection and prints nothing.
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
    """Return all words of an image.

    Thread-safe; each call uses one CPU core. Text rotated by 90, 180 or 270 degrees is also read. A sparse screenshot
    takes about half a second, a dense page two to three seconds.

    Args:
        image: An image in any mode. Flatten an alpha channel first.
        max_side: Longest side of the image in pixels for line detection; a larger image is scaled down. Lines are
            recognized at full resolution.
        min_score: Minimum mean confidence of a line's characters, 0 to 1. Other lines are dropped.

    Returns:
        Words in reading order, with boxes as fractions of the image and `ocr` set to True; empty if no words are found.

    Raises:
        MissingDependencyError: If rapidocr, onnxruntime or OpenCV is not installed.
        CheckpointError: If the weights in the wheel are damaged or have an unknown graph.
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
    """Return the words inside areas of an image.

    Args:
        image: An image in any mode. Flatten an alpha channel first.
        areas: Boxes as fractions of the image. Overlapping areas are read twice.
        skip_boxes: Boxes of words that the caller already has, as fractions of the image. To save time, a
            detected line is not read if `skip_boxes` cover at least 30 % of the box of the line.
        max_side: Longest side of an area in pixels for line detection; a larger area is scaled down.
        min_score: Minimum mean confidence of a line's characters, 0 to 1. Other lines are dropped.
        cache: Cache of the words of areas; None to read every area.
        revision: Document revision under which `cache` stores the words; see `OcrCache.forget`.

    Returns:
        Words in the order of the areas, in reading order inside an area, with boxes as fractions of the whole image and
        `ocr` set to True.

    Raises:
        MissingDependencyError: If rapidocr, onnxruntime or OpenCV is not installed.
        CheckpointError: If the weights in the wheel are damaged or have an unknown graph.
    """
    words: list[Word] = []
    width, height = image.size
    boxes = np.asarray(skip_boxes, dtype=np.float32).reshape(-1, 4) * (width, height, width, height)
    for x0, y0, x1, y1 in areas:
        left, top = int(x0 * width), int(y0 * height)
        right, bottom = max(left + 1, round(x1 * width)), max(top + 1, round(y1 * height))
        crop = image if (left, top, right, bottom) == (0, 0, width, height) else image.crop((left, top, right, bottom))
        pixels = np.asarray(crop.convert("RGB") if crop.mode != "RGB" else crop)
        is_near = (boxes[:, 0] < right) & (boxes[:, 1] < bottom) & (boxes[:, 2] > left) & (boxes[:, 3] > top)
        crop_boxes = (boxes[is_near] - (left, top, left, top)).astype(np.float32)
        for word in _read_area(pixels, crop_boxes, max_side, min_score, cache, revision):
            words.append(replace(word, box=_in_whole_image(word.box, (left, top), crop.size, image.size)))
    return words


def _read_area(
    pixels: Pixels, skip_boxes: Float32, max_side: int, min_score: float, cache: OcrCache | None, revision: str
) -> list[Word]:
    """Return the words of an area, from the cache if possible; boxes are fractions of the area."""
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


def _in_whole_image(box: Box, offset: tuple[int, int], crop_size: tuple[int, int], image_size: tuple[int, int]) -> Box:
    """Convert a box from fractions of a crop to fractions of the whole image; offset and sizes are in pixels."""
    x0, x1 = ((offset[0] + x * crop_size[0]) / image_size[0] for x in (box[0], box[2]))
    y0, y1 = ((offset[1] + y * crop_size[1]) / image_size[1] for y in (box[1], box[3]))
    return max(x0, 0.0), max(y0, 0.0), min(x1, 1.0), min(y1, 1.0)
