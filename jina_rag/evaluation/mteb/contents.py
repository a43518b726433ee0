"""Conversion of mteb's batches, corpus rows and query rows to model inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, Literal, TypeAlias

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.mteb.cache import key_of
from jina_rag.protocols import Input, InputPart

ContentParts: TypeAlias = Literal["auto", "image", "text"]
"""Parts that a model reads of an input with an image and a text: ``"image"``, ``"text"``, or ``"auto"``. With
``"auto"``, a text model reads the text, and an image model reads image and text. For the pages of a `FolderTask`, an
image model reads only the image, because the text of a page repeats the words of the page image."""


def inputs_of(batch: Mapping[str, Any], *, modality: str, parts: ContentParts = "auto") -> list[Input]:
    """Return the model inputs of one batch, in order.

    Args:
        batch: A batch of mteb: lists under ``"text"``, ``"image"`` (PIL images) or both, and other columns.
        modality: The model's ``modality``, ``"text"`` or ``"image"``.
        parts: Parts to read of an input with an image and a text, see `ContentParts`.

    Raises:
        InvalidInputError: If the batch has neither texts nor images.
    """
    texts, images = batch.get("text"), batch.get("image")
    if texts is None and images is None:
        raise InvalidInputError(
            f"The task has the columns {', '.join(sorted(batch)) or 'none'}; expected a text or an image column."
        )
    if parts == "auto" and modality == "image" and images is not None and {"path", "page"} <= batch.keys():
        parts = "image"
    pairs = zip_longest(texts or (), images or ())
    return [one_input(text, image, modality=modality, parts=parts) for text, image in pairs]


def one_input(text: str | None, image: Any, *, modality: str, parts: ContentParts = "auto") -> Input:  # noqa: ANN401  # PIL
    """Return the model input of one row: a text, an RGB image, or a list of both.

    Args:
        text: The text; None if the row has no text.
        image: The PIL image; None if the row has no image.
        modality: The model's ``modality``, ``"text"`` or ``"image"``.
        parts: Parts to read if the row has a text and an image, see `ContentParts`.
    """
    if image is None or (text is not None and parts == "text"):
        return text or ""
    rgb = _in_rgb(image)
    if text is None or parts == "image" or not text.strip():
        return rgb
    return text if modality == "text" else [rgb, text]


def _in_rgb(image: Any) -> InputPart:  # noqa: ANN401
    """Convert an image to RGB, as mteb's wrappers do."""
    rgb: InputPart = image if getattr(image, "mode", "RGB") == "RGB" else image.convert("RGB")
    return rgb


def is_blank(item: Input) -> bool:
    """Return whether `item` is an empty text or white space."""
    return isinstance(item, str) and not item.strip()


def content_key(item: Input) -> bytes:
    """Return a hash of the pixels and texts of an input, independent of the source file."""
    if isinstance(item, str):
        return key_of("text", item)
    if isinstance(item, Sequence) and not isinstance(item, bytes):
        return key_of("parts", *(content_key(part) for part in item))
    image: Any = item
    return key_of("image", repr((image.mode, image.size)), image.tobytes())


def text_of_query(row: Mapping[str, Any]) -> str:
    """Return the text of a query as mteb's loader builds it, from conversation turns and an instruction."""
    text = row.get("text")
    instruction = row.get("instruction") or ""
    if isinstance(text, list):
        turns = [turn if isinstance(turn, str) else f"{turn['role']}: {turn['content']}" for turn in text]
        return f"{instruction} {'; '.join(turns)}".strip()
    return f"{text or ''} {instruction}".rstrip() if instruction else text or ""


def text_of_document(row: Mapping[str, Any]) -> str | None:
    """Return the title and text of a document joined as in mteb's loader, or None if the row has no text."""
    text = row.get("text")
    if text is None:
        return None
    return f"{row.get('title') or ''} {text}".strip()
