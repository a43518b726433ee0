"""Pages of an index as nodes of LlamaIndex, and nodes as entries of an index."""

from __future__ import annotations

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
from llama_index.embeddings.jina_rag.node_inputs import image_of, image_parts, text_of

from jina_rag import ScoredPage

CONTENT = "_node_content"
TYPE = "_node_type"
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
"""Metadata that programs need, and that would only cost a model tokens, or tell it of this machine."""


def node_of(hit: ScoredPage, *, show: Literal["page", "region"] = "page") -> BaseNode:
    """A found page as a node: the node that it was added as, or an `ImageNode` of a page of an ingested file.

    Args:
        hit: As `jina_rag.DocumentIndex` returned it.
        show: Whether the node's picture is the page, or the crop of the region that answers best where there is one.
    """
    if hit.added and CONTENT in hit.metadata:
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
    if image is None:  # an index on a server, whose pictures are on another machine
        return TextNode(**common)
    return ImageNode(
        image_path=str(image), image_mimetype=mimetypes.guess_type(image.name)[0] or "image/jpeg", **common
    )


def page_metadata(hit: ScoredPage) -> dict[str, Any]:
    """What is known of a page, in the order in which a model is told of it: by the keys of LlamaIndex's own readers."""
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
    """A node in a form that LlamaIndex reads back whole.

    Its vector stores read nodes back as `TextNode`, `ImageNode`, `IndexNode` or `Node`, and lose the bytes of a
    picture that a `Document` or a `Node` holds. So these become an `ImageNode`, and a document without a picture a
    `TextNode`, as it does in LlamaIndex's own stores.
    """
    if isinstance(node, TextNode):
        return node
    image = image_of(node)
    if image is None and not isinstance(node, Document):
        return node
    fields: dict[str, Any] = {
        name: getattr(node, name)
        for name in ("id_", "metadata", "excluded_embed_metadata_keys", "excluded_llm_metadata_keys", "relationships",
                     "metadata_template", "metadata_separator", "text_template")
    }  # fmt: skip
    if image is None:
        return TextNode(text=text_of(node), **fields)
    assert isinstance(node, Node)
    data, path, url = image_parts(node)
    mimetype = node.image_resource and node.image_resource.mimetype
    return ImageNode(text=text_of(node), image=data, image_path=path, image_url=url, image_mimetype=mimetype, **fields)


def entry_metadata(node: BaseNode) -> dict[str, Any]:
    """What an index keeps of a node besides its vectors: its metadata, to filter by, and all of it as one text.

    The framework's own copies of the document's id (``doc_id``, ``document_id``) are left out: one is enough, and a
    node may have metadata of these names.
    """
    node = storable_node(node)
    node_fields = node_to_metadata_dict(node)
    metadata: Mapping[str, Any] = node.model_dump(mode="json", include={"metadata"})["metadata"]
    return {
        **metadata,
        CONTENT: node_fields[CONTENT],
        TYPE: node_fields[TYPE],
        REF_DOC_ID: node.ref_doc_id or node.node_id,
    }
