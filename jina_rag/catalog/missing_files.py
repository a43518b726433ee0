"""Documents whose file is gone, and how sure that is: a disk that is away looks much like a folder that was emptied."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from jina_rag import globs
from jina_rag.catalog.manifest import DocumentRecord, Manifest
from jina_rag.types import Failure


def is_gone(path: Path) -> bool:
    """Whether a file is certainly not there any more: one that cannot be looked at may be."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def missing_documents(
    manifest: Manifest,
    roots: Sequence[str | os.PathLike[str]],
    *,
    unseen: Sequence[Path] = (),
    moved: Collection[str] = (),
    check: Callable[[], None] = lambda: None,
) -> tuple[list[DocumentRecord], list[Failure]]:
    """Documents under the given files, folders and globs whose file does not exist any more.

    Args:
        manifest: What the index knows.
        roots: As they were given.
        unseen: Folders that could not be listed: nothing is said of what was in them.
        moved: Ids of documents that have become others in this run.
        check: Called for every document; what it raises ends the search.

    Returns:
        The documents, and folders that look as if their disk were away.
    """
    missing: dict[str, DocumentRecord] = {}
    doubts: list[Failure] = []
    unlisted = [Path(os.path.abspath(path)) for path in unseen]
    records = [record for record in manifest.documents() if record.doc_id not in moved and not record.added]
    for root in roots:
        place = Path(os.path.abspath(root))
        candidates = []
        for record in _records_under(records, place):
            check()
            if not any(folder in record.path.parents for folder in unlisted) and is_gone(record.path):
                candidates.append(record)
        if candidates and not _is_inhabited(place):
            reason = "It is empty, like a disk that is not mounted: its documents were kept (see `jina-rag delete`)."
            doubts.append(Failure(Path(root), reason))
            continue
        missing.update((record.doc_id, record) for record in candidates)
    return list(missing.values()), doubts


def _records_under(records: Sequence[DocumentRecord], place: Path) -> list[DocumentRecord]:
    """Documents in a file or folder of that name, or else those that the name matches as a glob, as `find_sources`."""
    in_place = [record for record in records if record.path == place or place in record.path.parents]
    if in_place or not globs.has_wildcards(str(place)):
        return in_place
    return [record for record in records if globs.matches(record.path.as_posix(), place.as_posix())]


def _is_inhabited(root: Path) -> bool:
    """Whether a folder holds anything that is not hidden; what is no folder was named by itself."""
    if not root.is_dir():
        return not root.is_symlink()
    try:
        return any(not entry.name.startswith(".") for entry in root.iterdir())
    except OSError:
        return False
