"""Documents whose file is gone, and how sure that is: a disk that is away looks much like a folder that was emptied."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Collection, Sequence
from pathlib import Path

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


def gone(
    manifest: Manifest,
    roots: Sequence[str | os.PathLike[str]],
    *,
    unseen: Sequence[Path] = (),
    left: Collection[str] = (),
) -> tuple[list[DocumentRecord], list[Failure]]:
    """Documents under the given files, folders and globs whose file does not exist any more.

    Args:
        manifest: What the index knows.
        roots: As they were given.
        unseen: Folders that could not be listed: nothing is said of what was in them.
        left: Ids of documents that have become others in this run.

    Returns:
        The documents, and folders that look as if their disk were away.
    """
    lost: dict[str, DocumentRecord] = {}
    doubts: list[Failure] = []
    blind = [Path(os.path.abspath(path)) for path in unseen]
    for root in roots:
        place = Path(os.path.abspath(root))
        mine = [
            record
            for record in manifest.documents()
            if record.doc_id not in left
            and not record.added
            and _is_under(record.path, place)
            and not any(folder in record.path.parents for folder in blind)
            and is_gone(record.path)
        ]
        if mine and not _is_inhabited(place):
            reason = "It is empty, like a disk that is not mounted: its documents were kept (see `jina-rag remove`)."
            doubts.append(Failure(Path(root), reason))
            continue
        lost.update((record.doc_id, record) for record in mine)
    return list(lost.values()), doubts


def _is_under(path: Path, root: Path) -> bool:
    return path == root or root in path.parents or fnmatch.fnmatchcase(str(path), str(root))


def _is_inhabited(root: Path) -> bool:
    """Whether a folder holds anything that is not hidden; what is no folder was named by itself."""
    if not root.is_dir():
        return not root.is_symlink()
    try:
        return any(not entry.name.startswith(".") for entry in root.iterdir())
    except OSError:
        return False
