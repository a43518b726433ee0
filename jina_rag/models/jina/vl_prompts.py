"""Prompts with images: token ids, rotary positions, and the box of each image token on the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from jina_rag.errors import InvalidInputError
from jina_rag.images import LoadedImage
from jina_rag.types import TokenGrid

Segment: TypeAlias = "str | int | LoadedImage"
"""A part of a prompt: text, the id of a special token, or an image."""
Int64: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PlacedImage:
    """An image in a prompt.

    Attributes:
        image: Opened image.
        start: Index of the first image token in the prompt.
        rows: Number of rows of the token grid.
        columns: Number of columns of the token grid.
        max_pixels: Size in pixels to which a larger image is scaled down.
    """

    image: LoadedImage
    start: int
    rows: int
    columns: int
    max_pixels: int

    @property
    def tokens(self) -> int:
        """Number of tokens of the image."""
        return self.rows * self.columns


@dataclass(frozen=True, slots=True)
class Prompt:
    """A sequence of tokens with images.

    Attributes:
        ids: Token ids, shape (tokens,), int64; all tokens of an image have the id of the image token.
        images: Images in the order of the prompt.
    """

    ids: Int64
    images: tuple[PlacedImage, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


def join_texts(segments: Sequence[Segment]) -> list[Segment]:
    """Return the segments with adjacent texts joined, because a token may span the border of adjacent texts."""
    parts: list[Segment] = []
    for part in segments:
        if isinstance(part, str) and parts and isinstance(parts[-1], str):
            parts[-1] += part
        elif part != "":
            parts.append(part)
    return parts


def mrope_positions(prompt: Prompt) -> Int64:
    """Return the rotary positions of a prompt's tokens on the axes time, height and width, shape (3, tokens), int64.

    The positions of text tokens increase by one on all axes. The tokens of an image share one position on the time
    axis; on the other axes, row and column of each token are added to that position. The token after an image has the
    next position after the largest position of the image.

    Source: Wang et al., Qwen2-VL (2024), section 2.1.
    """
    positions = np.empty((3, len(prompt)), dtype=np.int64)
    end = next_position = 0
    for image in prompt.images:
        positions[:, end : image.start] = np.arange(next_position, next_position + image.start - end)
        next_position += image.start - end
        image_end = image.start + image.tokens
        positions[0, image.start : image_end] = next_position
        positions[1, image.start : image_end] = next_position + np.repeat(np.arange(image.rows), image.columns)
        positions[2, image.start : image_end] = next_position + np.tile(np.arange(image.columns), image.rows)
        next_position += max(image.rows, image.columns)
        end = image_end
    positions[:, end:] = np.arange(next_position, next_position + len(prompt) - end)
    return positions


def grid_of(prompt: Prompt) -> TokenGrid | None:
    """Return the box of each image token on the image, NaN for text tokens; None for a prompt without images."""
    if not prompt.images:
        return None
    boxes = np.full((len(prompt), 4), np.nan, dtype=np.float32)
    images = np.full(len(prompt), -1, dtype=np.int32)
    for number, image in enumerate(prompt.images):
        row, column = (axis.reshape(-1) for axis in np.mgrid[: image.rows, : image.columns])
        part = slice(image.start, image.start + image.tokens)
        boxes[part] = np.stack([column, row, column + 1, row + 1], axis=1) / np.array(
            [image.columns, image.rows] * 2, dtype=np.float32
        )
        images[part] = number
    return TokenGrid(boxes, "patches", images if len(prompt.images) > 1 else None)


def check_length(prompt: Prompt, limit: int, label: str) -> None:
    """Raise an error if a prompt is longer than `limit`; prompts with images are not truncated.

    Args:
        prompt: Prompt to check.
        limit: Maximum length in tokens.
        label: Name of the input, for the message.

    Raises:
        InvalidInputError: If the prompt has more than `limit` tokens.
    """
    if len(prompt) > limit:
        images = sum(image.tokens for image in prompt.images)
        raise InvalidInputError(
            f"{label} has {len(prompt)} tokens, including {images} image tokens; the limit is {limit} tokens. Lower "
            "max_pixels or raise max_length."
        )
