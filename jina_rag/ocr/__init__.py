"""Words with boxes from pixels: PP-OCR models, run in this process, on the processor, without any download.

``rapidocr`` finds and reads the lines, with the ONNX files inside its wheel. What is about pages is in the
modules of this package: which parts to search, which lines to leave out, text that stands on its side or its
head, the order of reading, words. Nothing is written, nothing is fetched, nothing is printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jina_rag.types import Box, Word

if TYPE_CHECKING:
    from PIL.Image import Image

DEFAULT_MAX_SIDE = 960
DEFAULT_MIN_SCORE = 0.6


def read_words(image: Image, *, max_side: int = DEFAULT_MAX_SIDE, min_score: float = DEFAULT_MIN_SCORE) -> list[Word]:
    """Read all words of an image.

    Safe to call from many threads at once; each call uses one processor. Text turned by a quarter or by half
    is read too. Takes about a second for a screen of sparse text and several for a dense page.

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
    known: Sequence[Box] = (),
    max_side: int = DEFAULT_MAX_SIDE,
    min_score: float = DEFAULT_MIN_SCORE,
) -> list[Word]:
    """Read the words of parts of an image, which costs less than all of it.

    Args:
        image: As for `read_words`.
        areas: Boxes as fractions of the image; overlapping ones are read twice.
        known: Boxes of words that need no reading. A line that they cover by 30 % or more is left out, which
            saves most of the time.
        max_side: As for `read_words`, for each area.
        min_score: As for `read_words`.

    Returns:
        As `read_words`; boxes are fractions of the whole image, words in the order of the areas.

    Raises:
        MissingDependencyError: As `read_words`.
        CheckpointError: As `read_words`.
    """
    import numpy as np

    from jina_rag.ocr.find import written_part
    from jina_rag.ocr.lines import read_lines
    from jina_rag.ocr.order import reading_order

    words: list[Word] = []
    width, height = image.size
    boxes = np.asarray(known, dtype=np.float32).reshape(-1, 4) * (width, height, width, height)
    for x0, y0, x1, y1 in areas:
        left, top = int(x0 * width), int(y0 * height)
        crop = image.crop((left, top, max(left + 1, round(x1 * width)), max(top + 1, round(y1 * height))))
        pixels = np.asarray(crop.convert("RGB"))
        written = written_part(pixels)
        if written is None:
            continue
        pixels = pixels[written[1] : written[3], written[0] : written[2]]
        left, top = left + written[0], top + written[1]
        covered = (boxes - (left, top, left, top)).astype(np.float32)
        lines = [line for line in read_lines(pixels, covered, max_side=max_side) if line.score >= min_score]
        for index in reading_order(lines):
            words.extend(lines[index].words((left, top), (width, height)))
    return words
