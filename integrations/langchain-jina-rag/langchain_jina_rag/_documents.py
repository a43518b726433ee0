"""Hits of an index as the documents of LangChain, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.documents import Document

from jina_rag import Region, ScoredPage

LOCATION_KEYS = ("source", "page", "total_pages", "doc_id")
"""Metadata keys that say where a page is."""
RESULT_KEYS = ("score", "stage", "snippet", "region", "relevance_score")
"""Metadata keys that a search adds. A key of a document's own metadata that has one of these names is written
``meta.page``, say, as in the filters of `jina_rag`."""


def id_of(hit: ScoredPage) -> str:
    """The id that was given, or that of the page."""
    return hit.doc_id if hit.added else hit.page_id


def image_file(value: object) -> Path | None:
    """The file that a metadata value names, if it is there."""
    if not isinstance(value, str | Path) or not str(value):
        return None
    try:
        return Path(value) if Path(value).is_file() else None
    except OSError:  # what no path can be, such as a data URI
        return None


def page_document(hit: ScoredPage, image_key: str = "image") -> Document:
    """A page of a file, or an entry, with its place and what the search found out about it.

    The metadata are JSON values. ``page`` counts from 0, as LangChain's loaders count. An entry may have been given its
    place in its metadata, as loaders do; it stays.
    """
    metadata: dict[str, Any] = {"doc_id": hit.doc_id}
    if not hit.is_text:
        metadata |= {"source": str(hit.path), "page": hit.page - 1, "total_pages": hit.page_count}
    own_metadata = dict(hit.metadata)
    if hit.added:
        metadata |= {key: own_metadata.pop(key) for key in (*LOCATION_KEYS, image_key) if key in own_metadata}
    if hit.image_path is not None:
        metadata[image_key] = str(hit.image_path)
    reserved = (*LOCATION_KEYS, *RESULT_KEYS, image_key)
    renamed = {f"meta.{key}" if key in reserved else key: value for key, value in own_metadata.items()}
    return Document(page_content=hit.text, metadata={**renamed, **metadata, **_results(hit)}, id=id_of(hit))


def _results(hit: ScoredPage) -> dict[str, Any]:
    """What a search has found out about a page."""
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


def as_hits(documents: Sequence[Document], image_key: str = "image") -> list[ScoredPage]:
    """Documents as what `jina_rag.build_context` takes, whatever retriever or store they came from."""
    return [_hit(document, number, image_key) for number, document in enumerate(documents, start=1)]


def _hit(document: Document, number: int, image_key: str) -> ScoredPage:
    metadata = document.metadata
    name = metadata.get("source") or metadata.get("doc_id") or document.id or f"document {number}"
    reserved = {*LOCATION_KEYS, *RESULT_KEYS, image_key}
    is_page = _is_int(metadata.get("page"))
    return ScoredPage(
        doc_id=str(metadata.get("doc_id") or name),
        path=Path(str(name)),
        page=metadata["page"] + 1 if is_page else 1,
        page_count=metadata["total_pages"] if _is_int(metadata.get("total_pages")) else 0,
        score=_number(metadata.get("relevance_score", metadata.get("score"))),
        region=_region(metadata.get("region")),
        image_path=image_file(metadata.get(image_key)),
        snippet=str(metadata.get("snippet") or ""),
        metadata={key: value for key, value in metadata.items() if key not in reserved},
        page_id=document.id or "",
        text=document.page_content,
        added=not is_page,
    )


def _region(value: Any) -> Region | None:  # noqa: ANN401  # as it stands in somebody's metadata
    if not isinstance(value, dict) or value.get("kind") not in ("chart", "table", "figure"):
        return None
    box, image = value.get("box"), value.get("image")
    if not isinstance(box, list | tuple) or len(box) != 4:
        return None
    x0, y0, x1, y1 = map(_number, box)
    return Region(
        kind=value["kind"],
        box=(x0, y0, x1, y1),
        caption=str(value.get("caption") or ""),
        image_path=Path(image) if isinstance(image, str) and image else None,
    )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
