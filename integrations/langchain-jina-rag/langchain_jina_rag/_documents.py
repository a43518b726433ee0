"""Conversion between hits of an index and LangChain documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.documents import Document

from jina_rag import Region, ScoredPage

LOCATION_KEYS = ("source", "page", "total_pages", "doc_id")
"""Metadata keys that locate a page."""
RESULT_KEYS = ("score", "stage", "snippet", "region", "relevance_score")
"""Metadata keys that a search adds. If the metadata of an indexed document contains a location key or a key that a
search adds, the key gets the prefix ``meta.``, for example ``meta.page``, as in the filters of `jina_rag`."""


def hit_id(hit: ScoredPage) -> str:
    """Return the id of the LangChain document: the id of an added entry, or the page id of an ingested page."""
    return hit.doc_id if hit.added else hit.page_id


def existing_image(value: object) -> Path | None:
    """Return a metadata value as a path, or None if the value is not the path of an existing file."""
    if not isinstance(value, str | Path) or not str(value):
        return None
    try:
        return Path(value) if Path(value).is_file() else None
    except OSError:  # not a valid path, for example a data URI
        return None


def hit_to_document(hit: ScoredPage, image_key: str = "image") -> Document:
    """Convert a hit to a document whose metadata contains the location, the score, the snippet and the region.

    Metadata values are JSON values. ``page`` counts from 0, as in LangChain's loaders. For an added entry, a location
    in the metadata of the entry replaces the location in the index.
    """
    metadata: dict[str, Any] = {"doc_id": hit.doc_id}
    if not hit.is_text:
        metadata |= {"source": str(hit.path), "page": hit.page - 1, "total_pages": hit.page_count}
    own_metadata = dict(hit.metadata)
    if hit.added:
        metadata |= {key: own_metadata.pop(key) for key in (*LOCATION_KEYS, image_key) if key in own_metadata}
    if hit.image_path is not None:
        metadata[image_key] = str(hit.image_path)
    reserved_keys = (*LOCATION_KEYS, *RESULT_KEYS, image_key)
    prefixed_metadata = {f"meta.{key}" if key in reserved_keys else key: value for key, value in own_metadata.items()}
    return Document(
        page_content=hit.text, metadata={**prefixed_metadata, **metadata, **_search_metadata(hit)}, id=hit_id(hit)
    )


def _search_metadata(hit: ScoredPage) -> dict[str, Any]:
    """Return the metadata from a search: score, stage, snippet and region."""
    results: dict[str, Any] = {}
    if hit.stage:
        results |= {"score": float(hit.score), "stage": hit.stage}
    if hit.snippet:
        results["snippet"] = hit.snippet
    if hit.region is not None:
        region = hit.region
        results["region"] = {
            "kind": region.kind,
            "box": [float(side) for side in region.box],
            "caption": region.caption,
            "image": None if region.image_path is None else str(region.image_path),
        }
    return results


def documents_to_hits(documents: Sequence[Document], image_key: str = "image") -> list[ScoredPage]:
    """Convert documents of any retriever or vector store to hits for `jina_rag.build_context`."""
    return [_to_hit(document, number, image_key) for number, document in enumerate(documents, start=1)]


def _to_hit(document: Document, number: int, image_key: str) -> ScoredPage:
    metadata = document.metadata
    source = metadata.get("source") or metadata.get("doc_id") or document.id or f"document {number}"
    reserved_keys = {*LOCATION_KEYS, *RESULT_KEYS, image_key}
    is_page = _is_int(metadata.get("page"))
    return ScoredPage(
        doc_id=str(metadata.get("doc_id") or source),
        path=Path(str(source)),
        page=metadata["page"] + 1 if is_page else 1,
        page_count=metadata["total_pages"] if _is_int(metadata.get("total_pages")) else 0,
        score=_to_float(metadata.get("relevance_score", metadata.get("score"))),
        region=_region(metadata.get("region")),
        image_path=existing_image(metadata.get(image_key)),
        snippet=str(metadata.get("snippet") or ""),
        metadata={key: value for key, value in metadata.items() if key not in reserved_keys},
        page_id=document.id or "",
        text=document.page_content,
        added=not is_page,
    )


def _region(value: Any) -> Region | None:  # noqa: ANN401  # untrusted metadata value
    if not isinstance(value, dict) or value.get("kind") not in ("chart", "table", "figure"):
        return None
    box, image = value.get("box"), value.get("image")
    if not isinstance(box, list | tuple) or len(box) != 4:
        return None
    x0, y0, x1, y1 = map(_to_float, box)
    return Region(
        kind=value["kind"],
        box=(x0, y0, x1, y1),
        caption=str(value.get("caption") or ""),
        image_path=Path(image) if isinstance(image, str) and image else None,
    )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _to_float(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
