"""Room on the disk, looked at before it is needed: an engine that maps its files dies of a full one."""

from __future__ import annotations

import os
import shutil

from jina_rag.errors import IndexStateError

RESERVE = 64 * 1024 * 1024
"""Bytes left alone: the engine writes ahead into files of half this size."""
_TIMES = 3


def check_space(folder: str | os.PathLike[str], vector_bytes: int) -> None:
    """Refuse to write vectors where they, their log and the engine's own files may not fit.

    Args:
        folder: On the disk that is written to; it exists.
        vector_bytes: Of the vectors.

    Raises:
        IndexStateError: With what is left and what is needed.
    """
    free_bytes = shutil.disk_usage(folder).free
    needed_bytes = RESERVE + _TIMES * vector_bytes
    if free_bytes < needed_bytes:
        raise IndexStateError(
            f"The disk of the index is full: {free_bytes / 1e6:,.0f} MB are free at {os.fspath(folder)}, "
            f"{needed_bytes / 1e6:,.0f} MB are needed to go on. Free some space, then run the same command again: it "
            "goes on where it stopped."
        )
