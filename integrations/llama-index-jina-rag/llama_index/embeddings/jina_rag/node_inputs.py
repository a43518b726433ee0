"""Conversion of nodes to model inputs: the image of a node if present, otherwise the text.

An `ImageNode` stores the image in three fields; an `ImageDocument` or a `Node` stores the image in ``image_resource``.
All of these classes are supported.
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
"""Metadata key with the SHA-256 hash of a page image. `JinaPageReader` sets the key for image files of
`jina_rag.save_page`, which contain the words of the page."""


NodeImage: TypeAlias = Path | bytes | str
"""The image of a node: a path, the bytes of a file, or a URL, which is never fetched."""


def node_image(node: BaseNode) -> NodeImage | None:
    """Return the image of a node; None if the node has no image.

    Args:
        node: Node of any type.

    Raises:
        InvalidInputError: If the image is invalid base64.
    """
    data, path, url = image_fields(node)
    if data:
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error as exc:
            raise InvalidInputError(
                f"The image of node {node.node_id!r} is not valid base64 ({exc}). Set image_path instead."
            ) from exc
    return Path(path) if path else url or None


def image_fields(node: BaseNode) -> tuple[str | None, str | None, str | None]:
    """Return (base64 data, path, URL) of the image of a node; a value is None if the node does not have the value.

    Args:
        node: Node of any type.
    """
    if isinstance(node, ImageNode):
        return node.image, node.image_path, node.image_url
    resource = node.image_resource if isinstance(node, Node) else None
    if resource is None:
        return None, None, None
    data, path, url = resource.data, resource.path, resource.url
    return data.decode("ascii") if data else None, str(path) if path else None, str(url) if url else None


def is_local(image: NodeImage) -> bool:
    """Return whether an image is readable without network access.

    Args:
        image: Image of a node.
    """
    return isinstance(image, bytes) or (isinstance(image, Path) and image.is_file())


def node_text(node: BaseNode) -> str:
    """Return the text of a node without the metadata.

    Args:
        node: Node of any type.
    """
    return node.get_content(metadata_mode=MetadataMode.NONE)


def is_saved_page(node: BaseNode, image: NodeImage) -> bool:
    """Return whether an image is the unchanged page image that `JinaPageReader` saved for the node.

    Args:
        node: Node of any type.
        image: Image of the node.
    """
    return isinstance(image, Path) and image.stem == node.metadata.get(IMAGE_HASH)


def model_input(node: BaseNode, modality: Literal["text", "image"]) -> Any:  # noqa: ANN401  # model input
    """Convert a node to an input of an embedder or a reranker.

    Args:
        node: Node of any type.
        modality: Modality of the model. For a text model, the text of the node is returned if present, which avoids OCR
            of the image.

    Raises:
        InvalidInputError: If the image is a URL, invalid base64, missing or unreadable.
    """
    image = node_image(node)
    if image is None:
        return {"text": node.get_content(metadata_mode=MetadataMode.EMBED)}
    if isinstance(image, Path) and is_saved_page(node, image) and image.is_file():
        return open_page(image)
    if modality == "text" and (text := node_text(node)).strip():
        return {"text": text}
    return {"image": _local_image(node, image)}


def index_input(node: BaseNode) -> Any:  # noqa: ANN401  # index input
    """Convert a node to an input of `jina_rag.DocumentIndex.add`: the image with the text, or only the text.

    Args:
        node: Node of any type.

    Raises:
        InvalidInputError: If the image is a URL or invalid base64.
    """
    image = node_image(node)
    if image is None:
        return {"text": node.get_content(metadata_mode=MetadataMode.EMBED)}
    content = _local_image(node, image)
    if is_saved_page(node, image):
        return content
    text = node_text(node)
    return {"image": content, "text": text} if text.strip() else {"image": content}


def cache_key(node: BaseNode) -> str | None:
    """Return a key for the cached embeddings of a node; None if the embeddings must not be cached.

    The embeddings of an image without stored words are not cached, because `model_input` and `index_input` can read
    different words from the image.

    Args:
        node: Node of any type.

    Returns:
        SHA-256 digest in hex; equal for nodes with equal content.
    """
    image = node_image(node)
    if image is None:
        content = "text\0" + node.get_content(metadata_mode=MetadataMode.EMBED)
    elif is_saved_page(node, image):
        content = f"page\0{node.metadata[IMAGE_HASH]}\0{node_text(node)}"
    else:
        return None
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def image_input(image: ImageType | bytes | Path) -> Any:  # noqa: ANN401  # embedder input
    """Convert an image of LlamaIndex to an input of an embedder.

    Args:
        image: Path, URL, data URI, bytes of a file, or buffer.
    """
    if isinstance(image, BytesIO):
        return {"image": image.getvalue()}
    if isinstance(image, str) and "://" not in image and not image.startswith("data:"):
        return {"image": Path(image)}
    return {"image": image}


def query_input(query: QueryBundle) -> Any:  # noqa: ANN401  # query input
    """Convert a query bundle to a query of jina_rag: the text, the image of ``image_path``, or a list of parts.

    Several ``custom_embedding_strs``, for example from a query transform, become the parts of one query.

    Args:
        query: Query bundle with text or ``image_path``.

    Raises:
        InvalidInputError: If the bundle has neither text nor ``image_path``.
    """
    parts: list[Any] = [text for text in query.embedding_strs if text.strip()]
    parts += [image_input(image) for image in query.embedding_image]
    if not parts:
        raise InvalidInputError("The query is empty. Pass query_str or image_path.")
    return parts[0] if len(parts) == 1 else parts


def _local_image(node: BaseNode, image: NodeImage) -> Path | bytes:
    if isinstance(image, str):
        raise InvalidInputError(
            f"The image of node {node.node_id!r} is the URL {image}, and URLs are not fetched. Download the image, and "
            "set image_path or image."
        )
    return image
