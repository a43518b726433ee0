"""Construction of hits: the files, the best region and the snippet of a ranked candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jina_rag.catalog.document_filter import document_matcher
from jina_rag.catalog.resources import IndexResources
from jina_rag.search.fusion import Candidate
from jina_rag.search.query import Query
from jina_rag.search.snippets import Highlight, highlight, region_at
from jina_rag.search.store_calls import StoreAnswer, StoreRequest, StoreSteps
from jina_rag.stores import schema
from jina_rag.types import Location, Point, ScoredPage, Where


def locations(resources: IndexResources, payload: Mapping[str, Any], where: Where) -> list[Location]:
    """Return the files that contain a page; the files that match the filter come first.

    Args:
        resources: Resources of the index.
        payload: Payload of the page's point.
        where: Validated filter of the search.

    Returns:
        The files. Empty if no file matches the filter, or the page belongs to an unfinished replacement of a document
        or to an incomplete entry of `DocumentIndex.add`.
    """
    sha256 = str(payload[schema.REVISION])
    records = resources.manifest.documents_of(sha256)
    if records and records[0].added and not records[0].is_complete and not resources.manifest.is_complete(sha256):
        return []  # an entry that waits for its replacement is incomplete too, but its current content is complete
    if records:
        files = [Location(record.doc_id, record.path, dict(record.metadata)) for record in records]
    elif resources.manifest.is_complete(sha256) is None:
        # The manifest is in another assets folder. Use the file locations in the store.
        columns = zip(payload[schema.DOC_ID], payload[schema.PATH], payload[schema.META], strict=True)
        files = [Location(str(doc_id), Path(path), dict(meta)) for doc_id, path, meta in columns]
    else:
        return []
    # All files with the same page share one point, so each condition of the store may match a different file. A hit
    # requires one file that matches all conditions.
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
    """Return the hit of a ranked candidate.

    Args:
        resources: Resources of the index.
        point: The page's point. The vectors are required if `details` is True and the payload has no sign codes.
        files: The files that contain the page, at least one.
        candidate: The candidate, with the scores of the search stages.
        query: The query.
        details: Whether to find the best region and the snippet.
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
        scores=_scores(candidate, payload),
        region=region,
        snippet=best.snippet,
    )


def _scores(candidate: Candidate, payload: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores of a candidate, with the hubness of the page or of the region that determined MaxSim.

    A ranking without a hubness correction does not read the hubness of the pages.
    """
    scores = dict(candidate.scores)
    if schema.BIAS in payload:
        source = payload if candidate.region is None else candidate.region.payload
        scores["background"] = float(source.get(schema.BIAS, 0.0))
    return scores


def bare_hit(resources: IndexResources, page_id: str, payload: Mapping[str, Any], files: list[Location]) -> ScoredPage:
    """Return the hit of a page without a query: score 0.0, no region and no snippet.

    Args:
        resources: Resources of the index.
        page_id: Id of the page's point.
        payload: Payload of the page's point.
        files: The files that contain the page, at least one.
    """
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


def near_duplicates(resources: IndexResources, points: Sequence[Point]) -> StoreSteps[dict[str, tuple[str, int]]]:
    """Return the earlier page that each page nearly duplicates: page id → (id of the document, page number).

    Pages without such a page are omitted, and pages whose earlier page was deleted.

    Args:
        resources: Resources of the index.
        points: Points of the pages.
    """
    near_ids = {point.id: str(point.payload[schema.NEAR]) for point in points if schema.NEAR in point.payload}
    contents = {near_id: resources.manifest.point(near_id) for near_id in set(near_ids.values())}
    # The manifest knows no page if the index was filled with another assets folder.
    unknown_ids = [near_id for near_id, content in contents.items() if content is None]
    answer = (yield StoreRequest(page_ids=unknown_ids)) if unknown_ids else StoreAnswer()
    earlier_pages: dict[str, tuple[str, int]] = {}
    for page_id, near_id in near_ids.items():
        content = contents[near_id]
        if content is not None:
            payload: Mapping[str, Any] = {schema.REVISION: content[0], schema.PAGE: content[1]}
        elif near_id in answer.points:
            payload = answer.points[near_id].payload
        else:
            continue
        if files := locations(resources, payload, {}):
            earlier_pages[page_id] = (files[0].doc_id, int(payload[schema.PAGE]))
    return earlier_pages
