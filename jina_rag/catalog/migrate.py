"""Moving an index to another place: for one that outgrew its machine, or that others shall share.

Content by content: images, manifest, points; a content is complete in the target before the next one begins, and what
is complete there is not sent again.
"""

from __future__ import annotations

from collections.abc import Callable

from jina_rag.catalog.maintenance import batched, drop_points
from jina_rag.catalog.manifest import DocumentRecord, PointRecord
from jina_rag.catalog.resources import IndexResources
from jina_rag.errors import IndexCorruptError, IndexMismatchError
from jina_rag.stores import schema

_READ_BATCH = 16
"""Points that are read together; what is sent together is decided by bytes."""


def copy_index(
    source: IndexResources, target: IndexResources, *, progress: Callable[[int, int], None] | None = None
) -> int:
    """Copy every document that is complete; see `DocumentIndex.copy`.

    Documents that the target has and the source has not stay there.

    Args:
        source: Where from.
        target: Where to; of the same model and storage.
        progress: Called with (points done, points in all).

    Returns:
        How many points were sent.

    Raises:
        IndexCorruptError: If vectors are missing in the source; `verify` tells which.
        IndexMismatchError: If the target has another document of the same name.
    """
    documents = [record for record in source.manifest.documents() if source.manifest.is_complete(record.sha256)]
    for record in documents:
        namesake = target.manifest.document(record.doc_id)
        if namesake is not None and namesake.path != record.path:
            raise IndexMismatchError(
                f"The target has another document by the name of {record.doc_id}, from {namesake.path}: copy to a "
                "place of its own."
            )
    points = {record.sha256: source.manifest.points(record.sha256) for record in documents}
    total, copied_count, sent_count = sum(map(len, points.values())), 0, 0
    for sha256, records in points.items():
        holders = [record for record in documents if record.sha256 == sha256]
        if target.manifest.ingested_at(sha256) < source.manifest.ingested_at(sha256):
            sent_count += _copy_content(source, target, holders[0], records)
        for record in holders:
            target.manifest.put_document(record)
        copied_count += len(records)
        if progress is not None:
            progress(copied_count, total)
    target.store.flush()
    return sent_count


def _copy_content(
    source: IndexResources, target: IndexResources, record: DocumentRecord, points: list[PointRecord]
) -> int:
    """Copy one content; what an interrupted copy has sent of it is left out."""
    # What an interrupted copy has sent need not be sent again; what is there of an older making must.
    is_older = bool(target.manifest.is_complete(record.sha256))
    target.manifest.begin(record)
    drop_points(target, target.manifest.add_points(record.sha256, points))
    ids = [point.point_id for point in points]
    stored_ids = set() if is_older else {point.id for point in target.store.fetch(ids, vectors=False)}
    for point in points:
        if point.image:
            target.images.copy_from(source.images.path(point.image), point.image)
    missing_ids = [point_id for point_id in ids if point_id not in stored_ids]
    for batch_ids in batched(missing_ids, _READ_BATCH):
        batch = source.store.fetch(batch_ids)
        if len(batch) != len(batch_ids):
            raise IndexCorruptError(
                f"Vectors of {record.doc_id} are missing in the index that is copied: `jina-rag verify` tells which."
            )
        for request in schema.batches(batch):
            target.store.upsert(request)
    target.store.flush()
    target.manifest.finish(
        record,
        failures=record.failures,
        warnings=record.warnings,
        by_name=record.by_name,
        ingested_at=source.manifest.ingested_at(record.sha256),
    )
    return len(missing_ids)
