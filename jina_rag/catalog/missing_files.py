"""Documents whose file is gone, and how sure that is: a disk that is away looks much like a folder that was emptied."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from jina_rag import globs
from jina_rag.catalog.document_filter import resolve
from jina_rag.catalog.manifest import DocumentRecord, Manifest
from jina_rag.types import Failure

_UNMOUNTED = "It is empty, like a disk that is not mounted: its documents were kept (see `jina-rag delete`)."


def is_missing(path: Path) -> bool:
    """Whether a file is certainly not there any more: one that cannot be looked at may be."""
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
    """Documents under the given files, folders and globs whose file does not exist any more.

    Args:
        manifest: What the index knows.
        roots: As they were given.
        unlisted: Folders that could not be listed: nothing is said of what was in them.
        moved_ids: Ids of documents that have become others in this run.
        check: Called for every document; what it raises ends the search.

    Returns:
        The documents, and folders that look as if their disk were away.
    """
    missing: dict[str, DocumentRecord] = {}
    unmounted: dict[Path, Failure] = {}
    unlisted_paths = {Path(os.path.abspath(path)) for path in unlisted}
    records = [
        record
        for record in manifest.documents()
        if record.doc_id not in moved_ids and not record.added and unlisted_paths.isdisjoint(record.path.parents)
    ]
    for root in roots:
        root_path = Path(os.path.abspath(root))
        pattern = resolve(str(root_path), manifest).replace(os.sep, "/")
        has_visible_entries = functools.cache(_has_visible_entries)
        for record in records:
            check()
            if not globs.matches(record.path.as_posix(), pattern) or not is_missing(record.path):
                continue
            folder = globs.matched_part(record.path, pattern)
            while not os.path.lexists(folder):
                folder = folder.parent
            if has_visible_entries(folder):
                missing[record.doc_id] = record
            else:
                unmounted[folder] = Failure(Path(root) if folder == root_path else folder, _UNMOUNTED)
    return list(missing.values()), list(unmounted.values())


def _has_visible_entries(path: Path) -> bool:
    """Whether a folder holds anything that is not hidden; a file does, a link that leads nowhere does not."""
    try:
        if not path.is_dir():
            return not path.is_symlink()
        return any(not entry.name.startswith(".") for entry in path.iterdir())
    except OSError:
        return False
