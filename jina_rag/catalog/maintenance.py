"""Maintenance of vectors, images and manifest: deletion, recovery after interrupted changes, and verification."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from jina_rag.catalog.document_filter import (
    possible_matches,
    resolve_names,
    select_by_filter,
    select_by_name,
    with_attachments,
)
from jina_rag.catalog.locations import location_payload
from jina_rag.catalog.manifest import Manifest, PointRecord
from jina_rag.catalog.resources import IndexResources
from jina_rag.errors import InvalidInputError
from jina_rag.protocols import MultiVectorStore
from jina_rag.stores import schema
from jina_rag.types import Where

_BATCH_POINTS = 256
"""Maximum number of points per store call that updates or fetches payloads."""
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem found by `verify`.

    Attributes:
        message: Description of the problem in one sentence.
        doc_id: Id of the document to ingest again; None if the problem does not concern a single document.
        needs_force: Whether the document must be ingested again with force=True; False if ingesting without `force`
            solves the problem.
    """

    message: str
    doc_id: str | None = None
    needs_force: bool = True


@contextmanager
def write_session(resources: IndexResources) -> Iterator[None]:
    """Enter a context for changes of an index; the remains of an interrupted change are deleted first.

    Args:
        resources: Resources of the index.
    """
    # Images and points are written only while a content is incomplete, so an interrupted change leaves one.
    if resources.manifest.has_incomplete():
        _recover(resources)
    reconcile(resources)
    yield
    reconcile(resources)


def delete_documents(resources: IndexResources, name: str | None, where: Where) -> int:
    """Delete documents, their points and their images, within `write_session`; see `DocumentIndex.delete`.

    The attachments of a deleted document are deleted, too.

    Args:
        resources: Resources of the index.
        name: Id, file, folder or glob; None to select by `where` only.
        where: Filter that the documents must match; empty for none.

    Returns:
        Number of deleted documents.

    Raises:
        InvalidInputError: If both the name and the filter are missing, or the filter is invalid.
    """
    manifest = resources.manifest
    if name is None and not where:
        raise InvalidInputError("No documents selected. Pass an id, a file, a folder, a glob or a filter.")
    where = resolve_names(where, manifest)
    records = possible_matches(manifest, where) if name is None else select_by_name(manifest, name)
    if where:
        records = select_by_filter(records, where)
    records = with_attachments(records, manifest)
    manifest.remove_documents(record.doc_id for record in records)
    reconcile(resources)
    return len(records)


def reconcile(resources: IndexResources) -> None:
    """Delete contents without a document, and update changed file locations in the payloads of points.

    All contents share one flush and one transaction. The manifest is updated last, so that the next run repeats an
    interrupted call.

    Args:
        resources: Resources of the index.
    """
    manifest, store = resources.manifest, resources.store
    orphans = set(manifest.orphans())
    stale = set(manifest.stale()) - orphans
    if not orphans and not stale:
        return
    points = [point for sha256 in orphans for point in manifest.points(sha256)]
    if points:
        store.delete([point.point_id for point in points])
    for changes in batched(_location_changes(manifest, stale), _BATCH_POINTS):
        store.update_payload(dict(changes))
    store.flush()
    _delete_images(resources, points, orphans)
    with manifest.transaction():
        manifest.remove_contents(orphans)
        manifest.mark_fresh(stale)
    if orphans:
        resources.ocr.forget(orphans)


def drop_points(resources: IndexResources, points: Sequence[PointRecord]) -> None:
    """Delete points that are no longer in the manifest, with the images that only these points refer to."""
    resources.store.delete([point.point_id for point in points])
    _delete_images(resources, points)


