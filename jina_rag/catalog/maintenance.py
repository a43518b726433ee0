"""Keeping vectors, images and manifest in step: what is dropped, and how it is checked that nothing is amiss."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from jina_rag.catalog.document_filter import possible_matches, resolve_paths, select_by_filter, select_by_name
from jina_rag.catalog.locations import location_payload
from jina_rag.catalog.manifest import Manifest, PointRecord
from jina_rag.catalog.resources import IndexResources
from jina_rag.errors import InvalidInputError
from jina_rag.protocols import MultiVectorStore
from jina_rag.stores import schema
from jina_rag.types import Where

_BATCH_POINTS = 256
"""Points whose payload is changed, or that are looked for, in one call of the store."""
_DIRTY = "dirty"
"""Key of the manifest's settings that is true while the index is being changed."""
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that `verify` found.

    Attributes:
        message: One sentence.
        doc_id: The document to ingest again; None where no document is concerned.
    """

    message: str
    doc_id: str | None = None


@contextmanager
def write_session(resources: IndexResources) -> Iterator[None]:
    """Hold this while the index is changed: what a killed change has left half done is mended first."""
    manifest = resources.manifest
    if manifest.settings().get(_DIRTY):
        _recover(resources)
    manifest.write_settings({_DIRTY: True})
    reconcile(resources)
    yield
    reconcile(resources)
    if not manifest.pending():
        manifest.write_settings({_DIRTY: False})


def delete_documents(resources: IndexResources, name: str | None, where: Where) -> int:
    """Drop documents with their points and images; see `DocumentIndex.delete`. Within `write_session`.

    Returns:
        How many.

    Raises:
        InvalidInputError: If there is neither a name nor a filter, or the filter makes no sense.
    """
    manifest = resources.manifest
    if name is None and not where:
        raise InvalidInputError("Say which documents to remove: an id, a file, a folder, a glob or a filter.")
    records = possible_matches(manifest, where) if name is None else select_by_name(manifest, name)
    if where:
        records = select_by_filter(records, resolve_paths(where, manifest))
    manifest.remove_documents(record.doc_id for record in records)
    reconcile(resources)
    return len(records)


def reconcile(resources: IndexResources) -> None:
    """Drop what no document points at, and write into points where their files lie, where that has changed.

    However many contents there are, they share one flush and one transaction. The manifest is changed last, so that
    all of it is repeated after a kill.
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
    """Remove points that the manifest has forgotten, and the images that nothing refers to any more."""
    resources.store.delete([point.point_id for point in points])
    _delete_images(resources, points)


def verify(resources: IndexResources) -> list[Problem]:
    """Hold vectors, images and manifest against each other; nothing is changed. Every image is read.

    Returns:
        What is amiss, each with the document to ingest again; empty for an index in order.
    """
    manifest, store, images = resources.manifest, resources.store, resources.images
    if not manifest.contents() and store.count():
        return [Problem("Its documents are listed elsewhere, in the folder of files that it was filled with.")]
    image_names = set(images.names())
    documents = {record.sha256: record.doc_id for record in manifest.documents()}
    problems = [Problem("Its indexing was interrupted.", record.doc_id) for record in manifest.pending()]
    problems += [Problem("The index keeps pages of a document that was removed.") for _ in manifest.orphans()]
    for sha256 in manifest.stale():
        problems.append(Problem("Its pages do not say yet where it lies: ingest anything.", documents.get(sha256)))
    content_of: dict[str, str] = {}
    for sha256, is_complete in manifest.contents():
        doc_id = documents.get(sha256)
        points = manifest.points(sha256)
        content_of.update({point.point_id: sha256 for point in points})
        if not is_complete:
            continue  # said above
        stored_ids = _stored_ids(store, points)
        for point in points:
            label = "page" if point.kind == "page" else f"{point.kind} on page"
            if point.point_id not in stored_ids:
                problems.append(Problem(f"The vectors of {label} {point.page} are missing.", doc_id))
            if point.image and point.image not in image_names:
                problems.append(Problem(f"The image of {label} {point.page} is missing.", doc_id))
            elif point.image and not images.is_intact(point.image):
                problems.append(Problem(f"The image of {label} {point.page} is damaged.", doc_id))
    unknown_points = sum(content_of.get(hit.id) != hit.payload.get(schema.REVISION) for hit in store.scroll())
    if unknown_points:
        problems.append(Problem(f"{unknown_points} point(s) of the store belong to no document."))
    extra_images = image_names - manifest.images()
    if extra_images:
        problems.append(Problem(f"{len(extra_images)} image file(s) belong to no page."))
    return problems


def _recover(resources: IndexResources) -> None:
    """Remove what a change that was killed has written and not noted, or noted as gone and not removed."""
    manifest, store, images = resources.manifest, resources.store, resources.images
    for image in set(images.names()) - manifest.images():
        images.delete(image)
    images.delete_unfinished()
    for sha256, is_complete in manifest.contents():
        if not is_complete:
            stored_ids = {hit.id for hit in store.scroll({schema.REVISION: sha256})}
            store.delete(list(stored_ids - {point.point_id for point in manifest.points(sha256)}))


def _location_changes(manifest: Manifest, contents: Iterable[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What the points of some contents must say of the files that hold them."""
    for sha256 in contents:
        if documents := manifest.documents_of(sha256, include_pending=True):
            payload = location_payload(documents)
            yield from ((point.point_id, payload) for point in manifest.points(sha256))


def _delete_images(resources: IndexResources, points: Sequence[PointRecord], contents: Collection[str] = ()) -> None:
    """Delete the images of points that are gone, unless points of other contents than `contents` refer to them."""
    names = (point.image for point in points if point.image)
    for image in resources.manifest.unreferenced(names, except_contents=contents):
        resources.images.delete(image)


def _stored_ids(store: MultiVectorStore, points: Sequence[PointRecord]) -> set[str]:
    batches = batched([point.point_id for point in points], _BATCH_POINTS)
    return {point.id for batch in batches for point in store.fetch(batch, vectors=False)}


def batched(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Cut items into lists of at most `size`."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
