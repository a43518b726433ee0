"""Conversion of index pages to LlamaIndex nodes, and of nodes to index entries."""

from __future__ import annotations

import datetime as dt
import mimetypes
from collections.abc import Mapping
from typing import Any, Literal

from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    Node,
    NodeRelationship,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
from llama_index.embeddings.jina_rag.node_inputs import image_fields, node_image, node_text
from pydantic_core import PydanticSerializationError

from jina_rag import ScoredPage
from jina_rag.adapters import checked_metadata

NODE_CONTENT = "_node_content"
NODE_TYPE = "_node_type"
REF_DOC_ID = "ref_doc_id"
_HIDDEN_FROM_MODELS = (
    "file_path",
    "doc_id",
    "total_pages",
    "region_box",
    "region_image_path",
    "citation_box",
    "snippet",
    "other_pages",
)
"""Metadata keys that are excluded from the inputs of models, because the values take tokens or reveal local paths."""


def hit_to_node(hit: ScoredPage, *, show: Literal["page", "region"] = "page") -> BaseNode:
    """Convert a hit to a node. An added node is returned as stored; a page of an ingested file becomes an `ImageNode`.

    Args:
        hit: Hit of a `jina_rag.DocumentIndex`.
        show: Image of the node: ``"page"`` for the screenshot, ``"region"`` for the best chart, table or figure if any.

    Returns:
        The node; a `TextNode` for a page whose image is not on this machine.
    """
    if hit.added and NODE_CONTENT in hit.metadata:
        return metadata_dict_to_node(dict(hit.metadata))
    metadata = page_metadata(hit)
    image = hit.image_path
    if show == "region" and hit.region is not None and hit.region.image_path is not None:
        image = hit.region.image_path
    common: dict[str, Any] = {
        "id_": hit.page_id,
        "text": hit.text,
        "metadata": metadata,
        "excluded_embed_metadata_keys": [key for key in metadata if key not in ("file_name", "page_label")],
        "excluded_llm_metadata_keys": [key for key in metadata if key in _HIDDEN_FROM_MODELS],
        "relationships": {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=hit.doc_id, node_type=ObjectType.DOCUMENT)},
    }
    if image is None:  # the index is on a server, and the images are on another machine
        return TextNode(**common)
    return ImageNode(
        image_path=str(image), image_mimetype=mimetypes.guess_type(image.name)[0] or "image/jpeg", **common
    )


def page_metadata(hit: ScoredPage) -> dict[str, Any]:
    """Return the metadata of a page with the keys of LlamaIndex's readers, in the order for a chat model.

    Args:
        hit: Hit of a `jina_rag.DocumentIndex`.
    """
    metadata: dict[str, Any] = {"file_name": hit.path.name, "page_label": str(hit.page)}
    region = hit.region
    if region is not None:
        metadata["region_kind"] = region.kind
        if region.caption:
            metadata["region_caption"] = region.caption
        metadata["region_box"] = [round(side, 5) for side in region.box]
        if region.image_path is not None:
            metadata["region_image_path"] = str(region.image_path)
    metadata |= {
        "file_path": str(hit.path),
        "doc_id": hit.doc_id,
        "total_pages": hit.page_count,
        "snippet": hit.snippet,
    }
    if hit.other_pages:
        metadata["other_pages"] = list(hit.other_pages)
    return metadata | {key: value for key, value in hit.metadata.items() if key not in metadata}


def storable_node(node: BaseNode) -> BaseNode:
    """Convert a node to a type that LlamaIndex restores completely.

    LlamaIndex restores only `TextNode`, `ImageNode`, `IndexNode` and `Node` from a vector store, and loses the image
    bytes of a `Document` or a `Node`. A node with an image therefore becomes an `ImageNode`, and a document without an
    image becomes a `TextNode`, as in LlamaIndex's own vector stores.

    Args:
        node: Node of any type.
    """
    if isinstance(node, TextNode):
        return node
    image = node_image(node)
    if image is None and not isinstance(node, Document):
        return node
    fields: dict[str, Any] = {
        name: getattr(node, name)
        for name in ("id_", "metadata", "excluded_embed_metadata_keys", "excluded_llm_metadata_keys", "relationships",
                     "metadata_template", "metadata_separator", "text_template")
    }  # fmt: skip
    if image is None:
        return TextNode(text=node_text(node), **fields)
    assert isinstance(node, Node)
    data, path, url = image_fields(node)
    mime = node.image_resource and node.image_resource.mimetype
    return ImageNode(text=node_text(node), image=data, image_path=path, image_url=url, image_mimetype=mime, **fields)


def entry_metadata(node: BaseNode) -> dict[str, Any]:
    """Return the metadata that an index stores for a node: metadata for filters, and the serialized node.

    Dates and times stay objects, which the index stores as text of RFC 3339; LlamaIndex writes them without offsets.

    LlamaIndex adds the document id as ``doc_id``, ``document_id`` and ``ref_doc_id``. Only ``ref_doc_id`` is stored,
    because the metadata of the node can use the keys ``doc_id`` and ``document_id``.

    Args:
        node: Node of any type.

    Raises:
        InvalidInputError: If a metadata value cannot be stored.
    """
    node = storable_node(node)
    try:
        node_fields = node_to_metadata_dict(node)
    except PydanticSerializationError:  # NumPy values, or a value whose key `checked_metadata` names
        node = node.model_copy(update={"metadata": checked_metadata(node.metadata, node.node_id)})
        node_fields = node_to_metadata_dict(node)
    metadata: Mapping[str, Any] = node.model_dump(mode="json", include={"metadata"})["metadata"]
    return {
        **{key: _with_dates(value, node.metadata.get(key)) for key, value in metadata.items()},
        NODE_CONTENT: node_fields[NODE_CONTENT],
        NODE_TYPE: node_fields[NODE_TYPE],
        REF_DOC_ID: node.ref_doc_id or node.node_id,
    }


def _with_dates(value: Any, original: Any) -> Any:  # noqa: ANN401  # JSON, and the metadata value that it was made from
    """Return a JSON value with the dates and times of the original value in place of their text."""
    if isinstance(original, dt.date | dt.time):
        return original
    if isinstance(value, dict) and isinstance(original, Mapping):
        return {key: _with_dates(item, original.get(key)) for key, item in value.items()}
    if isinstance(value, list) and isinstance(original, list | tuple):
        return [_with_dates(item, other) for item, other in zip(value, original, strict=True)]
    return value
