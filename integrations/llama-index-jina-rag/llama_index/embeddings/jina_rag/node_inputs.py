"""What of a node a model looks at: its picture where it has one, else its text.

Nodes carry pictures in three ways: `ImageNode` (a TextNode with fields of its own), `ImageDocument` and `Node` (with an
``image_resource``). All are treated alike.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, TypeAlias

from llama_index.core.schema import BaseNode, ImageNode, ImageType, MetadataMode, Node, QueryBundle

from jina_rag import InvalidInputError, open_page

IMAGE_HASH = "image_sha256"
"""Metadata key by which `JinaPageReader` says that a picture was kept by `jina_rag.save_page`, with its words."""


NodeImage: TypeAlias = Path | bytes | str
"""The image of a node: its file, the bytes of a file, or an address, which nothing here follows."""


def image_of(node: BaseNode) -> NodeImage | None:
    """A node's image; None for a node without one.

    Raises:
        InvalidInputError: If it is given as base64 that is none.
    """
    data, path, url = image_parts(node)
    if data:
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error as exc:
            raise InvalidInputError(f"The image of node {node.node_id!r} is no base64 ({exc}).") from exc
    return Path(path) if path else url or None


def image_parts(node: BaseNode) -> tuple[str | None, str | None, str | None]:
    """A node's image as base64, as a path and as an address; None for what it has not."""
    if isinstance(node, ImageNode):
        return node.image, node.image_path, node.image_url
    resource = node.image_resource if isinstance(node, Node) else None
    if resource is None:
        return None, None, None
    data, path, url = resource.data, resource.path, resource.url
    return data.decode("ascii") if data else None, str(path) if path else None, str(url) if url else None


def is_local(image: NodeImage) -> bool:
    """Whether an image can be looked at without a network."""
    return isinstance(image, bytes) or (isinstance(image, Path) and image.is_file())


def text_of(node: BaseNode) -> str:
    """A node's own words, without its metadata."""
    return node.get_content(metadata_mode=MetadataMode.NONE)


def is_saved_page(node: BaseNode, image: NodeImage) -> bool:
    """Whether a picture is the one that `JinaPageReader` gave the node."""
    return isinstance(image, Path) and image.stem == node.metadata.get(IMAGE_HASH)


def input_of(node: BaseNode, modality: Literal["text", "image"]) -> Any:  # noqa: ANN401  # a form that models take
    """A node as an input of an embedder or a reranker.

    Args:
        node: Of any kind.
        modality: What the model looks at. One that reads words gets a node's text rather than a picture whose words it
            would have to read itself.

    Raises:
        InvalidInputError: If the picture is at an address, is not there, or cannot be read.
    """
    image = image_of(node)
    if image is None:
        return {"text": node.get_content(metadata_mode=MetadataMode.EMBED)}
    if isinstance(image, Path) and is_saved_page(node, image) and image.is_file():
        return open_page(image)
    if modality == "text" and (text := text_of(node)).strip():
        return {"text": text}
    return {"image": _readable(node, image)}


def add_input_of(node: BaseNode) -> Any:  # noqa: ANN401  # a form that DocumentIndex.add takes
    """A node as `jina_rag.DocumentIndex.add` takes it: with the picture, and the words where they are known."""
    image = image_of(node)
    if image is None:
        return {"text": node.get_content(metadata_mode=MetadataMode.EMBED)}
    content = _readable(node, image)
    if is_saved_page(node, image):
        return content
    text = text_of(node)
    return {"image": content, "text": text} if text.strip() else {"image": content}


def cache_key_of(node: BaseNode) -> str | None:
    """Names what `input_of` and `add_input_of` say, where they say the very same; None where they may differ a little.

    A picture that is not kept with its words is read by the model itself in one case and by the index in the other.
    """
    image = image_of(node)
    if image is None:
        content = "text\0" + node.get_content(metadata_mode=MetadataMode.EMBED)
    elif is_saved_page(node, image):
        content = f"page\0{node.metadata[IMAGE_HASH]}\0{text_of(node)}"
    else:
        return None
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def image_input(image: ImageType | bytes | Path) -> Any:  # noqa: ANN401  # one of the forms an embedder takes
    """An image of LlamaIndex, a path or a buffer, as an input of an embedder."""
    if isinstance(image, BytesIO):
        return {"image": image.getvalue()}
    if isinstance(image, str) and "://" not in image and not image.startswith("data:"):
        return {"image": Path(image)}
    return {"image": image}


def query_of(query: QueryBundle) -> Any:  # noqa: ANN401  # one of the forms that jina_rag takes
    """What is asked: the text, or the picture of ``image_path``, or a list of these where there are several.

    Several ``custom_embedding_strs``, as query transforms make them, are one question of several parts.

    Raises:
        InvalidInputError: If nothing is asked.
    """
    parts: list[Any] = [text for text in query.embedding_strs if text.strip()]
    parts += [image_input(image) for image in query.embedding_image]
    if not parts:
        raise InvalidInputError("The query is empty: ask something in words (query_str), or give an image_path.")
    return parts[0] if len(parts) == 1 else parts


def _readable(node: BaseNode, image: NodeImage) -> Path | bytes:
    if isinstance(image, str):
        raise InvalidInputError(
            f"The picture of node {node.node_id!r} is at {image}, and addresses are not followed: fetch it, and give "
            "image_path or image."
        )
    return image
