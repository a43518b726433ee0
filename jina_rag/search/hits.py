"""From a ranked candidate to what a user sees: the files that hold the page, its best region, the words to quote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jina_rag.catalog.document_filter import is_meant
from jina_rag.catalog.maintenance import IndexResources
from jina_rag.search.late_interaction import Candidate
from jina_rag.search.query import Query
from jina_rag.search.snippets import Place, find_place, region_of
from jina_rag.stores import schema
from jina_rag.types import Location, Point, ScoredPage, Where


def locations(parts: IndexResources, payload: Mapping[str, Any], where: Where) -> list[Location]:
    """The files that hold a page, those that the filter means first.

    Nothing for a page of a content that is not complete yet and replaces another.
    """
    sha256 = str(payload[schema.REVISION])
    records = parts.manifest.documents_of(sha256)
    if records:
        found = [Location(record.doc_id, record.path, dict(record.metadata)) for record in records]
    elif parts.manifest.is_done(sha256) is None:
        # The index was filled on another machine: what the store says of the files.
        stored = zip(payload[schema.DOC_ID], payload[schema.PATH], payload[schema.META], strict=True)
        found = [Location(str(doc_id), Path(path), dict(meta)) for doc_id, path, meta in stored]
    else:
        return []
    # Of a page's files only those that match all of a filter: the store matches each part of it with any of them.
    meant = [place for place in found if is_meant(place.doc_id, place.path, place.metadata, where)]
    return meant + [place for place in found if place not in meant] if meant else []


def make_hit(
    parts: IndexResources,
    point: Point,
    found: list[Location],
    candidate: Candidate,
    query: Query,
    *,
    details: bool,
) -> ScoredPage:
    """A page as it is shown.

    Args:
        parts: Of the index.
        point: The page's point; with its vectors where its payload has no sign codes and `details` are wanted.
        found: The files that hold it, at least one.
        candidate: Its scores.
        query: What was asked.
        details: Whether to look for the best region and the snippet.
    """
    payload = point.payload
    images = parts.images
    place = find_place(query.multi, payload, images.folder, point.multi) if details else Place()
    region = place.region
    if candidate.region is not None:
        region = region_of(payload, candidate.region.payload.get(schema.BOX), images.folder) or region
    return replace(
        bare_hit(parts, point.id, payload, found),
        score=candidate.score,
        stage=candidate.stage,
        scores=dict(candidate.scores),
        region=region,
        snippet=place.snippet,
        near_duplicate_of=_near_duplicate_of(parts, payload) if details else None,
    )


def bare_hit(parts: IndexResources, page_id: str, payload: Mapping[str, Any], found: list[Location]) -> ScoredPage:
    """A page as it is shown, by itself: no question was asked, so that it has no score and no best place."""
    shown, *copies = found
    return ScoredPage(
        doc_id=shown.doc_id,
        path=shown.path,
        page=int(payload[schema.PAGE]),
        page_id=page_id,
        page_count=int(payload[schema.PAGE_COUNT]),
        score=0.0,
        image_path=parts.images.path(payload[schema.IMAGE]) if payload.get(schema.IMAGE) else None,
        metadata=shown.metadata,
        copies=tuple(copies),
        text=str(payload.get(schema.TEXT, "")),
        added=bool(payload.get(schema.ADDED)),
    )


def _near_duplicate_of(parts: IndexResources, payload: Mapping[str, Any]) -> tuple[str, int] | None:
    if schema.NEAR not in payload:
        return None
    for point in parts.store.fetch([payload[schema.NEAR]], vectors=False):
        for location in locations(parts, point.payload, {}):
            return location.doc_id, int(point.payload[schema.PAGE])
    return None  # the earlier page was removed
