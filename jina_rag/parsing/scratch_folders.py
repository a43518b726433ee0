"""Temporary folders that contain parts of documents, and are deleted even if the process that made them was killed.

Each folder has a lock file that its process holds. A folder whose lock is free was left by a killed process: the next
call of `scratch_folder` for the same purpose deletes it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

_LOCK: Final = "lock"
_MIN_AGE: Final = 60
"""Age of a folder in seconds from which it may have been left: a new folder is not locked yet."""


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """Create a temporary folder, which only the owner can read, and delete it when the context exits.

    Folders of the same purpose that killed processes left are deleted first.

    Args:
        purpose: Name of the contents, part of the name of the folder.

    Raises:
        OSError: If the folder cannot be created.
    """
    prefix = f"jina-rag-{purpose}-"
    delete_left_folders(Path(tempfile.gettempdir()), prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
        yield folder
    finally:
        lock.release(force=True)
        shutil.rmtree(folder, ignore_errors=True)


def delete_left_folders(parent: Path, prefix: str) -> None:
    """Delete the folders with a prefix that belong to this user and that no process holds.

    Args:
        parent: Folder of temporary files.
        prefix: First characters of the names.
    """
    with suppress(OSError):
        for entry in os.scandir(parent):
            if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False):
                _delete_if_left(entry)


def _delete_if_left(entry: os.DirEntry[str]) -> None:
    with suppress(OSError, Timeout):
        status = entry.stat(follow_symlinks=False)
        is_own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
        if not is_own or time.time() - status.st_mtime < _MIN_AGE:
            return
        with FileLock(Path(entry.path) / _LOCK, timeout=0):
            shutil.rmtree(entry.path, ignore_errors=True)
