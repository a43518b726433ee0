"""Copy of an index to another folder or server.

Contents are copied one by one: images, manifest and points. A content is complete in the target before the next content
is copied. A repeated copy skips contents that are complete in the target.
"""

from __future__ import annotations

from collections.abc import Callable

from jina_rag.catalog.maintenance import batched, drop_points
from jina_rag.catalog.manifest import DocumentRecord, PointRecord
from jina_rag.catalog.resources import IndexResources
from jina_rag.errors import IndexCorruptError, IndexMismatchError
from jina_rag.stores import schema

_READ_BATCH = 16
"""Points per read call. Write calls are split by bytes."""


def copy_index(
    source: IndexResources, target: IndexResources, *, progress: Callable[[int, int], None] | None = None
) -> int:
    """Copy all complete documents; see `DocumentIndex.copy`.

    Documents that exist only in the target stay unchanged.

    Args:
        source: Resources of the index to copy.
        target: Resources of the target index, with the same model and storage.
        progress: Called with (copied points, total points) after each content.

    Returns:
        Number of points written to the target.

    Raises:
        IndexCorruptError: If vectors are missing in the source; `verify` lists the documents.
        IndexMismatchError: If the target has another document with the same id.
    """
    documents = [record for record in source.manifest.documents() if source.manifest.is_complete(record.sha256)]
    for record in documents:
        namesake = target.manifest.document(record.doc_id)
        if namesake is not None and namesake.path != record.path:
            raise IndexMismatchError(
                f"The target has another document with the id {record.doc_id}, from {namesake.path}. Copy to a new "
                "index."
            )
    points = {record.sha256: source.manifest.points(record.sha256) for record in documents}
    total, copied_count, sent_count = sum(map(len, points.values())), 0, 0
    for sha256, records in points.items():
        copies = [record for record in documents if record.sha256 == sha256]
        if target.manifest.ingested_at(sha256) < source.manifest.ingested_at(sha256):
            sent_count += _copy_content(source, target, copies[0], records)
        for record in copies:
            target.manifest.put_document(record)
        copied_count += len(records)
        if progress is not None:
            progress(copied_count, total)
    target.store.flush()
    return sent_count


def _copy_content(
    source: IndexResources, target: IndexResources, record: DocumentRecord, points: list[PointRecord]
) -> int:
    """Copy one content and return the number of written points."""
    # A point that an interrupted copy has written is skipped; points of an earlier complete content are replaced.
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
                f"Vectors of {record.doc_id} are missing in the source. Run `jina-rag verify` on the source index."
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
