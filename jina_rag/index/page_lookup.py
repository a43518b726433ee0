"""Lookup of pages by id, of pages by dense vector, and of stored dense vectors."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from jina_rag._checks import check_whole_number
from jina_rag.catalog.document_filter import resolve_names, stored_ids
from jina_rag.catalog.resources import IndexResources
from jina_rag.errors import InvalidInputError
from jina_rag.inputs import clean_text
from jina_rag.search.filters import checked_filter, conditions_of
from jina_rag.search.hits import bare_hit, locations
from jina_rag.stores import schema
from jina_rag.types import Float32, ScoredPage, Where


def pages_by_id(resources: IndexResources, ids: Sequence[str]) -> list[ScoredPage]:
    """Return pages by id, in the order of `ids`; see `DocumentIndex.get`.

    Raises:
        InvalidInputError: If `ids` is a single string, or an id is not a string.
    """
    if isinstance(ids, str):
        raise InvalidInputError(f"ids is the string {ids!r}; expected a list of ids.")
    for name in ids:
        if not isinstance(name, str):
            raise InvalidInputError(f"ids contains {name!r}; expected strings.")
    point_ids = [point_id for name in ids if (point_id := _point_id(resources, name)) is not None]
    pages = []
    for point in resources.store.fetch(point_ids, vectors=False):
        if point.payload.get(schema.KIND) == "page" and (files := locations(resources, point.payload, {})):
            pages.append(bare_hit(resources, point.id, point.payload, files))
    return pages


def nearest_pages(
    resources: IndexResources, vector: Float32 | Sequence[float], *, dim: int, k: int, where: Where | None
) -> list[ScoredPage]:
    """Return the pages nearest to a dense vector; see `DocumentIndex.nearest`.

    Args:
        resources: Open resources of the index.
        vector: Dense vector, shape (dim,), which is scaled to length 1; a zero vector returns no pages.
        dim: Length of the stored dense vectors.
        k: Maximum number of pages.
        where: Filter; None for all pages.

    Raises:
        InvalidInputError: If an argument is invalid.
    """
    unit_vector = _unit_vector(vector, dim)
    check_whole_number("k", k, minimum=1)
    where = resolve_names(checked_filter(where), resources.manifest)
    conditions = conditions_of(where, resources)
    if conditions is None or not unit_vector.any():
        return []
    limit = min(k, max(resources.store.count(), 1))  # the store rejects limits of more than 64 bits
    while True:
        hits = resources.store.nearest(unit_vector, limit=limit, where={schema.KIND: "page", **conditions})
        pages = []
        for hit in hits:
            # The new pages of a document whose replacement is unfinished have no file location and are not returned.
            if files := locations(resources, hit.payload, where):
                page = bare_hit(resources, hit.id, hit.payload, files)
                pages.append(replace(page, score=hit.score, stage="dense", scores={"dense": hit.score}))
        if len(pages) >= k or len(hits) < limit:
            return pages[:k]
        limit *= 2


def dense_vectors(resources: IndexResources, pages: Sequence[ScoredPage], dim: int) -> Float32:
    """Return the stored dense vectors of pages, shape (len(pages), dim), float32; see `DocumentIndex.dense_vectors`."""
    vectors = np.zeros((len(pages), dim), dtype=np.float32)
    points = resources.store.fetch([page.page_id for page in pages])
    dense = {point.id: point.dense for point in points if point.dense is not None}
    for row, page in zip(vectors, pages, strict=True):
        row[:] = dense.get(page.page_id, 0.0)
    return vectors


def _unit_vector(vector: object, dim: int) -> Float32:
    """Return `vector` scaled to length 1, shape (dim,), float32; a zero vector stays zero.

    Raises:
        InvalidInputError: If `vector` does not consist of `dim` finite numbers.
    """
    try:
        numbers = np.array(vector, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as exc:
        raise InvalidInputError(f"vector is not numeric ({exc}); expected {dim} finite numbers.") from exc
    if numbers.shape != (dim,) or not np.isfinite(numbers).all():
        raise InvalidInputError(
            f"vector has shape {numbers.shape} or non-finite values; expected {dim} finite numbers."
        )
    numbers /= np.abs(numbers).max() or 1.0  # without this division, the squares could overflow or underflow
    return (numbers / (np.linalg.norm(numbers) or 1.0)).astype(np.float32)


def _point_id(resources: IndexResources, name: str) -> str | None:
    """Return the point id for a page id or for the id of an added entry; None for an invalid id."""
    manifest = resources.manifest
    record = manifest.document(clean_text(name))
    if record is None or not record.added:
        try:
            return str(uuid.UUID(name))
        except ValueError:
            record = manifest.document(str(stored_ids(clean_text(name), manifest)[0]))
    if record is None or not record.added:
        return None
    return next((point.point_id for point in manifest.points(record.sha256) if point.kind == "page"), None)
