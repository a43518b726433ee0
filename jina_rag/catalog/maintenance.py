"""Keeping vectors, images and manifest in step: what is dropped, and how it is checked that nothing is amiss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from jina_rag.catalog.locations import location_payload
from jina_rag.catalog.manifest import Manifest, PointRecord
from jina_rag.ocr.cache import OcrCache
from jina_rag.protocols import MultiVectorStore
from jina_rag.stores import schema
from jina_rag.stores.images import ImageFiles

_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class IndexResources:
    """The three places where an index keeps things, and the cache of what OCR has read."""

    store: MultiVectorStore
    manifest: Manifest
    images: ImageFiles
    ocr: OcrCache | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that `verify` found.

    Attributes:
        what: One sentence.
        doc_id: The document to ingest again; None where no document is concerned.
    """

    what: str
    doc_id: str | None = None


def drop_orphans(parts: IndexResources) -> int:
    """Drop contents that no document points at: points first, the entry last, so that it can be repeated if killed.

    Returns:
        How many.
    """
    orphans = parts.manifest.orphans()
    for sha256 in orphans:
        parts.store.delete([part.part_id for part in parts.manifest.parts(sha256)])
        for name in parts.manifest.images_only_of(sha256):
            parts.images.delete(name)
        parts.manifest.forget_content(sha256)
    if orphans:
        parts.store.flush()
        if parts.ocr is not None:
            parts.ocr.forget(orphans)
    return len(orphans)


def drop_parts(parts: IndexResources, gone: Sequence[PointRecord]) -> None:
    """Remove points that the manifest has forgotten, and the images that nothing refers to any more."""
    parts.store.delete([part.part_id for part in gone])
    for name in parts.manifest.unreferenced(part.image for part in gone if part.image):
        parts.images.delete(name)


DIRTY = "dirty"
"""Key of the manifest's settings that is true while the index is being changed."""


@contextmanager
def changing(parts: IndexResources) -> Iterator[None]:
    """Hold this while the index is changed: what a killed change has left half done is mended first."""
    if parts.manifest.settings().get(DIRTY):
        _sweep(parts)
    parts.manifest.write_settings({DIRTY: True})
    settle(parts)
    yield
    settle(parts)
    if not parts.manifest.pending():
        parts.manifest.write_settings({DIRTY: False})


def settle(parts: IndexResources) -> None:
    """Drop what no document points at, and write into points where their files lie, where that has changed."""
    drop_orphans(parts)
    for sha256 in parts.manifest.stale():
        refresh_locations(parts, sha256)
        parts.manifest.refreshed(sha256)


def _sweep(parts: IndexResources) -> None:
    """Remove what a change that was killed has written and not noted, or noted as gone and not removed."""
    referenced = parts.manifest.images()
    for name in list(parts.images.names()):
        if name not in referenced:
            parts.images.delete(name)
    parts.images.delete_unfinished()
    for sha256, done in parts.manifest.contents():
        if not done:
            known = {part.part_id for part in parts.manifest.parts(sha256)}
            found = [hit.id for hit in parts.store.scroll({schema.REVISION: sha256})]
            parts.store.delete([point_id for point_id in found if point_id not in known])


def refresh_locations(parts: IndexResources, sha256: str) -> None:
    """Write into the points of a content in which files it lies and what is known of them."""
    documents = parts.manifest.documents_of(sha256, waiting=True)
    if not documents:
        return
    where = location_payload(documents)
    ids = [part.part_id for part in parts.manifest.parts(sha256)]
    for start in range(0, len(ids), _AT_ONCE):
        parts.store.update_payload({point_id: where for point_id in ids[start : start + _AT_ONCE]})


def verify(parts: IndexResources) -> list[Problem]:
    """Hold vectors, images and manifest against each other; nothing is changed. Every image is read.

    Returns:
        What is amiss, each with the document to ingest again; empty for an index in order.
    """
    problems: list[Problem] = []
    manifest = parts.manifest
    if not manifest.contents() and parts.store.count():
        return [Problem("Its documents are listed elsewhere, in the folder of files that it was filled with.")]
    images = set(parts.images.names())
    documents = {record.sha256: record.doc_id for record in manifest.documents()}
    for record in manifest.pending():
        problems.append(Problem("Its indexing was interrupted.", record.doc_id))
    problems += [Problem("The index keeps pages of a document that was removed.") for _ in manifest.orphans()]
    for sha256 in manifest.stale():
        problems.append(Problem("Its pages do not say yet where it lies: ingest anything.", documents.get(sha256)))
    known: dict[str, str] = {}
    for sha256, done in manifest.contents():
        doc_id = documents.get(sha256)
        listed = manifest.parts(sha256)
        known.update({part.part_id: sha256 for part in listed})
        if not done:
            continue  # said above
        found = _present(parts.store, [part.part_id for part in listed])
        for part in listed:
            what = "page" if part.kind == "page" else f"{part.kind} on page"
            if part.part_id not in found:
                problems.append(Problem(f"The vectors of {what} {part.page} are missing.", doc_id))
            if part.image and part.image not in images:
                problems.append(Problem(f"The image of {what} {part.page} is missing.", doc_id))
            elif part.image and not parts.images.is_whole(part.image):
                problems.append(Problem(f"The image of {what} {part.page} is damaged.", doc_id))
    problems += _strangers(parts.store, known)
    lost = images - manifest.images()
    if lost:
        problems.append(Problem(f"{len(lost)} image file(s) belong to no page."))
    return problems


def _present(store: MultiVectorStore, ids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(ids), _AT_ONCE):
        found |= {point.id for point in store.fetch(ids[start : start + _AT_ONCE], vectors=False)}
    return found


def _strangers(store: MultiVectorStore, known: dict[str, str]) -> list[Problem]:
    """Points that the manifest does not list, and points whose page is another's."""
    strange = sum(known.get(hit.id) != hit.payload.get(schema.REVISION) for hit in store.scroll())
    return [Problem(f"{strange} point(s) of the store belong to no document.")] if strange else []
