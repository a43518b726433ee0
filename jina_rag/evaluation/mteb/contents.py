"""What mteb hands over, as inputs of our models: its batches, and the rows of its corpora and query sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, Literal, TypeAlias

from jina_rag.errors import InvalidInputError
from jina_rag.evaluation.mteb.cache import key_of
from jina_rag.protocols import Input, InputPart

ContentParts: TypeAlias = Literal["auto", "image", "text"]
"""What is read of an input that has an image and a text: what suits the model (``"auto"``: a model that looks at pixels
reads both together, one that reads words the text), or one of them. Where the text is nothing but the words of the
image (`FolderTask`, whose documents carry their path), a model that looks at pixels is given the image."""


def inputs_of(batch: Mapping[str, Any], *, modality: str, parts: ContentParts = "auto") -> list[Input]:
    """The inputs of one batch.

    Args:
        batch: mteb's: lists under ``"text"``, ``"image"`` (PIL), or both; further columns of its data set.
        modality: The model's ``modality``.
        parts: See `ContentParts`.

    Raises:
        InvalidInputError: If it has neither.
    """
    texts, images = batch.get("text"), batch.get("image")
    if texts is None and images is None:
        raise InvalidInputError(
            f"Texts and images are read here; this task has {', '.join(sorted(batch)) or 'nothing'}."
        )
    if parts == "auto" and modality == "image" and images is not None and {"path", "page"} <= batch.keys():
        parts = "image"
    pairs = zip_longest(texts or (), images or ())
    return [one_input(text, image, modality=modality, parts=parts) for text, image in pairs]


def one_input(text: str | None, image: Any, *, modality: str, parts: ContentParts = "auto") -> Input:  # noqa: ANN401  # PIL
    """A text, an image, or both in a list."""
    if image is None or (text is not None and parts == "text"):
        return text or ""
    rgb = _in_rgb(image)
    if text is None or parts == "image" or not text.strip():
        return rgb
    return text if modality == "text" else [rgb, text]


def _in_rgb(image: Any) -> InputPart:  # noqa: ANN401
    """In RGB, as mteb's own wrappers give images to models."""
    rgb: InputPart = image if getattr(image, "mode", "RGB") == "RGB" else image.convert("RGB")
    return rgb


def is_blank(item: Input) -> bool:
    """Whether it is a text without anything in it."""
    return isinstance(item, str) and not item.strip()


def content_key(item: Input) -> bytes:
    """A hash of what an input shows: equal for equal pixels and texts, whatever file they come from."""
    if isinstance(item, str):
        return key_of("text", item)
    if isinstance(item, Sequence) and not isinstance(item, bytes):
        return key_of("parts", *(content_key(part) for part in item))
    image: Any = item
    return key_of("image", repr((image.mode, image.size)), image.tobytes())


def text_of_query(row: Mapping[str, Any]) -> str:
    """The text of a query as mteb's own loader puts it together: turns of a conversation joined, instructions added."""
    text = row.get("text")
    instruction = row.get("instruction") or ""
    if isinstance(text, list):
        turns = [turn if isinstance(turn, str) else f"{turn['role']}: {turn['content']}" for turn in text]
        return f"{instruction} {'; '.join(turns)}".strip()
    return f"{text or ''} {instruction}".rstrip() if instruction else text or ""


def text_of_document(row: Mapping[str, Any]) -> str | None:
    """The title and the text of a document as mteb's own loader joins them; None for one without a text."""
    text = row.get("text")
    if text is None:
        return None
    return f"{row.get('title') or ''} {text}".strip()
