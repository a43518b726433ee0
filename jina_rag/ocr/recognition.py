"""Pictures of lines into characters: the second network of OCR, one line at a time."""

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

# What the network was trained on.
_HEIGHT = 48
# It was trained on lines with empty columns after them, and misses last characters where there are none.
_EMPTY = 32
# How many columns it reads as one step.
_STEP = 8
# Vectors that go through the classifier at once; it is the larger part of the weights, read anew each time.
_ROWS = 64
# Where the value of "no character" is above this, no other was ever higher (in all kinds of scripts, from 25 on).
_BLANK = 26.0
# Lines of wide characters are read as well when they are narrowed, in less time: until a character takes so many
# steps of the network. With fewer than 1.7 errors set in; where it comes near that, the line is read at full width.
_STEPS = 2.2
_TOO_FEW = 1.8
_NARROWEST = 0.5
# Less than a fifth narrower is not worth what must be read twice.
_WORTH = 0.8
# So many lines, about so many times as long as high, tell how wide the characters of a page are.
_TRIAL = 4
_TELLING = 8
_SURE = 0.8


@dataclass(frozen=True, slots=True)
class Reading:
    """What stands in a picture of a line.

    Attributes:
        text: Its characters.
        score: Mean certainty of the characters, 0 to 1; 0 if there are none.
        middles: Where the middle of each character is, in fractions of the width; of white space, too.
    """

    text: str
    score: float
    middles: tuple[float, ...]


def read_crops(models: Models, crops: Sequence[Pixels]) -> list[Reading]:
    """Read pictures of one line each, as they stand.

    Args:
        models: Its encoder and classifier are used.
        crops: Shape (height, width, 3), RGB, upright. Best given all at once for a page.
    """
    order = sorted(range(len(crops)), key=lambda index: abs(_aspect(crops[index]) - _TELLING))
    readings = dict(zip(order, _read(models, [crops[index] for index in order[:_TRIAL]], 1.0), strict=False))
    rest = order[_TRIAL:]
    stretch = _stretch([(readings[index], _aspect(crops[index])) for index in readings])
    readings.update(zip(rest, _read(models, [crops[index] for index in rest], stretch), strict=True))
    if stretch < 1:
        # Smaller characters than the others, or something else that is harder to read.
        steps = {index: _steps(readings[index], _aspect(crops[index])) * stretch for index in rest}
        again = [index for index in rest if readings[index].score < _SURE or steps[index] < _TOO_FEW]
        readings.update(zip(again, _read(models, [crops[index] for index in again], 1.0), strict=True))
    return [readings[index] for index in range(len(crops))]


def _stretch(trial: Sequence[tuple[Reading, float]]) -> float:
    """By how much lines of the same characters can be narrowed."""
    steps = [_steps(reading, aspect) for reading, aspect in trial if reading.score >= _SURE]
    stretch = max(_NARROWEST, _STEPS / min(steps)) if steps else 1.0
    return stretch if stretch <= _WORTH else 1.0


def _steps(reading: Reading, aspect: float) -> float:
    """How many steps of the network a character takes when it is not narrowed."""
    return aspect * _HEIGHT / _STEP / max(1, len(reading.text))


def _aspect(crop: Pixels) -> float:
    return float(crop.shape[1] / crop.shape[0])


def _read(models: Models, crops: Sequence[Pixels], stretch: float) -> list[Reading]:
    if not crops:
        return []
    # One line at a time: batches would have to be padded, and outgrow the processor's cache.
    lines, shares = [], []
    for crop in crops:
        image, share = _image(crop, stretch)
        check_interruption()
        lines.append(models.encoder.run(None, {"x": image})[0][0])
        shares.append(share)
    ends = np.cumsum([len(line) for line in lines])
    vectors = np.concatenate(lines)
    steps, ids, scores = _classify(models, vectors, ends - [len(line) for line in lines])
    readings = []
    for line, end, share in zip(lines, ends, shares, strict=True):
        here = slice(*np.searchsorted(steps, (end - len(line), end)))
        text = "".join(models.characters[index] for index in ids[here])
        places = (steps[here] - (end - len(line)) + 0.5) / (len(line) * share)
        score = float(scores[here].mean()) if text else 0.0
        readings.append(Reading(text, score, tuple(places.clip(0, 1).tolist())))
    return readings


def _image(crop: Pixels, stretch: float) -> tuple[Float32, float]:
    """The network's input, and which share of its width the line takes."""
    import cv2

    height, width = crop.shape[:2]
    columns = max(1, math.ceil(_HEIGHT * width / height * stretch))
    image = np.zeros((1, 3, _HEIGHT, columns + _EMPTY), np.float32)
    # The networks were trained on OpenCV's order of the channels.
    line = cv2.resize(crop, (columns, _HEIGHT))[:, :, ::-1].transpose(2, 0, 1)
    np.multiply(line, np.float32(2 / 255), out=image[0, :, :, :columns], casting="unsafe")
    image[0, :, :, :columns] -= 1
    return image, columns / image.shape[3]


def _classify(
    models: Models, vectors: Float32, starts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Float32]:
    """Decode the steps of many lines: those where a character begins, which one, and how certain it is."""
    # Not by matrix product, for which NumPy would start threads.
    blank = np.einsum("ij,j->i", vectors, models.blank[:-1]) + models.blank[-1]
    best = np.zeros(len(vectors), np.int64)
    first = np.zeros(len(vectors), bool)
    first[starts] = True
    steps, scores = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    name = models.classifier.get_inputs()[0].name
    rows = np.flatnonzero(blank < _BLANK)
    for begin in range(0, len(rows), _ROWS):
        some = rows[begin : begin + _ROWS]
        check_interruption()
        values = models.classifier.run(None, {name: vectors[some]})[0]
        best[some] = values.argmax(axis=1)
        # A character that goes on over several steps is one.
        new = (best[some] != 0) & (first[some] | (best[some] != best[some - 1]))
        steps.append(some[new])
        start_values = values[new]
        scores.append(1 / np.exp(start_values - start_values.max(axis=1, keepdims=True)).sum(axis=1))
    places = np.concatenate(steps)
    return places, best[places], np.concatenate(scores)
