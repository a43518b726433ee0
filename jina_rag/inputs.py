"""What a caller may pass as a query or a document, taken apart into texts and pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from jina_rag._checks import check_whole_number
from jina_rag.errors import InvalidInputError
from jina_rag.images import LoadedImage, Opening, is_data_uri, open_image
from jina_rag.protocols import Input
from jina_rag.types import Page

TextOrImage: TypeAlias = "str | LoadedImage"
"""A text, or a picture."""

_KINDS = (
    "a text, an image (PIL, bytes, pathlib.Path, base64 data URI), a Page, "
    '{"text": …}, {"image": …}, or a list of these'
)


def clean_text(text: str) -> str:
    """The text without lone surrogates (half characters of broken file names), which no tokenizer takes."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def parts_of(item: Input, opening: Opening) -> list[TextOrImage]:
    """The parts of one input, in order.

    A str is a text, unless the whole of it is a base64 data URI of an image. Paths and addresses as str are images
    only when it is said so: ``{"image": "https://…"}``. A page is its picture.

    Raises:
        InvalidInputError: If it is of another kind, or holds an image that cannot be read.
        LimitExceededError: If an image is too large.
    """
    if isinstance(item, str):
        return [open_image(item, opening) if is_data_uri(item) else clean_text(item)]
    if isinstance(item, Page):
        return [open_image(item.screenshot.image, opening)]
    if isinstance(item, Mapping):
        return [_of_mapping(item, opening)]
    if isinstance(item, Sequence) and not isinstance(item, bytes | bytearray | memoryview):
        parts = [part for entry in item for part in parts_of(_single(entry), opening)]
        if not parts:
            raise InvalidInputError("A document of several parts needs at least one.")
        return parts
    if isinstance(item, bytes | bytearray | memoryview | os.PathLike) or hasattr(item, "getexif"):
        return [open_image(item, opening)]
    raise InvalidInputError(f"An input is {_KINDS}; got {type(item).__name__}.")


def text_of(item: Input, what: str) -> str:
    """The text of one input, for a model that takes nothing else; a page gives its words.

    Raises:
        InvalidInputError: If it is an image.
    """
    if isinstance(item, str):
        if not is_data_uri(item):
            return clean_text(item)
    elif isinstance(item, Page):
        return clean_text(item.text)
    elif isinstance(item, Mapping) and set(item) == {"text"} and isinstance(item["text"], str):
        return clean_text(item["text"])
    elif isinstance(item, Sequence) and not isinstance(item, bytes | bytearray | memoryview):
        return "\n".join(text_of(_single(entry), what) for entry in item)
    raise InvalidInputError(
        f"{what} reads texts and the words of pages, not {type(item).__name__}: use a model that looks at pixels."
    )


@dataclass(frozen=True, slots=True)
class EncodeSettings:
    """`EncodeOptions` with the defaults of those that were left out, checked as far as that is alike for all models.

    Attributes are those of `EncodeOptions`.

    Raises:
        InvalidInputError: If a number is not a whole number of at least 1.
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
    """`max_length` if it is given and within the bounds of a model, else `default`.

    Raises:
        InvalidInputError: If it is outside of them.
    """
    if max_length is None:
        return default
    return check_whole_number("max_length", max_length, minimum=minimum, maximum=maximum)


def check_truncate_dim(truncate_dim: int | None, dim: int, name: str) -> None:
    """Refuse to cut vectors that were not trained to be cut.

    Raises:
        InvalidInputError: If `truncate_dim` is neither None nor `dim`.
    """
    if truncate_dim not in (None, dim):
        raise InvalidInputError(
            f"The vectors of {name!r} have {dim} dimensions and are not made to be cut (no Matryoshka training): leave "
            f"truncate_dim out, got {truncate_dim}."
        )


def as_input_list(inputs: Sequence[Input], what: str) -> list[Input]:
    """The inputs as a list.

    Raises:
        InvalidInputError: If it is a single input instead, which Python would take for a list of characters.
    """
    if isinstance(inputs, str | bytes | Mapping | Page) or not isinstance(inputs, Sequence):
        raise InvalidInputError(f"Pass a list of {what}, not a single {type(inputs).__name__}.")
    return list(inputs)


def as_input_pairs(pairs: Iterable[tuple[Input, Input]]) -> list[tuple[Input, Input]]:
    """The pairs as a list of tuples, each taken out once, so that lazy ones and iterators do.

    Raises:
        InvalidInputError: If it is a single input instead, or a pair is not two inputs.
    """
    if isinstance(pairs, str | bytes | Mapping | Page) or not isinstance(pairs, Iterable):
        raise InvalidInputError(f"Pass a list of pairs (question, document), not a single {type(pairs).__name__}.")
    input_pairs: list[tuple[Input, Input]] = []
    for number, pair in enumerate(pairs, start=1):
        if isinstance(pair, str | bytes) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise InvalidInputError(
                f"Pair {number} is not two inputs, (question, document): got {type(pair).__name__}."
            )
        query, document = pair
        input_pairs.append((query, document))
    return input_pairs


def _single(entry: object) -> Input:
    if isinstance(entry, Sequence) and not isinstance(entry, str | bytes | bytearray | memoryview):
        raise InvalidInputError("The parts of a document cannot be lists themselves.")
    return entry  # type: ignore[return-value]  # parts_of checks the rest


def _of_mapping(item: Mapping[str, object], opening: Opening) -> TextOrImage:
    if set(item) == {"text"} and isinstance(item["text"], str):
        return clean_text(item["text"])
    if set(item) == {"image"}:
        source = item["image"]
        return open_image(source.screenshot.image if isinstance(source, Page) else source, opening)
    raise InvalidInputError(f'A mapping has one key, "text" or "image"; got {sorted(map(str, item))}.')
