"""File locations in the payload of a point: ids, paths and metadata of all documents with the content of the point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jina_rag.catalog.manifest import DocumentRecord
from jina_rag.stores import schema


def location_payload(documents: Sequence[DocumentRecord]) -> dict[str, Any]:
    """Return the payload with the ids, metadata and paths of documents. A filter matches if one document matches."""
    payload: dict[str, Any] = {
        schema.DOC_ID: [document.doc_id for document in documents],
        schema.META: [dict(document.metadata) for document in documents],
        schema.PATH: [document.path.as_posix() for document in documents],
    }
    return payload | ({schema.ADDED: True} if documents[0].added else {})
