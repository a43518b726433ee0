"""Moving an index to another place: for one that outgrew its machine, or that others shall share.

Content by content: images, manifest, points; a content is complete in the target before the next one begins, and what
is complete there is not sent again.
"""

from __future__ import annotations

from collections.abc import Callable

from jina_rag.catalog.maintenance import IndexResources, drop_parts
from jina_rag.catalog.manifest import DocumentRecord, PointRecord
from jina_rag.errors import IndexCorruptError, IndexMismatchError
from jina_rag.stores import schema

_AT_ONCE = 16
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
    documents = [record for record in source.manifest.documents() if source.manifest.is_done(record.sha256)]
    for record in documents:
        there = target.manifest.document(record.doc_id)
        if there is not None and there.path != record.path:
            raise IndexMismatchError(
                f"The target has another document by the name of {record.doc_id}, from {there.path}: copy to a place "
                "of its own."
            )
    parts = {record.sha256: source.manifest.parts(record.sha256) for record in documents}
    total, done, sent = sum(map(len, parts.values())), 0, 0
    for sha256, listed in parts.items():
        holders = [record for record in documents if record.sha256 == sha256]
        if target.manifest.ingested(sha256) < source.manifest.ingested(sha256):
            sent += _content(source, target, holders[0], listed)
        for record in holders:
            target.manifest.place(record)
        done += len(listed)
        if progress is not None:
            progress(done, total)
    target.store.flush()
    return sent


def _content(source: IndexResources, target: IndexResources, record: DocumentRecord, listed: list[PointRecord]) -> int:
    """Copy one content; what an interrupted copy has sent of it is found and left out."""
    # What an interrupted copy has sent need not be sent again; what is there of an older making must.
    again = bool(target.manifest.is_done(record.sha256))
    target.manifest.begin(record)
    drop_parts(target, target.manifest.add_parts(record.sha256, listed))
    have = {point.id for point in target.store.fetch([part.part_id for part in listed], vectors=False)}
    have = set() if again else have
    for part in listed:
        if part.image:
            target.images.take(source.images.path(part.image), part.image)
    missing = [part.part_id for part in listed if part.part_id not in have]
    for start in range(0, len(missing), _AT_ONCE):
        wanted = missing[start : start + _AT_ONCE]
        points = source.store.fetch(wanted)
        if len(points) != len(wanted):
            raise IndexCorruptError(
                f"Vectors of {record.doc_id} are missing in the index that is copied: `jina-rag verify` tells which."
            )
        for batch in schema.batches(points):
            target.store.upsert(batch)
    target.store.flush()
    target.manifest.finish(
        record,
        failures=record.failures,
        warnings=record.warnings,
        by_name=record.by_name,
        ingested=source.manifest.ingested(record.sha256),
    )
    return len(missing)
