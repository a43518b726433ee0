"""Detection of documents whose file was deleted, without mistaking an unmounted disk for a deletion."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from jina_rag import globs
from jina_rag.catalog.document_filter import resolve
from jina_rag.catalog.manifest import DocumentRecord, Manifest
from jina_rag.types import Failure

_UNMOUNTED_REASON = (
    "The folder is empty, perhaps because a disk is not mounted. The documents of the folder stay indexed. Delete the "
    "documents with `jina-rag delete`."
)


def is_missing(path: Path) -> bool:
    """Return whether a file certainly does not exist; False for an inaccessible file, which may exist."""
    try:
        path.lstat()
        return False
    except OSError as error:
        return isinstance(error, FileNotFoundError | NotADirectoryError)


def missing_documents(
    manifest: Manifest,
    roots: Sequence[str | os.PathLike[str]],
    *,
    unlisted: Sequence[Path] = (),
    moved_ids: Collection[str] = (),
    check: Callable[[], None] = lambda: None,
) -> tuple[list[DocumentRecord], list[Failure]]:
    """Return the indexed documents that `roots` select and whose file no longer exists.

    Args:
        manifest: Manifest of the index.
        roots: The files, folders and globs of the ingestion.
        unlisted: Folders that could not be listed; documents in these folders are never returned.
        moved_ids: Ids of documents whose file was moved in this run; such documents are never returned.
        check: Function to call for every document; an exception from `check` stops the search.

    Returns:
        The documents, and a failure for each folder that may be an unmounted disk.
    """
    missing: dict[str, DocumentRecord] = {}
    unmounted: dict[Path, Failure] = {}
    unlisted_paths = {Path(os.path.abspath(path)) for path in unlisted}
    records = [
        record
        for record in manifest.documents()
        if record.doc_id not in moved_ids and not record.added and unlisted_paths.isdisjoint(record.file.parents)
    ]
    for root in roots:
        root_path = Path(os.path.abspath(root))
        patterns = resolve(root_path.as_posix(), manifest)
        has_visible_entries = functools.cache(_has_visible_entries)
        for record in records:
            check()
            name = record.file.as_posix()
            pattern = next((item for item in patterns if globs.matches(name, item)), None)
            if pattern is None or not is_missing(record.file):
                continue
            folder = globs.matched_part(record.file, pattern)
            while not os.path.lexists(folder):
                folder = folder.parent
            if has_visible_entries(folder):
                missing[record.doc_id] = record
            else:
                unmounted[folder] = Failure(Path(root) if folder == root_path else folder, _UNMOUNTED_REASON)
    return list(missing.values()), list(unmounted.values())


def _has_visible_entries(path: Path) -> bool:
    """Return whether a folder has an entry that is not hidden; True for a file, False for a broken link."""
    try:
        if not path.is_dir():
            return not path.is_symlink()
        return any(not entry.name.startswith(".") for entry in path.iterdir())
    except OSError:
        return False
