"""Recognition of the characters of text lines, one line at a time.

Source: Du et al., PP-OCR (2020); greedy decoding of Connectionist Temporal Classification (Graves et al., ICML 2006).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jina_rag.ocr.interruption import check_interruption
from jina_rag.ocr.weights import Models
from jina_rag.types import Float32

Pixels = npt.NDArray[np.uint8]

# Height in pixels to which lines are scaled, equal to the height of the training lines.
_HEIGHT = 48
# Blank pixel columns appended to a line, as in the training data. Without blank columns, the model misses the last
# characters.
_BLANK_COLUMNS = 32
# Number of pixel columns per time step of the model.
_STEP_COLUMNS = 8
# Number of vectors per run of the classifier. Vectors are batched, because each run reads all weights of the
# classifier: most of the weights of the model.
_CLASSIFIER_BATCH = 64
# A time step with a blank logit above this value is treated as blank without running the classifier. In tests with many
# scripts, no other class had a higher logit than the blank class where the blank logit was 25 or more.
_BLANK_LOGIT = 26.0
# Lines of wide characters are scaled down horizontally, to this number of time steps per character, to save time.
# Recognition errors start below 1.7 steps per character, so lines with fewer than _MIN_STEPS steps per character are
# read again at full width.
_TARGET_STEPS = 2.2
_MIN_STEPS = 1.8
_MIN_SCALE = 0.5
# Lines are not scaled by a factor above this limit, because the scaling would save less time than reading some lines
# twice takes.
_MAX_SCALE = 0.8
# The character width of a page is measured on _SAMPLE_SIZE lines with an aspect ratio near _SAMPLE_ASPECT. Lines with a
# score below _CONFIDENT_SCORE are ignored.
_SAMPLE_SIZE = 4
_SAMPLE_ASPECT = 8
_CONFIDENT_SCORE = 0.8


@dataclass(frozen=True, slots=True)
class Reading:
    """Recognized text of a line image.

    Attributes:
        text: Characters of the line.
        score: Mean confidence of the characters, 0 to 1; 0 for an empty text.
        centers: Center of each character, white space included, as a fraction of the image width.
    """

    text: str
    score: float
    centers: tuple[float, ...]


def read_crops(models: Models, crops: Sequence[Pixels]) -> list[Reading]:
    """Return the text of each line image.

    Args:
        models: The loaded OCR models, of which `encoder` and `classifier` are used.
        crops: Upright images of one line each, shape (height, width, 3), uint8, RGB. Pass all lines of a page in one
            call, because a sample of the lines determines the horizontal scale of the remaining lines.
    """
    order = sorted(range(len(crops)), key=lambda index: abs(_aspect(crops[index]) - _SAMPLE_ASPECT))
    readings = dict(zip(order, _read(models, [crops[index] for index in order[:_SAMPLE_SIZE]], 1.0), strict=False))
    unsampled = order[_SAMPLE_SIZE:]
    scale = _width_scale([(readings[index], _aspect(crops[index])) for index in readings])
    readings.update(zip(unsampled, _read(models, [crops[index] for index in unsampled], scale), strict=True))
    if scale < 1:
        # Lines with narrower characters than the sample, or with low scores, are read again at full width.
        steps = {index: _steps(readings[index], _aspect(crops[index])) * scale for index in unsampled}
        reread = [index for index in unsampled if readings[index].score < _CONFIDENT_SCORE or steps[index] < _MIN_STEPS]
        readings.update(zip(reread, _read(models, [crops[index] for index in reread], 1.0), strict=True))
    return [readings[index] for index in range(len(crops))]


def _width_scale(sample: Sequence[tuple[Reading, float]]) -> float:
    """Return the horizontal scale for lines with the character width of the sampled lines."""
    steps = [_steps(reading, aspect) for reading, aspect in sample if reading.score >= _CONFIDENT_SCORE]
    scale = max(_MIN_SCALE, _TARGET_STEPS / min(steps)) if steps else 1.0
    return scale if scale <= _MAX_SCALE else 1.0


def _steps(reading: Reading, aspect: float) -> float:
    """Return the time steps per character at full width."""
    return aspect * _HEIGHT / _STEP_COLUMNS / max(1, len(reading.text))


def _aspect(crop: Pixels) -> float:
    return float(crop.shape[1] / crop.shape[0])


def _read(models: Models, crops: Sequence[Pixels], scale: float) -> list[Reading]:
    if not crops:
        return []
    # Lines are encoded one at a time, because batches need padding and exceed the processor's cache.
    lines, line_fractions = [], []
    for crop in crops:
        image, line_fraction = _image(crop, scale)
        check_interruption()
        lines.append(models.encoder.run(None, {"x": image})[0][0])
        line_fractions.append(line_fraction)
    ends = np.cumsum([len(line) for line in lines])
    vectors = np.concatenate(lines)
    steps, ids, scores = _classify(models, vectors, ends - [len(line) for line in lines])
    readings = []
    for line, end, line_fraction in zip(lines, ends, line_fractions, strict=True):
        line_steps = slice(*np.searchsorted(steps, (end - len(line), end)))
        text = "".join(models.characters[index] for index in ids[line_steps])
        centers = (steps[line_steps] - (end - len(line)) + 0.5) / (len(line) * line_fraction)
        score = float(scores[line_steps].mean()) if text else 0.0
        readings.append(Reading(text, score, tuple(centers.clip(0, 1).tolist())))
    return readings


def _image(crop: Pixels, scale: float) -> tuple[Float32, float]:
    """Return the model input, shape (1, 3, 48, width), float32, and the fraction of the width that the line fills."""
    import cv2

    height, width = crop.shape[:2]
    columns = max(1, math.ceil(_HEIGHT * width / height * scale))
    image = np.zeros((1, 3, _HEIGHT, columns + _BLANK_COLUMNS), np.float32)
    # The models were trained on OpenCV's channel order, BGR.
    line = cv2.resize(crop, (columns, _HEIGHT))[:, :, ::-1].transpose(2, 0, 1)
    np.multiply(line, np.float32(2 / 255), out=image[0, :, :, :columns], casting="unsafe")
    image[0, :, :, :columns] -= 1
    return image, columns / image.shape[3]


def _classify(
    models: Models, vectors: Float32, starts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Float32]:
    """Decode the vectors of many lines; return the time step, class id and confidence of each character."""
    # einsum instead of a matrix product, because NumPy would start threads for the product.
    blank = np.einsum("ij,j->i", vectors, models.blank[:-1]) + models.blank[-1]
    best_ids = np.zeros(len(vectors), np.int64)
    is_first_step = np.zeros(len(vectors), bool)
    is_first_step[starts] = True
    steps, scores = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    name = models.classifier.get_inputs()[0].name
    rows = np.flatnonzero(blank < _BLANK_LOGIT)
    for begin in range(0, len(rows), _CLASSIFIER_BATCH):
        batch = rows[begin : begin + _CLASSIFIER_BATCH]
        check_interruption()
        values = models.classifier.run(None, {name: vectors[batch]})[0]
        best_ids[batch] = values.argmax(axis=1)
        # Consecutive steps of the same class are one character.
        is_start = (best_ids[batch] != 0) & (is_first_step[batch] | (best_ids[batch] != best_ids[batch - 1]))
        steps.append(batch[is_start])
        start_values = values[is_start]
        scores.append(1 / np.exp(start_values - start_values.max(axis=1, keepdims=True)).sum(axis=1))
    character_steps = np.concatenate(steps)
    return character_steps, best_ids[character_steps], np.concatenate(scores)
