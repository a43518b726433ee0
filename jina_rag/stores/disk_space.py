"""Check of the free disk space before a write, because an engine with memory-mapped files crashes on a full disk."""

from __future__ import annotations

import os
import shutil

from jina_rag.errors import IndexStateError

RESERVE = 64 * 1024 * 1024
"""Bytes of disk space that must stay free, because the engine preallocates files of 32 MiB."""
_SPACE_FACTOR = 3  # bytes of disk space per byte of vectors: vectors, log and other files of the engine


def has_space(folder: str | os.PathLike[str], needed_bytes: int) -> bool:
    """Return whether the disk has enough free space for a copy of files of the engine.

    Args:
        folder: An existing folder on the disk to check.
        needed_bytes: Size of the copy in bytes. In addition, `RESERVE` bytes must stay free.
    """
    return shutil.disk_usage(folder).free >= RESERVE + needed_bytes


def check_space(folder: str | os.PathLike[str], vector_bytes: int) -> None:
    """Check that the disk has enough free space for vectors, the log and other files of the engine.

    Args:
        folder: An existing folder on the disk to check.
        vector_bytes: Size of the vectors in bytes.

    Raises:
        IndexStateError: If free space is below 64 MiB plus three times `vector_bytes`.
    """
    free_bytes = shutil.disk_usage(folder).free
    needed_bytes = RESERVE + _SPACE_FACTOR * vector_bytes
    if free_bytes < needed_bytes:
        raise IndexStateError(
            f"The disk of the index is full: {free_bytes / 1e6:,.0f} MB free at {os.fspath(folder)}, "
            f"{needed_bytes / 1e6:,.0f} MB required. Free some space, then rerun the command to resume."
        )
