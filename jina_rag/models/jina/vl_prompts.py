"""Prompts with pictures in them: their tokens, the positions of these, and which box of an image each stands for."""

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
"""A piece of a prompt: text, the id of a special token, or a picture."""
Int64: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PlacedImage:
    """A picture in a prompt.

    Attributes:
        image: The picture.
        start: Index of its first token.
        rows: Height of its grid of tokens.
        columns: Width of its grid of tokens.
        max_pixels: What it is scaled down to.
    """

    image: LoadedImage
    start: int
    rows: int
    columns: int
    max_pixels: int

    @property
    def tokens(self) -> int:
        """Number of its tokens."""
        return self.rows * self.columns


@dataclass(frozen=True, slots=True)
class Prompt:
    """A sequence of tokens with pictures in it.

    Attributes:
        ids: Token ids, shape (tokens,); a picture's are all the image token.
        images: In order.
    """

    ids: Int64
    images: tuple[PlacedImage, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


def join_texts(segments: Sequence[Segment]) -> list[Segment]:
    """The pieces with neighbouring texts as one: a tokenizer sees what stands together, together."""
    parts: list[Segment] = []
    for part in segments:
        if isinstance(part, str) and parts and isinstance(parts[-1], str):
            parts[-1] += part
        elif part != "":
            parts.append(part)
    return parts


def mrope_positions(prompt: Prompt) -> Int64:
    """Positions of a prompt's tokens on the axes time, height and width, shape (3, tokens).

    Text counts up on all three; a picture's tokens share one time and count rows and columns; what follows goes on
    behind the largest. (Qwen2-VL, Wang et al. 2024, section 2.1.)
    """
    positions = np.empty((3, len(prompt)), dtype=np.int64)
    at = following = 0
    for image in prompt.images:
        positions[:, at : image.start] = np.arange(following, following + image.start - at)
        following += image.start - at
        end = image.start + image.tokens
        positions[0, image.start : end] = following
        positions[1, image.start : end] = following + np.repeat(np.arange(image.rows), image.columns)
        positions[2, image.start : end] = following + np.tile(np.arange(image.columns), image.rows)
        following += max(image.rows, image.columns)
        at = end
    positions[:, at:] = np.arange(following, following + len(prompt) - at)
    return positions


def grid_of(prompt: Prompt) -> TokenGrid | None:
    """The box of its image that each token of a prompt stands for; None for a text."""
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


def check_length(prompt: Prompt, limit: int, what: str) -> None:
    """Refuse a prompt whose pictures alone are too long.

    Raises:
        InvalidInputError: With both numbers.
    """
    if len(prompt) > limit:
        images = sum(image.tokens for image in prompt.images)
        raise InvalidInputError(
            f"{what} has {len(prompt)} tokens, {images} of them for its images, and the limit is {limit}: lower "
            "max_pixels or raise max_length."
        )