def verify(resources: IndexResources) -> list[Problem]:
    """Check that vectors, images and manifest are consistent. Reads every image and changes nothing.

    Args:
        resources: Resources of the index.

    Returns:
        The problems, each with the document to ingest again; empty for a consistent index.
    """
    manifest, store, images = resources.manifest, resources.store, resources.images
    if not manifest.contents() and store.count():
        return [Problem("The manifest is in another assets folder. Pass that folder as assets_dir (--assets-dir).")]
    image_names = set(images.names())
    documents = {record.sha256: record.doc_id for record in manifest.documents()}
    problems = [Problem("Indexing was interrupted.", record.doc_id, needs_force=False) for record in manifest.pending()]
    for _ in manifest.orphans():
        problems.append(
            Problem(
                "The index contains pages of a deleted document. Run `jina-rag ingest PATH` to delete the pages.",
                needs_force=False,
            )
        )
    for sha256 in manifest.stale():
        problems.append(
            Problem(
                "File locations are stale. Run `jina-rag ingest PATH` to update the paths.",
                documents.get(sha256),
                needs_force=False,
            )
        )
    content_of: dict[str, str] = {}
    for sha256, is_complete in manifest.contents():
        doc_id = documents.get(sha256)
        points = manifest.points(sha256)
        content_of.update({point.point_id: sha256 for point in points})
        if not is_complete:
            continue  # reported above as pending
        stored_ids = _stored_ids(store, points)
        for point in points:
            label = "page" if point.kind == "page" else f"{point.kind} on page"
            if point.point_id not in stored_ids:
                problems.append(Problem(f"The vectors of {label} {point.page} are missing.", doc_id))
            if point.image and point.image not in image_names:
                problems.append(Problem(f"The image of {label} {point.page} is missing.", doc_id))
            elif point.image and not images.is_intact(point.image):
                problems.append(Problem(f"The image of {label} {point.page} is damaged.", doc_id))
    # The next run deletes the points and images that an interrupted run left; see `_recover`.
    needs_force = not manifest.has_incomplete()
    unknown_points = sum(content_of.get(hit.id) != hit.payload.get(schema.REVISION) for hit in store.scroll())
    if unknown_points:
        message = f"{unknown_points} point(s) of the store belong to no document."
        problems.append(Problem(message, needs_force=needs_force))
    extra_images = image_names - manifest.images()
    if extra_images:
        message = f"{len(extra_images)} image file(s) of the index belong to no page."
        problems.append(Problem(message, needs_force=needs_force))
    return problems


def _recover(resources: IndexResources) -> None:
    """Delete images and points that an interrupted change left without an entry in the manifest.

    Incomplete entries of `DocumentIndex.add` are abandoned, because no file exists from which the next ingestion could
    complete them. An entry that was to replace an earlier one keeps the earlier content.
    """
    manifest, store, images = resources.manifest, resources.store, resources.images
    for image in set(images.names()) - manifest.images():
        images.delete(image)
    images.delete_unfinished()
    for sha256, is_complete in manifest.contents():
        if not is_complete:
            stored_ids = {hit.id for hit in store.scroll({schema.REVISION: sha256})}
            store.delete(list(stored_ids - {point.point_id for point in manifest.points(sha256)}))
    # Last, so that the next change repeats an interrupted recovery: the contents stay incomplete until `reconcile`
    # deletes them as orphans.
    with manifest.transaction():
        for record in manifest.pending():
            if record.added:
                manifest.abandon(record)


def _location_changes(manifest: Manifest, contents: Iterable[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the id of each point of the contents, with the payload of its current file locations."""
    for sha256 in contents:
        if documents := manifest.documents_of(sha256, include_pending=True):
            payload = location_payload(documents)
            yield from ((point.point_id, payload) for point in manifest.points(sha256))


def _delete_images(resources: IndexResources, points: Sequence[PointRecord], contents: Collection[str] = ()) -> None:
    """Delete the images of deleted points, except images that points outside of `contents` refer to."""
    names = (point.image for point in points if point.image)
    for image in resources.manifest.unreferenced_images(names, except_contents=contents):
        resources.images.delete(image)


def _stored_ids(store: MultiVectorStore, points: Sequence[PointRecord]) -> set[str]:
    batches = batched([point.point_id for point in points], _BATCH_POINTS)
    return {point.id for batch in batches for point in store.fetch(batch, vectors=False)}


def batched(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield lists of at most `size` items, in order."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
