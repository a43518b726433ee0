"""Hits of an index as the documents of LangChain, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.documents import Document

from jina_rag import Region, ScoredPage

PLACE_KEYS = ("source", "page", "total_pages", "doc_id")
"""Where a page is."""
JUDGED_KEYS = ("score", "stage", "snippet", "region", "relevance_score")
"""What was found out about it. One of these names in a document's own metadata is written ``meta.page``, say, as in the
filters of `jina_rag`."""


def is_text(hit: ScoredPage) -> bool:
    """Whether it is a text that was given to an index, not a page."""
    return hit.added and hit.image_path is None


def id_of(hit: ScoredPage) -> str:
    """The id that was given, or that of the page."""
    return hit.doc_id if hit.added else hit.page_id


def judged(hit: ScoredPage) -> dict[str, Any]:
    """What a search has found out about a page."""
    found: dict[str, Any] = {}
    if hit.stage:
        found |= {"score": float(hit.score), "stage": hit.stage}
    if hit.snippet:
        found["snippet"] = hit.snippet
    if hit.region is not None:
        region = hit.region
        found["region"] = {
            "kind": region.kind,
            "box": [float(side) for side in region.box],
            "caption": region.caption,
            "image": None if region.image_path is None else str(region.image_path),
        }
    return found


def image_of(document: Document, image_key: str) -> Path | None:
    """The file that a document's metadata name as its picture, if it is there."""
    named = document.metadata.get(image_key)
    if not isinstance(named, str | Path) or not str(named):
        return None
    try:
        return Path(named) if Path(named).is_file() else None
    except OSError:  # what no path can be, such as a data URI
        return None


def page_document(hit: ScoredPage, image_key: str = "image") -> Document:
    """A page of a file, or an entry, with its place and what the search found out about it.

    The metadata are JSON values. ``page`` counts from 0, as LangChain's loaders count. An entry may have been given its
    place in its metadata, as loaders do; it stays.
    """
    metadata: dict[str, Any] = {"doc_id": hit.doc_id}
    if not is_text(hit):
        metadata |= {"source": str(hit.path), "page": hit.page - 1, "total_pages": hit.page_count}
    given = dict(hit.metadata)
    if hit.added:
        metadata |= {key: given.pop(key) for key in (*PLACE_KEYS, image_key) if key in given}
    if hit.image_path is not None:
        metadata[image_key] = str(hit.image_path)
    taken = (*PLACE_KEYS, *JUDGED_KEYS, image_key)
    own = {f"meta.{key}" if key in taken else key: value for key, value in given.items()}
    return Document(page_content=hit.text, metadata={**own, **metadata, **judged(hit)}, id=id_of(hit))


def as_hits(documents: Sequence[Document], image_key: str = "image") -> list[ScoredPage]:
    """Documents as what `jina_rag.build_context` takes, whatever retriever or store they came from."""
    return [_hit(document, number, image_key) for number, document in enumerate(documents, start=1)]


def _hit(document: Document, number: int, image_key: str) -> ScoredPage:
    metadata = document.metadata
    page = metadata.get("page")
    name = metadata.get("source") or metadata.get("doc_id") or document.id or f"document {number}"
    hidden = {*PLACE_KEYS, *JUDGED_KEYS, image_key}
    placed = isinstance(page, int) and not isinstance(page, bool)
    return ScoredPage(
        doc_id=str(metadata.get("doc_id") or name),
        path=Path(str(name)),
        page=page + 1 if isinstance(page, int) and placed else 1,
        page_count=_whole(metadata.get("total_pages")),
        score=_number(metadata.get("relevance_score", metadata.get("score"))),
        region=_region(metadata.get("region")),
        image_path=image_of(document, image_key),
        snippet=str(metadata.get("snippet") or ""),
        metadata={key: value for key, value in metadata.items() if key not in hidden},
        page_id=document.id or "",
        text=document.page_content,
        added=not placed,
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


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
