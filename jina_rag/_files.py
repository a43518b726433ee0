"""Files on disk, once each: whole-file writes, lock files, sizes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jina_rag.errors import IndexLockedError


def write_whole(path: Path, content: bytes) -> None:
    """Write beside `path`, then rename: neither a reader nor a crash leaves half a file.

    Args:
        path: The file; its folder exists. Only its owner can read it.
        content: All of it.

    Raises:
        OSError: If the file cannot be written.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextmanager
def locked(path: Path, message: str) -> Iterator[None]:
    """Hold a lock file.

    Raises:
        IndexLockedError: With `message`, if another process holds it.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(path, timeout=0, thread_local=False):
            yield
    except Timeout as exc:
        raise IndexLockedError(message) from exc


def size_on_disk(path: Path) -> int:
    """Bytes that a file or folder takes on disk; sparse files take less than their length."""
    total = 0
    for file in [path] if path.is_file() else path.rglob("*"):
        with suppress(OSError):  # removed meanwhile
            if file.is_file():
                total += _allocated(file.stat())
    return total


def _allocated(status: os.stat_result) -> int:
    blocks: int | None = getattr(status, "st_blocks", None)  # Windows has none
    return status.st_size if blocks is None else min(status.st_size, blocks * 512)
