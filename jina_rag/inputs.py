"""Validation of model inputs (queries and documents), and splitting of an input into texts and images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from jina_rag._checks import check_whole_number
from jina_rag.errors import InvalidInputError
from jina_rag.images import LoadedImage, Opening, open_image
from jina_rag.protocols import Input
from jina_rag.types import Page

TextOrImage: TypeAlias = "str | LoadedImage"
"""A part of an input: a text or an opened image."""

_KINDS = 'a text, an image (PIL, bytes, pathlib.Path), a Page, {"text": …}, {"image": …}, or a list of these'


def clean_text(text: str) -> str:
    """Return a text with lone surrogates replaced by U+FFFD, because tokenizers reject surrogates.

    Args:
        text: Any text.
    """
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def parts_of(item: Input, opening: Opening, label: str = "An input") -> list[TextOrImage]:
    """Return the texts and images of one input, in order.

    A str is always a text, because texts may come from other people. To pass the path, the URL or the base64 data URI
    of an image as a str, use a mapping: ``{"image": "https://…"}``. For a page, the page screenshot is returned.

    Args:
        item: The input.
        opening: Limits on images, and whether http and https URLs are downloaded.
        label: Name and position of the input, for the error message.

    Raises:
        InvalidInputError: If the input has another type, or an image cannot be read.
        LimitExceededError: If an image has more pixels or bytes than the limits.
    """
    if isinstance(item, str):
        return [clean_text(item)]
    if isinstance(item, Page):
        return [open_image(item.screenshot.image, opening)]
    if isinstance(item, Mapping):
        return [_of_mapping(item, opening, label)]
    if isinstance(item, Sequence) and not isinstance(item, bytes | bytearray | memoryview):
        part_label = f"A part of {label.lower()}"
        parts = [part for entry in item for part in parts_of(_check_not_nested(entry, part_label), opening, part_label)]
        if not parts:
            raise InvalidInputError(f"{label} is an empty list; expected at least one part.")
        return parts
    if isinstance(item, bytes | bytearray | memoryview | os.PathLike) or hasattr(item, "getexif"):
        return [open_image(item, opening)]
    raise InvalidInputError(f"{label} is {type(item).__name__}; expected {_KINDS}.")


def text_of(item: Input, model_name: str, label: str = "An input") -> str:
    """Return the text of one input, for a model that accepts only text. For a page, return the words of the page.

    Args:
        item: The input.
        model_name: Name of the model, for the error message.
        label: Name and position of the input, for the error message.

    Raises:
        InvalidInputError: If the input is or contains an image, or has another type.
    """
    if isinstance(item, str):
        return clean_text(item)
    if isinstance(item, Page):
        return clean_text(item.text)
    if isinstance(item, Mapping) and set(item) == {"text"} and isinstance(item["text"], str):
        return clean_text(item["text"])
    if isinstance(item, Sequence) and not isinstance(item, bytes | bytearray | memoryview):
        part_label = f"A part of {label.lower()}"
        return "\n".join(text_of(_check_not_nested(entry, part_label), model_name, part_label) for entry in item)
    raise InvalidInputError(
        f"{label} is {type(item).__name__}; {model_name} accepts texts and pages. Use a model that encodes images."
    )


@dataclass(frozen=True, slots=True)
class EncodeSettings:
    """`EncodeOptions` with default values, validated by the checks that apply to all models.

    Attributes:
        single: See `EncodeOptions`. Default True.
        multi: See `EncodeOptions`. Default True.
        truncate_dim: See `EncodeOptions`. Default None.
        max_length: Maximum tokens per input; see `EncodeOptions`. Default None.
        max_pixels: Maximum pixels per image; see `EncodeOptions`. Default None.
        batch_tokens: Maximum tokens per batch; see `EncodeOptions`. Default None.

    Raises:
        InvalidInputError: If a number is not an integer of at least 1.
    """

    single: bool = True
    multi: bool = True
    truncate_dim: int | None = None
    max_length: int | None = None
    max_pixels: int | None = None
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        numbers = {
            "truncate_dim": self.truncate_dim,
            "max_length": self.max_length,
            "max_pixels": self.max_pixels,
            "batch_tokens": self.batch_tokens,
        }
        for name, value in numbers.items():
            if value is not None:
                check_whole_number(name, value, minimum=1)


def length_limit(max_length: int | None, default: int, *, minimum: int, maximum: int) -> int:
    """Return `max_length`, or `default` if `max_length` is None.

    Args:
        max_length: Requested limit of tokens per input.
        default: Default limit of the model, in tokens.
        minimum: Lowest valid limit, in tokens.
        maximum: Highest valid limit, in tokens.

    Raises:
        InvalidInputError: If `max_length` is not an integer from `minimum` to `maximum`.
    """
    if max_length is None:
        return default
    return check_whole_number("max_length", max_length, minimum=minimum, maximum=maximum)


def check_truncate_dim(truncate_dim: int | None, dim: int, name: str) -> None:
    """Check `truncate_dim` for a model without Matryoshka training, whose vectors cannot be truncated.

    Args:
        truncate_dim: Requested length of the dense vector.
        dim: Length of the model's dense vector.
        name: Name of the model, for the error message.

    Raises:
        InvalidInputError: If `truncate_dim` is neither None nor `dim`.
    """
    if truncate_dim not in (None, dim):
        raise InvalidInputError(
            f"truncate_dim is {truncate_dim}; {name!r} supports only {dim}, because the model has no Matryoshka "
            "training. Omit truncate_dim."
        )


def as_input_list(inputs: Sequence[Input], plural: str) -> list[Input]:
    """Return the inputs as a list.

    Args:
        inputs: The inputs.
        plural: Noun for the inputs in the error message, for example ``"queries"``.

    Raises:
        InvalidInputError: If `inputs` is a single input, for example a str, which is also a sequence in Python.
    """
    if isinstance(inputs, str | bytes | Mapping | Page) or not isinstance(inputs, Sequence):
        raise InvalidInputError(f"Pass a list of {plural}, not a single {type(inputs).__name__}.")
    return list(inputs)


def as_input_pairs(pairs: Iterable[tuple[Input, Input]]) -> list[tuple[Input, Input]]:
    """Return the pairs as a list of tuples. The pairs are iterated once, so an iterator is valid.

    Args:
        pairs: Pairs of query and document.

    Raises:
        InvalidInputError: If `pairs` is a single input, or a pair is not a sequence of two inputs.
    """
    if isinstance(pairs, str | bytes | Mapping | Page) or not isinstance(pairs, Iterable):
        raise InvalidInputError(f"Pass a list of pairs (query, document), not a single {type(pairs).__name__}.")
    input_pairs: list[tuple[Input, Input]] = []
    for number, pair in enumerate(pairs, start=1):
        if isinstance(pair, str | bytes) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise InvalidInputError(
                f"Pair {number} is not two inputs: expected (query, document), got {type(pair).__name__}."
            )
        query, document = pair
        input_pairs.append((query, document))
    return input_pairs


def _check_not_nested(entry: object, label: str) -> Input:
    if isinstance(entry, Sequence) and not isinstance(entry, str | bytes | bytearray | memoryview):
        raise InvalidInputError(f"{label} is a list; parts cannot be nested. Pass a flat list of parts.")
    return entry  # type: ignore[return-value]  # parts_of checks the type


def _of_mapping(item: Mapping[str, object], opening: Opening, label: str) -> TextOrImage:
    if set(item) == {"text"} and isinstance(item["text"], str):
        return clean_text(item["text"])
    if set(item) == {"image"}:
        source = item["image"]
        return open_image(source.screenshot.image if isinstance(source, Page) else source, opening)
    raise InvalidInputError(f'{label} has the keys {sorted(map(str, item))}; expected one key, "text" or "image".')
