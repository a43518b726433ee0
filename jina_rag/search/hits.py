"""From a ranked candidate to what a user sees: the files that hold the page, its best region, the words to quote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jina_rag.catalog.document_filter import document_matcher
from jina_rag.catalog.resources import IndexResources
from jina_rag.search.fusion import Candidate
from jina_rag.search.query import Query
from jina_rag.search.snippets import Highlight, highlight, region_at
from jina_rag.stores import schema
from jina_rag.types import Location, Point, ScoredPage, Where


def locations(resources: IndexResources, payload: Mapping[str, Any], where: Where) -> list[Location]:
    """The files that hold a page, those that the filter means first.

    Nothing for a page of a content that is not complete yet and replaces another.
    """
    sha256 = str(payload[schema.REVISION])
    records = resources.manifest.documents_of(sha256)
    if records:
        files = [Location(record.doc_id, record.path, dict(record.metadata)) for record in records]
    elif resources.manifest.is_complete(sha256) is None:
        # The index was filled on another machine: what the store says of the files.
        columns = zip(payload[schema.DOC_ID], payload[schema.PATH], payload[schema.META], strict=True)
        files = [Location(str(doc_id), Path(path), dict(meta)) for doc_id, path, meta in columns]
    else:
        return []
    # Of a page's files only those that match all of a filter: the store matches each part of it with any of them.
    is_match = document_matcher(where)
    matches = [file for file in files if is_match(file.doc_id, file.path, file.metadata)]
    return matches + [file for file in files if file not in matches] if matches else []


def make_hit(
    resources: IndexResources,
    point: Point,
    files: list[Location],
    candidate: Candidate,
    query: Query,
    *,
    details: bool,
) -> ScoredPage:
    """A page as it is shown.

    Args:
        resources: Of the index.
        point: The page's point; with its vectors where its payload has no sign codes and `details` are wanted.
        files: The files that hold it, at least one.
        candidate: Its scores.
        query: The query.
        details: Whether to look for the best region and the snippet.
    """
    payload = point.payload
    folder = resources.images.folder
    best = highlight(query.multi, payload, folder, point.multi) if details else Highlight()
    region = best.region
    if candidate.region is not None:
        region = region_at(payload, candidate.region.payload.get(schema.BOX), folder) or region
    return replace(
        bare_hit(resources, point.id, payload, files),
        score=candidate.score,
        stage=candidate.stage,
        scores=dict(candidate.scores),
        region=region,
        snippet=best.snippet,
        near_duplicate_of=_near_duplicate_of(resources, payload) if details else None,
    )


def bare_hit(resources: IndexResources, page_id: str, payload: Mapping[str, Any], files: list[Location]) -> ScoredPage:
    """A page as it is shown, by itself: without a query it has no score and no best place."""
    file, *copies = files
    return ScoredPage(
        doc_id=file.doc_id,
        path=file.path,
        page=int(payload[schema.PAGE]),
        page_id=page_id,
        page_count=int(payload[schema.PAGE_COUNT]),
        score=0.0,
        image_path=resources.images.path(payload[schema.IMAGE]) if payload.get(schema.IMAGE) else None,
        metadata=file.metadata,
        copies=tuple(copies),
        text=str(payload.get(schema.TEXT, "")),
        added=bool(payload.get(schema.ADDED)),
    )


def _near_duplicate_of(resources: IndexResources, payload: Mapping[str, Any]) -> tuple[str, int] | None:
    if schema.NEAR not in payload:
        return None
    for point in resources.store.fetch([payload[schema.NEAR]], vectors=False):
        for location in locations(resources, point.payload, {}):
            return location.doc_id, int(point.payload[schema.PAGE])
    return None  # the earlier page was removed
